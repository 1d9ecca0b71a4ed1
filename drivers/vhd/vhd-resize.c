/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: made larger, and back.  No data is moved: a block table that is too small is
 * written anew behind the data, and the switch is one sector of the header.  So a cut at any point
 * leaves a good image, of the old size or of the new:
 *
 * RZ1 The journal is complete and durable, under its name, before the first byte of the image
 *     changes.
 * RZ2 New tables are durable before the header's first sector names them; entries that the new
 *     size brings into use are unused, durably, before the footer tells of it.  (The header's
 *     checksum is in that sector, and its second sector stays.)
 * RZ3 The journal is removed when everything is durable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"
#include "lib/zeroes.h"

/* What the old size's last block holds beyond the old end was never the guest's: zeroes, as the
 * rest of what is new. */
static int clear_tail(struct vhd_image *v, struct td_err *err)
{
	uint64_t within = v->size & (v->layout.block_size - 1), at, len;
	uint32_t block = v->layout.blocks - 1;
	int rc = 0;

	if (!within || v->bat[block] == VHD_UNUSED)
		return 0;
	at = (uint64_t)v->bat[block] * VHD_SECTOR + v->layout.bitmap_bytes + within;
	len = v->layout.block_size - within;
	for (uint64_t n; len && !rc; at += n, len -= n) {
		n = len < TD_ZEROES ? len : TD_ZEROES;
		rc = vhd_pwrite(v, td_zeroes, n, at, err);
	}
	return rc;
}

/* The entries that come into use with the new size, in the table as it is. */
static int clear_entries(struct vhd_image *v, uint32_t from, uint32_t to, struct td_err *err)
{
	uint8_t sector[VHD_SECTOR];
	int rc = 0;

	for (uint32_t i = from; i < to && !rc; i = (i / 128 + 1) * 128) {
		uint64_t at = v->layout.table_off + i / 128 * (uint64_t)VHD_SECTOR;
		uint32_t n = to - i < 128 - i % 128 ? to - i : 128 - i % 128;

		rc = vhd_pread(v, sector, sizeof sector, at, err);
		memset(sector + i % 128 * 4, 0xff, 4ull * n);
		if (!rc)
			rc = vhd_pwrite(v, sector, sizeof sector, at, err);
	}
	return rc;
}

/* RZ2: a larger table, and its batmap, behind everything. */
static int new_tables(struct vhd_image *v, uint32_t entries, struct td_err *err)
{
	uint64_t at = td_round_up(vhd_image_data_end(v), VHD_SECTOR),
		 bytes = td_round_up(4ull * entries, VHD_SECTOR), used = 4ull * v->bat_room;
	uint64_t map_bytes = td_round_up((entries + 7) / 8, VHD_SECTOR),
		 all = bytes + (v->has_batmap ? VHD_SECTOR + map_bytes : 0);
	struct vhd_batmap m = v->batmap;
	uint8_t *b, header[VHD_HEADER];
	int rc;

	if (v->blockdev && at + all + VHD_FOOTER > v->file_size)
		return td_fail(err, ENOSPC,
			       "%s: its new block table needs a device of %llu bytes, and it has "
			       "%llu: enlarge the device first",
			       v->path, (unsigned long long)(at + all + VHD_FOOTER),
			       (unsigned long long)v->file_size);
	b = malloc(all);
	if (!b)
		return td_fail(err, ENOMEM, "out of memory for the new tables");
	memset(b, 0xff, bytes);
	memset(b + bytes, 0, all - bytes);
	for (uint32_t i = 0; i < v->layout.blocks && 4ull * i < used; i++)
		td_put_be32(b + 4ull * i, v->bat[i]);
	if (v->has_batmap) {
		m.off = at + bytes + VHD_SECTOR;
		m.sectors = (uint32_t)(map_bytes / VHD_SECTOR);
		m.version = 0x00010002;
		if (v->map_good)
			for (uint32_t i = 0; i < v->layout.blocks; i++)
				if (vhd_bit(v->map, i))
					vhd_bits_set(b + bytes + VHD_SECTOR, i, i + 1);
		m.checksum = vhd_batmap_checksum(&m, b + bytes + VHD_SECTOR);
		vhd_batmap_encode(&m, b + bytes);
	}
	v->state = VHD_FOOTERS_LAST_LOST;
	rc = vhd_pwrite(v, b, all, at, err);
	free(b);
	if (!rc)
		rc = vhd_sync(v, err);
	if (rc < 0)
		return rc;
	v->header.table_off = at;
	v->header.entries = entries;
	vhd_header_encode(&v->header, header);
	rc = vhd_pwrite(v, header, VHD_SECTOR, v->footer.data_offset, err);
	v->layout.meta_end = at + all;
	return rc ? rc : vhd_sync(v, err);
}

static int grow_dynamic(struct vhd_image *v, uint64_t size, bool journal, struct td_err *err)
{
	uint64_t blocks = (size + v->layout.block_size - 1) / v->layout.block_size;
	int rc;

	if (blocks > VHD_BLOCKS_MAX)
		return td_fail(err, EFBIG, "%s: its blocks of %u bytes allow no disk of %llu bytes",
			       v->path, v->layout.block_size, (unsigned long long)size);
	if (blocks > v->layout.entries && !journal)
		return td_fail(
			err, ENOSPC,
			"%s has a block table for %llu MiB only: resize it further with a journal "
			"(-j)",
			v->path,
			(unsigned long long)((uint64_t)v->layout.entries * v->layout.block_size >>
					     20));
	/* the key's hash stands behind the block table, and moves with the batmap */
	if (blocks > v->layout.entries && v->batmap.has_key && !v->has_batmap)
		return td_fail(err, EINVAL,
			       "%s: its batmap, which the hash of its key is part of, is damaged: "
			       "copy the disk instead",
			       v->path);
	rc = clear_tail(v, err);
	if (!rc && blocks > v->layout.entries)
		rc = new_tables(v, (uint32_t)blocks, err);
	else if (!rc)
		rc = clear_entries(v, v->layout.blocks, (uint32_t)blocks, err);
	if (!rc)
		rc = vhd_sync(v, err);
	if (rc < 0)
		return rc;
	v->footer.size = size;
	v->footer.geometry = vhd_geometry(size);
	return vhd_image_put_footer(v, err);
}

/* The footer moves to the new end; then its old place becomes the guest's, and zero. */
static int grow_fixed(struct vhd_image *v, uint64_t size, struct td_err *err)
{
	uint64_t old = v->size;
	int rc = 0;

	if (v->blockdev && size + VHD_FOOTER > v->file_size)
		return td_fail(
			err, ENOSPC,
			"%s has %llu bytes, and the disk needs %llu: enlarge the device first",
			v->path, (unsigned long long)v->file_size,
			(unsigned long long)size + VHD_FOOTER);
	v->footer.size = size;
	v->footer.geometry = vhd_geometry(size);
	if (v->blockdev) {
		for (uint64_t at = old, n; at < size && !rc; at += n) {
			n = size - at < TD_ZEROES ? size - at : TD_ZEROES;
			rc = vhd_pwrite(v, td_zeroes, n, at, err);
		}
		if (!rc)
			rc = vhd_sync(v, err);
		return rc ? rc : vhd_image_put_last(v, err);
	}
	if (ftruncate(v->fd, (off_t)(size + VHD_FOOTER)) < 0)
		return td_fail(err, errno, "cannot enlarge %s: %s", v->path, strerror(errno));
	v->file_size = size + VHD_FOOTER;
	rc = vhd_image_put_last(v, err);
	if (!rc)
		rc = vhd_pwrite(v, td_zeroes, VHD_FOOTER, old, err);
	return rc ? rc : vhd_sync(v, err);
}

static int grow_image(struct vhd_image *v, uint64_t size, const char *journal, struct td_err *err)
{
	int rc = 0;

	if (size < v->size)
		return td_fail(err, EINVAL,
			       "%s has %llu MiB and cannot be made smaller (to %llu MiB): copy it "
			       "to a smaller disk instead",
			       v->path, (unsigned long long)(v->size >> 20),
			       (unsigned long long)(size >> 20));
	if (size == v->size)
		return 0;
	if (journal)
		rc = vhd_journal_make(v, journal, err);
	if (!rc)
		rc = v->footer.type == VHD_FIXED ? grow_fixed(v, size, err)
						 : grow_dynamic(v, size, journal != NULL, err);
	if (!rc && journal)
		rc = vhd_journal_remove(journal, err);
	return rc;
}

int vhd_resize(const char *path, uint64_t size, const char *journal, struct td_err *err)
{
	struct vhd_image *v;
	int rc;

	if (!size || size % VHD_SECTOR || size > VHD_SIZE_MAX)
		return td_fail(err, EINVAL,
			       "%s cannot have %llu MiB: a VHD has at least one sector and at most "
			       "2040 GiB",
			       path, (unsigned long long)(size >> 20));
	rc = vhd_image_open(path, VHD_WRITE, &v, err);
	if (rc < 0)
		return rc;
	if (v->state != VHD_FOOTERS_GOOD || v->short_block != VHD_UNUSED || v->old_footer)
		rc = td_fail(err, EINVAL,
			     "%s was not closed properly, or has a short block or footer: run "
			     "vhd-util repair -n %s first",
			     path, path);
	if (!rc)
		rc = grow_image(v, size, journal, err);
	vhd_image_close(v);
	return rc;
}
