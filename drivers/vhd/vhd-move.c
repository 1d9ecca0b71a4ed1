/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VHD offline: its data into another image, or all of it into itself; and what can be repaired.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"

#define CHUNK (2u << 20) /* bytes read and written in one go */

/* From..to-1 of v into `to', through the chunk. */
static int move(struct vhd_image *v, struct vhd_image *to, uint8_t *chunk, uint64_t from,
		uint64_t end, struct td_err *err)
{
	int rc = 0;

	for (uint64_t n; from < end && !rc; from += n) {
		n = end - from < CHUNK ? end - from : CHUNK;
		rc = vhd_image_read(v, chunk, from, n, err);
		if (!rc)
			rc = vhd_image_write(to, chunk, from, n, err);
	}
	return rc;
}

static int move_block(struct vhd_image *v, struct vhd_image *to, uint8_t *chunk, uint32_t block,
		      uint64_t *sectors, struct td_err *err)
{
	uint64_t base = (uint64_t)block << v->layout.block_shift, n,
		 end = (v->size - base) / VHD_SECTOR;
	int rc = vhd_image_bitmap(v, block, err);

	if (end > v->layout.block_sectors)
		end = v->layout.block_sectors;
	for (uint64_t s = 0; s < end && !rc; s += n) {
		bool mine;

		n = vhd_bits_run(v->bitmap, s, end, &mine);
		if (!mine)
			continue;
		rc = move(v, to, chunk, base + s * VHD_SECTOR, base + (s + n) * VHD_SECTOR, err);
		*sectors += n;
	}
	return rc;
}

static int same_key(const struct vhd_image *v, const struct vhd_image *to, struct td_err *err)
{
	bool a = v->batmap.has_key, b = !to->raw && to->batmap.has_key;

	if (a == b && (!a || (!memcmp(v->batmap.hash, to->batmap.hash, 32) &&
			      !memcmp(v->batmap.nonce, to->batmap.nonce, 32))))
		return 0;
	return td_fail(err, EINVAL,
		       "%s and %s are not encrypted with the same key: their data cannot be moved "
		       "without reading it",
		       v->path, to->path);
}

int vhd_coalesce(struct vhd_image *v, struct vhd_image *to, vhd_progress *on, uint64_t *sectors,
		 struct td_err *err)
{
	uint8_t *chunk;
	int rc;

	*sectors = 0;
	if (v->size > to->size)
		return td_fail(err, EINVAL, "%s has %llu bytes and %s only %llu: resize that first",
			       v->path, (unsigned long long)v->size, to->path,
			       (unsigned long long)to->size);
	rc = same_key(v, to, err);
	if (rc < 0)
		return rc;
	chunk = malloc(CHUNK);
	if (!chunk)
		return td_fail(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < v->layout.blocks && !rc; i++) {
		if (on)
			on(i, v->layout.blocks);
		if (v->bat[i] != VHD_UNUSED)
			rc = move_block(v, to, chunk, i, sectors, err);
	}
	free(chunk);
	if (!rc)
		rc = vhd_image_flush(to, err);
	if (!rc && on)
		on(v->layout.blocks, v->layout.blocks);
	return rc;
}

static bool all_zero(const uint8_t *b, uint64_t len)
{
	return !b[0] && !memcmp(b, b + 1, len - 1);
}

int vhd_copy(struct vhd_image *v, struct vhd_image *to, vhd_progress *on, uint64_t *sectors,
	     struct td_err *err)
{
	uint8_t *chunk = malloc(CHUNK);
	int rc = chunk ? 0 : td_fail(err, ENOMEM, "out of memory");

	*sectors = 0;
	for (uint64_t at = 0, n; at < v->size && !rc; at += n) {
		n = v->size - at < CHUNK ? v->size - at : CHUNK;
		if (on)
			on(at, v->size);
		rc = vhd_image_read(v, chunk, at, n, err);
		if (rc || all_zero(chunk, n))
			continue;
		rc = vhd_image_write(to, chunk, at, n, err);
		*sectors += n / VHD_SECTOR;
	}
	free(chunk);
	if (!rc)
		rc = vhd_image_flush(to, err);
	if (!rc && on)
		on(v->size, v->size);
	return rc;
}

/* Is every sector that the disk has of this block its own already? */
static int block_full(struct vhd_image *v, uint32_t block, uint64_t sectors, bool *is,
		      struct td_err *err)
{
	int rc = vhd_image_bitmap(v, block, err);

	*is = !rc && vhd_bits_run(v->bitmap, 0, sectors, is) == sectors && *is;
	return rc;
}

int vhd_fill(struct vhd_image *v, vhd_progress *on, struct td_err *err)
{
	uint8_t *chunk;
	int rc = 0;

	if (v->footer.type == VHD_FIXED)
		return 0;
	if (vhd_image_encrypted(v))
		return td_fail(
			err, EOPNOTSUPP,
			"%s is encrypted: sectors that were never written have no encrypted form",
			vhd_image_encrypted(v)->path);
	chunk = malloc(CHUNK);
	if (!chunk)
		return td_fail(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < v->layout.blocks && !rc; i++) {
		uint64_t from = (uint64_t)i << v->layout.block_shift,
			 end = from + v->layout.block_size < v->size ? from + v->layout.block_size
								     : v->size;
		bool is;

		if (on)
			on(i, v->layout.blocks);
		rc = block_full(v, i, (end - from) / VHD_SECTOR, &is, err);
		if (!rc && !is)
			rc = move(v, v, chunk, from, end, err);
	}
	free(chunk);
	if (!rc)
		rc = vhd_image_flush(v, err);
	if (!rc && on)
		on(v->layout.blocks, v->layout.blocks);
	return rc;
}

int vhd_repair(const char *path, struct td_err *err)
{
	struct vhd_image *v;
	struct td_err busy = {0};
	int rc = vhd_image_open(path, VHD_WRITE | VHD_MEND, &v, &busy);

	/* a parent in use: what is mended is what no child of it looks at any more */
	if (rc == -EBUSY && vhd_image_open(path, VHD_BENEATH | VHD_MEND, &v, NULL) == 0)
		rc = 0;
	if (rc < 0)
		return td_fail(err, busy.code, "%s", busy.text);
	if (v->state != VHD_FOOTERS_GOOD || v->short_block != VHD_UNUSED || v->old_footer)
		rc = vhd_image_put_footer(v, err);
	if (!rc && v->footer.type != VHD_FIXED)
		rc = vhd_image_put_batmap(v, err);
	vhd_image_close(v);
	return rc;
}

int vhd_kill_data(struct vhd_image *v, struct td_err *err)
{
	int rc = 0;

	if (v->footer.type == VHD_FIXED)
		return td_fail(err, EOPNOTSUPP,
			       "%s is a fixed disk: its data cannot be given up block by block",
			       v->path);
	for (uint32_t i = 0; i < v->layout.blocks; i++)
		v->bat[i] = VHD_UNUSED;
	v->short_block = VHD_UNUSED;
	/* of a disk without blocks: clear, and so before the entries go */
	rc = vhd_image_put_batmap(v, err);
	if (!rc)
		rc = vhd_image_put_bat(v, 0, v->layout.blocks, err);
	if (!rc)
		rc = vhd_sync(v, err);
	v->state = VHD_FOOTERS_LAST_LOST; /* it moves to the front */
	v->next = 0;
	return rc ? rc : vhd_image_put_last(v, err);
}
