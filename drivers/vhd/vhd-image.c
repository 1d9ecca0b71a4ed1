/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: opened, and read through its chain.
 *
 * One thing: opening an image opens its parents and looks for its log, and both read and write
 * through this file.
 */
#include "drivers/vhd/vhd-image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/io/file.h"
#include "lib/redo.h"

int vhd_pread(const struct vhd_image *v, void *buf, uint64_t len, uint64_t off, struct td_err *err)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(v->fd, p, len < 1u << 30 ? len : 1u << 30, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return td_fail(err, errno, "cannot read %llu bytes at %llu of %s: %s",
				       (unsigned long long)len, (unsigned long long)off, v->path,
				       strerror(errno));
		if (!n)
			return td_fail(err, EIO,
				       "%s ends at byte %llu, and %llu more bytes should be there: "
				       "it was cut off",
				       v->path, (unsigned long long)off, (unsigned long long)len);
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int vhd_pwrite(struct vhd_image *v, const void *buf, uint64_t len, uint64_t off, struct td_err *err)
{
	const uint8_t *p = buf;

	if (v->blockdev && off + len > v->file_size)
		return td_fail(err, ENOSPC, "%s is full: it has %llu bytes, and %llu are needed",
			       v->path, (unsigned long long)v->file_size,
			       (unsigned long long)(off + len));
	v->changed = true;
	while (len) {
		ssize_t n = pwrite(v->fd, p, len < 1u << 30 ? len : 1u << 30, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return td_fail(err, n < 0 ? errno : EIO,
				       "cannot write %llu bytes at %llu of %s: %s",
				       (unsigned long long)len, (unsigned long long)off, v->path,
				       strerror(n < 0 ? errno : EIO));
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	if (off > v->file_size)
		v->file_size = off;
	return 0;
}

int vhd_sync(struct vhd_image *v, struct td_err *err)
{
	if (fdatasync(v->fd) < 0)
		return td_fail(err, errno,
			       "cannot make what was written to %s durable: %s; nothing is known "
			       "of its state, check it",
			       v->path, strerror(errno));
	return 0;
}

/* --- open --- */

static unsigned file_flags(unsigned how)
{
	switch (how & VHD_HOW) {
	case VHD_WRITE:
		return 0;
	case VHD_BENEATH:
		return TD_FILE_BENEATH;
	case VHD_READ:
		return TD_FILE_PARENT;
	default:
		return TD_FILE_LOOK;
	}
}

static int open_file(const char *path, unsigned flags, struct vhd_image **out, struct td_err *err)
{
	struct vhd_image *v = calloc(1, sizeof *v);
	struct td_stat st;
	int rc;

	if (!v || !(v->path = strdup(path))) {
		free(v);
		return td_fail(err, ENOMEM, "out of memory");
	}
	v->flags = flags;
	v->bitmap_block = v->short_block = VHD_UNUSED;
	rc = td_kernel_open(NULL, path, file_flags(flags), &v->fd, &st, err);
	if (rc < 0) {
		free(v->path);
		free(v);
		return rc;
	}
	/* pages of a device that another host has written since must not be believed */
	posix_fadvise(v->fd, 0, 0, POSIX_FADV_DONTNEED);
	v->blockdev = st.blockdev;
	v->file_size = st.size;
	*out = v;
	return 0;
}

/* Who only looks may see a file that grows meanwhile: its end is looked at again when its entries
 * have been read (V7). */
static void look_again(struct vhd_image *v)
{
	uint64_t size;

	if (v->flags & (VHD_HOW) || v->blockdev || td_kernel_size(NULL, v->fd, &size) < 0 ||
	    size <= v->file_size)
		return;
	v->file_size = v->limit = size;
	if (v->state == VHD_FOOTERS_GOOD)
		v->state = VHD_FOOTERS_LAST_LOST;
}

/* What the tables claim, held against the file's end: what is lost may be looked at, and must not
 * be relied upon. */
static int mind_end(struct vhd_image *v, struct td_err *err)
{
	int rc;

	v->short_block = vhd_short_block(&v->layout, v->bat, v->limit);
	if (v->short_block == VHD_UNUSED)
		return 0;
	rc = vhd_image_bitmap(v, v->short_block, err);
	if (rc < 0)
		return rc;
	v->lost = vhd_lost(&v->layout, v->short_block, v->bat[v->short_block], v->limit, v->bitmap,
			   &v->lost_from);
	return v->lost && v->flags & VHD_HOW ? vhd_lost_text(&v->layout, v->short_block, v->lost,
							     v->lost_from, v->limit, v->path, err)
					     : 0;
}

static int read_bat(struct vhd_image *v, struct td_err *err)
{
	uint64_t bytes = td_round_up(4ull * v->layout.blocks, VHD_SECTOR);
	int rc;

	v->bat_room = (uint32_t)(bytes / 4);
	v->bat = malloc(bytes);
	if (!v->bat)
		return td_fail(err, ENOMEM, "%s: out of memory for its block table", v->path);
	rc = vhd_pread(v, v->bat, bytes, v->layout.table_off, err);
	for (uint32_t i = 0; i < v->bat_room; i++)
		v->bat[i] = td_get_be32(&v->bat[i]);
	if (rc < 0 || v->flags & VHD_LENIENT)
		return rc;
	look_again(v);
	rc = vhd_bat_check(&v->layout, v->bat, v->limit, v->path, err);
	return rc ? rc : mind_end(v, err);
}

static int read_batmap(struct vhd_image *v, struct td_err *err)
{
	uint8_t b[VHD_SECTOR];
	int rc;

	if (!vhd_batmap_possible(&v->footer) || v->layout.batmap_header + VHD_SECTOR > v->limit)
		return 0;
	rc = vhd_pread(v, b, sizeof b, v->layout.batmap_header, err);
	if (rc < 0)
		return rc;
	rc = vhd_batmap_decode(b, &v->layout, v->limit, &v->batmap, v->path, NULL);
	if (rc == -ENOENT)
		v->batmap = (struct vhd_batmap){0};
	if (rc < 0)
		return 0; /* none, or one that cannot be used: the bitmaps say the same; a key's
			     hash beside it counts */
	v->has_batmap = true;
	vhd_layout_batmap(&v->layout, &v->batmap);
	if (v->flags & VHD_FAST)
		return 0;
	v->map = malloc((size_t)v->batmap.sectors * VHD_SECTOR);
	if (!v->map)
		return td_fail(err, ENOMEM, "%s: out of memory for its batmap", v->path);
	rc = vhd_pread(v, v->map, (uint64_t)v->batmap.sectors * VHD_SECTOR, v->batmap.off, err);
	v->map_good = rc == 0 && vhd_batmap_checksum(&v->batmap, v->map) == v->batmap.checksum;
	return rc;
}

static int read_footers(struct vhd_image *v, struct td_err *err)
{
	uint8_t first[VHD_FOOTER], last[VHD_FOOTER];
	int rc;

	if (v->file_size < VHD_FOOTER)
		return td_fail(err, EINVAL, "%s is not a VHD: it has only %llu bytes", v->path,
			       (unsigned long long)v->file_size);
	rc = vhd_pread(v, first, sizeof first, 0, err);
	if (!rc)
		rc = vhd_pread(v, last, sizeof last, v->file_size - VHD_FOOTER, err);
	if (!rc)
		rc = vhd_footer_pick(first, last, v->file_size, &v->footer, &v->state, v->path,
				     err);
	v->old_footer = vhd_footer_old(last, v->file_size);
	v->limit = rc ? 0 : vhd_limit(&v->footer, last, v->file_size);
	return rc;
}

static int read_tables(struct vhd_image *v, struct td_err *err)
{
	uint8_t b[VHD_HEADER];
	int rc;

	if (v->footer.data_offset + VHD_HEADER > v->limit)
		return td_fail(err, EINVAL,
			       "%s: its VHD header (at byte %llu) lies beyond the end of the file",
			       v->path, (unsigned long long)v->footer.data_offset);
	rc = vhd_pread(v, b, sizeof b, v->footer.data_offset, err);
	if (!rc)
		rc = vhd_header_decode(b, &v->header, v->path, err);
	if (!rc)
		/* first: what is wrong with the tables may be what waits there */
		rc = vhd_image_mind_log(v, err);
	if (!rc)
		rc = vhd_layout(&v->footer, &v->header, v->limit, &v->layout, v->path, err);
	if (!rc)
		rc = read_batmap(v, err);
	if (rc || v->flags & VHD_FAST)
		return rc;
	v->bitmap = malloc(v->layout.bitmap_bytes);
	if (!v->bitmap)
		return td_fail(err, ENOMEM, "%s: out of memory for a bitmap", v->path);
	return read_bat(v, err);
}

/* The rest of the chain, one image after the other. */
static int open_chain(struct vhd_image *leaf, unsigned flags, struct td_err *err)
{
	unsigned how = flags & VHD_HOW ? VHD_READ : VHD_LOOK, depth = 1;
	struct stat a, b;

	how |= flags & (VHD_FAST | VHD_LENIENT | VHD_ANY_PARENT | VHD_AS_IS);
	for (struct vhd_image *v = leaf; !v->raw && v->footer.type == VHD_DIFF; v = v->parent) {
		int rc = vhd_image_open_parent(v, how, &v->parent, err);

		if (rc < 0)
			return rc;
		v->parent->leaf = leaf;
		for (struct vhd_image *u = leaf; u != v->parent; u = u->parent)
			if (fstat(u->fd, &a) == 0 && fstat(v->parent->fd, &b) == 0 &&
			    a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_rdev == b.st_rdev)
				return td_fail(err, ELOOP,
					       "%s: its chain of parents comes back to %s",
					       leaf->path, u->path);
		if (++depth > VHD_CHAIN_OPEN)
			return td_fail(err, ELOOP,
				       "%s: its chain of parents has more than %d images",
				       leaf->path, VHD_CHAIN_OPEN);
	}
	return 0;
}

int vhd_image_open(const char *path, unsigned flags, struct vhd_image **out, struct td_err *err)
{
	struct vhd_image *v = NULL;
	int rc = open_file(path, flags & ~VHD_CHAIN, &v, err);

	if (rc < 0)
		return rc;
	rc = read_footers(v, err);
	if (!rc) {
		v->size = v->footer.size;
		rc = v->footer.type == VHD_FIXED ? 0 : read_tables(v, err);
	}
	/* whatever overwrites the footer at the end relies on the copy */
	if (!rc && v->state == VHD_FOOTERS_FIRST_LOST && flags & (VHD_WRITE | VHD_BENEATH) &&
	    !(flags & VHD_MEND))
		rc = td_fail(err, EINVAL,
			     "%s: the copy of the footer at its start is bad; run vhd-util repair "
			     "-n %s first",
			     path, path);
	if (!rc && flags & VHD_CHAIN)
		rc = open_chain(v, flags, err);
	if (!rc)
		rc = vhd_image_unmark(v, err);
	if (rc < 0)
		vhd_image_close(v);
	else
		*out = v;
	return rc;
}

int vhd_image_open_raw(const char *path, unsigned flags, struct vhd_image **out, struct td_err *err)
{
	struct vhd_image *v = NULL;
	int rc = open_file(path, flags & ~VHD_CHAIN, &v, err);

	if (rc < 0)
		return rc;
	rc = flags & VHD_HOW ? td_redo_mind(path, true, err) : 0;
	if (rc < 0) {
		vhd_image_close(v);
		return rc;
	}
	v->raw = true;
	v->size = v->file_size;
	*out = v;
	return 0;
}

void vhd_image_close(struct vhd_image *v)
{
	while (v) {
		struct vhd_image *parent = v->parent;

		td_kernel_close(NULL, v->fd);
		vhd_image_drop(v);
		free(v->bat);
		free(v->map);
		free(v->bitmap);
		free(v->path);
		free(v);
		v = parent;
	}
}

/* --- read --- */

int vhd_image_bitmap(struct vhd_image *v, uint32_t block, struct td_err *err)
{
	int rc = 0;

	if (v->bitmap_block == block)
		return 0;
	v->bitmap_block = VHD_UNUSED;
	if (block >= v->layout.blocks || v->bat[block] == VHD_UNUSED)
		memset(v->bitmap, 0, v->layout.bitmap_bytes);
	else if (v->map_good && vhd_bit(v->map, block))
		memset(v->bitmap, 0xff, v->layout.bitmap_bytes);
	else
		rc = vhd_pread(v, v->bitmap, v->layout.bitmap_bytes,
			       (uint64_t)v->bat[block] * VHD_SECTOR, err);
	if (!rc)
		v->bitmap_block = block;
	return rc;
}

static int read_below(struct vhd_image *v, uint8_t *buf, uint64_t off, uint64_t len,
		      struct td_err *err)
{
	if (v->parent)
		return vhd_image_read(v->parent, buf, off, len, err);
	if (v->footer.type == VHD_DIFF)
		return td_fail(err, EINVAL, "%s: its parent is not open", v->path);
	memset(buf, 0, len);
	return 0;
}

/* Within one block. */
static int read_block(struct vhd_image *v, uint8_t *buf, uint64_t off, uint64_t len,
		      struct td_err *err)
{
	uint32_t block = (uint32_t)(off >> v->layout.block_shift);
	uint64_t first = (off & (v->layout.block_size - 1)) / VHD_SECTOR,
		 end = first + len / VHD_SECTOR;
	uint64_t data = (uint64_t)v->bat[block] * VHD_SECTOR + v->layout.bitmap_bytes;
	int rc = 0;

	if (v->bat[block] == VHD_UNUSED)
		return read_below(v, buf, off, len, err);
	for (uint64_t s = first, n; s < end && !rc; s += n) {
		uint8_t *to = buf + (s - first) * VHD_SECTOR;
		bool mine;

		rc = vhd_image_bitmap(v, block, err);
		if (rc < 0)
			return rc;
		n = vhd_bits_run(v->bitmap, s, end, &mine);
		if (mine && block == v->short_block && v->lost && s + n > v->lost_from)
			rc = vhd_lost_text(&v->layout, block, v->lost, v->lost_from, v->limit,
					   v->path, err);
		else if (mine)
			rc = vhd_pread(v, to, n * VHD_SECTOR, data + s * VHD_SECTOR, err);
		else
			rc = read_below(v, to, off + (s - first) * VHD_SECTOR, n * VHD_SECTOR, err);
	}
	return rc;
}

int vhd_image_read(struct vhd_image *v, uint8_t *buf, uint64_t off, uint64_t len,
		   struct td_err *err)
{
	int rc = 0;

	/* a child may be larger than its parent: what is beyond it never was, of a raw one too,
	 * whose length is all that it claims */
	if (off >= v->size || len > v->size - off) {
		uint64_t there = off < v->size ? v->size - off : 0;

		memset(buf + there, 0, len - there);
		len = there;
	}
	if (v->raw || v->footer.type == VHD_FIXED)
		return vhd_pread(v, buf, len, off, err);
	while (len && !rc) {
		uint64_t n = v->layout.block_size - (off & (v->layout.block_size - 1));

		if (n > len)
			n = len;
		rc = read_block(v, buf, off, n, err);
		buf += n;
		off += n;
		len -= n;
	}
	return rc;
}

const struct vhd_image *vhd_image_encrypted(const struct vhd_image *v)
{
	while (v && (v->raw || !v->batmap.has_key))
		v = v->parent;
	return v;
}

uint64_t vhd_image_data_end(const struct vhd_image *v)
{
	uint64_t end = v->layout.meta_end;

	if (v->footer.type == VHD_FIXED)
		return v->size;
	for (uint32_t i = 0; i < v->layout.blocks; i++) {
		uint64_t to = (uint64_t)v->bat[i] * VHD_SECTOR + v->layout.bitmap_bytes +
			      v->layout.block_size;

		if (v->bat[i] != VHD_UNUSED && to > end)
			end = to;
	}
	return end;
}

uint32_t vhd_image_allocated(const struct vhd_image *v)
{
	uint32_t n = 0;

	if (v->footer.type == VHD_FIXED)
		return (uint32_t)((v->size + VHD_BLOCK - 1) / VHD_BLOCK);
	for (uint32_t i = 0; i < v->layout.blocks; i++)
		n += v->bat[i] != VHD_UNUSED;
	return n;
}
