/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's ring, over an image that completes in any order and with errors.  An input is a guest
 * of one of two kinds:
 *
 * - one that keeps to the protocol, and whose requests may ask for anything: what it is answered,
 *   and what becomes of its memory, is compared with a model (ring-model.h);
 * - a wild one: slots of any bytes, any indices and events, grants that come and go, and ring and
 *   pages that change while they are copied.  With FUZZ_SCRIBBLERS=N so many threads change them
 *   all the time, which no seed repeats.  Here all that is taken is answered, and what reaches the
 *   image is within the disk and allowed.
 *
 * The layers assert their own contracts; sanitizers see what touches other memory.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/fuzz/dir.h"
#include "tests/fuzz/ring-model.h"
#include "tests/support/blkif-front.h"

const char fuzz_name[] = "ring", fuzz_unit[] = "requests answered";
const char *const fuzz_words[] = {NULL};

enum { SCRIBBLES = 4, MODES = 5, ROUNDS = 8 };
/* an input's head: ABI and ring order, disk, cache mode, guest */
enum { READ_ONLY = 1, DISCARDS = 2, BLOCKS = 4, AT_ONCE = 8, FAILS = 16 };
enum { WILD = 1, PERSISTENT = 2, POLLING = 4 };

/* What follows are steps, each a byte that says which, and what it takes. */
enum step {
	STEP_REQUEST, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 5,
	STEP_MANY,
	STEP_KICK,
	STEP_TURNS,
	STEP_COMPLETE,
	STEP_HOLD,
	STEP_REFUSE,
	TAME_STEPS,
	STEP_RAW = TAME_STEPS,
	STEP_INDEX,
	STEP_PAGE,
	STEP_SCRIBBLE,
	STEP_EVENT,
	STEPS
};

static bool wild;
static unsigned next_page; /* for an INDIRECT of a wild guest */
static uint32_t numbers;   /* of STEP_MANY: follow from the input */

static uint32_t rnd(uint32_t below)
{
	numbers = numbers * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)numbers * below >> 32);
}

/* --- memory that changes --- */

static struct fuzz_in *scribbles; /* the bytes that ring and pages are changed to */
static unsigned scribbled;
static bool scribbling;  /* atomic: threads do it now */
static unsigned at_work; /* threads that are; atomic */

/* Beside each copy: whatever the consumer reads twice is another the second time. */
static void scribble(void)
{
	for (int i = 0; i < SCRIBBLES && scribbled < 256 && scribbles->left; i++, scribbled++) {
		uint16_t at = fuzz_u16(scribbles);

		if (at & 1)
			g.ring.bytes[(at >> 1) % sizeof g.ring.bytes] = (char)fuzz_u8(scribbles);
		else
			g.mem[at >> 1 & (DATA_PAGES - 1)][at % 512 * 8] = (char)fuzz_u8(scribbles);
	}
}

static void *scribbler(void *arg)
{
	uint64_t n = (uint64_t)(uintptr_t)arg + 1;
	volatile char *bytes = g.ring.bytes, *page = g.mem[0];

	for (;;) {
		bool now;

		if (!__atomic_load_n(&scribbling, __ATOMIC_RELAXED)) {
			sched_yield();
			continue;
		}
		__atomic_add_fetch(&at_work, 1, __ATOMIC_SEQ_CST);
		now = __atomic_load_n(&scribbling, __ATOMIC_SEQ_CST);
		for (int i = 0; now && i < 16; i++) {
			n ^= n << 13, n ^= n >> 7, n ^= n << 17;
			if (n & 3)
				bytes[64 + (n >> 8) % (sizeof g.ring.bytes - 64)] = (char)(n >> 40);
			else
				page[(n >> 8) % (DATA_PAGES * 4096)] = (char)(n >> 40);
		}
		__atomic_sub_fetch(&at_work, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* None goes on into the next input, whose guest may be another, when it gets its time late. */
static void let_scribble(bool on)
{
	__atomic_store_n(&scribbling, on, __ATOMIC_SEQ_CST);
	while (!on && __atomic_load_n(&at_work, __ATOMIC_SEQ_CST))
		sched_yield();
}

static void start_scribblers(void)
{
	const char *n = getenv("FUZZ_SCRIBBLERS");
	pthread_t t;

	for (uintptr_t i = 0; n && i < strtoul(n, NULL, 10); i++)
		FUZZ_ASSERT(!pthread_create(&t, NULL, scribbler, (void *)i));
}

/* --- the image --- */

static void check_access(const struct td_req *r)
{
	FUZZ_ASSERT(r->off <= bdisk.sectors * 512 && r->len <= bdisk.sectors * 512 - r->off);
	if (r->op == TD_FLUSH || r->op == TD_READ)
		return;
	FUZZ_ASSERT(!bdisk.read_only);
	FUZZ_ASSERT(r->op != TD_DISCARD || bdisk.discard);
	FUZZ_ASSERT(r->op != TD_WRITE || !bdisk.block || (r->off | r->len) % bdisk.block == 0);
}

/* The image's data, whatever pieces they come in. */
static void move(struct test_image *t, struct td_req *r)
{
	uint64_t s = r->off / 512, moved = 0;

	check_access(r);
	if (r->op != TD_READ && r->op != TD_WRITE)
		return;
	for (int i = 0; i < r->iovcnt; moved += r->iov[i++].iov_len) {
		char *p = r->iov[i].iov_base;

		FUZZ_ASSERT(r->iov[i].iov_len % 512 == 0);
		for (size_t n = 0; n < r->iov[i].iov_len; n += 512, s++)
			if (r->op == TD_READ)
				model_read(s, p + n);
			else
				model_wrote(s, p + n);
	}
	FUZZ_ASSERT(moved == r->len);
}

static void complete_one(unsigned i, int err)
{
	if (!img.npending)
		return;
	if (err)
		model_failed();
	test_image_complete(&img, i % img.npending, err);
}

/* --- steps --- */

static const uint8_t likely[] = {BLKIF_READ,    BLKIF_WRITE,    BLKIF_WRITE_BARRIER,
				 BLKIF_DISCARD, BLKIF_INDIRECT, BLKIF_FLUSH_DISKCACHE};

static void put_request(struct blkif_desc *d, const struct blkif_seg *seg)
{
	if (!wild) {
		if (model_room())
			model_put(d, seg);
		return;
	}
	if (d->op == BLKIF_INDIRECT && !d->page[0]) {
		d->page[0] = DATA_PAGES + next_page++ % INDIRECT_PAGES;
		memcpy(g.mem[d->page[0]], seg, 4096);
	}
	put(*d);
}

static struct blkif_seg segment(uint8_t s, uint32_t ref)
{
	return (struct blkif_seg){.ref = ref < 250 ? ref % DATA_PAGES : ref,
				  .first = s & 64 ? 0 : s & 7,
				  .last = s & 64 ? 7 : s >> 3};
}

static void request(struct fuzz_in *in)
{
	static struct blkif_seg seg[BLKIF_MAX_INDIRECT];
	uint8_t op = fuzz_u8(in), how = fuzz_u8(in);
	struct blkif_desc d = {.op = op < 240 ? likely[op % sizeof likely] : op,
			       .id = fuzz_u8(in),
			       .nr_segs = how & 31};

	d.sector = how & 32 ? fuzz_u64(in) : fuzz_u16(in) % (TEST_IMAGE_SECTORS + 16);
	d.nr_sectors = how & 64 ? fuzz_u64(in) : fuzz_u16(in);
	if (d.op == BLKIF_INDIRECT) {
		d.nr_indirect = fuzz_u16(in) % (how & 128 ? 65536 : 600);
		d.nr_segs &= how & 128 ? 31 : 1;
		for (int i = 0; wild && i < BLKIF_INDIRECT_PAGES; i++)
			d.page[i] = fuzz_u8(in) % guest_pages;
		for (unsigned i = 0; i < BLKIF_MAX_INDIRECT; i++)
			seg[i] = segment(i < 16 ? fuzz_u8(in) : 8, i < 16 ? fuzz_u8(in) : i);
	} else {
		for (unsigned i = 0; i < d.nr_segs && i < BLKIF_MAX_SEGS; i++) {
			uint8_t s = fuzz_u8(in);

			d.seg[i] = segment(s, how & 128 && wild ? fuzz_u32(in) : fuzz_u8(in));
		}
	}
	put_request(&d, seg);
}

/* How many sectors a request is about. */
static uint64_t reach(const struct blkif_desc *d, const struct blkif_seg *seg, unsigned n)
{
	uint64_t sectors = 0;

	if (d->op == BLKIF_DISCARD)
		return d->nr_sectors;
	for (unsigned i = 0; d->op != BLKIF_FLUSH_DISKCACHE && i < n; i++)
		sectors += seg[i].last - seg[i].first + 1u;
	return sectors;
}

/* Most of them well made, as a guest's are; some break a rule. */
static void random_request(void)
{
	static const uint8_t ops[16] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 3, 3, 5, 6};
	static struct blkif_seg seg[BLKIF_MAX_INDIRECT];
	struct blkif_desc d = {.op = ops[rnd(16)], .nr_sectors = 1 + rnd(64)};
	unsigned n = rnd(4) ? 1 : 1 + rnd(d.op == BLKIF_INDIRECT && !rnd(8) ? 64 : 11);

	if (d.op == BLKIF_INDIRECT) {
		d.nr_segs = (uint8_t)rnd(2);
		d.nr_indirect = (uint16_t)n;
	} else if (d.op != BLKIF_DISCARD && d.op != BLKIF_FLUSH_DISKCACHE) {
		d.nr_segs = (uint8_t)n;
	}
	d.sector = rnd(TEST_IMAGE_SECTORS - 88) & ~(bdisk.block ? 7ull : 0);
	for (unsigned i = 0, at = rnd(DATA_PAGES); i < n; i++) {
		unsigned first = bdisk.block ? 0 : rnd(8);

		seg[i] = (struct blkif_seg){
			.ref = (at + i) % DATA_PAGES,
			.first = (uint8_t)first,
			.last = (uint8_t)(bdisk.block ? 7 : first + rnd(rnd(2) ? 1 : 8 - first))};
		if (d.op != BLKIF_INDIRECT)
			d.seg[i % BLKIF_MAX_SEGS] = seg[i];
	}
	switch (rnd(48)) {
	case 0:
		d.sector = (uint64_t)rnd(UINT32_MAX) << rnd(33);
		break;
	case 1:
		d.op = (uint8_t)rnd(256);
		d.nr_segs = (uint8_t)rnd(256);
		break;
	case 2:
		d.seg[0].ref = guest_pages + rnd(1000);
		break;
	case 3:
		d.nr_sectors = (uint64_t)rnd(UINT32_MAX) << rnd(33);
		break;
	case 4: /* up to the disk's end, and a sector or a block before or beyond it */
		d.sector = TEST_IMAGE_SECTORS - reach(&d, seg, n) +
			   (uint64_t)((int)rnd(3) - 1) * (bdisk.block ? 8 : 1);
		break;
	default:
		break;
	}
	put_request(&d, seg);
}

static void kick_and_take(int n)
{
	if (wild)
		kick();
	else
		model_kick();
	turns(n);
	if (!wild)
		model_take();
}

/* The ring full, or partly, several times. */
static void many(struct fuzz_in *in)
{
	unsigned rounds = 1 + fuzz_u8(in) % ROUNDS, most = 1 + fuzz_u8(in) * 2u;

	numbers = fuzz_u32(in);
	while (rounds-- && !blkif_is_broken(ring)) {
		for (unsigned i = 0; i < most && g.prod - g.ring.sring.rsp_prod < g.slots; i++)
			random_request();
		kick_and_take(1);
		for (unsigned i = img.npending; i && rnd(64); i--)
			complete_one(rnd(rnd(8) ? 1 : i), 0);
		kick_and_take(1);
	}
}

static void complete(struct fuzz_in *in)
{
	static const int errors[] = {0, 0, 0, 0, EIO, ENOSPC, EINVAL, EOPNOTSUPP};
	uint8_t b = fuzz_u8(in);

	complete_one(b, -errors[b >> 5]);
}

static void event(struct fuzz_in *in)
{
	uint8_t b = fuzz_u8(in);

	if (b & 1)
		g.ring.sring.rsp_event = fuzz_u32(in);
	if (b & 2)
		g.ring.sring.req_event = fuzz_u32(in);
	if (b & 4)
		g.ring.sring.rsp_prod = fuzz_u32(in);
	eventfd_write(g.kick, 1);
}

static void wild_step(struct fuzz_in *in, unsigned what)
{
	const struct blkif_layout *l = &blkif_layouts[g.abi];
	uint16_t at;

	switch (what) {
	case STEP_RAW:
		fuzz_take(in, g.ring.bytes + blkif_slot(l, g.slots, g.prod++), l->stride);
		break;
	case STEP_INDEX:
		g.ring.sring.req_prod =
			fuzz_u8(in) < 200 ? g.prod + (int8_t)fuzz_u8(in) : fuzz_u32(in);
		eventfd_write(g.kick, 1);
		break;
	case STEP_PAGE:
		at = fuzz_u16(in);
		fuzz_take(in, g.mem[at % DATA_PAGES] + (at >> 8) * 8, 1 + fuzz_u8(in) * 8);
		break;
	case STEP_SCRIBBLE:
		g.on_copy = g.on_copy ? NULL : scribble;
		break;
	default:
		event(in);
	}
}

static void step(struct fuzz_in *in)
{
	unsigned what = fuzz_u8(in) % (wild ? STEPS : TAME_STEPS);

	switch (what) {
	case STEP_MANY:
		many(in);
		break;
	case STEP_KICK:
		kick_and_take(2);
		break;
	case STEP_TURNS:
		turns(1 + fuzz_u8(in) % 4);
		break;
	case STEP_COMPLETE:
		complete(in);
		break;
	case STEP_HOLD:
		if (fuzz_u8(in) & 1)
			blkif_hold(ring);
		else
			blkif_run(ring);
		break;
	case STEP_REFUSE:
		g.refuse_page = !g.refuse_page;
		break;
	default:
		if (what <= STEP_LIKELY)
			request(in);
		else
			wild_step(in, what);
	}
}

/* --- the whole --- */

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	uint8_t *p = out;

	if (n >= 24)
		return 0;
	/* each ABI and cache mode; completed at once, and not; persistent, and not; wild, and not
	 */
	*p++ = (uint8_t)(n % 3 + 3 * (n % 5));
	*p++ = n & 2 ? DISCARDS | AT_ONCE : DISCARDS;
	*p++ = (uint8_t)(n / 3);
	*p++ = (n & 1 ? PERSISTENT : 0) | (n & 4 ? WILD : 0);
	for (uint8_t i = 0; i < sizeof likely; i++) {
		const uint8_t segs[] = {STEP_REQUEST, i, 3, i, (uint8_t)(i * 8), 0, 64, 1,
					64,           2, 64};

		p = fuzz_put(p, segs, i < 3 ? sizeof segs : 8);
	}
	*p++ = STEP_KICK;
	for (int i = 0; i < 8; i++) {
		*p++ = STEP_COMPLETE;
		*p++ = (uint8_t)(n > 8 ? 32 * i + 1 : 0);
	}
	*p++ = STEP_TURNS;
	*p++ = 2;
	if (n > 12) {
		const uint8_t all[] = {STEP_MANY, (uint8_t)n, (uint8_t)(n * 10), (uint8_t)n, 1,
				       2,         3};

		p = fuzz_put(p, all, sizeof all);
	}
	return (size_t)(p - out);
}

static void disk_anew(const struct td_cache_mode *mode)
{
	cache_attach(&cache, mode, img.image, &img.io, true);
	cache_resume(&cache);
}

static void disk_end(void)
{
	cache_quiesce(&cache);
	cache_detach(&cache);
}

void fuzz_start(void)
{
	static struct stats_source published;

	fuzz_dir();
	begin_disk();
	disk_end();
	/* the device's file is this one's, and not made for each ring */
	stats_source_open(&published, bdisk.stats, "vbd-7-51712");
	img.seen = move;
	guest_pages = DATA_PAGES + INDIRECT_PAGES;
	model_disk_new();
	start_scribblers();
}

/* All that is under way comes to its end, with whatever result. */
static void settle(void)
{
	for (int i = 0; i < 10000 && (blkif_inflight(ring) || g.cons != g.prod); i++) {
		kick_and_take(1);
		test_image_drain(&img);
		if (cache.out_of_space) /* which is looked at again each second */
			ev_feed_event(loop, &cache.retry, EV_TIMER);
		if (wild && !blkif_inflight(ring))
			break;
		if (i > 1000) /* a timer may be awaited */
			usleep(100);
	}
}

static void end_tame(void)
{
	FUZZ_ASSERT(!blkif_is_broken(ring));
	blkif_run(ring);
	settle();
	model_end();
}

static void end_wild(void)
{
	g.on_copy = NULL;
	let_scribble(false);
	blkif_hold(ring);
	settle();
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t head = fuzz_u8(&in), disk_is = fuzz_u8(&in), mode = fuzz_u8(&in),
		guest = fuzz_u8(&in);
	struct blkif_stats s;

	wild = guest & WILD;
	persistent = guest & PERSISTENT;
	polling_us = guest & POLLING ? 10 : 0;
	bdisk.read_only = disk_is & READ_ONLY;
	bdisk.discard = disk_is & DISCARDS;
	bdisk.block = disk_is & BLOCKS ? 4096 : 0;
	img.at_once = disk_is & AT_ONCE;
	img.at_once_err = disk_is & FAILS ? -EIO : 0;
	model_begin();
	if (img.at_once_err)
		model_failed();
	disk_anew(&td_cache_modes[mode % MODES]);
	begin_ring((enum blkif_abi)(head % 3), 1u << head / 3 % (BLKIF_MAX_RING_ORDER + 1));
	scribbles = &in;
	scribbled = next_page = 0;
	let_scribble(wild);
	while (in.left && !blkif_is_broken(ring))
		step(&in);
	img.at_once_err = 0;
	if (wild)
		end_wild();
	else
		end_tame();
	s = blkif_stats(ring);
	FUZZ_ASSERT(s.answered == s.taken);
	fuzz_count += s.answered;
	blkif_hold(ring);
	end_ring();
	disk_end();
	return 0;
}
