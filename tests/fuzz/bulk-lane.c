/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lanes in bulk: a device with two to four rings, each but the first with a thread of its own
 * (tapdisk/cache/lane.h), on a raw disk in a real file.  A round is a disk, its mode, and the
 * rings' ABI and order.  What goes fast meets what goes slow: flushes, barriers, discards, requests
 * that break a rule; pauses, rings that leave and come, a ring that breaks.  Which thread is faster
 * no seed repeats.
 *
 * Checked: all that is taken is answered, once, with its id and operation; a read brings what was
 * written last to its place, by whatever way; a request that breaks a rule fails, and no other
 * does; a pause has come to rest when nothing is under way, by whatever way; a broken ring says so
 * once.
 */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tapdisk/blkif/blkif.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/chain.h"
#include "tapdisk/stats/stats.h"
#include "tests/fuzz/bulk-guest.h"
#include "tests/fuzz/dir.h"
#include "tests/support/blkif-front.h"
#include "tests/support/on-fiber.h"

/* Each ring has pages and blocks of its own: one request at a time for each of them. */
enum { REQUESTS = 4096, SLOTS = GUEST_DATA / GUEST_QUEUES, BLOCKS = GUEST_QUEUES * SLOTS };

const char bulk_name[] = "bulk-lane";
struct bulk_row bulk_rows[] = {{"requests answered", 0}, {"of them fast", 0}, {"pauses", 0},
			       {"rings connected", 0},   {"rings broken", 0}, {NULL, 0}};
enum { ANSWERED, FAST, PAUSES, CONNECTED, RINGS_BROKEN };

struct given {
	bool out, bad;
	uint8_t op;
	uint64_t id, value;
};

static struct ring {
	struct blkif *blkif;
	struct lane *lane;
	struct given given[SLOTS];
	uint64_t holds[SLOTS]; /* what a block holds 512 times; FREE: anything */
	bool free[SLOTS];      /* anything: it was discarded */
} rings[GUEST_QUEUES];

static struct queue home;
static struct cache cache;
static struct td_image *leaf;
static struct td_io *io;
static struct blkif_disk bdisk;
static struct stats stats;
static struct td_how opening;
static struct td_err err;
static unsigned nrings, pages, told_broken;
static uint64_t serial;
static char spec[300];
static int rc;

static void on_broken(void *owner, const char *why)
{
	told_broken++;
}

static void nothing(void *owner)
{
}

static void no_change(struct cache *c)
{
}

static void turn(void)
{
	ev_run(home.loop, EVRUN_NOWAIT);
}

/* --- what is done on a fiber --- */

struct in_thread {
	struct ring *r;
	void (*fn)(struct blkif *b);
};

static void run_there(void *arg)
{
	struct in_thread *t = arg;

	t->fn(t->r->blkif);
}

static void call(void *arg)
{
	struct in_thread *t = arg;

	if (t->r->lane)
		lane_call(t->r->lane, run_there, t);
	else
		run_there(t);
}

static void in_thread(struct ring *r, void (*fn)(struct blkif *b))
{
	struct in_thread t = {r, fn};

	on_fiber(home.loop, call, &t);
}

static void free_lane(void *arg)
{
	struct ring *r = arg;

	if (r->lane) {
		struct lane_stats n = lane_stats(r->lane);

		bulk_rows[FAST].n += n.fast[0] + n.fast[1];
	}
	lane_free(r->lane);
	r->lane = NULL;
}

static void open_image(void *arg)
{
	rc = chain_open(spec, &opening, io, &leaf, &err);
}

static void close_image(void *arg)
{
	chain_close(leaf);
}

/* --- rings --- */

static void open_ring(unsigned i)
{
	struct blkif_params p = {.domid = 7,
				 .devid = 51712,
				 .port = 3,
				 .pages = pages,
				 .abi = guest_abi,
				 .queue = i};
	struct queue *q = queue_for_ring(&home, i);
	struct ring *r = &rings[i];

	guest_begin(&guest_queue[i], pages);
	memset(r->given, 0, sizeof r->given);
	if (q != &home)
		FUZZ_ASSERT((r->lane = lane_new(&cache, &home, q)));
	FUZZ_ASSERT(!blkif_connect(q->loop, &guest_queue[i].x, &p, NULL, &bdisk, r->lane, &r->blkif,
				   &err));
	in_thread(r, blkif_run);
	bulk_rows[CONNECTED].n++;
}

static unsigned out(const struct ring *r)
{
	unsigned n = 0;

	for (unsigned k = 0; k < SLOTS; k++)
		n += r->given[k].out;
	return n;
}

static void check_page(const struct ring *r, unsigned slot, const char *page)
{
	for (unsigned k = 0; k < 4096 && !r->free[slot]; k += 8)
		FUZZ_ASSERT(!memcmp(page + k, &r->holds[slot], 8));
}

static void answered(struct ring *r, struct given *g, int16_t status)
{
	unsigned slot = (unsigned)(g - r->given), i = (unsigned)(r - rings);

	FUZZ_ASSERT(g->bad ? status != BLKIF_OKAY : status == BLKIF_OKAY);
	if (g->bad)
		return;
	if (g->op == BLKIF_READ)
		check_page(r, slot, guest_mem[i * SLOTS + slot]);
	if (g->op == BLKIF_WRITE || g->op == BLKIF_WRITE_BARRIER) {
		r->holds[slot] = g->value;
		r->free[slot] = false;
	}
}

static void take(unsigned i)
{
	struct guest_queue *q = &guest_queue[i];
	struct ring *r = &rings[i];
	uint32_t prod = __atomic_load_n(&q->ring.sring.rsp_prod, __ATOMIC_ACQUIRE);

	FUZZ_ASSERT(prod - q->cons <= q->prod - q->cons);
	while (q->cons != prod) {
		struct given *g;
		int16_t status;
		uint64_t id;
		uint8_t op;

		blkif_get_response(guest_abi, &q->ring.sring, q->slots, q->cons++, &id, &op,
				   &status);
		FUZZ_ASSERT((id & 0xffff) < SLOTS);
		g = &r->given[id & 0xffff];
		FUZZ_ASSERT(g->out && g->id == id && g->op == op);
		g->out = false;
		answered(r, g, status);
		bulk_rows[ANSWERED].n++;
	}
}

static void settle(unsigned i)
{
	for (int n = 0; out(&rings[i]); n++) {
		FUZZ_ASSERT(n < 1000000); /* it hangs */
		turn();
		take(i);
		if (n > 100)
			usleep(100);
	}
}

static void close_ring(unsigned i)
{
	struct ring *r = &rings[i];

	if (!blkif_is_broken(r->blkif))
		settle(i);
	in_thread(r, blkif_hold);
	while (blkif_inflight(r->blkif)) {
		turn();
		usleep(50);
	}
	in_thread(r, blkif_stop);
	on_fiber(home.loop, free_lane, r);
	blkif_disconnect(r->blkif);
	guest_end(&guest_queue[i]);
}

/* --- requests --- */

static void put_one(unsigned i, unsigned slot)
{
	static const uint8_t ops[16] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 3, 3, 2, 5, 1};
	struct guest_queue *q = &guest_queue[i];
	struct given *g = &rings[i].given[slot];
	unsigned page = i * SLOTS + slot;
	struct blkif_desc d = {.op = ops[bulk_rnd(16)], .sector = page * 8, .nr_segs = 1};

	if ((d.op == BLKIF_WRITE_BARRIER || d.op == BLKIF_DISCARD) && !bulk_one_in(8))
		d.op = BLKIF_WRITE;
	*g = (struct given){.out = true, .op = d.op, .bad = bulk_one_in(64), .value = ++serial};
	g->id = d.id = serial << 16 | slot;
	d.seg[0] = (struct blkif_seg){page, 0, 7, 0};
	if (d.op == BLKIF_FLUSH_DISKCACHE)
		d.nr_segs = 0;
	if (d.op == BLKIF_DISCARD) {
		d.nr_sectors = 8;
		d.nr_segs = 0;
		rings[i].free[slot] = true;
	}
	if (d.op != BLKIF_READ)
		for (unsigned k = 0; k < 512; k++)
			memcpy(guest_mem[page] + k * 8, &g->value, 8);
	if (g->bad && d.op == BLKIF_FLUSH_DISKCACHE)
		g->bad = false;
	else if (g->bad)
		d.sector = bdisk.sectors - 7 + bulk_rnd(100);
	blkif_put_request(guest_abi, &q->ring.sring, q->slots, q->prod++, &d);
}

static unsigned serve(unsigned i)
{
	struct guest_queue *q = &guest_queue[i];
	uint32_t old = q->published;
	unsigned n = 0;

	for (unsigned slot = 0; slot < SLOTS; slot++)
		if (!rings[i].given[slot].out && bulk_rnd(2) && q->prod - q->cons < q->slots) {
			put_one(i, slot);
			n++;
		}
	q->published = q->prod;
	__atomic_store_n(&q->ring.sring.req_prod, q->prod, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->prod - q->ring.sring.req_event < q->prod - old)
		eventfd_write(q->kick, 1);
	return n;
}

static void pause_all(void)
{
	for (unsigned i = 0; i < nrings; i++)
		in_thread(&rings[i], blkif_hold);
	cache_quiesce(&cache);
	for (int n = 0; !cache_image_idle(&cache); n++) {
		FUZZ_ASSERT(n < 1000000);
		turn();
		usleep(50);
	}
	FUZZ_ASSERT(!lanes_busy(&cache)); /* L1 */
	cache_resume(&cache);
	for (unsigned i = 0; i < nrings; i++)
		in_thread(&rings[i], blkif_run);
	bulk_rows[PAUSES].n++;
}

static void break_one(unsigned i)
{
	unsigned before = told_broken;

	settle(i);
	guest_queue[i].ring.sring.req_prod = guest_queue[i].prod + guest_queue[i].slots + 1;
	eventfd_write(guest_queue[i].kick, 1);
	for (int n = 0; told_broken == before; n++) {
		FUZZ_ASSERT(n < 1000000);
		turn();
		usleep(50);
	}
	FUZZ_ASSERT(told_broken == before + 1 && blkif_is_broken(rings[i].blkif));
	bulk_rows[RINGS_BROKEN].n++;
}

/* --- a round --- */

static void begin(void)
{
	const struct td_cache_mode *mode;

	do
		mode = &td_cache_modes[bulk_rnd(5)];
	while (mode->file_flags & TD_FILE_DIRECT);
	guest_abi = (enum blkif_abi)bulk_rnd(3);
	pages = 1u << bulk_rnd(3);
	nrings = 2 + bulk_rnd(GUEST_QUEUES - 1);
	memset(rings, 0, sizeof rings);
	FUZZ_ASSERT(!truncate(spec + 4, 0) && !truncate(spec + 4, BLOCKS * 4096));
	opening = (struct td_how){.flags = mode->file_flags};
	err = (struct td_err){0};
	on_fiber(home.loop, open_image, NULL);
	if (rc)
		fprintf(stderr, "%s: %s\n", bulk_name, err.text);
	FUZZ_ASSERT(!rc);
	cache_attach(&cache, mode, leaf, io, true);
	cache_resume(&cache);
	bdisk.sectors = leaf->info.size / 512;
	bdisk.discard = leaf->info.discard;
	for (unsigned i = 0; i < GUEST_QUEUES; i++)
		guest_queue[i].slots = 0;
	for (unsigned i = 0; i < nrings; i++)
		open_ring(i);
}

static void end(void)
{
	for (unsigned i = nrings; i-- > 0;)
		close_ring(i);
	cache_quiesce(&cache);
	for (int n = 0; cache.active || !cache_image_idle(&cache); n++) {
		FUZZ_ASSERT(n < 1000000);
		turn();
		usleep(50);
	}
	cache_detach(&cache);
	on_fiber(home.loop, close_image, NULL);
	leaf = NULL;
}

void bulk_round(void)
{
	begin();
	for (int left = REQUESTS; left > 0;) {
		for (unsigned i = 0; i < nrings; i++)
			left -= 1 + (int)serve(i);
		turn();
		for (unsigned i = 0; i < nrings; i++)
			take(i);
		if (bulk_one_in(64))
			pause_all();
		if (bulk_one_in(128)) {
			unsigned i = bulk_rnd(nrings);

			if (bulk_rnd(2))
				break_one(i);
			close_ring(i);
			open_ring(i);
		}
	}
	end();
}

void bulk_start(void)
{
	static struct stats_source published;
	int fd;

	setenv("TAPDISK_THREADS", "4", 1);
	snprintf(spec, sizeof spec, "aio:%s/a.img", fuzz_dir());
	fd = open(spec + 4, O_RDWR | O_CREAT, 0600);
	FUZZ_ASSERT(fd >= 0 && !ftruncate(fd, BLOCKS * 4096));
	close(fd);
	home.loop = ev_loop_new(EVFLAG_AUTO);
	FUZZ_ASSERT(!queue_engine(&home, "threads", false, &io, &err));
	td_list_init(&stats.sources);
	stats_source_open(&published, &stats, "vbd-7-51712");
	cache_init(&cache, home.loop, NULL);
	cache.changed = no_change;
	bdisk = (struct blkif_disk){
		.stats = &stats, .broken = on_broken, .idle = nothing, .cache = &cache};
	guest_start();
}
