/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another backing file for an image that is being written.
 *
 * QR1 The header's first sector changes as a whole (Q5), and names the new backing file by its
 *     place, its length and its format.  The name stands at that place, durably, before the sector
 *     says so; the place is one that the old name does not touch.  So at each moment the header
 *     names the one or the other.
 * QR2 Only these fields change, in the sector as the file has it: others write into the header of
 *     an image in use (a storage manager marks it as hidden), whose bytes stay.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow/qcow.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"

/* Where things are in the first cluster, as the file has it. */
struct places {
	struct qcow_extensions_at at;
	uint64_t old, old_len; /* the name */
	uint64_t cluster;
};

static const char *format_of(const struct td_relink *to)
{
	if (!to->type || to->raw || !strcmp(to->type, "aio"))
		return "raw";
	return !strcmp(to->type, "vhd") ? "vpc" : to->type;
}

static bool touches(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* A place for the new name: behind the extensions, or behind the old one. */
static uint64_t find_place(const struct places *p, uint64_t len)
{
	uint64_t first = p->at.end, second = td_round_up(p->old + p->old_len, 8);

	if (!touches(first, len, p->old, p->old_len) && first + len <= p->cluster)
		return first;
	return second >= first && second + len <= p->cluster ? second : 0;
}

static int fail(const struct qcow *q, int rc, const char *why, struct td_err *err)
{
	return td_fail(err, -rc, "cannot name another backing file in %s: %s", q->image->path, why);
}

/* The format in the sector; false: it has no room for that. */
static bool put_format(uint8_t *sector, const struct places *p, const char *format)
{
	uint64_t at = p->at.format, len = p->at.format_len, room = td_round_up(len, 8);
	size_t n = strlen(format);

	if (at && len == n && at + n <= QCOW_SECTOR && !memcmp(sector + at, format, n))
		return true;
	if (!at || at + room > QCOW_SECTOR || td_round_up(n, 8) != room)
		return false;
	memset(sector + at, 0, room);
	memcpy(sector + at, format, n);
	td_put_be32(sector + at - 4, (uint32_t)n);
	return true;
}

/* Reads the first cluster, and finds out where all is. */
static int look(struct qcow *q, uint8_t *cluster, struct places *p, struct td_err *err)
{
	struct qcow_header h;
	int rc = td_file_rw(q->file, TD_IO_READ, cluster, 0, p->cluster, TD_IO_EOF_ZERO);

	if (rc)
		return fail(q, rc, strerror(-rc), err);
	rc = qcow_header_decode(cluster, QCOW_SECTOR, q->image->path, &h, err);
	if (!rc)
		rc = qcow_extensions_find(cluster, p->cluster, &h, &p->at);
	if (rc)
		return fail(q, rc, "the end of its header's extensions is not marked", err);
	p->old = h.backing_off;
	p->old_len = h.backing_len;
	return 0;
}

/* The sector as it is to be. */
static int plan(struct qcow *q, const struct td_relink *to, uint8_t *cluster, struct places *p,
		uint64_t *place, struct td_err *err)
{
	size_t len = strlen(to->path);
	int rc = look(q, cluster, p, err);

	if (rc)
		return rc;
	*place = len <= QCOW_NAME_MAX ? find_place(p, len) : 0;
	if (!*place)
		return fail(q, -ENAMETOOLONG, "the name does not fit into the header's cluster",
			    err);
	if (!put_format(cluster, p, format_of(to)))
		return fail(q, -ENOSPC, "its header has no room for that one's format", err);
	td_put_be64(cluster + QCOW_H_BACKING_OFF, *place);
	td_put_be32(cluster + QCOW_H_BACKING_LEN, (uint32_t)len);
	return 0;
}

/* What memory has of the sector may be further than the file: whoever has changed it, and waits for
 * the lock, writes it next. */
static void remember(struct qcow *q, const struct td_relink *to, const uint8_t *sector,
		     const struct places *p)
{
	uint64_t at = p->at.format - 4, len = 4 + td_round_up(p->at.format_len, 8);

	q->h.backing_off = td_get_be64(sector + QCOW_H_BACKING_OFF);
	q->h.backing_len = td_get_be32(sector + QCOW_H_BACKING_LEN);
	td_put_be64(q->first + QCOW_H_BACKING_OFF, q->h.backing_off);
	td_put_be32(q->first + QCOW_H_BACKING_LEN, q->h.backing_len);
	if (at + len <= QCOW_SECTOR) /* or it has stayed as it was: put_format() */
		memcpy(q->first + at, sector + at, len);
	strcpy(q->h.backing, to->path);
	strcpy(q->h.backing_format, format_of(to));
}

/* With cache=unsafe, too (LC3 of tapdisk/commit.h). */
static int sync_name(struct qcow *q)
{
	struct td_iop op = {.op = TD_IO_SYNC, .file = q->file, .flags = TD_IO_SURE};
	int rc = td_await_file(q->io, &op);

	if (rc)
		qcow_sync_failed(q, rc);
	return q->broken;
}

static int write_names(struct qcow *q, const struct td_relink *to, uint8_t *cluster,
		       struct td_err *err)
{
	struct places p = {.cluster = qcow_csize(q)};
	uint64_t place;
	bool begun = false;
	int rc = plan(q, to, cluster, &p, &place, err);

	if (rc || to->trial)
		return rc;
	rc = td_file_rw(q->file, TD_IO_WRITE, (void *)(uintptr_t)to->path, place, strlen(to->path),
			0);
	if (!rc)
		rc = sync_name(q);
	if (!rc) {
		begun = true;
		rc = td_file_rw(q->file, TD_IO_WRITE, cluster, 0, QCOW_SECTOR, 0);
	}
	if (!rc)
		rc = sync_name(q);
	if (rc && begun && to->doubt)
		*to->doubt = true;
	if (rc && begun)
		return td_fail(
			err, -rc,
			"cannot name another backing file durably in %s: %s; " TD_RELINK_DOUBT,
			q->image->path, strerror(-rc));
	if (rc)
		return fail(q, rc, strerror(-rc), err);
	remember(q, to, cluster, &p);
	return 0;
}

int qcow_relink(struct td_image *image, const struct td_relink *to, struct td_err *err)
{
	struct qcow *q = image->priv;
	uint8_t *cluster;
	int rc;

	if (q->v1 || !q->writable || q->broken || !q->h.backing[0] || !to->path)
		return td_fail(err, EINVAL,
			       "%s is not a qcow2 with a backing file that can be written",
			       image->path);
	if (posix_memalign((void **)&cluster, 4096, qcow_csize(q)))
		return td_fail(err, ENOMEM, "out of memory for the header of %s", image->path);
	td_lock(&q->header_lock);
	rc = write_names(q, to, cluster, err);
	td_unlock(&q->header_lock);
	free(cluster);
	return rc;
}
