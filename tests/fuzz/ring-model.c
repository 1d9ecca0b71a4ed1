/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A sector, in memory and on the disk, is 64 times the same number: what it is (the upper byte),
 * the request that it comes from, and a place (the lower three bytes). */
#include "tests/fuzz/ring-model.h"

#include <sys/eventfd.h>

#include "tests/support/blkif-front.h"

#define REQS   512
#define WORDS  (512 / 8)
#define MEMORY (DATA_PAGES * 8) /* sectors of the guest's data pages */

enum { AS_MADE = 'D', WRITTEN = 'W', BLANK = 'G' };

struct request {
	uint64_t id;
	uint32_t serial;
	uint8_t op; /* of its answer */
	bool out, data, write;
	bool named;   /* it breaks no rule that is looked at before its memory is */
	bool valid;   /* and its memory is there, too */
	bool unclear; /* its memory is another request's too: what is in it depends on the order */
	uint64_t sector;
	unsigned n;       /* sectors */
	unsigned written; /* of these, by the image; again where it had no space at first */
	unsigned nseg;
	unsigned page; /* of an INDIRECT: which of INDIRECT_PAGES, plus 1 */
	struct blkif_seg seg[BLKIF_MAX_INDIRECT];
};

/* A sector of the guest's memory. */
struct place {
	unsigned users; /* requests that name it and are not answered */
	unsigned last;  /* of these: the last one's place in reqs */
	bool read_into; /* ever, by any */
	uint64_t holds; /* as the guest left it */
};

static struct request reqs[REQS];
static struct place place[MEMORY];
static uint64_t on_disk[TEST_IMAGE_SECTORS];
static unsigned changed[TEST_IMAGE_SECTORS], nchanged;
static uint32_t serial;
static unsigned out, heard;
static bool taken[INDIRECT_PAGES];
static bool failed;

static uint64_t number(int what, uint32_t from, uint64_t at)
{
	return (uint64_t)what << 56 | (uint64_t)from << 24 | (at & 0xffffff);
}

static void fill(char *p, uint64_t v)
{
	for (int i = 0; i < WORDS; i++)
		memcpy(p + i * 8, &v, 8);
}

/* The number that all of a sector is; false: it is no such. */
static bool is_one(const char *p, uint64_t *v)
{
	memcpy(v, p, 8);
	return !memcmp(p, p + 8, 512 - 8);
}

static char *memory(unsigned i)
{
	return g.mem[i / 8] + i % 8 * 512;
}

/* --- the disk --- */

void model_disk_new(void)
{
	for (unsigned s = 0; s < TEST_IMAGE_SECTORS; s++)
		on_disk[s] = number(AS_MADE, 0, s);
}

void model_read(uint64_t s, char *to)
{
	fill(to, on_disk[s]);
}

void model_wrote(uint64_t s, const char *from)
{
	struct request *r;
	uint64_t v;

	if (!is_one(from, &v) || v >> 56 != WRITTEN)
		return;
	if (on_disk[s] == number(AS_MADE, 0, s))
		changed[nchanged++] = (unsigned)s;
	on_disk[s] = number(WRITTEN, (uint32_t)(v >> 24), s);
	r = &reqs[(uint32_t)(v >> 24) % REQS];
	if (r->out && r->write && number(WRITTEN, r->serial, s) == v && s >= r->sector &&
	    s - r->sector < r->n)
		r->written++;
}

/* --- requests --- */

static bool access_ok(const struct blkif_desc *d, uint8_t op)
{
	if (op == BLKIF_READ)
		return true;
	if (op == BLKIF_FLUSH_DISKCACHE && !d->nr_segs)
		return true;
	if (op > BLKIF_FLUSH_DISKCACHE && op != BLKIF_DISCARD)
		return false;
	return !bdisk.read_only;
}

static bool is_named(const struct blkif_desc *d, struct request *r)
{
	unsigned block = bdisk.block ? bdisk.block / 512 : 1;

	if (!access_ok(d, r->op) || (d->op == BLKIF_INDIRECT && r->op > BLKIF_WRITE))
		return false;
	if (r->op == BLKIF_DISCARD)
		return bdisk.discard && !d->nr_segs && d->nr_sectors &&
		       d->sector <= bdisk.sectors && d->nr_sectors <= bdisk.sectors - d->sector;
	if (!r->data)
		return true;
	if (!r->nseg || r->nseg > (d->op == BLKIF_INDIRECT ? BLKIF_MAX_INDIRECT : BLKIF_MAX_SEGS))
		return false;
	for (unsigned i = 0; i < r->nseg; i++) {
		if (r->seg[i].first > r->seg[i].last || r->seg[i].last > 7)
			return false;
		r->n += r->seg[i].last - r->seg[i].first + 1u;
	}
	if (d->sector > bdisk.sectors || r->n > bdisk.sectors - d->sector)
		return false;
	return r->op == BLKIF_READ || (d->sector % block == 0 && r->n % block == 0);
}

static bool is_there(const struct request *r)
{
	for (unsigned i = 0; r->data && i < r->nseg; i++)
		if (r->seg[i].ref >= guest_pages)
			return false;
	return true;
}

/* Calls fn for each sector of the guest's memory that a request has; s: of the disk. */
static void each_place(struct request *r, void (*fn)(struct request *r, unsigned i, uint64_t s))
{
	uint64_t s = r->sector;

	for (unsigned k = 0; k < r->nseg; k++)
		for (unsigned i = r->seg[k].first; i <= r->seg[k].last; i++, s++)
			if (r->seg[k].ref < DATA_PAGES)
				fn(r, r->seg[k].ref * 8 + i, s);
}

static void prepare(struct request *r, unsigned i, uint64_t s)
{
	struct place *p = &place[i];

	if (p->users++)
		r->unclear = reqs[p->last].unclear = true;
	p->last = (unsigned)(r - reqs);
	p->read_into |= !r->write;
	p->holds = r->write ? number(WRITTEN, r->serial, s) : number(BLANK, r->serial, s);
	fill(memory(i), p->holds);
}

bool model_room(void)
{
	return g.prod - g.cons < g.slots && !reqs[serial % REQS].out;
}

/* A page for an INDIRECT's segments, which stay there until it is answered: its number plus 1; 0:
 * there is none. */
static unsigned take_page(const struct blkif_seg *seg)
{
	for (unsigned i = 0; i < INDIRECT_PAGES; i++)
		if (!taken[i]) {
			taken[i] = true;
			memcpy(g.mem[DATA_PAGES + i], seg, 4096);
			return i + 1;
		}
	return 0;
}

void model_put(const struct blkif_desc *desc, const struct blkif_seg *seg)
{
	struct request *r = &reqs[serial % REQS];
	struct blkif_desc d = *desc;

	r->page = d.op == BLKIF_INDIRECT ? take_page(seg) : 0;
	if (d.op == BLKIF_INDIRECT && !r->page)
		return;
	if (r->page)
		d.page[0] = DATA_PAGES + r->page - 1;
	r->serial = serial++;
	r->id = d.id = (uint64_t)(r->serial * 0x9e3779b9u) << 32 | r->serial;
	r->op = d.op == BLKIF_INDIRECT ? d.nr_segs : d.op;
	r->sector = d.sector;
	r->n = r->written = 0;
	r->nseg = d.op == BLKIF_INDIRECT ? d.nr_indirect : d.nr_segs;
	r->data = d.op == BLKIF_INDIRECT || r->op == BLKIF_READ || r->op == BLKIF_WRITE ||
		  (r->op <= BLKIF_FLUSH_DISKCACHE && d.nr_segs);
	r->write = r->data && r->op != BLKIF_READ;
	r->unclear = false;
	if (d.op == BLKIF_INDIRECT && r->nseg <= BLKIF_MAX_INDIRECT)
		memcpy(r->seg, seg, r->nseg * sizeof *seg);
	else if (r->data && r->nseg <= BLKIF_MAX_SEGS)
		memcpy(r->seg, d.seg, r->nseg * sizeof *seg);
	r->named = is_named(&d, r);
	r->valid = r->named && is_there(r);
	if (r->named && r->data)
		each_place(r, prepare);
	r->out = true;
	out++;
	put(d);
}

void model_kick(void)
{
	uint32_t old = g.ring.sring.req_prod, new = g.prod;

	__atomic_store_n(&g.ring.sring.req_prod, new, __ATOMIC_RELEASE);
	if (new - g.ring.sring.req_event < new - old)
		eventfd_write(g.kick, 1);
}

/* --- answers --- */

static void leave(struct request *r, unsigned i, uint64_t s)
{
	place[i].users--;
}

static void expect_read(struct request *r, unsigned i, uint64_t s)
{
	uint64_t v;

	FUZZ_ASSERT(is_one(memory(i), &v));                    /* a whole sector, */
	FUZZ_ASSERT(v >> 56 == AS_MADE || v >> 56 == WRITTEN); /* of the disk, */
	FUZZ_ASSERT((v & 0xffffff) == s);                      /* and the right one */
}

static void expect_nothing(struct request *r, unsigned i, uint64_t s)
{
	uint64_t v;

	FUZZ_ASSERT(is_one(memory(i), &v) && v == number(BLANK, r->serial, s));
}

static void answered(struct request *r, int status)
{
	bool ok = status == BLKIF_OKAY;

	FUZZ_ASSERT(ok || status == BLKIF_ERROR || status == BLKIF_EOPNOTSUPP);
	FUZZ_ASSERT(!ok || r->valid);
	FUZZ_ASSERT(ok || !r->valid || failed);
	if (r->valid && r->data && !r->unclear) {
		if (r->write && ok)
			FUZZ_ASSERT(r->written == r->n || (r->written > r->n && failed));
		if (!r->write && ok)
			each_place(r, expect_read);
		if (!r->write && !ok && !persistent)
			each_place(r, expect_nothing);
	}
	if (r->named && r->data)
		each_place(r, leave);
	if (r->page)
		taken[r->page - 1] = false;
	r->out = false;
	out--;
}

void model_take(void)
{
	uint32_t prod = __atomic_load_n(&g.ring.sring.rsp_prod, __ATOMIC_ACQUIRE);

	FUZZ_ASSERT(prod - g.cons <= g.prod - g.cons);
	if (prod != g.cons)
		FUZZ_ASSERT(g.notified > heard); /* it was asked for with the next response */
	while (g.cons != prod) {
		struct request *r;
		int16_t status;
		uint64_t id;
		uint8_t op;

		blkif_get_response(g.abi, &g.ring.sring, g.slots, g.cons++, &id, &op, &status);
		r = &reqs[(uint32_t)id % REQS];
		FUZZ_ASSERT(r->out && r->id == id && r->op == op);
		answered(r, status);
	}
	heard = g.notified;
	g.ring.sring.rsp_event = g.cons + 1;
}

void model_failed(void)
{
	failed = true;
}

/* --- the whole --- */

void model_begin(void)
{
	for (unsigned i = 0; i < MEMORY; i++) {
		place[i] = (struct place){.holds = number(BLANK, 0xffffffff, i)};
		fill(memory(i), place[i].holds);
	}
	memset(g.mem[DATA_PAGES], 0, INDIRECT_PAGES * 4096);
	for (unsigned i = 0; i < REQS; i++)
		reqs[i].out = false;
	memset(taken, 0, sizeof taken);
	while (nchanged) {
		unsigned s = changed[--nchanged];

		on_disk[s] = number(AS_MADE, 0, s);
	}
	serial = out = heard = 0;
	failed = false;
}

void model_end(void)
{
	uint64_t v;

	FUZZ_ASSERT(!out);
	for (unsigned i = 0; i < MEMORY; i++)
		FUZZ_ASSERT(place[i].read_into || (is_one(memory(i), &v) && v == place[i].holds));
}
