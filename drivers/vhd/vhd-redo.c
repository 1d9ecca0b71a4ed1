/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of changes and the image that it is of (G1-G3 of lib/redo.h).  The mark stands in the
 * header's field `reserved', in the same sector as the header's checksum, which others keep as they
 * find it; the sum is of the block table.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "lib/redo.h"
#include "lib/settle.h"

uint64_t vhd_entry_sum(uint32_t block, uint32_t entry)
{
	/* no entry but an unused one counts as nought */
	uint64_t x = ((uint64_t)block << 32 | entry) + 1;

	if (entry == VHD_UNUSED)
		return 0;
	x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	return x ^ x >> 32;
}

static uint64_t table_sum(const struct vhd *v)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < v->l.blocks; i++)
		sum ^= vhd_entry_sum(i, v->bat[i]);
	return sum;
}

/* What the table is with the log: -ESTALE when that is not what the dead process had. */
static int check_sum(struct vhd *v, const struct td_redo *r, struct td_err *err)
{
	uint64_t bytes = td_round_up(4ull * v->l.blocks, VHD_SECTOR), had, sum = 0;
	uint8_t *table;
	int rc;

	if (!td_redo_sum(r, &had))
		return 0;
	table = aligned_alloc(4096, td_round_up(bytes, 4096));
	if (!table)
		return td_fail(err, ENOMEM, "%s: out of memory for its block table",
			       v->image->path);
	rc = td_redo_read(r, v->file, table, v->l.table_off, (uint32_t)bytes);
	if (rc < 0)
		td_fail(err, -rc, "cannot read the block table of %s: %s", v->image->path,
			strerror(-rc));
	for (uint32_t i = 0; i < v->l.blocks; i++)
		sum ^= vhd_entry_sum(i, td_get_be32(table + 4ull * i));
	free(table);
	return rc < 0 ? rc : sum == had ? 0 : td_redo_stale(r, v->file, err);
}

int vhd_redo_apply(struct vhd *v, struct td_err *err)
{
	struct td_redo *own = v->image->redo, *r;
	int rc = td_redo_look(own, v->file, v->fixed ? 0 : v->header.reserved, &r, err);

	if (!rc && r)
		rc = check_sum(v, r, err);
	if (!rc && r)
		rc = td_redo_apply(r, v->file, v->image, err);
	td_redo_leave(own, r);
	v->writable = v->writable && !td_lost(v->image);
	return rc;
}

/* The parent's names in the file may be others by now: a tool of another host may have written
 * them.  Only the mark is ours. */
static int put_mark(struct vhd *v, uint32_t mark)
{
	uint8_t b[VHD_HEADER];
	uint32_t was = v->header.reserved;
	struct vhd_header now;
	int rc;

	if (mark == was)
		return 0;
	rc = td_file_rw(v->file, TD_IO_READ, b, v->footer.data_offset, sizeof b, 0);
	if (!rc && vhd_header_decode(b, &now, v->image->path, NULL) == 0)
		v->header = now;
	v->header.reserved = mark;
	vhd_header_encode(&v->header, b);
	if (!rc)
		rc = td_file_rw(v->file, TD_IO_WRITE, b, v->footer.data_offset, VHD_SECTOR, 0);
	if (rc < 0)
		v->header.reserved = was;
	return rc;
}

int vhd_redo_begin(struct vhd *v, struct td_err *err)
{
	uint32_t mark = td_redo_takes(v->image->redo) ? td_redo_mark() : 0;
	int rc = put_mark(v, mark);

	if (rc == -ENOSPC || rc == -EDQUOT) {
		td_redo_decline(v->image->redo); /* G4 */
		return 0;
	}
	if (rc < 0)
		return td_fail(err, -rc, "cannot write the header of %s: %s", v->image->path,
			       strerror(-rc));
	v->sum = table_sum(v);
	if (mark)
		td_redo_begin(v->image->redo, v->file, mark, v->footer.data_offset + VHD_H_RESERVED,
			      v->sum);
	return 0;
}

/* Durable with the next sync: true when there is something to sync. */
int vhd_redo_end(struct vhd *v, bool *any)
{
	*any = v->header.reserved != 0;
	return put_mark(v, 0);
}
