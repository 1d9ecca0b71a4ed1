/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tables claim, held against the file's end, once, when the image is opened (V9 of
 * vhd-alloc.c).  A file that was cut off, in a transfer say, may still hold the last block's bitmap
 * and a part of its data: what a bit stands for beyond the end is lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd.h"
#include "lib/fiber/fiber.h"

static int read_bits(struct vhd *v, uint32_t block, uint8_t **out, struct td_err *err)
{
	uint8_t *bits = aligned_alloc(4096, (v->l.bitmap_bytes + 4095) / 4096 * 4096);
	int rc = 0;

	if (!bits)
		return td_fail(err, ENOMEM, "%s: out of memory for a bitmap", v->image->path);
	if (vhd_is_full(v, block))
		memset(bits, 0xff, v->l.bitmap_bytes);
	else
		rc = td_file_rw(v->file, TD_IO_READ, bits, (uint64_t)v->bat[block] * VHD_SECTOR,
				v->l.bitmap_bytes, 0);
	if (rc < 0) {
		free(bits);
		return td_fail(err, -rc, "cannot read the bitmap of block %u of %s: %s", block,
			       v->image->path, strerror(-rc));
	}
	*out = bits;
	return 0;
}

/*
 * Nothing of it is lost: it gets its whole length, so that the guest's bytes never are the file's
 * last, nor lie where the footer is (V7), which is written again at close.
 */
static int make_whole(struct vhd *v, uint32_t block, struct td_err *err)
{
	uint64_t end = (uint64_t)v->bat[block] * VHD_SECTOR + v->l.bitmap_bytes + v->l.block_size,
		 old = v->eof;
	struct td_iop sync = {.op = TD_IO_SYNC, .file = v->file};
	int rc;

	if (v->file->st.blockdev)
		return td_fail(err, ENOSPC,
			       "%s has %llu bytes, and its block %u needs %llu: enlarge the "
			       "device, or open it read-only",
			       v->image->path, (unsigned long long)v->eof, block,
			       (unsigned long long)end + VHD_FOOTER);
	td_log(LOG_NOTICE,
	       "%s: its last block, %u, is short; nothing of it is lost, and it gets its whole "
	       "length",
	       v->image->path, block);
	rc = td_file_truncate(v->file, end + VHD_FOOTER);
	if (!rc) {
		v->eof = end + VHD_FOOTER;
		v->tail_lost = true;
		/* others read past the bitmap: a footer is not to be seen there */
		if (old > v->limit)
			rc = vhd_zero(v, TD_IO_ZERO, v->limit, old - v->limit);
	}
	if (!rc)
		rc = td_await_file(v->image->io, &sync);
	return rc < 0 ? td_fail(err, -rc, "cannot make %s %llu bytes long: %s", v->image->path,
				(unsigned long long)end + VHD_FOOTER, strerror(-rc))
		      : 0;
}

int vhd_mind_end(struct vhd *v, struct td_err *err)
{
	uint32_t block = vhd_short_block(&v->l, v->bat, v->limit), n;
	struct td_err what = {0};
	uint8_t *bits = NULL;
	int rc;

	if (block == VHD_UNUSED)
		return 0;
	rc = read_bits(v, block, &bits, err);
	if (rc < 0)
		return rc;
	n = vhd_lost(&v->l, block, v->bat[block], v->limit, bits, &v->lost_from);
	free(bits);
	if (!n)
		return v->writable ? make_whole(v, block, err) : 0;
	if (v->writable)
		return vhd_lost_text(&v->l, block, n, v->lost_from, v->limit, v->image->path, err);
	vhd_lost_text(&v->l, block, n, v->lost_from, v->limit, v->image->path, &what);
	td_log(LOG_ERR, "%s", what.text);
	v->lost_block = block;
	return 0;
}
