/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What memory knows and the file does not, into the file: commits (V1, V2, V5 and V6 of
 * vhd-alloc.c), and all else at close (V4, V7).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"

#define PER_SECTOR (VHD_SECTOR / 4) /* BAT entries */

/* --- several writes at once, awaited by a fiber --- */

static void batch_done(struct td_iop *op, int err)
{
	struct vhd_batch *b = op->data;

	if (err && !b->err)
		b->err = err;
	if (--b->pending == 0)
		td_fiber_wake(b->fiber);
}

void vhd_batch_wait(struct vhd_batch *b)
{
	while (b->pending)
		td_fiber_wait();
	b->n = 0;
}

void vhd_batch_queue(struct vhd *v, struct vhd_batch *b, struct td_iop *op)
{
	op->done = batch_done;
	op->data = b;
	b->pending++;
	td_file_io(v->image->io, op);
}

void vhd_batch_write(struct vhd *v, struct vhd_batch *b, void *buf, uint64_t off, uint64_t len)
{
	struct td_iop *op = &b->op[b->n];

	b->iov[b->n] = (struct iovec){buf, len};
	*op = (struct td_iop){.op = TD_IO_WRITE,
			      .file = v->file,
			      .off = off,
			      .len = len,
			      .iov = &b->iov[b->n],
			      .iovcnt = 1};
	b->n++;
	vhd_batch_queue(v, b, op);
	if (b->n == VHD_BATCH)
		vhd_batch_wait(b);
}

/* --- commits --- */

int vhd_wait_room(struct vhd *v)
{
	/* what waits for a commit must not wait for the timer */
	if (v->dirty && !v->committing)
		vhd_commit(v, NULL);
	vhd_wait(&v->room);
	return v->failed;
}

static void freeze_table(struct vhd *v, uint8_t *to)
{
	uint64_t n;
	bool set;

	v->nfrozen_bat = 0;
	for (uint64_t s = 0; s < v->bat_sectors; s += n) {
		n = vhd_bits_run(v->bat_dirty, s, v->bat_sectors, &set);
		for (uint64_t i = s; set && i < s + n; i++, to += VHD_SECTOR) {
			assert(v->nfrozen_bat < v->hot_max);
			v->frozen_bat[v->nfrozen_bat++] = (uint32_t)i;
			for (unsigned e = 0; e < PER_SECTOR; e++)
				td_put_be32(to + 4 * e, v->bat[i * PER_SECTOR + e]);
		}
		vhd_bits_clear(v->bat_dirty, s, s + n);
	}
}

/* Takes a picture of all that is dirty; what changes from now on is dirty again. */
static void freeze(struct vhd *v)
{
	uint8_t *to = v->frozen;

	td_list_each (l, &v->hot) {
		struct vhd_bitmap *bm = td_entry(l, struct vhd_bitmap, link);
		size_t len = (size_t)(bm->dirty_to - bm->dirty_from) * VHD_SECTOR;

		if (!bm->dirty)
			continue;
		memcpy(to, bm->bits + (size_t)bm->dirty_from * VHD_SECTOR, len);
		bm->frozen = to;
		bm->frozen_from = bm->dirty_from;
		bm->frozen_to = bm->dirty_to;
		bm->dirty_from = bm->dirty_to = 0;
		bm->dirty = false;
		bm->committing = true;
		to += len;
	}
	v->frozen_table = to;
	freeze_table(v, to);
	td_redo_freeze(v->image->redo);
	v->dirty = false;
}

static int write_frozen(struct vhd *v)
{
	struct vhd_batch b = {.fiber = td_fiber_self()};

	td_list_each (l, &v->hot) { /* what is being committed stays on it */
		struct vhd_bitmap *bm = td_entry(l, struct vhd_bitmap, link);
		size_t len = (size_t)(bm->frozen_to - bm->frozen_from) * VHD_SECTOR;

		if (bm->committing && len)
			vhd_batch_write(v, &b, bm->frozen,
					(uint64_t)v->bat[bm->block] * VHD_SECTOR +
						(uint64_t)bm->frozen_from * VHD_SECTOR,
					len);
	}
	for (uint32_t i = 0; i < v->nfrozen_bat; i++)
		vhd_batch_write(v, &b, v->frozen_table + (size_t)i * VHD_SECTOR,
				v->l.table_off + (uint64_t)v->frozen_bat[i] * VHD_SECTOR,
				VHD_SECTOR);
	vhd_batch_wait(&b);
	return b.err;
}

/* The commit is over: what it wrote is clean, or as dirty as before. */
static void thaw(struct vhd *v, int err)
{
	td_list_each_safe (l, tmp, &v->hot) {
		struct vhd_bitmap *bm = td_entry(l, struct vhd_bitmap, link);

		if (!bm->committing)
			continue;
		bm->committing = false;
		if (err) {
			bm->dirty_from = bm->dirty ? 0 : bm->frozen_from;
			bm->dirty_to = bm->dirty ? v->l.bitmap_bytes / VHD_SECTOR : bm->frozen_to;
			bm->dirty = true;
		}
		vhd_cool(v, bm);
	}
	for (uint32_t i = 0; err && i < v->nfrozen_bat; i++)
		vhd_bits_set(v->bat_dirty, v->frozen_bat[i], v->frozen_bat[i] + 1);
	v->dirty = v->dirty || err;
	td_redo_done(v->image->redo, err);
}

void vhd_break(struct vhd *v, int err)
{
	char text[TD_SPEC_MAX + 200];

	if (v->broken)
		return;
	v->broken = err;
	snprintf(text, sizeof text,
		 "a sync of %s failed (%s): writes and flushes fail until it is closed, checked "
		 "and opened again",
		 v->image->path, strerror(-err));
	td_log(LOG_ERR, "%s", text);
	td_image_fault(v->image, text);
}

static int sync_file(struct vhd *v)
{
	struct td_iop op = {.op = TD_IO_SYNC, .file = v->file};
	int rc = td_await_file(v->image->io, &op);

	if (rc < 0)
		vhd_break(v, rc);
	return v->broken;
}

/* One commit (V5), on a fiber. */
static int commit_once(struct vhd *v)
{
	bool metadata = v->dirty;
	int rc = v->broken;

	ev_timer_stop(v->image->io->loop, &v->later);
	if (rc)
		return rc;
	if (metadata)
		freeze(v);
	rc = sync_file(v);
	if (!metadata)
		return rc;
	if (!rc)
		rc = write_frozen(v);
	if (!rc)
		rc = sync_file(v);
	thaw(v, rc);
	if (v->dirty && !v->broken)
		ev_timer_start(v->image->io->loop, &v->later);
	return rc;
}

static void commit_main(void *arg)
{
	struct vhd *v = arg;

	while (v->kicked || !td_list_empty(&v->commits)) {
		struct td_list now;
		struct td_list *l;
		int rc;

		td_list_init(&now);
		td_list_splice(&now, &v->commits);
		v->kicked = false;
		rc = commit_once(v);
		while ((l = td_list_pop(&now)))
			td_req_done(td_entry(l, struct td_req, link), rc);
		v->failed = rc;
		v->kicked = !rc && v->dirty && v->nhot > v->hot_max / 2;
		vhd_wake(&v->room);
	}
	v->committing = false;
	vhd_wake(&v->settled);
}

void vhd_commit(struct vhd *v, struct td_req *req)
{
	if (req)
		td_list_add(&v->commits, &req->link);
	if (v->committing)
		return;
	v->committing = true;
	v->kicked = !req;
	if (td_fiber_start(v->image->io->loop, commit_main, v) == 0)
		return;
	v->committing = v->kicked = false;
	if (req) {
		td_list_del(&req->link);
		td_req_done(req, -ENOMEM);
	}
}

void vhd_commit_later(struct ev_loop *loop, ev_timer *w, int revents)
{
	vhd_commit(w->data, NULL);
}

/* --- close --- */

int vhd_put_batmap(struct vhd *v)
{
	uint8_t header[VHD_SECTOR];
	int rc;

	v->batmap.checksum = vhd_batmap_checksum(&v->batmap, v->full);
	vhd_batmap_encode(&v->batmap, header);
	rc = td_file_rw(v->file, TD_IO_WRITE, v->full, v->batmap.off,
			(uint64_t)v->batmap.sectors * VHD_SECTOR, 0);
	if (!rc)
		rc = td_file_rw(v->file, TD_IO_WRITE, header, v->l.batmap_header, sizeof header, 0);
	if (!rc)
		v->full_dirty = false;
	return rc;
}

/* V7: the footer stands before the file is cut to it, so that a cut of the power in between leaves
 * a file that is only too long. */
static int put_tail(struct vhd *v)
{
	uint64_t at = v->file->st.blockdev ? v->eof - VHD_FOOTER : v->next;
	int rc = td_file_rw(v->file, TD_IO_WRITE, v->tail, at, VHD_FOOTER, 0);

	if (!rc && !v->file->st.blockdev)
		rc = td_file_truncate(v->file, at + VHD_FOOTER);
	if (!rc) {
		v->eof = at + VHD_FOOTER;
		v->tail_lost = false;
	}
	return rc;
}

int vhd_settle(struct vhd *v)
{
	bool last = false;
	int rc = 0;

	while (v->committing)
		vhd_wait(&v->settled);
	if (v->dirty)
		rc = commit_once(v);
	if (!rc && v->has_batmap && v->full_dirty && !v->broken) {
		rc = vhd_put_batmap(v); /* V4 */
		last = true;
	}
	if (!rc && v->tail_lost && !v->broken) {
		rc = put_tail(v);
		last = true;
	}
	if (!rc && !v->broken) {
		bool any;

		rc = vhd_redo_end(v, &any);
		last = last || any;
	}
	if (!rc && last)
		rc = sync_file(v);
	ev_timer_stop(v->image->io->loop, &v->later);
	return rc;
}
