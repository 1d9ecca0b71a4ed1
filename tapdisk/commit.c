/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bytes.h"
#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

#define CHUNK      (512u << 10) /* bytes of a piece, at most (LC8) */
#define PIECE      (64u << 10)  /* and where guests ask, at least */
#define SHARE      19           /* a pause is so many times as long as its piece took, at most */
#define FLOOR      (8u << 20)   /* bytes a second, unless the job has a rate */
#define LOOK_BACK  0.2          /* s in which is judged whether it gets on (LC9) */
#define NEAR       (16ull << 20) /* bytes that may be left for the time in which the disk is at rest */
#define NEAR_MAX   (256ull << 20)
#define WINDOW     (16ull << 20) /* bytes that N is asked about at a time: so fine is the progress */
#define STEPS      64            /* such questions without a wait, at most */
#define BREATH     0.05          /* s that guests get after a piece, at most */
#define SAVE_BYTES (256ull << 20)
#define SAVE_TIME  10.0 /* s */
#define BLOCK      16   /* bits; larger where that would be too many */
#define BLOCKS_MAX (8u << 20)

int commit_init(struct commit *c, bool live)
{
	c->shift = BLOCK;
	while ((c->from->info.size >> c->shift) >= BLOCKS_MAX)
		c->shift++;
	c->blocks = (c->from->info.size >> c->shift) + 1;
	c->saved_at = td_clock_s();
	c->piece = PIECE;
	c->share = SHARE;
	c->near = NEAR;
	if (posix_memalign((void **)&c->buf, 4096, CHUNK))
		c->buf = NULL;
	if (live)
		c->dirty = calloc((c->blocks + 7) / 8, 1);
	if (c->buf && (c->dirty || !live))
		return 0;
	commit_fini(c);
	return -ENOMEM;
}

void commit_fini(struct commit *c)
{
	if (c->dirty && c->from && c->from->watch == &c->watch)
		c->from->watch = NULL;
	free(c->dirty);
	free(c->buf);
	c->dirty = c->buf = NULL;
}

/* --- what changes meanwhile (LC5) --- */

static void on_change(struct td_watch *w, uint64_t off, uint64_t len)
{
	struct commit *c = td_entry(w, struct commit, watch);

	for (uint64_t b = off >> c->shift; b <= (off + len - 1) >> c->shift; b++) {
		if (b >= c->blocks || c->dirty[b / 8] & 1u << b % 8)
			continue;
		c->dirty[b / 8] |= (uint8_t)(1u << b % 8);
		c->ndirty++;
	}
}

uint64_t commit_left(const struct commit *c)
{
	uint64_t size = c->from->info.size, left = size > c->at ? size - c->at : 0,
		 again = c->ndirty << c->shift;

	return left + again < size ? left + again : size;
}

/* --- giving way (LC8) --- */

bool commit_sleep(struct commit *c, double seconds)
{
	if (c->stop || seconds <= 0)
		return !c->stop;
	c->sleeper = td_fiber_self();
	td_fiber_wait_for(seconds);
	c->sleeper = NULL;
	return !c->stop;
}

void commit_wake(struct commit *c)
{
	if (c->sleeper)
		td_fiber_wake(c->sleeper);
}

void commit_stop(struct commit *c)
{
	c->stop = true;
	commit_wake(c);
}

bool commit_is_near(const struct commit *c)
{
	return commit_left(c) <= c->near;
}

/* What was copied has changed again. */
static void press(struct commit *c)
{
	if (c->share)
		c->share /= 2;
	else if (c->near < NEAR_MAX)
		c->near *= 2;
}

/* LC9: n bytes were copied. */
static void look_back(struct commit *c, uint64_t n, double now)
{
	uint64_t left = commit_left(c), gone = c->left > left ? c->left - left : 0;

	c->copied += n;
	if (now - c->looked < LOOK_BACK)
		return;
	if (!c->looked)
		; /* it begins */
	else if (gone < c->copied / 2 && left > c->near)
		press(c);
	else if (gone > c->copied / 4 * 3 && c->share < SHARE)
		c->share = c->share * 2 + 1 < SHARE ? c->share * 2 + 1 : SHARE;
	c->left = left;
	c->copied = 0;
	c->looked = now;
}

static double between(double least, double x, double most)
{
	return x > most ? most : x < least ? least : x;
}

/* For guests who have asked, after a piece of n bytes; the next one is as small as that lets it be
 * without being slow. */
static double pause_after(struct commit *c, uint64_t n, double took)
{
	double due = (double)n / (double)(c->rate ? c->rate : FLOOR);

	if (2 * took > due && c->piece < CHUNK)
		c->piece *= 2;
	else if (4 * took < due && c->piece > PIECE)
		c->piece /= 2;
	return c->share ? between(took, due - took, took * c->share) : 0;
}

/* n bytes were copied, from `began' on. */
static bool give_way(struct commit *c, uint64_t n, double began)
{
	uint64_t asked = c->asked ? c->asked(c->owner) : 0;
	double now = td_clock_s(), wait = 0;

	if (asked != c->seen)
		wait = between(0, pause_after(c, n, now - began), BREATH);
	else
		c->piece = CHUNK;
	if (c->dirty && c->at >= c->from->info.size)
		look_back(c, n, now);
	c->seen = asked;
	c->steps = 0;
	if (c->rate) {
		c->due = (c->due > began ? c->due : began) + (double)n / (double)c->rate;
		if (c->due - now > wait)
			wait = c->due - now;
	}
	while (wait > 0 && commit_sleep(c, wait)) /* it may be woken for something else */
		wait = c->rate ? c->due - td_clock_s() : 0;
	return !c->stop;
}

/* --- the copy --- */

static int fail(int rc, const char *what, const struct td_image *image, uint64_t off,
		struct td_err *err)
{
	return td_fail(err, -rc, "cannot %s %s at byte %llu: %s", what, image->path,
		       (unsigned long long)off, strerror(-rc));
}

static int request(struct commit *c, struct td_image *image, enum td_op op, unsigned flags,
		   uint64_t off, uint64_t len)
{
	struct iovec iov = {c->buf, len};
	bool data = op == TD_READ || op == TD_WRITE;

	return td_await_request(image, image->io, op, flags, off, len, data ? &iov : NULL, data);
}

static int sync_to(struct commit *c, struct td_err *err)
{
	int rc = request(c, c->to, TD_FLUSH, 0, 0, 0);

	if (rc)
		return td_fail(err, -rc, "cannot make %s durable: %s", c->to->path, strerror(-rc));
	c->unsaved = 0;
	c->saved_at = td_clock_s();
	return 0;
}

static int copy_piece(struct commit *c, uint64_t off, uint64_t len, bool zero, struct td_err *err)
{
	int rc = 0;

	if (zero)
		memset(c->buf, 0, len);
	else
		rc = request(c, c->from, TD_READ, 0, off, len);
	if (rc)
		return fail(rc, "read", c->from, off, err);
	rc = request(c, c->to, TD_WRITE, 0, off, len);
	return rc ? fail(rc, "write", c->to, off, err) : 0;
}

static int copy_pieces(struct commit *c, uint64_t off, uint64_t len, bool zero, bool rest,
		       struct td_err *err)
{
	int rc = 0;

	for (uint64_t n; len && !rc; off += n, len -= n) {
		double began = td_clock_s();

		n = rest ? CHUNK : c->piece;
		n = len < n ? len : n;
		rc = copy_piece(c, off, n, zero, err);
		c->unsaved += n;
		if (!rc && !rest && !give_way(c, n, began))
			rc = -ECANCELED;
	}
	return rc;
}

static int put_zeroes(struct commit *c, uint64_t off, uint64_t len, bool rest, struct td_err *err)
{
	double began = td_clock_s();
	int rc = request(c, c->to, TD_WRITE_ZEROES, TD_UNMAP, off, len);

	if (rc == -EOPNOTSUPP)
		return copy_pieces(c, off, len, true, rest, err);
	c->unsaved += CHUNK;
	if (rc)
		return fail(rc, "write zeroes to", c->to, off, err);
	return rest || give_way(c, CHUNK, began) ? 0 : -ECANCELED;
}

/* The first thing that N says of a range; *len: how much of it. */
static int copy_next(struct commit *c, uint64_t off, uint64_t *len, bool rest, struct td_err *err)
{
	struct td_extent e = {off, *len, 0};
	int rc = c->from->driver->extents ? c->from->driver->extents(c->from, off, *len, &e, 1) : 1;

	if (rc < 0)
		return fail(rc, "tell what is in", c->from, off, err);
	*len = e.len;
	if (!rest && ++c->steps >= STEPS) {
		c->steps = 0;
		if (!commit_sleep(c, 0.001))
			return -ECANCELED;
	}
	if (e.flags & TD_EXTENT_PARENT)
		return c->stop && !rest ? -ECANCELED : 0;
	return e.flags & TD_EXTENT_ZERO ? put_zeroes(c, off, e.len, rest, err)
					: copy_pieces(c, off, e.len, false, rest, err);
}

static int save(struct commit *c, struct td_err *err)
{
	int rc;

	if (!c->unsaved || (c->unsaved < SAVE_BYTES && td_clock_s() - c->saved_at < SAVE_TIME))
		return 0;
	rc = sync_to(c, err);
	if (!rc && c->saved)
		c->saved(c->owner);
	return rc;
}

/* LC1: where P is longer, the chain shows zeroes. */
static int clear_beyond(struct commit *c, struct td_err *err)
{
	uint64_t at = c->from->info.size, end = c->to->info.size;
	int rc = 0;

	for (uint64_t n; at < end && !rc && !c->dirty; at += n) {
		n = end - at < WINDOW ? end - at : WINDOW;
		rc = put_zeroes(c, at, n, false, err);
	}
	return rc;
}

int commit_copy(struct commit *c, struct td_err *err)
{
	uint64_t size = c->from->info.size;
	int rc = 0;

	if (c->dirty) {
		c->watch.changed = on_change;
		c->from->watch = &c->watch;
	}
	while (c->at < size && !rc) {
		uint64_t len = size - c->at < WINDOW ? size - c->at : WINDOW;

		rc = copy_next(c, c->at, &len, false, err);
		if (!rc)
			c->at += len;
		if (!rc)
			rc = save(c, err);
	}
	if (!rc)
		rc = clear_beyond(c, err);
	return rc ? rc : sync_to(c, err);
}

/* One block, which is clean from before it is looked at. */
static int copy_block(struct commit *c, uint64_t b, bool rest, struct td_err *err)
{
	uint64_t off = b << c->shift, size = c->from->info.size,
		 end = off + (UINT64_C(1) << c->shift) < size ? off + (UINT64_C(1) << c->shift)
							      : size;
	int rc = 0;

	c->dirty[b / 8] &= (uint8_t) ~(1u << b % 8);
	c->ndirty--;
	for (uint64_t len; off < end && !rc; off += len) {
		len = end - off;
		rc = copy_next(c, off, &len, rest, err);
	}
	if (rc)
		on_change(&c->watch, b << c->shift, 1);
	return rc;
}

int commit_again(struct commit *c, bool rest, struct td_err *err)
{
	int rc = 0;

	for (uint64_t b = 0; b < c->blocks && c->ndirty && !rc; b++)
		if (c->dirty[b / 8] & 1u << b % 8)
			rc = copy_block(c, b, rest, err);
	if (!rc && rest)
		rc = sync_to(c, err);
	return rc ? rc : rest ? 0 : save(c, err);
}
