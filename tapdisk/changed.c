/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/changed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/changed-log.h"
#include "lib/fiber/fiber.h"
#include "lib/io/file.h"

#define CHUNK    4096u /* bytes of bits that are written together */
#define RUN      16u   /* chunks of one operation, at most */
#define WRITES   8     /* operations under way, at most */
#define READ_MAX (1u << 20)

struct log_write {
	struct td_iop iop;
	struct iovec iov;
	struct changed *log;
	uint32_t chunk, chunks;
	bool busy;
};

struct changed {
	struct td_gate gate;
	struct td_image *image;
	struct td_file *file;
	struct td_io *io;
	uint64_t blocks; /* that it has bits for */
	uint8_t *bits;   /* in the file, surely; set by the home thread, looked at by others */
	uint8_t *next;   /* and those that the round under way writes */
	uint32_t chunks;
	uint8_t *dirty; /* chunks of next that are not in the file */
	uint32_t dirty_from, dirty_to;
	struct td_list waiting, round; /* changes, by td_req.link */
	ev_prepare gather; /* never started: fed to the loop by the first change that waits */
	struct log_write writes[WRITES];
	unsigned under_way;
	int err; /* of the round */
	struct td_log_limit limit;
	bool beyond; /* it was said that the disk is larger than its log */
	bool doubt;  /* what was written may not be durable after a sync that does well (CB7) */
};

/* --- bits --- */

/* The blocks of a range that the log has; false: none. */
static bool range(const struct changed *c, uint64_t off, uint64_t len, uint64_t *from, uint64_t *to)
{
	*from = off / CHANGED_BLOCK;
	*to = (off + len - 1) / CHANGED_BLOCK + 1;
	if (*to > c->blocks)
		*to = c->blocks;
	return *from < *to;
}

/* Of the byte at `at', the bits of [from, to). */
static uint8_t mask(uint64_t at, uint64_t from, uint64_t to)
{
	unsigned first = from > at * 8 ? (unsigned)(from - at * 8) : 0,
		 end = to < at * 8 + 8 ? (unsigned)(to - at * 8) : 8;

	return (uint8_t)((0xffu << first) & (0xffu >> (8 - end)));
}

static bool lets(const struct td_gate *g, uint64_t off, uint64_t len)
{
	const struct changed *c = td_entry(g, const struct changed, gate);
	uint64_t from, to;
	uint8_t m;

	if (!range(c, off, len, &from, &to))
		return true;
	for (uint64_t at = from / 8; at <= (to - 1) / 8; at++) {
		m = mask(at, from, to);
		if ((__atomic_load_n(&c->bits[at], __ATOMIC_ACQUIRE) & m) != m)
			return false;
	}
	return true;
}

static void mark_dirty(struct changed *c, uint32_t chunk)
{
	c->dirty[chunk] = 1;
	if (c->dirty_from == c->dirty_to) {
		c->dirty_from = chunk;
		c->dirty_to = chunk + 1;
	}
	c->dirty_from = chunk < c->dirty_from ? chunk : c->dirty_from;
	c->dirty_to = chunk >= c->dirty_to ? chunk + 1 : c->dirty_to;
}

static void add_bits(struct changed *c, const struct td_req *req)
{
	uint64_t from, to;
	uint8_t m;

	if (!range(c, req->off, req->len, &from, &to))
		return;
	for (uint64_t at = from / 8; at <= (to - 1) / 8; at++) {
		m = mask(at, from, to);
		if ((c->next[at] & m) == m)
			continue;
		c->next[at] |= m;
		mark_dirty(c, (uint32_t)(at / CHUNK));
	}
}

/* They are in the file. */
static void set_written(struct changed *c, const struct td_req *req)
{
	uint64_t from, to;

	if (!range(c, req->off, req->len, &from, &to))
		return;
	for (uint64_t at = from / 8; at <= (to - 1) / 8; at++)
		__atomic_store_n(&c->bits[at], (uint8_t)(c->bits[at] | mask(at, from, to)),
				 __ATOMIC_RELEASE);
}

/* --- a round (CB4) --- */

/* CB4: at the end of this turn of the loop, when all that it brings is there. */
static void round_soon(struct changed *c)
{
	if (!td_list_empty(&c->waiting) && !ev_is_pending(&c->gather))
		ev_feed_event(c->io->loop, &c->gather, EV_CUSTOM);
}

static void round_end(struct changed *c)
{
	struct td_list done, *l;
	int err = c->err;

	if (err)
		td_log_limited(
			&c->limit, LOG_ERR,
			"the log of changed blocks %s cannot be written: %s: what its disk's "
			"guest writes now fails",
			c->file->path, strerror(-err));
	td_list_init(&done);
	while ((l = td_list_pop(&c->round))) {
		if (!err)
			set_written(c, td_entry(l, struct td_req, link));
		td_list_add(&done, l);
	}
	round_soon(c);
	while ((l = td_list_pop(&done))) {
		struct td_req *req = td_entry(l, struct td_req, link);

		if (err)
			td_req_done(req, err);
		else
			td_pass(req);
	}
}

static void pump(struct changed *c);

static void on_written(struct td_iop *iop, int err)
{
	struct log_write *w = td_entry(iop, struct log_write, iop);
	struct changed *c = w->log;

	w->busy = false;
	c->under_way--;
	if (err) {
		c->err = c->err ? c->err : err;
		for (uint32_t i = 0; i < w->chunks; i++)
			mark_dirty(c, w->chunk + i);
	}
	if (!c->err)
		pump(c);
	if (!c->under_way)
		round_end(c);
}

static bool any_dirty(struct changed *c)
{
	while (c->dirty_from < c->dirty_to && !c->dirty[c->dirty_from])
		c->dirty_from++;
	if (c->dirty_from >= c->dirty_to)
		c->dirty_from = c->dirty_to = 0;
	return c->dirty_from < c->dirty_to;
}

/* The next chunks that are to be written; false: there are none. */
static bool next_run(struct changed *c, uint32_t *chunk, uint32_t *n)
{
	if (!any_dirty(c))
		return false;
	*chunk = c->dirty_from;
	for (*n = 0; *n < RUN && *chunk + *n < c->dirty_to && c->dirty[*chunk + *n]; ++*n)
		c->dirty[*chunk + *n] = 0;
	return true;
}

/* All that is to be written at once waits for no other; of several that may find their pages
 * missing, each has a thread. */
static unsigned write_flags(struct changed *c)
{
	return c->under_way || any_dirty(c) ? 0 : TD_IO_NEAR;
}

static void pump(struct changed *c)
{
	uint64_t bytes = changed_bytes(c->blocks * CHANGED_BLOCK);

	for (int i = 0; i < WRITES; i++) {
		struct log_write *w = &c->writes[i];
		uint64_t at, len;

		if (w->busy)
			continue;
		if (!next_run(c, &w->chunk, &w->chunks))
			return;
		at = (uint64_t)w->chunk * CHUNK;
		len = (uint64_t)w->chunks * CHUNK;
		w->iov = (struct iovec){c->next + at, len < bytes - at ? len : bytes - at};
		w->iop = (struct td_iop){.op = TD_IO_WRITE,
					 .flags = write_flags(c),
					 .file = c->file,
					 .off = CHANGED_HEADER + at,
					 .len = w->iov.iov_len,
					 .iov = &w->iov,
					 .iovcnt = 1,
					 .done = on_written};
		w->log = c;
		w->busy = true;
		c->under_way++;
		td_file_io(c->io, &w->iop);
	}
}

/* With all that wait. */
static void round_begin(struct changed *c)
{
	struct td_list *l;

	while ((l = td_list_pop(&c->waiting))) {
		add_bits(c, td_entry(l, struct td_req, link));
		td_list_add(&c->round, l);
	}
	c->err = 0;
	pump(c);
	if (!c->under_way) /* what an earlier round has written, which failed for others */
		round_end(c);
}

static void on_gather(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct changed *c = w->data;

	if (td_list_empty(&c->round)) /* else that one's end comes back here */
		round_begin(c);
}

static void say_beyond(struct changed *c, const struct td_req *req)
{
	if (c->beyond || (req->off + req->len - 1) / CHANGED_BLOCK < c->blocks)
		return;
	c->beyond = true;
	td_log(LOG_WARNING,
	       "%s has bits for %llu blocks of 64 KiB, and its disk has grown: changes behind them "
	       "are not logged, until the disk is paused and resumed with a longer log",
	       c->file->path, (unsigned long long)c->blocks);
}

static bool holds(struct td_gate *g, struct td_req *req)
{
	struct changed *c = td_entry(g, struct changed, gate);

	say_beyond(c, req);
	if (lets(g, req->off, req->len))
		return false;
	td_list_add(&c->waiting, &req->link);
	if (td_list_empty(&c->round))
		round_soon(c);
	return true;
}

/* --- comes and goes --- */

static int read_bits(struct changed *c, uint64_t bytes)
{
	int rc = 0;

	for (uint64_t at = 0, n; at < bytes && !rc; at += n) {
		n = bytes - at < READ_MAX ? bytes - at : READ_MAX;
		rc = td_file_rw(c->file, TD_IO_READ, c->bits + at, CHANGED_HEADER + at, n, 0);
	}
	return rc;
}

static int load(struct changed *c, uint64_t size, struct td_err *err)
{
	uint64_t bytes = changed_bytes(size), have = c->file->st.size, told;
	uint8_t head[CHANGED_HEADER];
	int rc;

	if (have < CHANGED_HEADER + bytes)
		return td_fail(err, EINVAL,
			       "%s has %llu bytes, and the log of changed blocks of a disk of %llu "
			       "bytes has %llu: make one with cbt-util create, or lengthen it with "
			       "cbt-util set -s",
			       c->file->path, (unsigned long long)have, (unsigned long long)size,
			       (unsigned long long)(CHANGED_HEADER + bytes));
	c->blocks = size / CHANGED_BLOCK + !!(size % CHANGED_BLOCK);
	c->chunks = (uint32_t)(bytes / CHUNK + 1);
	c->bits = malloc(bytes + 1);
	c->next = malloc(bytes + 1);
	c->dirty = calloc(c->chunks, 1);
	if (!c->bits || !c->next || !c->dirty)
		return td_fail(err, ENOMEM, "%s: out of memory for %llu bytes of bits",
			       c->file->path, (unsigned long long)bytes);
	rc = td_file_rw(c->file, TD_IO_READ, head, 0, sizeof head, 0);
	if (!rc)
		rc = read_bits(c, bytes);
	if (rc < 0)
		return td_fail(err, -rc, "cannot read %s: %s", c->file->path, strerror(-rc));
	memcpy(c->next, c->bits, bytes);
	told = td_get_le64(head + CHANGED_SIZE);
	if (told < size)
		td_log(LOG_WARNING,
		       "%s says that its disk has %llu bytes, and the disk has %llu: cbt-util set "
		       "-s "
		       "tells it",
		       c->file->path, (unsigned long long)told, (unsigned long long)size);
	return 0;
}

static void free_log(struct changed *c)
{
	ev_clear_pending(c->io->loop, &c->gather);
	td_file_close(c->file);
	free(c->bits);
	free(c->next);
	free(c->dirty);
	free(c);
}

int changed_open(const char *path, struct td_image *image, struct td_io *io, bool left,
		 struct changed **out, struct td_err *err)
{
	struct changed *c = calloc(1, sizeof *c);
	int rc;

	if (!c)
		return td_fail(err, ENOMEM, "out of memory for a log of changed blocks");
	c->io = io;
	c->image = image;
	c->doubt = left;
	td_list_init(&c->waiting);
	td_list_init(&c->round);
	ev_init(&c->gather, on_gather);
	ev_set_priority(&c->gather, TD_PRI_COMMIT);
	c->gather.data = c;
	/* without a lock: who else may write it holds one of the storage manager's own */
	rc = td_file_open(io, path, TD_FILE_SHARED, &c->file, err);
	if (!rc)
		rc = load(c, image->info.size, err);
	if (rc < 0) {
		free_log(c);
		return rc;
	}
	c->gate = (struct td_gate){.holds = holds, .lets = lets};
	image->gate = &c->gate;
	*out = c;
	return 0;
}

/* Each piece that has any bit, so that the kernel has it to write once more. */
static int write_again(struct changed *c)
{
	uint64_t bytes = changed_bytes(c->blocks * CHANGED_BLOCK);
	int rc = 0;

	for (uint64_t at = 0, n; at < bytes && !rc; at += n) {
		const uint8_t *p = c->next + at;

		n = bytes - at < CHUNK ? bytes - at : CHUNK;
		if (p[0] || memcmp(p, p + 1, n - 1) != 0)
			rc = td_file_rw(c->file, TD_IO_WRITE, c->next + at, CHANGED_HEADER + at, n,
					0);
	}
	if (!rc)
		td_file_renewed(c->file);
	return rc;
}

int changed_sync(struct changed *c, struct td_err *err)
{
	struct td_iop sync = {.op = TD_IO_SYNC};
	int rc;

	if (!c)
		return 0;
	sync.file = c->file;
	rc = c->doubt ? write_again(c) : 0;
	if (!rc)
		rc = td_await_file(c->io, &sync);
	c->doubt = rc < 0;
	if (rc < 0)
		td_fail(err, -rc, "the log of changed blocks %s cannot be made durable: %s",
			c->file->path, strerror(-rc));
	return rc;
}

void changed_close(struct changed *c)
{
	if (c)
		free_log(c);
}

uint64_t changed_count(const struct changed *c)
{
	uint64_t bytes = changed_bytes(c->blocks * CHANGED_BLOCK), n = 0;

	for (uint64_t i = 0; i < bytes; i++)
		n += (uint64_t)__builtin_popcount(c->bits[i]);
	return n;
}
