/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image is opened: what its header and tables say is checked, and taken into memory.  And
 * closed: all that memory knows goes into the file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "drivers/cipher.h"
#include "drivers/qcow/qcow.h"
#include "drivers/qcow/qcow-check.h"
#include "lib/fiber/fiber.h"
#include "lib/settle.h"
#include "lib/sibling.h"

/* Version 1: one block of fields, and the backing file's name somewhere behind them. */
static int read_header_v1(struct qcow *q, struct td_err *err)
{
	size_t have = q->file->st.size < 4096 ? q->file->st.size : 4096;
	uint8_t *buf;
	int rc;

	if (posix_memalign((void **)&buf, 4096, 4096))
		return -ENOMEM;
	rc = td_file_rw(q->file, TD_IO_READ, buf, 0, 4096, TD_IO_EOF_ZERO);
	if (rc)
		td_fail(err, -rc, "cannot read the header of %s: %s", q->image->path,
			strerror(-rc));
	else
		rc = qcow1_header_decode(buf, have, q->image->path, &q->h, err);
	free(buf);
	if (!rc && (q->h.l1_off > q->file->st.size ||
		    (uint64_t)q->h.l1_size * 8 > q->file->st.size - q->h.l1_off))
		rc = td_fail(
			err, EINVAL,
			"%s: the L1 table (%u entries at %#llx) goes beyond the end of the file",
			q->image->path, q->h.l1_size, (unsigned long long)q->h.l1_off);
	if (!rc && q->writable && q->file->st.blockdev)
		rc = td_fail(err, EINVAL,
			     "%s: a qcow image of version 1 cannot be written on a block device, "
			     "where its end is not known",
			     q->image->path);
	return rc;
}

static int read_header(struct qcow *q, struct td_err *err)
{
	const char *name = q->image->path;
	size_t len;
	uint8_t *cluster;
	int rc;

	if (q->v1)
		return read_header_v1(q, err);
	if (q->file->st.size < QCOW_HEADER_MIN)
		return td_fail(err, EINVAL, "%s is not a qcow2 image", name);
	rc = td_file_rw(q->file, TD_IO_READ, q->first, 0, QCOW_SECTOR, TD_IO_EOF_ZERO);
	if (rc)
		return td_fail(err, -rc, "cannot read the header of %s: %s", name, strerror(-rc));
	rc = qcow_header_decode(q->first,
				q->file->st.size < QCOW_SECTOR ? q->file->st.size : QCOW_SECTOR,
				name, &q->h, err);
	if (rc)
		return rc;
	len = qcow_cluster(&q->h);
	if (posix_memalign((void **)&cluster, 4096, len))
		return -ENOMEM;
	rc = td_file_rw(q->file, TD_IO_READ, cluster, 0, len, TD_IO_EOF_ZERO);
	if (rc)
		td_fail(err, -rc, "cannot read the header of %s: %s", name, strerror(-rc));
	else
		rc = qcow_extensions_decode(
			cluster, len < q->file->st.size ? len : q->file->st.size, name, &q->h, err);
	free(cluster);
	return rc ? rc : qcow_tables_check(&q->h, q->file->st.size, name, err);
}

/* What this driver does not do, and what must not be written to. */
static int check_use(struct qcow *q, struct td_err *err)
{
	const char *name = q->image->path;

	if (q->h.size < QCOW_SECTOR)
		return td_fail(err, EINVAL, "%s is a disk of %llu bytes: resize it first", name,
			       (unsigned long long)q->h.size);
	if (q->writable && (q->h.incompat & QCOW_INCOMPAT_CORRUPT))
		return td_fail(err, EROFS,
			       "%s is marked as corrupt: it can be opened read-only; `td-qcow "
			       "check -r all' repairs it",
			       name);
	if (q->writable && (q->image->file_flags & TD_FILE_SHARED))
		return td_fail(err, EINVAL, "%s: a qcow2 image cannot be shared by writers", name);
	return 0;
}

/* Its last user has left it with counts that are out of date (lazy refcounts): they are counted
 * anew. */
static int repair_dirty(struct qcow *q, struct td_err *err)
{
	struct qcow_check c = {.fix_errors = true};
	uint64_t size;
	int rc;

	if (!q->writable || !(q->h.incompat & QCOW_INCOMPAT_DIRTY))
		return 0;
	td_log(LOG_NOTICE, "%s was not closed after its last use: its refcounts are being rebuilt",
	       q->image->path);
	rc = qcow_check(q->file, &q->h, &c, err);
	if (rc)
		return rc;
	if (c.corruptions)
		return td_fail(err, EUCLEAN,
			       "%s was not closed after its last use, and %llu errors in it cannot "
			       "be repaired: see `td-qcow check'; "
			       "it can be opened read-only",
			       q->image->path, (unsigned long long)c.corruptions);
	rc = td_file_size(q->file, &size);
	return rc ? rc : read_header(q, err);
}

/*
 * The data file is written: of a disk it is the one that the host names, whatever the image says,
 * which may come from a stranger and name another's disk.  That of a parent is read, as a parent
 * is.
 */
static int name_data(struct qcow *q, char *path, struct td_err *err)
{
	const struct td_reach *reach = q->image->reach;

	if (!reach || !q->io->ops->open_in || q->image->file_flags & TD_FILE_PARENT)
		return td_sibling(q->image->path, q->h.data_file, "data file", reach, path, err);
	if (!reach->data)
		return td_fail(err, EACCES,
			       "%s has an external data file, '%.1023s', and none is opened on an "
			       "image's word: name it yourself, with "
			       "-o data-file=PATH",
			       q->image->path, q->h.data_file);
	snprintf(path, TD_PATH_MAX, "%s", reach->data);
	return 0;
}

static int open_data(struct qcow *q, struct td_err *err)
{
	const struct td_reach *reach = q->image->reach;
	char path[TD_PATH_MAX];
	int rc;

	if (q->data)
		return 0; /* opened to apply the log */
	q->external = q->h.incompat & QCOW_INCOMPAT_DATA;
	if (!q->external) {
		q->data = q->file;
		return 0;
	}
	if (!q->h.data_file[0])
		return td_fail(err, EINVAL, "%s has an external data file, but does not name it",
			       q->image->path);
	rc = name_data(q, path, err);
	if (!rc)
		rc = td_file_open_in(q->io, path, q->image->file_flags,
				     q->image->file_flags & TD_FILE_PARENT ? reach : NULL, &q->data,
				     err);
	if (!rc)
		rc = td_settle(q->image, q->data, err);
	q->writable = q->writable && !td_lost(q->image);
	return rc;
}

static int apply_log(struct qcow *q, struct td_redo *r, struct td_err *err)
{
	int rc = open_data(q, err);

	if (!rc && q->external && !td_lost(q->image) && (rc = qcow_sync(q->data)))
		td_fail(err, -rc, "cannot make %s durable: %s", q->data->path, strerror(-rc));
	return rc ? rc : td_redo_apply(r, q->file, q->image, err);
}

/* What a dead process knew: the data before it, wherever they are (E3).  The header has been read.
 */
static int apply_redo(struct qcow *q, struct td_err *err)
{
	struct td_redo *own = q->image->redo, *r;
	int rc = td_redo_look(own, q->file, q->v1 ? 0 : QCOW_MARK(q->h.autoclear), &r, err);

	if (!rc && r) {
		rc = apply_log(q, r, err);
		td_redo_leave(own, r);
		if (!rc)
			rc = read_header(q, err);
	}
	q->writable = q->writable && !td_lost(q->image);
	return rc;
}

/* What an entry of the L1 or refcount table names is there to its last byte; version 1 knows L2
 * tables of less than a cluster. */
static uint64_t table_bytes(const struct qcow *q)
{
	return q->v1 ? (uint64_t)q->l2_entries * q->esize : qcow_csize(q);
}

/* One offset of the L1 or refcount table; it names a cluster of metadata that no other names. */
static int check_entry(struct qcow *q, const char *what, uint32_t i, uint64_t e, uint64_t reserved,
		       struct td_err *err)
{
	uint64_t off = e & ~(reserved | QCOW_COPIED);
	const char *why = NULL;
	int rc = 0;

	if ((e & reserved) || (off & (qcow_csize(q) - 1)))
		why = "which is not a cluster's";
	else if (off && (off >= q->file->st.size || table_bytes(q) > q->file->st.size - off))
		why = "beyond the end of the file: it was cut off";
	else if (off && (qcow_is_meta(q, off) || (rc = qcow_meta_add(q, off)) == -EEXIST))
		why = "where other metadata is";
	if (why)
		return td_fail(err, EUCLEAN, "%s is corrupt: entry %u of its %s table is %#llx, %s",
			       q->image->path, i, what, (unsigned long long)e, why);
	return rc;
}

static int load_table(struct qcow *q, struct qcow_table *t, const char *what, uint64_t off,
		      uint32_t n, uint64_t reserved, struct td_err *err)
{
	uint64_t bytes = (uint64_t)n * 8;
	uint8_t *buf = NULL;
	int rc = qcow_table_init(t, n, off);

	if (rc || !n)
		return rc;
	if (posix_memalign((void **)&buf, 4096, bytes))
		return -ENOMEM;
	rc = td_file_rw(q->file, TD_IO_READ, buf, off, bytes, TD_IO_EOF_ZERO);
	if (rc)
		td_fail(err, -rc, "cannot read the %s table of %s: %s", what, q->image->path,
			strerror(-rc));
	for (uint32_t i = 0; !rc && i < n; i++) {
		t->entry[i] = td_get_be64(buf + 8 * (size_t)i);
		if (t->entry[i])
			rc = check_entry(q, what, i, t->entry[i], reserved, err);
	}
	free(buf);
	return rc;
}

static int load_tables(struct qcow *q, struct td_err *err)
{
	int rc;

	/* both are placed before the entries of either are looked at: they may point to each other
	 */
	q->l1 = (struct qcow_table){.off = q->h.l1_off, .n = q->h.l1_size};
	q->ref = (struct qcow_table){.off = q->h.ref_off,
				     .n = (uint32_t)((uint64_t)q->h.ref_clusters << q->cbits >> 3)};
	rc = load_table(q, &q->l1, "L1", q->l1.off, q->l1.n,
			q->v1 ? QCOW1_ZIPPED : QCOW_L1_RESERVED, err);
	if (!rc && q->writable && !q->v1)
		rc = load_table(q, &q->ref, "refcount", q->ref.off, q->ref.n, QCOW_REF_RESERVED,
				err);
	else
		q->ref.n = 0;
	return rc;
}

/* Those features whose data we do not keep up to date are not to be believed from now on; and the
 * image gets its mark (G1 of lib/redo.h). */
static int set_autoclear(struct qcow *q, struct td_err *err)
{
	uint64_t keep = q->h.autoclear &
			(QCOW_AUTOCLEAR_RAW | (q->h.nbitmaps ? QCOW_AUTOCLEAR_BITMAPS : 0)),
		 was = q->h.autoclear;
	uint32_t mark = td_redo_takes(q->image->redo) && q->h.version == 3 ? td_redo_mark() : 0;
	int rc = 0;

	keep |= (uint64_t)mark << 32;
	if (q->h.version == 3 && keep != was) {
		q->h.autoclear = keep;
		td_put_be64(q->first + QCOW_H_AUTOCLEAR, keep);
		rc = qcow_header_write(q);
	}
	if (!mark || rc)
		td_redo_decline(q->image->redo); /* G4 */
	else
		td_redo_begin(q->image->redo, q->file, mark, QCOW_H_AUTOCLEAR, 0);
	/* it has no need to be written */
	if (mark && (rc == -ENOSPC || rc == -EDQUOT) && !((was ^ keep) & UINT32_MAX)) {
		q->h.autoclear = was;
		td_put_be64(q->first + QCOW_H_AUTOCLEAR, was);
		rc = 0;
	}
	return rc ? td_fail(err, -rc, "cannot write the header of %s: %s", q->image->path,
			    strerror(-rc))
		  : 0;
}

static void init(struct qcow *q, struct td_image *image)
{
	q->image = image;
	q->io = image->io;
	q->v1 = !strcmp(image->driver->name, "qcow");
	q->writable = !(image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT));
	td_lock_init(&q->alloc_lock);
	td_lock_init(&q->l1_lock);
	td_lock_init(&q->wb_lock);
	td_lock_init(&q->header_lock);
	td_lock_init(&q->zip_lock);
	td_list_init(&q->slow);
	td_list_init(&q->ranges);
	td_cond_init(&q->range_free);
	td_cond_init(&q->work);
	td_cond_init(&q->idle);
	td_cond_init(&q->drained);
}

static void geometry(struct qcow *q)
{
	q->cbits = q->h.cluster_bits;
	q->ext = qcow_extl2(&q->h);
	q->ubits = q->ext ? q->cbits - 5 : q->cbits;
	q->esize = q->ext ? 16 : 8;
	q->l2_bits = qcow_l2_bits(&q->h);
	q->l2_entries = 1u << (q->l2_bits - q->cbits);
	q->page_entries =
		(qcow_csize(q) < QCOW_PAGE ? (uint32_t)qcow_csize(q) : QCOW_PAGE) / q->esize;
	if (q->page_entries > q->l2_entries)
		q->page_entries = q->l2_entries;
}

static void fill_info(struct td_image *image, const struct qcow *q)
{
	image->info.size = q->h.size / QCOW_SECTOR * QCOW_SECTOR;
	image->info.physical = q->data->st.physical;
	image->info.decrypts = q->crypt;
	image->info.discard = q->writable && !q->v1;
	image->info.discard_gran = (uint32_t)qcow_csize(q);
}

static void release(struct qcow *q)
{
	while (q->ops) {
		struct qcow_op *op = q->ops;

		q->ops = op->next;
		free(op->iov);
		free(op);
	}
	qcow_bitmaps_free(q);
	qcow_pages_fini(q);
	qcow_table_fini(&q->l1);
	qcow_table_fini(&q->ref);
	free(q->freed.at);
	free(q->ready.at);
	free(q->first);
	free(q->zip);
	td_cipher_free(q->crypt);
	if (q->data != q->file)
		td_file_close(q->data);
	td_file_close(q->file);
}

/* The file, with what a dead process has left of it; then release(), also after a failure. */
static int open_settled(struct qcow *q, struct td_image *image, struct td_err *err)
{
	int rc;

	init(q, image);
	rc = td_image_file(image, image->file_flags, &q->file, err);
	if (rc)
		return rc;
	if (posix_memalign((void **)&q->first, 4096, 4096)) {
		q->first = NULL;
		return -ENOMEM;
	}
	rc = td_settle(image, q->file, err);
	if (!rc)
		rc = read_header(q, err);
	return rc ? rc : apply_redo(q, err);
}

int qcow_open(struct td_image *image, struct td_err *err)
{
	struct qcow *q = image->priv;
	int rc = open_settled(q, image, err);

	if (rc)
		goto fail;
	geometry(q);
	rc = check_use(q, err);
	if (!rc)
		rc = qcow_crypt_open(q, err); /* before anything is written */
	if (!rc)
		rc = repair_dirty(q, err);
	q->lazy = q->h.compat & QCOW_COMPAT_LAZY;
	if (!rc)
		rc = open_data(q, err);
	if (!rc)
		rc = qcow_pages_init(q);
	if (!rc)
		rc = load_tables(q, err);
	if (!rc)
		rc = qcow_find_end(q);
	if (!rc && q->writable)
		rc = qcow_mind_end(q, err);
	if (!rc && q->writable)
		rc = set_autoclear(q, err);
	if (!rc && (rc = qcow_bitmaps_open(q)))
		td_fail(err, -rc,
			"cannot mark the dirty bitmaps of %s as in use: %s; `qemu-img bitmap "
			"--remove' removes them",
			image->path, strerror(-rc));
	if (rc)
		goto fail;
	fill_info(image, q);
	return 0;
fail:
	release(q);
	return rc;
}

int qcow_settle(struct td_image *image, struct td_err *err)
{
	struct qcow *q = image->priv;
	int rc = open_settled(q, image, err);

	release(q);
	return rc;
}

void qcow_close(struct td_image *image)
{
	struct qcow *q = image->priv;

	q->closing = true;
	td_cond_wake(&q->work);
	q->lazy = false; /* from here on all is written */
	qcow_bitmaps_close(q);
	do {
		while (q->nfibers || q->reaping)
			td_cond_wait(&q->idle);
		if (!qcow_clean(q) || q->freed.n)
			qcow_flush(q);
	} while (!q->broken && !q->wb_err && (!qcow_clean(q) || q->freed.n || q->reaping));
	if (!qcow_clean(q))
		td_log(LOG_ERR,
		       "%s: its last changes could not be written: check the disk's contents",
		       image->path);
	while (q->reaping)
		td_cond_wait(&q->idle);
	qcow_unmark(q);
	qcow_trim_end(q);
	release(q);
}
