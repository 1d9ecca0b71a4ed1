/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's ring: requests, well made and not, indices, events, pages that change while they are
 * copied, over an image that completes in any order and with errors.  Beside the contracts that the
 * layers assert: no more answers than requests, and none that was not asked for; a read puts bytes
 * of the disk into its own sectors alone.
 */
#include <errno.h>
#include <sys/eventfd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/blkif-front.h"
#include "tests/support/test-ring.h"

const char fuzz_name[] = "ring", fuzz_unit[] = "requests answered";
const char *const fuzz_words[] = {NULL};

enum { GUEST_PAGES = 64, SCRIBBLES = 4, MODES = 5 };

/* What an input is made of: a head, then steps, each a byte that says which, and what it takes. */
enum step {
	STEP_REQUEST, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 5,
	STEP_RAW,
	STEP_KICK,
	STEP_TURNS,
	STEP_COMPLETE,
	STEP_INDEX,
	STEP_PAGE,
	STEP_SCRIBBLE,
	STEP_HOLD,
	STEP_EVENT,
	STEP_REFUSE,
	STEPS
};

static struct fuzz_in *scribbles; /* while pages and ring are written as they are copied */
static unsigned scribbled;

/* Beside the consumer: whatever it reads twice is another the second time. */
static void scribble(void)
{
	for (int i = 0; i < SCRIBBLES && scribbled < 256 && scribbles->left; i++, scribbled++) {
		uint16_t at = fuzz_u16(scribbles);

		if (at & 1)
			g.ring.bytes[(at >> 1) % sizeof g.ring.bytes] = (char)fuzz_u8(scribbles);
		else
			g.mem[at >> 1 & (GUEST_PAGES - 1)][at % 512 * 8] = (char)fuzz_u8(scribbles);
	}
}

/* The image's data, whatever pieces they come in. */
static void move(struct test_image *t, struct td_req *r)
{
	uint64_t off = r->off;

	if (r->op != TD_READ && r->op != TD_WRITE)
		return;
	FUZZ_ASSERT(r->off + r->len <= sizeof disk);
	for (int i = 0; i < r->iovcnt; off += r->iov[i++].iov_len)
		if (r->op == TD_READ)
			memcpy(r->iov[i].iov_base, disk + off, r->iov[i].iov_len);
		else
			memcpy(disk + off, r->iov[i].iov_base, r->iov[i].iov_len);
	FUZZ_ASSERT(off == r->off + r->len);
	FUZZ_ASSERT(r->op == TD_READ || !bdisk.read_only);
}

static void request(struct fuzz_in *in)
{
	static const uint8_t likely[] = {BLKIF_READ,          BLKIF_WRITE,
					 BLKIF_WRITE_BARRIER, BLKIF_FLUSH_DISKCACHE,
					 BLKIF_DISCARD,       BLKIF_INDIRECT};
	uint8_t op = fuzz_u8(in), how = fuzz_u8(in);
	struct blkif_desc d = {.op = op < 240 ? likely[op % sizeof likely] : op,
			       .id = fuzz_u8(in),
			       .nr_segs = how & 31};

	d.sector = how & 32 ? fuzz_u64(in) : fuzz_u16(in) % (TEST_IMAGE_SECTORS + 16);
	d.nr_sectors = how & 64 ? fuzz_u64(in) : fuzz_u16(in);
	if (d.op == BLKIF_INDIRECT) {
		d.nr_indirect = fuzz_u16(in) % (how & 128 ? 65536 : 600);
		d.nr_segs &= how & 128 ? 31 : 1;
		for (int i = 0; i < BLKIF_INDIRECT_PAGES; i++)
			d.page[i] = fuzz_u8(in);
	} else {
		for (unsigned i = 0; i < d.nr_segs && i < BLKIF_MAX_SEGS; i++) {
			uint8_t s = fuzz_u8(in);

			d.seg[i] = (struct blkif_seg){.ref = how & 128 ? fuzz_u32(in)
								       : fuzz_u8(in) % GUEST_PAGES,
						      .first = s & 64 ? 0 : s & 7,
						      .last = s & 64 ? 7 : s >> 3};
		}
	}
	put(d);
}

static void raw_slot(struct fuzz_in *in)
{
	const struct blkif_layout *l = &blkif_layouts[g.abi];

	fuzz_take(in, g.ring.bytes + blkif_slot(l, g.slots, g.prod++), l->stride);
}

static void complete(struct fuzz_in *in)
{
	static const int errors[] = {0, 0, 0, 0, EIO, ENOSPC, EINVAL, EOPNOTSUPP};
	uint8_t b = fuzz_u8(in);

	if (img.npending)
		test_image_complete(&img, b % img.npending, -errors[b >> 5]);
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

static void step(struct fuzz_in *in)
{
	unsigned what = fuzz_u8(in) % STEPS;
	uint16_t at;

	switch (what) {
	case STEP_RAW:
		raw_slot(in);
		break;
	case STEP_KICK:
		kick();
		turns(2);
		break;
	case STEP_TURNS:
		turns(1 + fuzz_u8(in) % 4);
		break;
	case STEP_COMPLETE:
		complete(in);
		break;
	case STEP_INDEX:
		g.ring.sring.req_prod =
			fuzz_u8(in) < 200 ? g.prod + (int8_t)fuzz_u8(in) : fuzz_u32(in);
		eventfd_write(g.kick, 1);
		break;
	case STEP_PAGE:
		at = fuzz_u16(in);
		fuzz_take(in, g.mem[at % GUEST_PAGES] + (at >> 8) * 8, 1 + fuzz_u8(in) * 8);
		break;
	case STEP_SCRIBBLE:
		g.on_copy = g.on_copy ? NULL : scribble;
		break;
	case STEP_HOLD:
		if (fuzz_u8(in) & 1)
			blkif_hold(ring);
		else
			blkif_run(ring);
		break;
	case STEP_EVENT:
		event(in);
		break;
	case STEP_REFUSE:
		g.refuse_page = !g.refuse_page;
		break;
	default:
		request(in);
	}
}

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	static const uint8_t ops[] = {BLKIF_READ, BLKIF_WRITE, BLKIF_WRITE_BARRIER,
				      BLKIF_FLUSH_DISKCACHE, BLKIF_DISCARD};
	uint8_t *p = out;

	if (n >= 12)
		return 0;
	/* each ABI; completed at once, and not; persistent, and not */
	*p++ = (uint8_t)(n % 3 | (n & 4) << 2 | (n & 1 ? 128 : 0));
	*p++ = n & 2 ? 2 | 16 : 2;
	*p++ = 0;
	for (uint8_t i = 0; i < sizeof ops; i++) {
		const uint8_t segs[] = {STEP_REQUEST, i, 3, i, (uint8_t)(i * 8), 0, 64, 1,
					64,           2, 64};

		p = fuzz_put(p, segs, i < 3 ? sizeof segs : i == 3 ? 6 : 8);
	}
	/* the page of an INDIRECT, and its request */
	{
		const uint8_t page[] = {STEP_PAGE, 9, 0, 1, 3, 0, 0, 0, 0, 7,
					0,         0, 4, 0, 0, 0, 0, 7, 0, 0};
		const uint8_t inner[] = {
			STEP_REQUEST, 5, 1, 9, 16, 0, 0, 0, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0};

		p = fuzz_put(p, page, sizeof page);
		p = fuzz_put(p, inner, sizeof inner);
	}
	*p++ = STEP_KICK;
	for (int i = 0; i < 8; i++) {
		*p++ = STEP_COMPLETE;
		*p++ = (uint8_t)(n > 8 ? 32 * i + 1 : 0);
	}
	*p++ = STEP_TURNS;
	*p++ = 2;
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
	begin_disk();
	disk_end();
	img.seen = move;
}

/* All that is under way comes to its end, with whatever result. */
static void settle(void)
{
	for (int i = 0; i < 10000 && blkif_inflight(ring); i++) {
		turns(1);
		test_image_drain(&img);
		if (cache.out_of_space) /* which is looked at again each second */
			ev_feed_event(loop, &cache.retry, EV_TIMER);
	}
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t head = fuzz_u8(&in), disk_is = fuzz_u8(&in), mode = fuzz_u8(&in);
	struct blkif_stats s;

	persistent = head & 128;
	polling_us = disk_is & 8 ? 10 : 0;
	bdisk.read_only = disk_is & 1;
	bdisk.discard = disk_is & 2;
	bdisk.block = disk_is & 4 ? 4096 : 0;
	img.at_once = disk_is & 16;
	img.at_once_err = disk_is & 32 ? -EIO : 0;
	disk_anew(&td_cache_modes[mode % MODES]);
	begin_ring((enum blkif_abi)(head % 3), 1u << (head >> 2) % (BLKIF_MAX_RING_ORDER + 1));
	scribbles = &in;
	scribbled = 0;
	while (in.left && !blkif_is_broken(ring))
		step(&in);
	g.on_copy = NULL;
	blkif_hold(ring);
	img.at_once_err = 0;
	settle();
	s = blkif_stats(ring);
	FUZZ_ASSERT(s.answered == s.taken);
	fuzz_count += s.answered;
	end_ring();
	disk_end();
	return 0;
}
