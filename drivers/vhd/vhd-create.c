/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: made.  A file becomes a VHD with its last write, of the footer's copy at 0 (of a
 * fixed disk, of the one at its end): all else is durable before, so that after a power cut there
 * is a good image or none.  On a block device an earlier image's footers are overwritten first.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"
#include "lib/io/file.h"
#include "lib/io/reach.h"
#include "lib/redo.h"
#include "lib/zeroes.h"

static int make_uuid(uint8_t u[16], struct td_err *err)
{
	if (getrandom(u, 16, 0) != 16)
		return td_fail(err, EIO, "cannot get random numbers for a uuid: %s",
			       strerror(errno));
	u[6] = (uint8_t)((u[6] & 0x0f) | 0x40);
	u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
	return 0;
}

/* --- the file --- */

static int write_batmap_header(struct vhd_image *v, uint64_t at, struct vhd_batmap *m,
			       uint32_t entries, struct td_err *err)
{
	uint64_t bytes = td_round_up(entries / 8 + 1, VHD_SECTOR);
	uint8_t b[VHD_SECTOR], *map = calloc(1, bytes);
	int rc;

	if (!map)
		return td_fail(err, ENOMEM, "out of memory");
	m->off = at + VHD_SECTOR;
	m->sectors = (uint32_t)(td_round_up((entries + 7) / 8, VHD_SECTOR) / VHD_SECTOR);
	m->version = 0x00010002;
	m->checksum = vhd_batmap_checksum(m, map);
	vhd_batmap_encode(m, b);
	rc = vhd_pwrite(v, b, sizeof b, at, err);
	if (!rc)
		rc = vhd_pwrite(v, map, (uint64_t)m->sectors * VHD_SECTOR, m->off, err);
	free(map);
	return rc;
}

static int write_bat(struct vhd_image *v, uint64_t at, uint64_t bytes, struct td_err *err)
{
	uint8_t unused[VHD_SECTOR];
	int rc = 0;

	memset(unused, 0xff, sizeof unused);
	for (uint64_t n = 0; n < bytes && !rc; n += sizeof unused)
		rc = vhd_pwrite(v, unused, sizeof unused, at + n, err);
	return rc;
}

/* Everything but the copy of the footer at 0. */
static int write_dynamic(struct vhd_image *v, const struct vhd_new *n,
			 const struct vhd_image *parent, const char *relative, struct td_err *err)
{
	uint64_t table = n->table_size > v->size ? n->table_size : v->size, end;
	struct vhd_header *h = &v->header;
	struct vhd_batmap m = {.has_key = v->batmap.has_key};
	uint8_t b[VHD_HEADER];
	uint32_t space;
	int rc;

	*h = (struct vhd_header){.data_offset = UINT64_MAX,
				 .table_off = VHD_FOOTER + VHD_HEADER,
				 .version = 0x00010000,
				 .block_size = n->block_size ? n->block_size : VHD_BLOCK};
	h->entries = (uint32_t)((table + h->block_size - 1) / h->block_size);
	end = h->table_off + td_round_up(4ull * h->entries, VHD_SECTOR);
	memcpy(m.nonce, v->batmap.nonce, sizeof m.nonce);
	memcpy(m.hash, v->batmap.hash, sizeof m.hash);
	rc = write_bat(v, h->table_off, end - h->table_off, err);
	if (!rc)
		rc = write_batmap_header(v, end, &m, h->entries, err);
	if (rc < 0)
		return rc;
	end = m.off + (uint64_t)m.sectors * VHD_SECTOR;
	if (parent) {
		rc = vhd_name_parent(h, parent, err);
		if (!rc)
			rc = vhd_locators_need(relative, &space, err);
		if (!rc)
			rc = vhd_write_locators(v, h, end, space, relative, err);
		if (rc < 0)
			return rc;
		end += 3ull * space;
	}
	vhd_header_encode(h, b);
	rc = vhd_pwrite(v, b, sizeof b, VHD_FOOTER, err);
	if (rc < 0)
		return rc;
	vhd_footer_encode(&v->footer, b);
	return vhd_pwrite(v, b, VHD_FOOTER, v->blockdev ? v->file_size - VHD_FOOTER : end, err);
}

/* All of the disk's bytes zero, and where it can be had, their space set aside. */
static int zero_fixed(struct vhd_image *v, struct td_err *err)
{
	uint64_t range[2] = {0, v->size};
	int rc = 0;

	if (v->blockdev && v->size + VHD_FOOTER > v->file_size)
		return td_fail(err, ENOSPC,
			       "%s has %llu bytes, and a fixed disk of %llu needs %llu", v->path,
			       (unsigned long long)v->file_size, (unsigned long long)v->size,
			       (unsigned long long)v->size + VHD_FOOTER);
	if (v->blockdev && ioctl(v->fd, BLKZEROOUT, range) == 0)
		return 0;
	if (!v->blockdev && fallocate(v->fd, 0, 0, (off_t)(v->size + VHD_FOOTER)) == 0) {
		v->file_size = v->size + VHD_FOOTER;
		return 0;
	}
	if (!v->blockdev && errno == ENOSPC)
		return td_fail(err, ENOSPC, "no space for the %llu bytes of %s",
			       (unsigned long long)v->size, v->path);
	for (uint64_t off = 0, len; off < v->size && !rc; off += len) {
		len = v->size - off < TD_ZEROES ? v->size - off : TD_ZEROES;
		rc = vhd_pwrite(v, td_zeroes, len, off, err);
	}
	return rc;
}

static int write_image(struct vhd_image *v, const struct vhd_new *n, const struct vhd_image *parent,
		       const char *relative, struct td_err *err)
{
	uint8_t b[VHD_FOOTER] = {0};
	int rc = 0;

	if (v->blockdev) { /* what was there must not be found half overwritten */
		rc = vhd_pwrite(v, b, sizeof b, 0, err);
		if (!rc)
			rc = vhd_pwrite(v, b, sizeof b, v->file_size - VHD_FOOTER, err);
		if (!rc)
			rc = vhd_sync(v, err);
	}
	if (!rc)
		rc = v->footer.type == VHD_FIXED ? zero_fixed(v, err)
						 : write_dynamic(v, n, parent, relative, err);
	if (!rc)
		rc = vhd_sync(v, err);
	if (rc < 0)
		return rc;
	vhd_footer_encode(&v->footer, b);
	rc = vhd_pwrite(v, b, sizeof b,
			v->footer.type != VHD_FIXED ? 0
			: v->blockdev               ? v->file_size - VHD_FOOTER
						    : v->size,
			err);
	return rc ? rc : vhd_sync(v, err);
}

int vhd_sync_name(const char *path, struct td_err *err)
{
	char dir[VHD_PATH_MAX];
	int fd, rc = 0;

	if (strlen(path) >= sizeof dir)
		return td_fail(err, ENAMETOOLONG, "%s: the name is too long", path);
	strcpy(dir, path);
	if (strrchr(dir, '/'))
		strrchr(dir, '/')[1] = 0;
	else
		strcpy(dir, ".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
		rc = td_fail(err, errno, "cannot make the new name %s durable: %s", path,
			     strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Opens or makes the file; *made: this call made it, and takes it back on an error. */
static int open_new(const struct vhd_new *n, struct vhd_image *v, bool *made, struct td_err *err)
{
	struct td_stat st;
	int fd = open(n->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), rc;

	*made = fd >= 0;
	if (fd >= 0)
		close(fd);
	else if (errno != EEXIST)
		return td_fail(err, errno, "cannot create %s: %s", n->path, strerror(errno));
	rc = td_kernel_open(NULL, n->path, 0, &v->fd, &st, err);
	if (rc < 0)
		return rc;
	v->blockdev = st.blockdev;
	v->file_size = st.size;
	if (!*made && !v->blockdev && v->file_size && !n->replace)
		rc = td_fail(err, EEXIST,
			     "%s exists already: remove it first, or use --force to overwrite it",
			     n->path);
	if (!rc && !*made)
		rc = td_redo_mind(n->path, false, err); /* we have its lock */
	if (!rc && !*made && !v->blockdev && ftruncate(v->fd, 0) < 0)
		rc = td_fail(err, errno, "cannot empty %s: %s", n->path, strerror(errno));
	if (!rc && !v->blockdev)
		v->file_size = 0;
	if (!rc && v->blockdev && v->file_size < 8192)
		rc = td_fail(err, ENOSPC, "%s has only %llu bytes", n->path,
			     (unsigned long long)v->file_size);
	if (rc < 0)
		td_kernel_close(NULL, v->fd);
	return rc;
}

static int new_footer(const struct vhd_new *n, const struct vhd_image *parent, struct vhd_footer *f,
		      struct td_err *err)
{
	uint64_t size = n->size ? n->size : parent->size;

	if (!size || size % VHD_SECTOR || size > VHD_SIZE_MAX)
		return td_fail(err, EINVAL,
			       "a VHD of %llu bytes cannot be made: at least one sector, a "
			       "multiple of 512, and at most 2040 GiB",
			       (unsigned long long)size);
	/* storage managers ask for the table of 2 TiB, which no disk can fill */
	if (n->table_size > (uint64_t)VHD_BLOCKS_MAX * (n->block_size ? n->block_size : VHD_BLOCK))
		return td_fail(err, EINVAL,
			       "a block table for %llu MiB is larger than any disk needs",
			       (unsigned long long)(n->table_size >> 20));
	*f = (struct vhd_footer){.features = 2,
				 .version = 0x00010000,
				 .data_offset = n->fixed ? UINT64_MAX : VHD_FOOTER,
				 .app = "tap",
				 .app_version = VHD_TAP_VERSION,
				 .orig_size = size,
				 .size = size,
				 .geometry = vhd_geometry(size),
				 .type = n->fixed ? VHD_FIXED
					 : parent ? VHD_DIFF
						  : VHD_DYNAMIC,
				 .timestamp = vhd_time(time(NULL))};
	return make_uuid(f->uuid, err);
}

/* key: the batmap of what is encrypted, whose key's hash the new one gets; or NULL. */
static int create(const struct vhd_new *n, const struct vhd_image *parent,
		  const struct vhd_batmap *key, struct td_err *err)
{
	char relative[VHD_PATH_MAX] = "", here[VHD_PATH_MAX];
	struct vhd_image v = {.path = (char *)n->path};
	bool made = false;
	int rc = new_footer(n, parent, &v.footer, err);

	if (!rc)
		rc = open_new(n, &v, &made, err);
	if (rc < 0)
		return rc;
	v.size = v.footer.size;
	if (key)
		v.batmap = *key;
	if (parent)
		rc = vhd_canonical(n->path, here, err);
	if (!rc && parent)
		rc = vhd_relative_path(here, parent->path, relative, err);
	if (!rc)
		rc = write_image(&v, n, parent, relative, err);
	td_kernel_close(NULL, v.fd);
	if (!rc && made)
		rc = vhd_sync_name(n->path, err);
	if (rc < 0 && made)
		unlink(n->path);
	return rc;
}

/* Opens what the snapshot is really taken of: an image without any data of its own is passed over.
 */
static int open_parent(const struct vhd_new *n, struct vhd_image **out, struct td_err *err)
{
	char path[VHD_PATH_MAX];
	struct vhd_image *v;
	int rc = vhd_canonical(n->parent, path, err);

	if (!rc)
		rc = n->parent_raw ? vhd_image_open_raw(path, VHD_READ, &v, err)
				   : vhd_image_open(path, n->parent_in_use ? VHD_LOOK : VHD_READ,
						    &v, err);
	while (!rc && !n->parent_as_named && !v->raw && v->footer.type == VHD_DIFF &&
	       !vhd_image_allocated(v) && !vhd_uuid_nil(v->header.parent_uuid)) {
		struct vhd_image *below;

		rc = vhd_image_open_parent(v, VHD_READ, &below, err);
		if (!rc && below->size != v->size) { /* the child's size would change */
			vhd_image_close(below);
			break;
		}
		vhd_image_close(v);
		v = rc ? NULL : below;
	}
	if (!rc)
		*out = v;
	return rc;
}

/*
 * What stands beneath the snapshot, as it was named: how deep, and, of the first that has one, the
 * key's hash.  An image without data that is passed over may be the one that has the key.
 */
static int check_chain(const struct vhd_new *n, const struct vhd_image *parent,
		       struct vhd_batmap *key, struct td_err *err)
{
	unsigned depth = 2, limit = n->limit && n->limit < VHD_CHAIN_MAX ? n->limit : VHD_CHAIN_MAX;
	const struct vhd_image *is;
	struct vhd_image *v = NULL;
	bool below = false;
	int rc;

	if (n->parent_raw)
		return 0;
	rc = vhd_image_open(n->parent, VHD_LOOK | VHD_FAST | VHD_CHAIN, &v, err);
	if (rc < 0)
		return rc;
	is = vhd_image_encrypted(v);
	if (is)
		*key = is->batmap;
	for (struct vhd_image *u = v; u; u = u->parent) {
		depth += below;
		below = below ||
			(u->raw ? parent->raw : !memcmp(u->footer.uuid, parent->footer.uuid, 16));
	}
	vhd_image_close(v);
	return depth <= limit ? 0
			      : td_fail(err, ENOSPC,
					"%s: a snapshot would make a chain of %u images; the limit "
					"is %u: coalesce some first",
					parent->path, depth, limit);
}

int vhd_create(const struct vhd_new *n, struct td_err *err)
{
	struct vhd_image *parent = NULL;
	struct vhd_batmap key = {0};
	char a[VHD_PATH_MAX], b[VHD_PATH_MAX];
	int rc = 0;

	if (n->parent)
		rc = open_parent(n, &parent, err);
	if (!rc && parent)
		rc = check_chain(n, parent, &key, err);
	if (!rc && parent)
		rc = vhd_canonical(n->path, a, err);
	if (!rc && parent)
		rc = vhd_canonical(parent->path, b, err);
	if (!rc && parent && !strcmp(a, b))
		rc = td_fail(err, EINVAL, "%s cannot be a snapshot of itself", n->path);
	if (!rc)
		rc = create(n, parent, key.has_key ? &key : NULL, err);
	if (!rc && n->parent_raw)
		td_reach_freeze(parent->path); /* a tapdisk that does not take it says so */
	vhd_image_close(parent);
	return rc;
}
