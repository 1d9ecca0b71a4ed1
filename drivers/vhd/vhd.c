/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHD images: fixed, dynamic and differencing.  Opens and closes them; vhd.h says where the rest
 * is. */
#include "drivers/vhd/vhd-relink.h"
#include "drivers/vhd/vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/cipher.h"
#include "drivers/drivers.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"
#include "lib/settle.h"

static int read_at(struct vhd *v, void *buf, uint64_t off, uint64_t len, const char *what,
		   struct td_err *err)
{
	int rc = td_file_rw(v->file, TD_IO_READ, buf, off, len, 0);

	return rc < 0 ? td_fail(err, -rc, "cannot read the %s of %s (%llu bytes at byte %llu): %s",
				what, v->image->path, (unsigned long long)len,
				(unsigned long long)off, strerror(-rc))
		      : 0;
}

static int write_failed(struct vhd *v, int rc, struct td_err *err)
{
	return td_fail(err, -rc, "cannot repair %s: %s", v->image->path, strerror(-rc));
}

/* What is mended at open must be durable before anything is built upon it. */
static int sync_now(struct vhd *v)
{
	struct td_iop op = {.op = TD_IO_SYNC, .file = v->file};

	return td_await_file(v->image->io, &op);
}

static int read_footer(struct vhd *v, struct td_err *err)
{
	uint8_t first[VHD_FOOTER], last[VHD_FOOTER];
	uint64_t size = v->file->st.size;
	enum vhd_footers state;
	int rc;

	if (size < 2 * VHD_FOOTER)
		return td_fail(err, EINVAL, "%s is not a VHD: it has %llu bytes", v->image->path,
			       (unsigned long long)size);
	rc = read_at(v, first, 0, sizeof first, "first sector", err);
	if (!rc)
		rc = read_at(v, last, size - VHD_FOOTER, sizeof last, "footer", err);
	if (!rc)
		rc = vhd_footer_pick(first, last, size, &v->footer, &state, v->image->path, err);
	if (rc < 0)
		return rc;
	v->fixed = v->footer.type == VHD_FIXED;
	v->diff = v->footer.type == VHD_DIFF;
	v->limit = vhd_limit(&v->footer, last, size);
	v->tail_lost = (state == VHD_FOOTERS_LAST_LOST || vhd_footer_old(last, size)) && !v->fixed;
	vhd_footer_encode(&v->footer, v->tail);
	if (state != VHD_FOOTERS_FIRST_LOST || v->fixed || !v->writable)
		return 0;
	/* the footer at the end gives way to the first new block: the copy must be there before */
	td_log(LOG_WARNING, "%s: its footer's copy at the start was damaged, and is rewritten",
	       v->image->path);
	rc = td_file_rw(v->file, TD_IO_WRITE, v->tail, 0, VHD_FOOTER, 0);
	if (!rc)
		rc = sync_now(v);
	return rc < 0 ? write_failed(v, rc, err) : 0;
}

static int read_header(struct vhd *v, struct td_err *err)
{
	uint8_t b[VHD_HEADER];
	int rc;

	if (v->footer.data_offset + VHD_HEADER > v->file->st.size)
		return td_fail(err, EINVAL,
			       "%s: its header (at byte %llu) lies beyond the end of the file",
			       v->image->path, (unsigned long long)v->footer.data_offset);
	rc = read_at(v, b, v->footer.data_offset, sizeof b, "header", err);
	if (!rc)
		rc = vhd_header_decode(b, &v->header, v->image->path, err);
	return rc ? rc : vhd_layout(&v->footer, &v->header, v->limit, &v->l, v->image->path, err);
}

static int read_table(struct vhd *v, struct td_err *err)
{
	uint64_t bytes = td_round_up(4ull * v->l.blocks, VHD_SECTOR);
	int rc;

	v->bat_sectors = (uint32_t)(bytes / VHD_SECTOR);
	v->bat = aligned_alloc(4096, td_round_up(bytes, 4096));
	if (!v->bat)
		return td_fail(err, ENOMEM, "%s: out of memory for its block table (%llu bytes)",
			       v->image->path, (unsigned long long)bytes);
	rc = read_at(v, v->bat, v->l.table_off, bytes, "block table", err);
	if (rc < 0)
		return rc;
	for (uint64_t i = 0; i < bytes / 4; i++)
		v->bat[i] = be32toh(v->bat[i]);
	return vhd_bat_check(&v->l, v->bat, v->limit, v->image->path, err);
}

/* Where new blocks may go: above everything. */
static void find_next(struct vhd *v)
{
	v->next = v->l.meta_end;
	for (uint32_t i = 0; i < v->l.blocks; i++) {
		uint64_t end =
			(uint64_t)v->bat[i] * VHD_SECTOR + v->l.bitmap_bytes + v->l.block_size;

		if (v->bat[i] != VHD_UNUSED && end > v->next)
			v->next = end;
	}
	v->eof = v->stale = v->file->st.size;
}

/* The batmap is a hint; one that cannot be used is as good as none, but what stands beside it, a
 * key's hash, is not. */
static int read_batmap_header(struct vhd *v, struct td_err *err)
{
	struct td_err why = {0};
	uint8_t b[VHD_SECTOR];
	int rc;

	if (!vhd_batmap_possible(&v->footer) || v->l.batmap_header + VHD_SECTOR > v->limit)
		return 0;
	rc = read_at(v, b, v->l.batmap_header, sizeof b, "batmap's header", err);
	if (rc < 0)
		return rc;
	rc = vhd_batmap_decode(b, &v->l, v->limit, &v->batmap, v->image->path, &why);
	if (rc == -ENOENT) {
		memset(&v->batmap, 0, sizeof v->batmap);
		return 0;
	}
	if (rc < 0) {
		td_log(LOG_WARNING, "%s; bitmaps are read instead", why.text);
		return 0;
	}
	v->has_batmap = true;
	vhd_layout_batmap(&v->l, &v->batmap);
	return 0;
}

/*
 * A bit of a block that is not there would count as soon as it is; nobody may see that, not even
 * after a cut.  So it is taken away in the file too, before there is any new block.
 */
static int mask_batmap(struct vhd *v, struct td_err *err)
{
	bool wrong = false;
	int rc;

	for (uint32_t i = 0; i < v->l.blocks; i++)
		if (v->bat[i] == VHD_UNUSED && vhd_bit(v->full, i)) {
			vhd_bits_clear(v->full, i, i + 1);
			wrong = true;
		}
	if (!wrong || !v->writable)
		return 0;
	td_log(LOG_WARNING, "%s: its batmap had bits of blocks that are not there", v->image->path);
	rc = vhd_put_batmap(v);
	if (!rc)
		rc = sync_now(v);
	return rc < 0 ? write_failed(v, rc, err) : 0;
}

static int read_batmap(struct vhd *v, struct td_err *err)
{
	uint64_t bytes =
		v->has_batmap ? (uint64_t)v->batmap.sectors * VHD_SECTOR : (v->l.blocks + 7) / 8;
	int rc;

	v->full = aligned_alloc(4096, td_round_up(bytes, 4096));
	if (!v->full)
		return td_fail(err, ENOMEM, "%s: out of memory for its batmap", v->image->path);
	memset(v->full, 0, bytes);
	if (!v->has_batmap)
		return 0;
	rc = read_at(v, v->full, v->batmap.off, bytes, "batmap", err);
	if (rc < 0)
		return rc;
	if (vhd_batmap_checksum(&v->batmap, v->full) != v->batmap.checksum) {
		td_log(LOG_WARNING,
		       "%s: the checksum of its batmap is wrong; bitmaps are read instead",
		       v->image->path);
		memset(v->full, 0, bytes);
		v->full_dirty = true;
	}
	return mask_batmap(v, err);
}

static int open_crypt(struct vhd *v, struct td_err *err)
{
	const struct td_key *key = v->image->key;
	const char *path = v->image->path;

	if (v->batmap.has_key && !(key && key->len))
		return td_fail(err, ENOKEY,
			       "%s is encrypted: give its key on standard input, with -E", path);
	if (v->batmap.has_key)
		return vhd_crypt_new(v, key->bytes, key->len, &v->crypt, err);
	/* a leaf that takes what one believes to be encrypted in the clear; parents may well be
	 * plain */
	if (key && key->len && !(v->image->file_flags & TD_FILE_PARENT))
		return td_fail(err, EINVAL,
			       "%s has no key's hash: it is not encrypted, though a key was given",
			       path);
	return 0;
}

static void fill_info(struct vhd *v)
{
	const struct td_stat *st = &v->file->st;

	v->image->info.size = v->footer.size;
	v->image->info.physical = st->physical;
	v->image->info.decrypts = v->crypt;
	v->image->info.discard = st->discard_gran && v->writable && !v->batmap.has_key;
	v->image->info.discard_gran = st->discard_gran > 4096 ? st->discard_gran : 4096;
}

/* A footer of 511 bytes gets its last one, a zero, before the guest writes anything: what may round
 * a write up would not keep 511. */
static int complete_footer(struct vhd *v, struct td_err *err)
{
	int rc = td_file_rw(v->file, TD_IO_WRITE, v->tail, v->limit, VHD_FOOTER, 0);

	if (!rc)
		rc = td_file_truncate(v->file, v->limit + VHD_FOOTER);
	if (!rc)
		rc = sync_now(v);
	if (rc < 0)
		return write_failed(v, rc, err);
	v->file->st.size = v->limit + VHD_FOOTER;
	return 0;
}

static int open_fixed(struct vhd *v, struct td_err *err)
{
	int rc = vhd_redo_apply(v, err);

	if (!rc)
		rc = open_crypt(v, err);
	if (!rc && v->footer.size > v->limit)
		rc = td_fail(
			err, EINVAL,
			"%s: its VHD footer gives the disk %llu bytes, but the file has only %llu",
			v->image->path, (unsigned long long)v->footer.size,
			(unsigned long long)v->limit);
	if (!rc && v->writable && v->limit + VHD_FOOTER_OLD == v->file->st.size)
		rc = complete_footer(v, err);
	v->eof = v->file->st.size;
	return rc;
}

static int open_blocks(struct vhd *v, struct td_err *err)
{
	int rc = read_header(v, err);

	if (!rc)
		rc = vhd_redo_apply(v, err);
	if (!rc)
		rc = read_batmap_header(v, err);
	if (!rc)
		rc = open_crypt(v, err);
	if (!rc)
		rc = read_table(v, err);
	if (rc < 0)
		return rc;
	find_next(v);
	rc = read_batmap(v, err);
	if (!rc)
		rc = vhd_mind_end(v, err);
	if (rc < 0)
		return rc;
	if (vhd_map_init(v) < 0 || (v->writable && vhd_alloc_init(v) < 0))
		return td_fail(err, ENOMEM, "%s: out of memory for its bitmaps", v->image->path);
	return v->writable ? vhd_redo_begin(v, err) : 0;
}

static void release(struct vhd *v)
{
	vhd_alloc_fini(v);
	vhd_map_fini(v);
	vhd_io_fini(v);
	td_cipher_free(v->crypt);
	td_file_close(v->file);
	free(v->bat);
	free(v->full);
}

static int open_file(struct td_image *image, struct td_err *err)
{
	struct vhd *v = image->priv;

	v->image = image;
	v->lost_block = VHD_UNUSED;
	v->writable = !(image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT));
	td_list_init(&v->cold);
	td_list_init(&v->hot);
	td_list_init(&v->free);
	td_list_init(&v->room);
	td_list_init(&v->growers);
	td_list_init(&v->commits);
	td_list_init(&v->settled);
	return td_image_file(image, image->file_flags, &v->file, err);
}

static int vhd_settle_log(struct td_image *image, struct td_err *err)
{
	struct vhd *v = image->priv;
	int rc = open_file(image, err);

	if (rc < 0)
		return rc;
	rc = td_settle(image, v->file, err);
	if (!rc)
		rc = read_footer(v, err);
	if (!rc && !v->fixed)
		rc = read_header(v, err);
	if (!rc)
		rc = vhd_redo_apply(v, err);
	release(v);
	return rc;
}

static int vhd_open(struct td_image *image, struct td_err *err)
{
	struct vhd *v = image->priv;
	int rc = open_file(image, err);

	if (rc < 0)
		return rc;
	rc = td_settle(image, v->file, err);
	v->writable = v->writable && !td_lost(image);
	if (!rc)
		rc = read_footer(v, err);
	if (!rc)
		rc = v->fixed ? open_fixed(v, err) : open_blocks(v, err);
	if (rc < 0) {
		release(v);
		return rc;
	}
	fill_info(v);
	return 0;
}

static void vhd_close(struct td_image *image)
{
	struct vhd *v = image->priv;
	int rc = v->writable && !v->fixed ? vhd_settle(v) : 0;

	if (rc < 0)
		td_log(LOG_ERR, "%s: what was written since the last flush may be lost: %s",
		       image->path, strerror(-rc));
	release(v);
}

static int vhd_backing(struct td_image *image, char *spec, struct td_err *err)
{
	struct vhd *v = image->priv;

	return v->diff ? vhd_parent_find(v, spec, err) : 0;
}

/* The size stands in the footer, which changes only while nobody has the image open. */
static int vhd_resize(struct td_image *image, struct td_err *err)
{
	return td_fail(err, EOPNOTSUPP,
		       "%s: the size of a VHD is in the image: pause the disk, use vhd-util "
		       "resize, and unpause it",
		       image->path);
}

const struct td_driver td_driver_vhd = {
	.name = "vhd",
	.type = 4,
	.priv_size = sizeof(struct vhd),
	.redo = true,
	.open = vhd_open,
	.settle = vhd_settle_log,
	.close = vhd_close,
	.submit = vhd_submit,
	.resize = vhd_resize,
	.backing = vhd_backing,
	.relink = vhd_relink,
	.identify = vhd_identify,
	.beneath = vhd_beneath,
	.extents = vhd_extents,
	.map = vhd_map,
};
