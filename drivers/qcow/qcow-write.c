/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing.  What is mapped and ours goes in place, at once.  The rest is a fiber's: it locks the
 * guest clusters, takes host clusters in a row, writes the guest's bytes together with what belongs
 * around them (read from below; what is overwritten is not read), and only then changes the mapping
 * (Q2).  Other requests go on meanwhile; those for the same clusters wait, or write to the new
 * place too.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"
#include "lib/io/iov.h"

#define SUBS 32

/* --- in place --- */

bool qcow_write_fast(struct qcow *q, struct td_req *req)
{
	uint64_t end = req->off + req->len;
	struct qcow_run run;

	/* a durable write is one whose mapping is durable too; and one whose mapping the log has
	 * missed is not to be answered yet (Q9) */
	if (q->broken || td_redo_missed(q->image->redo) ||
	    ((req->flags & TD_FUA) && !qcow_clean(q)))
		return false;
	for (uint64_t at = req->off; at < end; at += run.len) {
		qcow_map(q, at, end - at, &run);
		if (run.kind != QCOW_RUN_DATA || !run.own)
			return false;
		if (run.len == req->len) {
			qcow_whole(q, req, TD_IO_WRITE, run.host);
			return true;
		}
	}
	td_req_split(req);
	for (uint64_t at = req->off; at < end; at += run.len) {
		qcow_map(q, at, end - at, &run);
		qcow_part(q, req, at - req->off, run.len, TD_IO_WRITE, run.host);
	}
	td_req_put(req, 0);
	return true;
}

/* --- one fiber at a time changes a cluster --- */

static struct qcow_range *overlaps(struct qcow *q, uint64_t from, uint64_t to)
{
	td_list_each (l, &q->ranges) {
		struct qcow_range *r = td_entry(l, struct qcow_range, link);

		if (r->from < to && from < r->to)
			return r;
	}
	return NULL;
}

void qcow_range_lock(struct qcow *q, struct qcow_range *r, uint64_t from, uint64_t to)
{
	while (overlaps(q, from, to))
		td_cond_wait(&q->range_free);
	*r = (struct qcow_range){.from = from, .to = to};
	td_list_add(&q->ranges, &r->link);
}

void qcow_range_unlock(struct qcow *q, struct qcow_range *r)
{
	td_list_del(&r->link);
	td_cond_wake(&q->range_free);
}

/* --- allocating --- */

/* A write of guest bytes into clusters [c0, c0 + n), which are locked, with what has to stand
 * around them. */
struct alloc {
	struct qcow *q;
	struct td_req *req;
	uint64_t off, end; /* the guest's bytes */
	uint64_t c0, n;    /* guest clusters */
	uint64_t host;     /* offset of the first one's place in the data file */
	uint64_t lo, hi;   /* guest offsets: the units that are valid afterwards */
	bool fresh;        /* the place reads as zeroes */
	bool taken;        /* the place was taken just now */
	uint8_t *head, *tail;
};

static uint64_t down(uint64_t x, unsigned bits)
{
	return x >> bits << bits;
}

static uint64_t up(uint64_t x, unsigned bits)
{
	return down(x + (UINT64_C(1) << bits) - 1, bits);
}

/* Does [from, to) read as zeroes now?  1, 0 or -errno. */
static int reads_zero(struct qcow *q, uint64_t from, uint64_t to)
{
	struct qcow_run run;

	if (to > q->image->info.size)
		to = q->image->info.size;
	for (uint64_t at = from; at < to; at += run.len) {
		int rc = qcow_map_wait(q, at, to - at, &run);

		if (rc < 0)
			return rc;
		if (run.kind != QCOW_RUN_ZERO &&
		    (run.kind != QCOW_RUN_NONE || !qcow_backing_zero(q, at)))
			return 0;
	}
	return 1;
}

/* What stands in [from, to) now, in new memory; NULL in *buf where the place has it already. */
static int surroundings(struct alloc *a, uint64_t from, uint64_t to, uint8_t **buf)
{
	int zero = from == to ? 1 : reads_zero(a->q, from, to);

	*buf = NULL;
	if (zero < 0 || from == to || (zero && a->fresh))
		return zero < 0 ? zero : 0;
	if (posix_memalign((void **)buf, 4096, to - from)) {
		*buf = NULL;
		return -ENOMEM;
	}
	if (!zero)
		return qcow_read_buf(a->q, a->req->io, *buf, from, to - from);
	memset(*buf, 0, to - from);
	return 0;
}

static int write_data(struct alloc *a)
{
	struct iovec *iov = calloc((size_t)a->req->iovcnt + 2, sizeof *iov);
	uint64_t from = a->head ? a->lo : a->off, to = a->tail ? a->hi : a->end;
	struct td_iop op = {.op = TD_IO_WRITE,
			    .flags = TD_IO_NEW,
			    .file = a->q->data,
			    .off = a->host + (from - (a->c0 << a->q->cbits)),
			    .len = to - from,
			    .iov = iov};
	int n = 0, rc;

	if (!iov)
		return -ENOMEM;
	if (a->head)
		iov[n++] = (struct iovec){a->head, a->off - a->lo};
	n += td_iov_slice(a->req->iov, a->req->iovcnt, a->off - a->req->off, a->end - a->off,
			  iov + n, a->req->iovcnt);
	if (a->tail)
		iov[n++] = (struct iovec){a->tail, a->hi - a->end};
	op.iovcnt = n;
	rc = qcow_await_write(a->q, a->req->io, &op, from);
	free(iov);
	return rc;
}

static uint64_t bits(const struct alloc *a, uint64_t cluster)
{
	uint64_t start = cluster << a->q->cbits, end = start + qcow_csize(a->q), bitmap = 0;

	for (uint64_t at = down(a->lo > start ? a->lo : start, a->q->ubits); at < a->hi && at < end;
	     at += UINT64_C(1) << a->q->ubits)
		bitmap |= UINT64_C(1) << ((at - start) >> a->q->ubits);
	return bitmap;
}

/* The mapping changes: in memory, now that the data is in the file. */
static int link_clusters(struct alloc *a)
{
	struct qcow *q = a->q;
	struct qcow_page *page;
	uint8_t *at;
	int rc = qcow_l2_entry(q, a->c0 << q->cbits, &page, &at);

	if (rc < 0)
		return rc;
	for (uint64_t i = 0; i < a->n; i++, at += q->esize) {
		uint64_t old = td_get_be64(at), host = a->host + (i << q->cbits);

		td_put_be64(at, host | qcow_own(q));
		if (q->ext) {
			uint64_t set = bits(a, a->c0 + i),
				 map = old & QCOW_ZIPPED ? 0 : td_get_be64(at + 8);

			td_put_be64(at + 8, (map | set) & ~(set << SUBS));
		}
		if (a->taken)
			qcow_release_entry(q, old);
	}
	qcow_page_dirty(q, page, at - a->n * q->esize, (uint32_t)(a->n * q->esize));
	return 0;
}

/* A new place that is zeroes all around the guest's bytes is one that others may write to at the
 * same time. */
static void open_place(struct alloc *a, struct qcow_range *r)
{
	if (!a->taken || !a->fresh || a->head || a->tail || a->q->ext)
		return;
	r->host = a->host;
	r->open_to = a->c0 + a->n;
	td_cond_wake(&a->q->range_free);
}

static int fill_clusters(struct alloc *a, struct qcow_range *r)
{
	int rc = surroundings(a, a->lo, a->off, &a->head);

	if (!rc)
		rc = surroundings(a, a->end, a->hi, &a->tail);
	if (!rc)
		open_place(a, r);
	if (!rc)
		rc = write_data(a);
	if (!rc)
		rc = link_clusters(a);
	free(a->head);
	free(a->tail);
	if (rc && a->taken)
		qcow_release(a->q, a->host >> a->q->cbits, a->n);
	return rc;
}

/* Is the cluster of this L2 entry one that has a place of its own, without being simply written in
 * place? */
static bool has_place(const struct qcow *q, uint64_t entry)
{
	return !qcow_zipped(q, entry) && (q->v1 ? entry != 0 : (entry & QCOW_COPIED) != 0);
}

/* May [off, ...) be written where it is?  *len: how far. */
static int in_place(struct qcow *q, uint64_t off, uint64_t len, struct qcow_run *run)
{
	int rc = qcow_map_wait(q, off, len, run);

	return rc < 0 ? rc : run->kind == QCOW_RUN_DATA && run->own;
}

/* How many clusters from c0 on, at most n, need a new place, by the page at hand. */
static uint64_t count_placeless(const struct qcow *q, const uint8_t *at, uint64_t n)
{
	uint64_t i = 0;

	while (i < n && !has_place(q, td_get_be64(at + i * q->esize)))
		i++;
	return i;
}

/* Finds the place for as many of the clusters [c0, c0 + n) as it can have in one piece; sets a's.
 */
static int find_place(struct alloc *a)
{
	struct qcow *q = a->q;
	struct qcow_page *page;
	uint64_t cluster, got, entry;
	uint8_t *at;
	int rc = qcow_l2_own(q, a->c0 << q->cbits);

	if (!rc)
		rc = qcow_l2_entry(q, a->c0 << q->cbits, &page, &at);
	if (rc)
		return rc;
	entry = td_get_be64(at);
	if (q->external || has_place(q, entry)) {
		a->host = q->external ? a->c0 << q->cbits : entry & QCOW_OFFSET;
		a->n = 1;
		return 0;
	}
	a->n = count_placeless(q, at, q->ext ? 1 : a->n);
	rc = qcow_alloc(q, a->n, &cluster, &got, &a->fresh);
	if (rc)
		return rc;
	a->fresh &= !q->crypt; /* a hole would be decrypted to noise */
	a->host = cluster << q->cbits;
	a->n = got;
	a->taken = true;
	return 0;
}

/* With extended entries only the units that are touched become valid, unless the rest is to move to
 * the new place. */
static int choose_units(struct alloc *a)
{
	struct qcow *q = a->q;
	uint64_t start = a->c0 << q->cbits, end = (a->c0 + a->n) << q->cbits;
	struct qcow_page *page;
	uint64_t entry;
	uint8_t *at;
	int rc;

	if (a->end > end)
		a->end = end;
	a->lo = start;
	a->hi = end;
	if (!q->ext)
		return 0;
	rc = qcow_l2_entry(q, start, &page, &at);
	if (rc)
		return rc;
	entry = td_get_be64(at);
	if ((entry & QCOW_ZIPPED) || (a->taken && (entry & QCOW_OFFSET)))
		return 0;
	a->lo = down(a->off, q->ubits);
	a->hi = up(a->end, q->ubits);
	if (!a->taken) {
		uint64_t map = td_get_be64(at + 8);

		/* a unit that is there already needs nothing around the guest's bytes */
		if (map >> ((a->lo - start) >> q->ubits) & 1)
			a->lo = a->off;
		if (map >> ((a->hi - 1 - start) >> q->ubits) & 1)
			a->hi = a->end;
	}
	return 0;
}

/* Clusters from that of off on, as many as one page of the L2 table tells of. */
static void bound(struct alloc *a)
{
	struct qcow *q = a->q;
	uint64_t per_page = q->page_entries, c1 = ((a->end - 1) >> q->cbits) + 1, stop;

	a->c0 = a->off >> q->cbits;
	stop = (a->c0 / per_page + 1) * per_page;
	a->n = (c1 < stop ? c1 : stop) - a->c0;
}

static int write_at(struct qcow *q, struct td_req *req, uint64_t host, uint64_t off, uint64_t len,
		    struct iovec *iov)
{
	struct td_iop op = {.op = TD_IO_WRITE,
			    .flags = qcow_new(q, host),
			    .file = q->data,
			    .off = host,
			    .len = len,
			    .iov = iov};

	op.iovcnt = td_iov_slice(req->iov, req->iovcnt, off - req->off, len, iov, req->iovcnt);
	return qcow_await_write(q, req->io, &op, off);
}

static int write_mapped(struct qcow *q, struct td_req *req, const struct qcow_run *run,
			uint64_t off, struct iovec *iov)
{
	unsigned epoch;
	int rc;

	qcow_fly(q, &epoch);
	rc = write_at(q, req, run->host, off, run->len, iov);
	qcow_land(q, epoch);
	return rc;
}

/*
 * A write to clusters that another fiber is making: at once, beside its own.  It counts when that
 * fiber has changed the mapping; when it could not, or a discard came in between, it is made again.
 * Until that is known no place that was given up is taken anew (Q4).
 */
static int write_beside(struct qcow *q, struct td_req *req, const struct qcow_range *r,
			uint64_t off, uint64_t *next, struct iovec *iov)
{
	uint64_t end = req->off + req->len, stop = r->open_to << q->cbits,
		 host = r->host + (off - (r->from << q->cbits)), len;
	struct qcow_run run;
	unsigned epoch;
	int rc;

	len = (end < stop ? end : stop) - off;
	qcow_fly(q, &epoch);
	rc = write_at(q, req, host, off, len, iov); /* r may be gone from here on */
	while (!rc && overlaps(q, off >> q->cbits, ((off + len - 1) >> q->cbits) + 1))
		td_cond_wait(&q->range_free);
	if (!rc)
		rc = in_place(q, off, len, &run);
	*next = rc > 0 && run.host == host ? off + run.len : off;
	qcow_land(q, epoch);
	return rc < 0 ? rc : 1;
}

/* Waits until nobody changes the clusters, and locks them; or finds that they can be written to
 * beside who does: then its range. */
static struct qcow_range *lock_or_join(struct qcow *q, struct qcow_range *mine, uint64_t from,
				       uint64_t to)
{
	struct qcow_range *r;

	while ((r = overlaps(q, from, to))) {
		if (r->from <= from && from < r->open_to)
			return r;
		td_cond_wait(&q->range_free);
	}
	qcow_range_lock(q, mine, from, to);
	return NULL;
}

/* Writes from off on, as far as one piece of the file goes; *next is where to go on. */
static int write_some(struct qcow *q, struct td_req *req, uint64_t off, uint64_t *next,
		      struct iovec *iov)
{
	struct alloc a = {.q = q, .req = req, .off = off, .end = req->off + req->len};
	struct qcow_range range, *other;
	struct qcow_run run;
	int rc;

	bound(&a);
	other = lock_or_join(q, &range, a.c0, a.c0 + a.n);
	if (other)
		return write_beside(q, req, other, off, next, iov);
	rc = in_place(q, off, a.end - off, &run);
	if (rc > 0) { /* another request was faster */
		qcow_range_unlock(q, &range);
		*next = off;
		return 1;
	}
	if (!rc)
		rc = find_place(&a);
	if (!rc)
		rc = choose_units(&a);
	if (!rc)
		rc = fill_clusters(&a, &range);
	else if (a.taken)
		qcow_release(q, a.host >> q->cbits, a.n);
	qcow_range_unlock(q, &range);
	*next = a.end;
	return rc;
}

/* All of req, without completing it. */
static int write_slow(struct qcow *q, struct td_req *req)
{
	struct iovec *iov = calloc((size_t)req->iovcnt, sizeof *iov);
	uint64_t end = req->off + req->len, next = end;
	int rc = iov ? 0 : -ENOMEM;

	for (uint64_t at = req->off; rc >= 0 && at < end; at = next) {
		struct qcow_run run;

		rc = q->broken ? q->broken : in_place(q, at, end - at, &run);
		if (rc > 0) {
			next = at + run.len;
			rc = write_mapped(q, req, &run, at, iov);
		} else if (!rc) {
			rc = write_some(q, req, at, &next, iov);
		}
	}
	free(iov);
	return rc < 0 ? rc : 0;
}

int qcow_write(struct qcow *q, struct td_req *req)
{
	return write_slow(q, req);
}
