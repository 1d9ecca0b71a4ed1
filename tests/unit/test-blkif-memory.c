/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many rings of one process: the memory of their data has one budget (lib/io/budget.h), and a
 * guest's pages that stay mapped have another (PG1, PG6). */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/io/budget.h"
#include "tapdisk/blkif/blkif-ring.h"
#include "tests/support/blkif-front.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define MIB   ((size_t)1 << 20)
#define RINGS 8
#define SEGS  512 /* pages: all of the image */

struct side {
	struct td_xport x;
	union {
		struct blkif_sring sring;
		char bytes[16 * 4096];
	} ring;
	struct blkif *blkif;
	int kick;
	unsigned slots, pages_mapped;
	uint32_t prod, cons;
};

static struct side sides[RINGS];
static struct ev_loop *loop;
static struct test_image img;
static struct cache cache;
static struct stats stats;
static struct blkif_disk disk;
static char guest_page[4096], granted[16384];
static size_t most;

/* --- the transport --- */

static void *x_map(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *err)
{
	return td_entry(x, struct side, x)->ring.bytes;
}

static void x_unmap(struct td_xport *x, void *r, unsigned n)
{
}

static int x_bind(struct td_xport *x, uint32_t port, struct td_err *err)
{
	return td_entry(x, struct side, x)->kick;
}

static void x_nothing(struct td_xport *x)
{
}

static bool x_ack(struct td_xport *x)
{
	eventfd_t n;

	return eventfd_read(td_entry(x, struct side, x)->kick, &n) == 0;
}

/* Every page of the guest is one: full of segments, each of a page of its own. */
static void x_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (c[i].to_guest)
			ck_assert_int_eq(((char *)c[i].local)[0], 0);
		else
			memcpy(c[i].local, guest_page + c[i].off, c[i].len);
	if (blkif_memory.used > most)
		most = blkif_memory.used;
}

static void *x_page(struct td_xport *x, uint32_t ref)
{
	td_entry(x, struct side, x)->pages_mapped++;
	return granted + ref % 4 * 4096;
}

static void x_unpage(struct td_xport *x, void *page)
{
	td_entry(x, struct side, x)->pages_mapped--;
}

static const struct td_xport_ops ops = {
	.name = "test",
	.map_ring = x_map,
	.unmap_ring = x_unmap,
	.bind = x_bind,
	.unbind = x_nothing,
	.ack = x_ack,
	.notify = x_nothing,
	.copy = x_copy,
	.close = x_nothing,
	.map = x_page,
	.unmap = x_unpage,
};

static void nothing(struct cache *c)
{
}

static void on_broken(void *owner, const char *why)
{
	ck_abort_msg("%s", why);
}

static void on_idle(void *owner)
{
}

static void seen(struct test_image *t, struct td_req *r)
{
	for (int i = 0; r->op == TD_READ && i < r->iovcnt; i++)
		memset(r->iov[i].iov_base, 0, r->iov[i].iov_len);
}

static void join(struct side *s, bool persistent)
{
	struct blkif_params p = {
		.domid = 7, .pages = 16, .abi = BLKIF_NATIVE, .persistent = persistent};

	memset(s, 0, sizeof *s);
	s->ring.sring = (struct blkif_sring){.req_event = 1, .rsp_event = 1};
	s->x.ops = &ops;
	s->kick = eventfd(0, EFD_NONBLOCK);
	s->slots = blkif_slots(p.abi, p.pages);
	ck_assert_int_eq(blkif_connect(loop, &s->x, &p, NULL, &disk, NULL, &s->blkif, NULL), 0);
	blkif_run(s->blkif);
}

static void begin(unsigned rings, bool persistent)
{
	struct blkif_seg *seg = (struct blkif_seg *)(void *)guest_page;

	for (unsigned i = 0; i < SEGS; i++)
		seg[i] = (struct blkif_seg){.ref = i, .last = 7};
	loop = ev_loop_new(EVFLAG_AUTO);
	test_image_open(&img, 0);
	img.seen = seen;
	cache_init(&cache, loop, NULL);
	cache.changed = nothing;
	cache_attach(&cache, td_cache_mode_find("none"), img.image, &img.io, true);
	cache_resume(&cache);
	td_list_init(&stats.sources);
	disk = (struct blkif_disk){.cache = &cache,
				   .stats = &stats,
				   .sectors = TEST_IMAGE_SECTORS,
				   .broken = on_broken,
				   .idle = on_idle};
	blkif_memory.limit = BLKIF_MEMORY;
	most = 0;
	for (unsigned i = 0; i < rings; i++)
		join(&sides[i], persistent);
}

static void end(unsigned rings)
{
	for (unsigned i = 0; i < rings; i++) {
		ck_assert_uint_eq(blkif_inflight(sides[i].blkif), 0);
		blkif_disconnect(sides[i].blkif);
		ck_assert_uint_eq(sides[i].pages_mapped, 0);
		close(sides[i].kick);
	}
	/* of nobody any more */
	ck_assert(!blkif_memory.used && !blkif_memory.beyond && !blkif_memory.reserved &&
		  !blkif_memory.accounts && !blkif_memory.waiting && !blkif_grants());
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_fini(&cache);
	test_image_close(&img);
	ev_loop_destroy(loop);
}

/* --- a guest --- */

static void put(struct side *s, struct blkif_desc d)
{
	blkif_put_request(BLKIF_NATIVE, &s->ring.sring, s->slots, s->prod++, &d);
	__atomic_store_n(&s->ring.sring.req_prod, s->prod, __ATOMIC_RELEASE);
}

static struct blkif_desc large(void)
{
	return (struct blkif_desc){
		.op = BLKIF_INDIRECT, .nr_segs = BLKIF_READ, .nr_indirect = SEGS};
}

static struct blkif_desc small(uint8_t op, unsigned segs, uint32_t ref)
{
	struct blkif_desc d = {.op = op, .nr_segs = (uint8_t)segs};

	for (unsigned i = 0; i < segs; i++)
		d.seg[i] = (struct blkif_seg){.ref = ref + i, .last = 7};
	return d;
}

static unsigned answers(struct side *s)
{
	unsigned n = s->ring.sring.rsp_prod - s->cons;

	s->cons += n;
	return n;
}

static void turn(struct side *s)
{
	eventfd_write(s->kick, 1);
	ev_run(loop, EVRUN_NOWAIT);
	ev_run(loop, EVRUN_NOWAIT);
}

static void complete(unsigned n)
{
	while (n-- && img.npending)
		test_image_complete(&img, 0, 0);
	ev_run(loop, EVRUN_NOWAIT);
	ev_run(loop, EVRUN_NOWAIT);
}

static void tick(struct side *s, unsigned n)
{
	while (n--)
		ev_invoke(loop, &s->blkif->trim, EV_TIMER);
}

/* Bytes of this process that are nobody else's. */
#ifdef __SANITIZE_ADDRESS__
#define SHADOW (128 * MIB) /* what the sanitizer keeps for itself beside it */
#else
#define SHADOW 0
#endif

static size_t resident(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "RssAnon: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

START_TEST(eight_rings_of_order_four_stay_within_the_budget_and_all_get_on)
{
	size_t before, answered = 0, total = 0;

	begin(RINGS, false);
	before = resident();
	for (unsigned i = 0; i < RINGS; i++) {
		for (; sides[i].prod < sides[i].slots; total++)
			put(&sides[i], sides[i].prod < 32 ? large() : small(BLKIF_READ, 11, 0));
		turn(&sides[i]);
	}
	for (unsigned rounds = 0; answered < total; rounds++) {
		ck_assert_uint_lt(rounds, 100000);
		for (unsigned i = 0; i < RINGS; i++) {
			answered += answers(&sides[i]);
			ck_assert(blkif_inflight(sides[i].blkif) || sides[i].cons == sides[i].prod);
		}
		complete(1 + rounds % 7);
	}
	ck_assert_uint_gt(blkif_memory.waits, 0);
	ck_assert_uint_le(most, BLKIF_MEMORY);
	ck_assert_uint_ge(most, BLKIF_MEMORY / 2); /* and they use it */
	ck_assert_uint_lt(resident() - before, BLKIF_MEMORY + 32 * MIB + SHADOW);
	end(RINGS);
}
END_TEST

START_TEST(what_a_burst_took_is_given_back_while_the_ring_goes_on)
{
	size_t before, full;

	begin(1, false);
	before = resident();
	for (unsigned i = 0; i < 32; i++)
		put(&sides[0], large());
	turn(&sides[0]);
	complete(100);
	complete(100); /* what had waited for memory */
	full = resident();
	ck_assert_uint_ge(full - before, 40 * MIB);
	for (unsigned s = 0; s < 16; s++) { /* a request is under way at each tick */
		put(&sides[0], small(BLKIF_READ, 2, 0));
		turn(&sides[0]);
		tick(&sides[0], 1);
		ck_assert_uint_eq(blkif_inflight(sides[0].blkif), 1);
		complete(1);
		if (s < 9)
			ck_assert_uint_ge(blkif_memory.used, 40 * MIB); /* not at once */
	}
	ck_assert_uint_eq(blkif_memory.used, 2 * 4096);
	ck_assert_uint_lt(resident(), full - 40 * MIB);
	tick(&sides[0], 15);
	ck_assert_uint_eq(blkif_memory.used, 0);
	ck_assert(!ev_is_active(&sides[0].blkif->trim)); /* a loop at rest runs nothing */
	end(1);
}
END_TEST

START_TEST(who_comes_later_gets_its_share_of_one_that_is_never_idle)
{
	unsigned answered[2] = {0};

	begin(2, false);
	blkif_memory.limit = 20 * MIB;
	for (unsigned i = 0; i < 64; i++)
		put(&sides[0], large());
	turn(&sides[0]);
	ck_assert_uint_ge(blkif_inflight(sides[0].blkif), 7); /* alone it has nearly all */
	for (unsigned i = 0; i < 64; i++)
		put(&sides[1], large());
	turn(&sides[1]);
	ck_assert_uint_ge(blkif_inflight(sides[1].blkif), 1);
	for (unsigned n = 0; n < 60; n++) {
		complete(1);
		for (unsigned i = 0; i < 2; i++)
			for (unsigned k = answers(&sides[i]); k--; answered[i]++) {
				put(&sides[i], large()); /* both have more, always */
				turn(&sides[i]);
			}
	}
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_ge(blkif_inflight(sides[i].blkif), 3);
	ck_assert_uint_ge(answered[1], 15);
	for (unsigned n = 0; n < 200; n++)
		complete(1);
	end(2);
}
END_TEST

START_TEST(a_ring_that_is_idle_gives_back_when_another_waits)
{
	begin(2, false);
	blkif_memory.limit = 20 * MIB;
	for (unsigned i = 0; i < 8; i++)
		put(&sides[0], large());
	turn(&sides[0]);
	complete(100);
	ck_assert_uint_ge(blkif_memory.used, 14 * MIB);
	for (unsigned i = 0; i < 8; i++)
		put(&sides[1], large());
	turn(&sides[1]);
	ck_assert_uint_lt(blkif_inflight(sides[1].blkif), 4);
	tick(&sides[0], 1);
	tick(&sides[1], 1); /* nothing of its own is answered meanwhile */
	ck_assert_uint_ge(blkif_inflight(sides[1].blkif), 8);
	complete(100);
	end(2);
}
END_TEST

START_TEST(a_flush_behind_what_waits_is_answered_in_its_turn)
{
	unsigned answered = 0;

	begin(2, false);
	blkif_memory.limit = 4 * MIB; /* nothing but the reserves */
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 10; k++)
			put(&sides[i], large());
		put(&sides[i], small(BLKIF_WRITE, 11, 0));
		put(&sides[i], small(BLKIF_FLUSH_DISKCACHE, 0, 0));
		put(&sides[i], small(BLKIF_WRITE_BARRIER, 3, 0));
		turn(&sides[i]);
		ck_assert_uint_eq(blkif_inflight(sides[i].blkif), 1);
	}
	for (unsigned n = 0; n < 100; n++) {
		complete(1);
		answered += answers(&sides[0]) + answers(&sides[1]);
	}
	ck_assert_uint_eq(answered, 2 * 13);
	end(2);
}
END_TEST

START_TEST(what_lies_about_in_small_buffers_serves_a_large_request)
{
	begin(1, false);
	blkif_memory.limit = 2 * MIB; /* the reserve */
	for (unsigned i = 0; i < 40; i++)
		put(&sides[0], small(BLKIF_READ, 11, 0));
	turn(&sides[0]);
	complete(100);
	ck_assert_uint_eq(answers(&sides[0]), 40);
	ck_assert_uint_ge(blkif_memory.used, MIB);
	put(&sides[0], large());
	turn(&sides[0]);
	complete(1);
	ck_assert_uint_eq(answers(&sides[0]), 1);
	end(1);
}
END_TEST

static void ask(struct side *s, uint32_t ref)
{
	put(s, small(BLKIF_READ, 1, ref));
	turn(s);
	ck_assert_uint_eq(answers(s), 1);
}

START_TEST(pages_that_stay_mapped_are_capped_for_all_rings_of_a_guest)
{
	begin(RINGS, true);
	img.at_once = true;
	for (unsigned i = 0; i < RINGS; i++)
		for (uint32_t ref = 0; ref < 1500; ref++)
			ask(&sides[i], ref);
	ck_assert_uint_eq(blkif_grants(), 8192);
	ck_assert_uint_eq(sides[0].pages_mapped, 1500);
	ask(&sides[0], 1500); /* its own oldest goes */
	ck_assert_uint_eq(sides[0].pages_mapped, 1500);
	ask(&sides[RINGS - 1], 7); /* which found no place at all: copied */
	ck_assert_uint_eq(sides[RINGS - 1].pages_mapped, 0);
	end(RINGS);
}
END_TEST

START_TEST(a_page_that_is_not_used_is_unmapped)
{
	begin(1, true);
	img.at_once = true;
	for (uint32_t ref = 0; ref < 2000; ref++)
		ask(&sides[0], ref);
	tick(&sides[0], 30);
	for (uint32_t ref = 0; ref < 100; ref++)
		ask(&sides[0], ref);
	tick(&sides[0], 31);
	ck_assert_uint_ge(sides[0].pages_mapped, 1500); /* some at a time */
	tick(&sides[0], 9);
	ck_assert_uint_eq(sides[0].pages_mapped, 100);
	img.at_once = false;
	put(&sides[0], small(BLKIF_READ, 1, 5));
	turn(&sides[0]);
	tick(&sides[0], 100);
	ck_assert_uint_eq(sides[0].pages_mapped, 1); /* it is in use */
	complete(1);
	ck_assert_uint_eq(answers(&sides[0]), 1);
	tick(&sides[0], 100);
	ck_assert_uint_eq(sides[0].pages_mapped, 0);
	ck_assert(!ev_is_active(&sides[0].blkif->trim));
	img.at_once = true;
	for (uint32_t ref = 0; ref < 3000; ref++)
		ask(&sides[0], ref); /* the places are good again */
	ck_assert_uint_eq(sides[0].pages_mapped, 2048);
	end(1);
}
END_TEST

/* --- the budget alone --- */

static struct td_budget shared = {.limit = 400 * 4096};

static void *take_and_give(void *arg)
{
	struct td_account a;
	unsigned seed = (unsigned)(uintptr_t)arg;

	td_account_open(&a, &shared, 50 * 4096);
	for (unsigned i = 0; i < 200000; i++) {
		size_t n = (1 + (seed = seed * 1103515245 + 12345) / 65536 % 40) * 4096;

		if (!td_account_take(&a, n, false) || td_account_pressed(&a) || seed % 11 == 0)
			td_account_give(&a, a.used);
		ck_assert_uint_le(__atomic_load_n(&shared.beyond, __ATOMIC_RELAXED),
				  200 * 4096 + 4 * 40 * 4096);
	}
	td_account_give(&a, a.used);
	td_account_close(&a);
	return NULL;
}

START_TEST(threads_count_without_a_lock)
{
	pthread_t t[4];

	for (uintptr_t i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, take_and_give, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	ck_assert(!shared.used && !shared.beyond && !shared.waiting && !shared.reserved &&
		  !shared.accounts);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blkif-memory");

	SUITE_ADD(s, eight_rings_of_order_four_stay_within_the_budget_and_all_get_on);
	SUITE_ADD(s, what_a_burst_took_is_given_back_while_the_ring_goes_on);
	SUITE_ADD(s, who_comes_later_gets_its_share_of_one_that_is_never_idle);
	SUITE_ADD(s, a_ring_that_is_idle_gives_back_when_another_waits);
	SUITE_ADD(s, a_flush_behind_what_waits_is_answered_in_its_turn);
	SUITE_ADD(s, what_lies_about_in_small_buffers_serves_a_large_request);
	SUITE_ADD(s, pages_that_stay_mapped_are_capped_for_all_rings_of_a_guest);
	SUITE_ADD(s, a_page_that_is_not_used_is_unmapped);
	SUITE_ADD(s, threads_count_without_a_lock);
	return suite_run(s);
}
