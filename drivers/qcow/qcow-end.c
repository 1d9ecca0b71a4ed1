/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image that is to be written: what its tables claim, held against the file's end (Q10 of
 * qcow-flush.c).  A look at the last block of counts tells whether anything that is counted lies
 * beyond the end.  That may be a leak, which a power cut leaves, or the rest of a last cluster that
 * was never needed; so then all references are looked through, once.  Version 1 has no counts:
 * there each entry is looked at, at each opening.
 */
#include <errno.h>

#include "drivers/qcow/qcow-check.h"
#include "drivers/qcow/qcow.h"

static int cut_off(const struct qcow *q, const char *path, uint64_t size, uint64_t n,
		   const char *what, struct td_err *err)
{
	return td_fail(err, EUCLEAN,
		       "%s was cut off at byte %llu: %llu %s of %s lie beyond, and are lost. Fetch "
		       "it again from where it came; to save "
		       "the rest, open it read-only, which gives an error for what is lost "
		       "(td-qcow check names it)",
		       path, (unsigned long long)size, (unsigned long long)n, what, q->image->path);
}

static int mind_file(struct qcow *q, struct td_err *err)
{
	struct qcow_check c = {.say = NULL};
	uint64_t end;
	int rc = qcow_last_counted(q, &end);

	if (rc < 0)
		return td_fail(err, -rc, "cannot read the refcounts of %s", q->image->path);
	if (end << q->cbits <= q->file->st.size)
		return 0;
	rc = qcow_check(q->file, &q->h, &c, err);
	if (!rc && c.lost)
		return cut_off(q, q->file->path, q->file->st.size, c.lost, "tables or clusters",
			       err);
	/* so that the next one need not look, the last cluster becomes whole */
	if (!rc && !q->file->st.blockdev && !qcow_set_length(q->file, q->end << q->cbits))
		q->length = q->old = q->end << q->cbits;
	return rc;
}

/* Bytes of a run that lie beyond the end of the file that it is in. */
static uint64_t beyond(const struct qcow *q, const struct qcow_run *run, uint64_t end)
{
	uint64_t off, len;

	if (run->kind == QCOW_RUN_ZIP) {
		qcow_zip_place(q, run->entry, &off, &len);
		return off > end || len > end - off ? run->len : 0;
	}
	if (run->kind != QCOW_RUN_DATA || run->host + run->len <= end)
		return 0;
	return run->host >= end ? run->len : run->host + run->len - end;
}

/* All that is mapped from byte `at' of the disk on, where no counts tell. */
static int mind_mapped(struct qcow *q, const struct td_file *f, uint64_t at, struct td_err *err)
{
	uint64_t n = 0, size = q->h.size / QCOW_SECTOR * QCOW_SECTOR;
	struct qcow_run run;
	int rc = 0;

	for (; at < size && !rc; at += run.len) {
		rc = qcow_map_wait(q, at, size - at, &run);
		if (!rc)
			n += beyond(q, &run, f->st.size);
	}
	if (rc < 0)
		return td_fail(err, -rc, "cannot read the tables of %s", q->image->path);
	return n ? cut_off(q, f->path, f->st.size, n, "bytes of the disk", err) : 0;
}

int qcow_mind_end(struct qcow *q, struct td_err *err)
{
	int rc = 0;

	if (q->v1)
		return mind_mapped(q, q->file, 0, err); /* it has no counts */
	rc = mind_file(q, err);
	if (rc || !q->external)
		return rc;
	/* a cluster's place in an external data file is its place on the disk */
	return mind_mapped(q, q->data, q->data->st.size / QCOW_SECTOR * QCOW_SECTOR, err);
}
