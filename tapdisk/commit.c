/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bytes.h"
#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"

#define CHUNK      (512u << 10)  /* LC8 */
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
	c->saved_at = ev_time();
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

/* n bytes were copied, from `began' on. */
static bool give_way(struct commit *c, uint64_t n, double began)
{
	uint64_t asked = c->asked ? c->asked(c->owner) : 0;
	double now = ev_time(), wait = 0;

	if (asked != c->seen)
		wait = now - began < BREATH ? now - began : BREATH;
	c->seen = asked;
	c->steps = 0;
	if (c->rate) {
		c->due = (c->due > began ? c->due : began) + (double)n / (double)c->rate;
		if (c->due - now > wait)
			wait = c->due - now;
	}
	while (wait > 0 && commit_sleep(c, wait)) /* it may be woken for something else */
		wait = c->rate ? c->due - ev_time() : 0;
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
	c->saved_at = ev_time();
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
		double began = ev_time();

		n = len < CHUNK ? len : CHUNK;
		rc = copy_piece(c, off, n, zero, err);
		c->unsaved += n;
		if (!rc && !rest && !give_way(c, n, began))
			rc = -ECANCELED;
	}
	return rc;
}

static int put_zeroes(struct commit *c, uint64_t off, uint64_t len, bool rest, struct td_err *err)
{
	double began = ev_time();
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

	if (!c->unsaved || (c->unsaved < SAVE_BYTES && ev_time() - c->saved_at < SAVE_TIME))
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
