/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image that is to be written: what its tables claim, held against the file's end (Q10 of qcow-flush.c).  A look at the last block of
 * counts tells whether anything that is counted lies beyond the end.  That may be a leak, which a power cut leaves, or the rest of a last
 * cluster that was never needed; so then all references are looked through, once.
 */
#include <errno.h>

#include "drivers/qcow-check.h"
#include "drivers/qcow.h"

static int cut_off(const struct qcow *q, const char *path, uint64_t size, uint64_t n, const char *what, struct td_err *err)
{
	return td_fail(err, EUCLEAN,
		       "%s was cut off at byte %llu: %llu %s of %s lie beyond, and are lost. Fetch it again from where it came; to save "
		       "the rest, open it read-only, which gives an error for what is lost (td-qcow check names it)",
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
		return cut_off(q, q->file->path, q->file->st.size, c.lost, "tables or clusters", err);
	/* so that the next one need not look, the last cluster becomes whole */
	if (!rc && !q->file->st.blockdev && !qcow_set_length(q->file, q->end << q->cbits))
		q->length = q->old = q->end << q->cbits;
	return rc;
}

/* An external data file: a cluster's place there is its place on the disk. */
static int mind_data(struct qcow *q, struct td_err *err)
{
	struct qcow_run run;
	uint64_t n = 0;
	int rc = 0;

	for (uint64_t at = q->data->st.size / QCOW_SECTOR * QCOW_SECTOR, size = q->h.size / QCOW_SECTOR * QCOW_SECTOR; at < size && !rc; at += run.len) {
		rc = qcow_map_wait(q, at, size - at, &run);
		if (!rc && run.kind == QCOW_RUN_DATA)
			n += run.len;
	}
	if (rc < 0)
		return td_fail(err, -rc, "cannot read the tables of %s", q->image->path);
	return n ? cut_off(q, q->data->path, q->data->st.size, n, "bytes of the disk", err) : 0;
}

int qcow_mind_end(struct qcow *q, struct td_err *err)
{
	int rc = mind_file(q, err);

	return rc || !q->external ? rc : mind_data(q, err);
}
