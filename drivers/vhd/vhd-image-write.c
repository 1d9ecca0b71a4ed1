/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: written.  Whatever the power does, the file opens, and a sector reads what it read
 * before or what was written to it:
 *
 * W1 A BAT entry is written when the block's bitmap and data are durable, and points where no
 *    entry and no metadata points.
 * W2 A bit of a bitmap is set when the sector's data is durable.
 * W3 A bit of the batmap is set when the block's bitmap is durable, and cleared, durably, before a
 *    bit of that bitmap is.
 * W4 A sector of a new block that was not written holds zeroes: QEMU and others read past the
 *    bitmap.
 * W5 The copy of the footer at 0 is written in one piece of 512 bytes and valid at all times; the
 *    one at the end is the first to be overwritten by a new block, and the last to be written
 *    again.
 * W6 The last 512 bytes of a file are never a guest's, who could write a footer there: a file
 *    grows by a block and those.
 * W7 What bits stand for beyond the file's end is lost: such an image is neither written nor
 *    copied (VHD_HOW of vhd_image_open), and reading it is an error. A short block of which
 *    nothing is lost gets its whole length, and zeroes where the footer was, before anything is
 *    written to it, or a footer behind it.
 * W8 Data go beneath an image only where no other child stands (vhd-beneath.c): whoever reads what
 *    is written there reads it through the image that it comes from, which hides it.
 */
#include "drivers/vhd/vhd-image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/zeroes.h"

#define PENDINGS 64 /* blocks whose bitmap or BAT entry waits for its data */

struct vhd_pending {
	uint32_t block, entry;
	bool fresh;      /* entry is not in the BAT yet */
	uint8_t *bitmap; /* as it will be */
};

static int write_zeroes(struct vhd_image *v, uint64_t off, uint64_t len, struct td_err *err)
{
	int rc = 0;

	for (uint64_t n; len && !rc; off += n, len -= n) {
		n = len < TD_ZEROES ? len : TD_ZEROES;
		rc = vhd_pwrite(v, td_zeroes, n, off, err);
	}
	return rc;
}

static int grow_file(struct vhd_image *v, uint64_t size, struct td_err *err)
{
	if (v->blockdev || size <= v->file_size)
		return 0;
	if (ftruncate(v->fd, (off_t)size) < 0)
		return td_fail(err, errno, "cannot make %s %llu bytes long: %s", v->path,
			       (unsigned long long)size, strerror(errno));
	v->file_size = size;
	return 0;
}

int vhd_image_put_bat(struct vhd_image *v, uint32_t from, uint32_t to, struct td_err *err)
{
	int rc = 0;

	for (uint32_t s = from / 128; s * 128 < to && !rc; s++) {
		uint8_t sector[VHD_SECTOR];

		for (uint32_t i = 0; i < 128; i++)
			td_put_be32(sector + 4 * i, v->bat[s * 128 + i]);
		rc = vhd_pwrite(v, sector, sizeof sector,
				v->layout.table_off + (uint64_t)s * VHD_SECTOR, err);
	}
	return rc;
}

/* --- blocks --- */

/* Where the next block goes: behind everything, its data on a multiple of 4096 bytes. */
static int place(struct vhd_image *v, uint32_t *entry, struct td_err *err)
{
	uint64_t end, span = v->layout.bitmap_bytes + v->layout.block_size, at;

	if (!v->next)
		v->next = vhd_image_data_end(v);
	end = v->next;
	at = td_round_up(end + v->layout.bitmap_bytes, 4096) - v->layout.bitmap_bytes;
	/* the gap is a courtesy, the space is needed */
	if (v->blockdev && at + span + VHD_FOOTER > v->file_size)
		at = end;
	if (v->blockdev && at + span + VHD_FOOTER > v->file_size)
		return td_fail(
			err, ENOSPC,
			"%s is full: another block needs a device of %llu bytes, and it has %llu",
			v->path, (unsigned long long)(at + span + VHD_FOOTER),
			(unsigned long long)v->file_size);
	if (at / VHD_SECTOR >= VHD_UNUSED)
		return td_fail(err, EFBIG, "%s is full: a VHD file has at most 2 TiB", v->path);
	*entry = (uint32_t)(at / VHD_SECTOR);
	v->next = at + span;
	return 0;
}

/* W4: what lies there, from an earlier life of the file or the device, is overwritten; whole: the
 * caller writes it all itself. */
static int clean(struct vhd_image *v, uint32_t entry, bool whole, struct td_err *err)
{
	uint64_t from = (uint64_t)entry * VHD_SECTOR + v->layout.bitmap_bytes,
		 to = from + v->layout.block_size;
	uint64_t old = v->file_size < to ? v->file_size : to;
	int rc = whole || old <= from ? 0 : write_zeroes(v, from, old - from, err);

	return rc ? rc : grow_file(v, to + VHD_FOOTER, err);
}

int vhd_image_whole(struct vhd_image *v, struct td_err *err)
{
	uint64_t end, old = v->file_size;
	int rc;

	if (v->short_block == VHD_UNUSED)
		return 0;
	end = (uint64_t)v->bat[v->short_block] * VHD_SECTOR + v->layout.bitmap_bytes +
	      v->layout.block_size;
	if (v->blockdev && end + VHD_FOOTER > v->file_size)
		return td_fail(err, ENOSPC,
			       "%s has %llu bytes, and its block %u needs %llu: enlarge the device",
			       v->path, (unsigned long long)v->file_size, v->short_block,
			       (unsigned long long)end + VHD_FOOTER);
	v->state = VHD_FOOTERS_LAST_LOST;
	rc = grow_file(v, end + VHD_FOOTER, err);
	if (!rc && old > v->limit)
		rc = write_zeroes(v, v->limit, (old < end ? old : end) - v->limit, err);
	if (!rc)
		rc = vhd_sync(v, err);
	if (!rc)
		v->short_block = VHD_UNUSED;
	return rc;
}

static int pending_new(struct vhd_image *v, uint32_t block, bool whole, struct vhd_pending **out,
		       struct td_err *err)
{
	struct vhd_pending *p;
	int rc;

	if (!v->pending)
		v->pending = calloc(PENDINGS, sizeof *v->pending);
	if (!v->pending)
		return td_fail(err, ENOMEM, "out of memory");
	rc = vhd_image_whole(v, err);
	if (rc < 0)
		return rc;
	p = &v->pending[v->pendings];
	*p = (struct vhd_pending){
		.block = block, .entry = v->bat[block], .fresh = v->bat[block] == VHD_UNUSED};
	rc = p->fresh ? place(v, &p->entry, err) : vhd_image_bitmap(v, block, err);
	if (!rc && p->fresh)
		rc = clean(v, p->entry, whole, err);
	if (rc < 0)
		return rc;
	p->bitmap = calloc(1, v->layout.bitmap_bytes);
	if (!p->bitmap)
		return td_fail(err, ENOMEM, "out of memory");
	if (!p->fresh)
		memcpy(p->bitmap, v->bitmap, v->layout.bitmap_bytes);
	else
		v->state = VHD_FOOTERS_LAST_LOST;
	v->pendings++;
	*out = p;
	return 0;
}

static bool full(const struct vhd_image *v, const uint8_t *bitmap)
{
	bool set;

	return vhd_bits_run(bitmap, 0, v->layout.block_sectors, &set) == v->layout.block_sectors &&
	       set;
}

/* Kept in memory until vhd_image_flush writes it. */
static void note_full(struct vhd_image *v, const struct vhd_pending *p)
{
	if (!v->map || !full(v, p->bitmap))
		return;
	if (!v->map_good)
		memset(v->map, 0, (size_t)v->batmap.sectors * VHD_SECTOR);
	v->map_good = true;
	vhd_bits_set(v->map, p->block, p->block + 1);
}

/* W1, W2: data and the bitmaps of new blocks | durable | the other bitmaps, BAT. */
static int publish(struct vhd_image *v, struct td_err *err)
{
	int rc = 0;

	if (!v->pendings)
		return 0;
	for (unsigned i = 0; i < v->pendings && !rc; i++)
		if (v->pending[i].fresh)
			rc = vhd_pwrite(v, v->pending[i].bitmap, v->layout.bitmap_bytes,
					(uint64_t)v->pending[i].entry * VHD_SECTOR, err);
	if (!rc)
		rc = vhd_sync(v, err);
	for (unsigned i = 0; i < v->pendings && !rc; i++) {
		struct vhd_pending *p = &v->pending[i];

		if (p->fresh) {
			v->bat[p->block] = p->entry;
			rc = vhd_image_put_bat(v, p->block, p->block + 1, err);
		} else {
			rc = vhd_pwrite(v, p->bitmap, v->layout.bitmap_bytes,
					(uint64_t)p->entry * VHD_SECTOR, err);
		}
		if (!rc)
			note_full(v, p);
	}
	for (unsigned i = 0; i < v->pendings; i++)
		free(v->pending[i].bitmap);
	v->pendings = 0;
	v->bitmap_block = VHD_UNUSED;
	return rc;
}

void vhd_image_drop(struct vhd_image *v)
{
	for (unsigned i = 0; i < v->pendings; i++)
		free(v->pending[i].bitmap);
	free(v->pending);
	v->pending = NULL;
	v->pendings = 0;
}

static int pending_of(struct vhd_image *v, uint32_t block, bool whole, struct vhd_pending **out,
		      struct td_err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < v->pendings; i++)
		if (v->pending[i].block == block) {
			*out = &v->pending[i];
			return 0;
		}
	if (v->pendings == PENDINGS)
		rc = publish(v, err);
	return rc ? rc : pending_new(v, block, whole, out, err);
}

static int write_block(struct vhd_image *v, const uint8_t *buf, uint64_t off, uint64_t len,
		       struct td_err *err)
{
	uint64_t within = off & (v->layout.block_size - 1);
	struct vhd_pending *p = NULL;
	int rc = pending_of(v, (uint32_t)(off >> v->layout.block_shift),
			    len == v->layout.block_size, &p, err);

	if (rc < 0)
		return rc;
	vhd_bits_set(p->bitmap, within / VHD_SECTOR, (within + len) / VHD_SECTOR);
	return vhd_pwrite(v, buf, len,
			  (uint64_t)p->entry * VHD_SECTOR + v->layout.bitmap_bytes + within, err);
}

int vhd_image_write(struct vhd_image *v, const uint8_t *buf, uint64_t off, uint64_t len,
		    struct td_err *err)
{
	int rc = 0;

	if (off > v->size || len > v->size - off)
		return td_fail(err, EINVAL,
			       "%s has %llu bytes: bytes %llu to %llu are beyond its end", v->path,
			       (unsigned long long)v->size, (unsigned long long)off,
			       (unsigned long long)(off + len));
	if (v->raw || v->footer.type == VHD_FIXED)
		return vhd_pwrite(v, buf, len, off, err);
	while (len && !rc) {
		uint64_t n = v->layout.block_size - (off & (v->layout.block_size - 1));

		if (n > len)
			n = len;
		rc = write_block(v, buf, off, n, err);
		buf += n;
		off += n;
		len -= n;
	}
	return rc;
}

/* --- batmap, footers --- */

static int write_batmap(struct vhd_image *v, struct td_err *err)
{
	uint8_t b[VHD_SECTOR];
	int rc;

	v->batmap.version = 0x00010002;
	v->batmap.checksum = vhd_batmap_checksum(&v->batmap, v->map);
	vhd_batmap_encode(&v->batmap, b);
	rc = vhd_pwrite(v, v->map, (uint64_t)v->batmap.sectors * VHD_SECTOR, v->batmap.off, err);
	if (!rc)
		rc = vhd_pwrite(v, b, sizeof b, v->layout.batmap_header, err);
	if (!rc)
		v->map_good = true;
	return rc ? rc : vhd_sync(v, err);
}

int vhd_image_put_batmap(struct vhd_image *v, struct td_err *err)
{
	int rc = 0;

	if (!v->map)
		return 0;
	v->map_good = false; /* so that the bitmaps are looked at */
	v->bitmap_block = VHD_UNUSED;
	memset(v->map, 0, (size_t)v->batmap.sectors * VHD_SECTOR);
	for (uint32_t i = 0; i < v->layout.blocks && !rc; i++) {
		if (v->bat[i] == VHD_UNUSED)
			continue;
		rc = vhd_image_bitmap(v, i, err);
		if (!rc && full(v, v->bitmap))
			vhd_bits_set(v->map, i, i + 1);
	}
	return rc ? rc : write_batmap(v, err);
}

int vhd_image_put_last(struct vhd_image *v, struct td_err *err)
{
	uint64_t data = vhd_image_data_end(v), end;
	uint8_t b[VHD_FOOTER];
	bool keep;
	int rc = vhd_image_whole(v, err);

	keep = v->blockdev || v->footer.type == VHD_FIXED || v->state == VHD_FOOTERS_GOOD;
	end = v->file_size - (v->old_footer ? VHD_FOOTER_OLD : VHD_FOOTER);
	end = keep && data <= end ? end : data;
	vhd_footer_encode(&v->footer, b);
	if (!rc)
		rc = vhd_pwrite(v, b, sizeof b, end, err);
	if (!rc && !v->blockdev && v->file_size > end + VHD_FOOTER) {
		if (ftruncate(v->fd, (off_t)(end + VHD_FOOTER)) < 0)
			rc = td_fail(err, errno, "cannot cut %s behind its footer: %s", v->path,
				     strerror(errno));
		else
			v->file_size = end + VHD_FOOTER;
	}
	if (!rc)
		rc = vhd_sync(v, err);
	if (!rc && v->state == VHD_FOOTERS_LAST_LOST)
		v->state = VHD_FOOTERS_GOOD;
	if (!rc)
		v->old_footer = false;
	return rc;
}

int vhd_image_put_footer(struct vhd_image *v, struct td_err *err)
{
	uint8_t b[VHD_FOOTER];
	int rc = 0;

	vhd_footer_encode(&v->footer, b);
	if (v->footer.type != VHD_FIXED) {
		rc = vhd_pwrite(v, b, sizeof b, 0, err);
		if (!rc)
			rc = vhd_sync(v, err);
		if (!rc && v->state == VHD_FOOTERS_FIRST_LOST)
			v->state = VHD_FOOTERS_GOOD;
	}
	return rc ? rc : vhd_image_put_last(v, err);
}

int vhd_image_flush(struct vhd_image *v, struct td_err *err)
{
	int rc = publish(v, err);

	if (!rc && v->changed)
		rc = vhd_sync(v, err);
	if (rc || !v->changed || v->raw || v->footer.type == VHD_FIXED)
		return rc;
	if (v->map && v->map_good)
		rc = write_batmap(v, err); /* W3: the bitmaps are durable */
	return rc ? rc : vhd_image_put_last(v, err);
}
