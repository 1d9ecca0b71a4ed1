/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rings in bulk: a guest with up to four of one disk fills them with requests that are well made,
 * break a rule, or are any bytes, as fast as they are answered.  What is counted: requests that
 * were taken from a ring and answered.  A round is a disk (bulk-disk.h), its rings' ABI and order,
 * and what changes while it is looked at (bulk-guest.h).
 *
 * Checked: all that is taken is answered, once, with an id that was given and its operation, unless
 * these bytes are scribbled on; a request that breaks a rule fails, and one that breaks none does
 * not, on a disk that does not fail; the memory of all rings stays within its limit; a ring whose
 * producer index jumps is broken, says so once, and another one in its place works.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/io/budget.h"
#include "tapdisk/blkif/blkif.h"
#include "tapdisk/stats/stats.h"
#include "tests/fuzz/bulk-disk.h"
#include "tests/fuzz/bulk-guest.h"
#include "tests/fuzz/dir.h"
#include "tests/support/blkif-front.h"

enum { MANY = 16384, FEW = 2048 }; /* requests of a round: in memory; through a format */
enum expect { MAY, MUST_FAIL, MUST_DO };

const char bulk_name[] = "bulk-ring";
struct bulk_row bulk_rows[] = {{"requests answered", 0},
			       {"of them in rounds in which memory was scribbled on", 0},
			       {"of them INDIRECT", 0},
			       {"of them answered with an error", 0},
			       {"of them refused, as they broke a rule", 0},
			       {"of them not copied (persistent grants)", 0},
			       {"rings connected", 0},
			       {"rings broken", 0},
			       {NULL, 0}};
enum { ANSWERED, SCRIBBLED_ON, INDIRECT, WITH_ERROR, MALFORMED, MAPPED, CONNECTED, RINGS_BROKEN };

struct given {
	uint64_t id;
	uint8_t op;   /* of its answer */
	uint8_t page; /* of an INDIRECT, plus 1 */
	bool out;
	enum expect expect;
};

static struct queue_state {
	struct blkif *ring;
	struct given given[BLKIF_MAX_SLOTS];
	uint16_t spare[BLKIF_MAX_SLOTS]; /* of given, those that are not out */
	unsigned nspare, heard;
	bool held, broken;
} queues[GUEST_QUEUES];

static struct blkif_disk bdisk;
static struct stats stats;
static unsigned nqueues, pages, how, told_broken, seen_broken;
static bool persistent, polls, hostile, jumps, exact, by_events, page_taken[GUEST_INDIRECT];
static uint64_t serial;

static void on_broken(void *owner, const char *why)
{
	FUZZ_ASSERT(strstr(why, "ring"));
	told_broken++;
}

static void on_idle(void *owner)
{
}

/* --- a request --- */

static unsigned take_page(void) /* of all queues' */
{
	for (unsigned i = 0; i < GUEST_INDIRECT; i++)
		if (!page_taken[i]) {
			page_taken[i] = true;
			return i + 1;
		}
	return 0;
}

static void make_segments(struct blkif_seg *seg, unsigned n, uint64_t *sectors)
{
	for (unsigned i = 0, at = bulk_rnd(GUEST_DATA); i < n; i++) {
		unsigned first = bdisk.block ? 0 : bulk_rnd(8);
		unsigned last = bdisk.block      ? 7
				: bulk_one_in(8) ? first + bulk_rnd(8 - first)
						 : first;

		seg[i] =
			(struct blkif_seg){(at + i) % GUEST_DATA, (uint8_t)first, (uint8_t)last, 0};
		*sectors += last - first + 1;
	}
}

/* Once: it may be another queue's afterwards. */
static void give_page_back(struct given *g)
{
	if (g->page)
		page_taken[g->page - 1] = false;
	g->page = 0;
}

/* A request that breaks no rule of the ring. */
static void make(struct blkif_desc *d, struct blkif_seg **seg, unsigned *nseg, uint64_t *sectors)
{
	static const uint8_t ops[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1,
					1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 2, 5, 5, 6, 6, 6};
	unsigned page;

	d->op = ops[bulk_rnd(32)];
	*nseg = bulk_rnd(4) ? 1 : 1 + bulk_rnd(BLKIF_MAX_SEGS);
	if (d->op == BLKIF_INDIRECT && (page = take_page())) {
		*nseg = 1 + bulk_rnd(bulk_one_in(32) ? BLKIF_MAX_INDIRECT : 16);
		*seg = (struct blkif_seg *)guest_mem[GUEST_DATA + page - 1];
		d->page[0] = GUEST_DATA + page - 1;
		d->nr_segs = (uint8_t)bulk_rnd(2);
		d->nr_indirect = (uint16_t)*nseg;
	} else {
		d->op = d->op == BLKIF_INDIRECT ? BLKIF_READ : d->op;
		if (d->op == BLKIF_DISCARD || (d->op == BLKIF_FLUSH_DISKCACHE && !bulk_one_in(4)))
			*nseg = 0;
		*seg = d->seg;
		d->nr_segs = (uint8_t)*nseg;
	}
	make_segments(*seg, *nseg, sectors);
	if (d->op == BLKIF_DISCARD)
		*sectors = d->nr_sectors = 1 + bulk_rnd(64);
	d->sector = bulk_one_in(16) ? bdisk.sectors - *sectors
				    : bulk_rnd((uint32_t)(bdisk.sectors - *sectors));
	if (bdisk.block)
		d->sector &= ~UINT64_C(7);
}

static bool changes(const struct blkif_desc *d)
{
	uint8_t op = d->op == BLKIF_INDIRECT ? d->nr_segs : d->op;

	return op != BLKIF_READ && (op != BLKIF_FLUSH_DISKCACHE || d->nr_segs);
}

/* Breaks a rule, or is any bytes. */
static enum expect spoil(struct blkif_desc *d, struct blkif_seg *seg, unsigned nseg,
			 uint64_t sectors, enum expect was)
{
	bool data = nseg > 0;
	unsigned i = data ? bulk_rnd(nseg) : 0;

	switch (bulk_rnd(8)) {
	case 0:
		if (!data && d->op != BLKIF_DISCARD)
			return was;
		d->sector = bdisk.sectors - sectors + 1 + bulk_rnd(8);
		return MUST_FAIL;
	case 1:
		if (!data && d->op != BLKIF_DISCARD)
			return was;
		d->sector = UINT64_MAX - bulk_rnd(16);
		return MUST_FAIL;
	case 2:
		if (!data)
			return was;
		seg[i].ref = GUEST_PAGES + bulk_rnd(UINT32_MAX - GUEST_PAGES);
		return MUST_FAIL;
	case 3:
		if (!data)
			return was;
		seg[i].last = bulk_rnd(2) ? (uint8_t)(8 + bulk_rnd(248)) : seg[i].last;
		seg[i].first = (uint8_t)(seg[i].last + 1);
		return seg[i].last > 7 || seg[i].first > seg[i].last ? MUST_FAIL : MAY;
	case 4:
		if (d->op == BLKIF_INDIRECT)
			d->nr_indirect = bulk_rnd(2) ? 0 : (uint16_t)(513 + bulk_rnd(65023));
		else if (d->op == BLKIF_READ || d->op == BLKIF_WRITE)
			d->nr_segs = bulk_rnd(2) ? 0 : (uint8_t)(12 + bulk_rnd(244));
		else
			return was;
		return MUST_FAIL;
	case 5:
		if (d->op == BLKIF_INDIRECT)
			d->nr_segs = (uint8_t)(2 + bulk_rnd(254));
		else
			d->op = bulk_rnd(2) ? 4 : (uint8_t)(7 + bulk_rnd(249));
		return MUST_FAIL;
	case 6:
		if (d->op != BLKIF_DISCARD)
			return was;
		d->nr_sectors = bulk_rnd(2) ? 0 : bdisk.sectors + 1 + bulk_any() % INT64_MAX;
		return MUST_FAIL;
	default:
		for (size_t k = 8; k < sizeof *d; k++) /* but for its id */
			((uint8_t *)d)[k] = (uint8_t)(bulk_rnd(4) ? bulk_rnd(16) : bulk_any());
		return MAY;
	}
}

static void put_one(struct queue_state *s, struct guest_queue *q)
{
	struct given *g = &s->given[s->spare[--s->nspare]];
	struct blkif_desc d = {0};
	struct blkif_seg *seg;
	uint64_t sectors = 0;
	unsigned nseg;

	make(&d, &seg, &nseg, &sectors);
	g->page = d.op == BLKIF_INDIRECT ? (uint8_t)(d.page[0] - GUEST_DATA + 1) : 0;
	g->id = d.id = ++serial << 16 | (uint64_t)(g - s->given);
	g->expect = (changes(&d) && bdisk.read_only) || (d.op == BLKIF_DISCARD && !bdisk.discard)
			    ? MUST_FAIL
			    : MUST_DO;
	if (hostile && bulk_one_in(8))
		g->expect = spoil(&d, seg, nseg, sectors, g->expect);
	g->op = d.op == BLKIF_INDIRECT ? d.nr_segs : d.op;
	g->out = true;
	blkif_put_request(guest_abi, &q->ring.sring, q->slots, q->prod++, &d);
}

/* --- answers --- */

static void take_exactly(struct queue_state *s, struct guest_queue *q)
{
	uint32_t prod = __atomic_load_n(&q->ring.sring.rsp_prod, __ATOMIC_ACQUIRE);

	FUZZ_ASSERT(prod - q->cons <= q->prod - q->cons);
	FUZZ_ASSERT(prod == q->cons || q->notified != s->heard);
	while (q->cons != prod) {
		struct given *g;
		int16_t status;
		uint64_t id;
		uint8_t op;

		blkif_get_response(guest_abi, &q->ring.sring, q->slots, q->cons++, &id, &op,
				   &status);
		FUZZ_ASSERT((id & 0xffff) < q->slots);
		g = &s->given[id & 0xffff];
		FUZZ_ASSERT(g->out && g->id == id && g->op == op);
		FUZZ_ASSERT(status == BLKIF_OKAY || status == BLKIF_ERROR ||
			    status == BLKIF_EOPNOTSUPP);
		if (!how && status == BLKIF_OKAY)
			FUZZ_ASSERT(g->expect != MUST_FAIL);
		if (!how && status != BLKIF_OKAY)
			FUZZ_ASSERT(g->expect != MUST_DO || disk_fails);
		g->out = false;
		give_page_back(g);
		s->spare[s->nspare++] = (uint16_t)(g - s->given);
	}
	s->heard = q->notified;
	q->ring.sring.rsp_event = q->cons + 1;
}

/* Where the ring itself is scribbled on, the numbers tell. */
static void take_some(struct queue_state *s, struct guest_queue *q)
{
	struct blkif_stats n = blkif_stats(s->ring);

	if ((int32_t)((uint32_t)n.taken - q->prod) > 0) /* what it was made to believe */
		q->prod = (uint32_t)n.taken;
	q->cons = (uint32_t)n.answered;
	s->nspare = 0;
	for (unsigned i = q->prod - q->cons; i < q->slots; i++) {
		give_page_back(&s->given[s->nspare]);
		s->spare[s->nspare] = (uint16_t)s->nspare;
		s->nspare++;
	}
}

static void take(unsigned i)
{
	if (exact)
		take_exactly(&queues[i], &guest_queue[i]);
	else
		take_some(&queues[i], &guest_queue[i]);
	FUZZ_ASSERT(blkif_memory.used <= (blkif_memory.limit > blkif_memory.reserved
						  ? blkif_memory.limit
						  : blkif_memory.reserved));
}

static void publish(unsigned i, bool by_event)
{
	struct guest_queue *q = &guest_queue[i];
	uint32_t old = q->published;

	q->published = q->prod;
	__atomic_store_n(&q->ring.sring.req_prod, q->prod, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* one that keeps to the protocol kicks when it is asked to */
	if (by_event && (!exact || q->prod - q->ring.sring.req_event < q->prod - old))
		eventfd_write(q->kick, 1);
	if (!by_event)
		blkif_look(queues[i].ring);
}

/* --- rings --- */

static void open_ring(unsigned i)
{
	struct blkif_params p = {.domid = 7,
				 .devid = 51712,
				 .port = 3,
				 .pages = pages,
				 .abi = guest_abi,
				 .queue = i,
				 .polling_us = polls ? 10 : 0,
				 .persistent = persistent};
	struct queue_state *s = &queues[i];
	struct td_err err = {0};

	int rc, tries = 0;

	do { /* a ring that is scribbled on before it is connected is not a new one */
		guest_begin(&guest_queue[i], pages);
		rc = blkif_connect(disk_loop, &guest_queue[i].x, &p, NULL, &bdisk, NULL, &s->ring,
				   &err);
	} while (rc && !exact && tries++ < 1000);
	if (rc)
		fprintf(stderr, "%s: %s\n", bulk_name, err.text);
	FUZZ_ASSERT(!rc);
	blkif_run(s->ring);
	s->held = s->broken = false;
	s->heard = 0;
	s->nspare = 0;
	for (unsigned k = guest_queue[i].slots; k-- > 0;) {
		s->given[k].out = false;
		s->given[k].page = 0;
		s->spare[s->nspare++] = (uint16_t)k;
	}
	bulk_rows[CONNECTED].n++;
}

/* What is under way comes to its end. */
static void settle(unsigned i, bool all)
{
	struct queue_state *s = &queues[i];

	for (int n = 0;
	     blkif_inflight(s->ring) || (all && guest_queue[i].cons != guest_queue[i].prod); n++) {
		FUZZ_ASSERT(n < 100000); /* it hangs */
		disk_turn();
		disk_complete(UINT32_MAX);
		if (all)
			publish(i, true);
		disk_turn();
		take(i);
		if (n > 1000) /* a timer may be awaited */
			usleep(100);
	}
}

static void close_ring(unsigned i)
{
	struct queue_state *s = &queues[i];
	struct blkif_stats n;
	unsigned out = 0;

	if (!s->broken && exact) {
		if (s->held)
			blkif_run(s->ring);
		settle(i, !blkif_is_broken(s->ring));
	}
	blkif_hold(s->ring);
	settle(i, false);
	take(i);
	n = blkif_stats(s->ring);
	FUZZ_ASSERT(n.taken == n.answered);
	for (unsigned k = 0; k < guest_queue[i].slots; k++) {
		out += s->given[k].out;
		give_page_back(&s->given[k]);
	}
	if (exact) {
		FUZZ_ASSERT(guest_queue[i].cons == (uint32_t)n.answered);
		FUZZ_ASSERT(s->broken || !out);
	}
	bulk_rows[ANSWERED].n += n.answered;
	bulk_rows[SCRIBBLED_ON].n += how ? n.answered : 0;
	bulk_rows[INDIRECT].n += n.indirect;
	bulk_rows[WITH_ERROR].n += n.errors;
	bulk_rows[MALFORMED].n += n.malformed;
	bulk_rows[MAPPED].n += n.mapped;
	blkif_disconnect(s->ring);
	s->ring = NULL;
	guest_end(&guest_queue[i]);
	guest_queue[i].slots = how ? guest_queue[i].slots : 0;
}

/* One that is broken goes, and another comes in its place, which works. */
static void again(unsigned i)
{
	struct queue_state *s = &queues[i];

	FUZZ_ASSERT(blkif_is_broken(s->ring) && blkif_why(s->ring)[0]);
	s->broken = true;
	seen_broken++;
	bulk_rows[RINGS_BROKEN].n++;
	close_ring(i);
	open_ring(i);
	if (!how && !disk_fails) {
		struct guest_queue *q = &guest_queue[i];
		struct blkif_desc d = {.op = BLKIF_FLUSH_DISKCACHE};
		struct given *g = &s->given[s->spare[--s->nspare]];

		g->id = d.id = ++serial << 16 | (uint64_t)(g - s->given);
		g->op = d.op;
		g->expect = MUST_DO;
		g->out = true;
		blkif_put_request(guest_abi, &q->ring.sring, q->slots, q->prod++, &d);
		settle(i, true);
	}
}

static void jump(unsigned i)
{
	struct guest_queue *q = &guest_queue[i];

	q->ring.sring.req_prod = q->prod + q->slots + 1 + bulk_rnd(bulk_rnd(2) ? 8 : INT32_MAX);
	blkif_look(queues[i].ring);
	FUZZ_ASSERT(how || blkif_is_broken(queues[i].ring));
}

/* --- a round --- */

static unsigned serve(unsigned i)
{
	struct queue_state *s = &queues[i];
	unsigned n = bulk_rnd(2) ? s->nspare : bulk_rnd(bulk_one_in(4) ? 3 : s->nspare + 1);

	if (bulk_one_in(128)) {
		s->held = !s->held;
		if (s->held)
			blkif_hold(s->ring);
		else
			blkif_run(s->ring);
	}
	if (n > s->nspare)
		n = s->nspare;
	for (unsigned k = 0; k < n; k++)
		put_one(s, &guest_queue[i]);
	publish(i, by_events || s->held);
	return n;
}

static void choose(void)
{
	static const unsigned hows[] = {0,
					0,
					0,
					SCRIBBLE_DATA,
					SCRIBBLE_DATA | SCRIBBLE_BODIES,
					SCRIBBLE_DATA | SCRIBBLE_BODIES | SCRIBBLE_HEADS,
					SCRIBBLE_HEADS | SCRIBBLE_BODIES | SCRIBBLE_EVENTS,
					SCRIBBLE_DATA | SCRIBBLE_BODIES | SCRIBBLE_HEADS |
						SCRIBBLE_EVENTS | SCRIBBLE_PROD};

	how = hows[bulk_rnd(sizeof hows / sizeof *hows)];
	exact = !(how & ~(unsigned)(SCRIBBLE_DATA | SCRIBBLE_BODIES));
	guest_abi = (enum blkif_abi)bulk_rnd(3);
	pages = 1u << bulk_rnd(BLKIF_MAX_RING_ORDER + 1);
	nqueues = 1 + bulk_rnd(bulk_rnd(2) ? 1 : GUEST_QUEUES);
	persistent = bulk_one_in(3);
	polls = bulk_one_in(8);
	hostile = bulk_rnd(4);
	jumps = bulk_one_in(8);
	by_events = bulk_rnd(2);
	guest_refuses_pages = false;
	blkif_memory.limit = bulk_one_in(4) ? 1 << 20 : BLKIF_MEMORY;
}

void bulk_round(void)
{
	bool threads, between;
	int64_t left;

	choose();
	threads = bulk_rnd(2), between = bulk_rnd(2) || !bulk_scribblers;
	disk_begin(&bdisk);
	for (unsigned i = 0; i < GUEST_QUEUES; i++)
		guest_queue[i].slots = 0;
	for (unsigned i = 0; i < nqueues; i++)
		open_ring(i);
	told_broken = seen_broken = 0;
	guest_scribble(how, between, threads, nqueues);
	for (left = disk_is_slow ? FEW : MANY; left > 0;) {
		for (unsigned i = 0; i < nqueues; i++)
			left -= 1 + serve(i);
		disk_turn();
		disk_complete(disk_fails ? 64 + bulk_rnd(64) : UINT32_MAX);
		disk_turn();
		if (bulk_one_in(64))
			guest_refuses_pages = !guest_refuses_pages;
		for (unsigned i = 0; i < nqueues; i++) {
			take(i);
			if (jumps && !queues[i].held && !blkif_is_broken(queues[i].ring) &&
			    bulk_one_in(32))
				jump(i);
			else if (exact && !queues[i].held && !blkif_is_broken(queues[i].ring) &&
				 bulk_one_in(16))
				settle(i, true);
			if (blkif_is_broken(queues[i].ring))
				again(i);
		}
	}
	guest_scribble(0, false, false, nqueues);
	for (unsigned i = 0; i < nqueues; i++) {
		if (blkif_is_broken(queues[i].ring))
			again(i);
		close_ring(i);
	}
	FUZZ_ASSERT(told_broken == seen_broken);
	disk_end();
}

void bulk_start(void)
{
	static struct stats_source published;

	fuzz_dir();
	td_list_init(&stats.sources);
	/* the device's file is this one's, and not made for each ring */
	stats_source_open(&published, &stats, "vbd-7-51712");
	bdisk = (struct blkif_disk){.stats = &stats, .broken = on_broken, .idle = on_idle};
	guest_start();
	disk_start();
}
