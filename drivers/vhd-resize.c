/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: made larger, and back.  No data is moved: a block table that is too small is written anew behind the data, and the
 * switch is one sector of the header.  So a cut at any point leaves a good image, of the old size or of the new:
 *
 *  R1  The journal is complete and durable, under its name, before the first byte of the image changes.
 *  R2  New tables are durable before the header's first sector names them; entries that the new size brings into use are unused,
 *      durably, before the footer tells of it.  (The header's checksum is in that sector, and its second sector stays.)
 *  R3  The journal is removed when everything is durable.
 *
 * To revert: the saved bytes go back in the order that the journal has, the footer's copy at 0 first, since the old tables are
 * enough for the old size alone; the file gets its old length.  Reverting can be cut off and begun again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/vhd-image.h"
#include "lib/bytes.h"

/* The journal: a header of 64 bytes, and pieces of the image, each with its place and length before it. */
#define JOURNAL_MAGIC "tdvhdjnl"
#define JOURNAL_HEADER 64
#define JOURNAL_MAX    (256u << 20)

enum { J_COMPLETE = 8, J_BLOCKS = 12, J_FILE_SIZE = 16, J_LENGTH = 24, J_UUID = 32, J_CHECKSUM = 48 };
enum { PIECE_BAT = 2, PIECE_BATMAP = 3 };

struct journal {
	uint8_t *b;
	size_t len, room;
};

static uint64_t journal_sum(const uint8_t *b, size_t len)
{
	uint64_t sum = 0xcbf29ce484222325;

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ b[i]) * 0x100000001b3;
	return sum;
}

/* Saves bytes from..to-1 of the image. */
static int journal_add(struct journal *j, const struct vhd_image *v, uint64_t from, uint64_t to, struct td_err *err)
{
	size_t need = j->len + 16 + (to - from);

	if (to - from > JOURNAL_MAX || need > JOURNAL_MAX)
		return td_fail(err, EFBIG, "%s: its tables are too large for a journal", v->path);
	if (need > j->room) {
		uint8_t *b = realloc(j->b, need * 2);

		if (!b)
			return td_fail(err, ENOMEM, "no memory for the journal");
		j->b = b;
		j->room = need * 2;
	}
	td_put_be64(j->b + j->len, from);
	td_put_be64(j->b + j->len + 8, to - from);
	j->len = need;
	return vhd_pread(v, j->b + need - (to - from), to - from, from, err);
}

/* All that a resize may change, in the order in which it goes back. */
static int journal_fill(struct journal *j, const struct vhd_image *v, struct td_err *err)
{
	uint64_t last = v->file_size - VHD_FOOTER, home = v->footer.data_offset;
	int rc = 0;

	j->len = JOURNAL_HEADER;
	j->room = JOURNAL_HEADER;
	j->b = calloc(1, j->room);
	if (!j->b)
		return td_fail(err, ENOMEM, "no memory for the journal");
	if (v->footer.type != VHD_FIXED) {
		rc = journal_add(j, v, 0, VHD_FOOTER, err);
		if (!rc)
			rc = journal_add(j, v, home, home + VHD_HEADER, err);
		if (!rc)
			rc = journal_add(j, v, v->layout.table_off, v->layout.table_off + 4ull * v->bat_room, err);
		if (!rc && v->has_batmap)
			rc = journal_add(j, v, v->batmap.off, v->batmap.off + (uint64_t)v->batmap.sectors * VHD_SECTOR, err);
		if (!rc && v->has_batmap)
			rc = journal_add(j, v, v->layout.batmap_header, v->layout.batmap_header + VHD_SECTOR, err);
	}
	if (!rc)
		rc = journal_add(j, v, last, v->file_size, err);
	if (rc < 0)
		return rc;
	memcpy(j->b, JOURNAL_MAGIC, 8);
	td_put_be32(j->b + J_BLOCKS, v->footer.type == VHD_FIXED ? 0 : v->layout.blocks);
	td_put_be64(j->b + J_FILE_SIZE, v->file_size);
	td_put_be64(j->b + J_LENGTH, j->len);
	memcpy(j->b + J_UUID, v->footer.uuid, 16);
	td_put_be64(j->b + J_CHECKSUM, journal_sum(j->b + JOURNAL_HEADER, j->len - JOURNAL_HEADER));
	return 0;
}

static int write_all(int fd, const void *buf, size_t len, off_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_parent_dir(const char *path)
{
	char dir[VHD_PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd, rc;

	if (!slash)
		strcpy(dir, ".");
	else if (slash - path + 2 > (ptrdiff_t)sizeof dir)
		return -ENAMETOOLONG;
	else {
		memcpy(dir, path, (size_t)(slash - path + 1));
		dir[slash - path + 1] = 0;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	close(fd);
	return rc;
}

/* R1.  Where the journal is a block device, as on LVM, it is overwritten. */
static int journal_write(const struct journal *j, const char *path, struct td_err *err)
{
	struct stat st;
	bool dev = stat(path, &st) == 0 && S_ISBLK(st.st_mode);
	int fd = open(path, O_RDWR | O_CLOEXEC | (dev ? 0 : O_CREAT | O_EXCL), 0600), rc;

	if (fd < 0 && errno == EEXIST)
		return td_fail(err, EEXIST, "the journal %s exists: a resize was cut off; see vhd-util revert", path);
	if (fd < 0)
		return td_fail(err, errno, "cannot make the journal %s: %s", path, strerror(errno));
	rc = write_all(fd, j->b, j->len, 0);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	if (!rc) /* complete: a journal without this says that nothing has been changed */
		rc = write_all(fd, "\0\0\0\1", 4, J_COMPLETE);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	if (close(fd) < 0 && !rc)
		rc = -errno;
	if (!rc && !dev)
		rc = sync_parent_dir(path);
	if (rc < 0 && !dev)
		unlink(path);
	return rc < 0 ? td_fail(err, -rc, "cannot write the journal %s: %s", path, strerror(-rc)) : 0;
}

static int journal_remove(const char *path, struct td_err *err)
{
	static const uint8_t zeroes[VHD_SECTOR];
	struct stat st;
	int rc = 0;

	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		rc = fd < 0 ? -errno : write_all(fd, zeroes, sizeof zeroes, 0);
		if (fd >= 0 && fsync(fd) < 0 && !rc)
			rc = -errno;
		if (fd >= 0)
			close(fd);
	} else if (unlink(path) < 0) {
		rc = -errno;
	}
	return rc < 0 ? td_fail(err, -rc, "cannot remove the journal %s: %s", path, strerror(-rc)) : 0;
}

/* --- larger --- */

/* What the old size's last block holds beyond the old end was never the guest's: zeroes, as the rest of what is new. */
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
		static const uint8_t zeroes[65536];

		n = len < sizeof zeroes ? len : sizeof zeroes;
		rc = vhd_pwrite(v, zeroes, n, at, err);
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

/* R2: a larger table, and its batmap, behind everything. */
static int new_tables(struct vhd_image *v, uint32_t entries, struct td_err *err)
{
	uint64_t at = td_round_up(vhd_image_data_end(v), VHD_SECTOR), bytes = td_round_up(4ull * entries, VHD_SECTOR), used = 4ull * v->bat_room;
	uint64_t map_bytes = td_round_up((entries + 7) / 8, VHD_SECTOR), all = bytes + (v->has_batmap ? VHD_SECTOR + map_bytes : 0);
	struct vhd_batmap m = v->batmap;
	uint8_t *b, header[VHD_HEADER];
	int rc;

	if (v->blockdev && at + all + VHD_FOOTER > v->file_size)
		return td_fail(err, ENOSPC, "%s: its new block table needs a device of %llu bytes, and it has %llu: enlarge the device first", v->path,
			       (unsigned long long)(at + all + VHD_FOOTER), (unsigned long long)v->file_size);
	b = malloc(all);
	if (!b)
		return td_fail(err, ENOMEM, "no memory for the new tables");
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
		return td_fail(err, EFBIG, "%s: its blocks of %u bytes allow no disk of %llu bytes", v->path, v->layout.block_size,
			       (unsigned long long)size);
	if (blocks > v->layout.entries && !journal)
		return td_fail(err, ENOSPC, "%s has a block table for %llu MiB only: resize it further with a journal (-j)", v->path,
			       (unsigned long long)((uint64_t)v->layout.entries * v->layout.block_size >> 20));
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
	static const uint8_t zeroes[VHD_FOOTER];
	uint64_t old = v->size;
	int rc = 0;

	if (v->blockdev && size + VHD_FOOTER > v->file_size)
		return td_fail(err, ENOSPC, "%s has %llu bytes, and the disk needs %llu: enlarge the device first", v->path,
			       (unsigned long long)v->file_size, (unsigned long long)size + VHD_FOOTER);
	v->footer.size = size;
	v->footer.geometry = vhd_geometry(size);
	if (v->blockdev) {
		static const uint8_t mib[1 << 20];

		for (uint64_t at = old, n; at < size && !rc; at += n) {
			n = size - at < sizeof mib ? size - at : sizeof mib;
			rc = vhd_pwrite(v, mib, n, at, err);
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
		rc = vhd_pwrite(v, zeroes, sizeof zeroes, old, err);
	return rc ? rc : vhd_sync(v, err);
}

static int make_journal(const struct vhd_image *v, const char *path, struct td_err *err)
{
	struct journal j = {0};
	int rc = journal_fill(&j, v, err);

	if (!rc)
		rc = journal_write(&j, path, err);
	free(j.b);
	return rc;
}

int vhd_journal_of(const char *path, const char *journal, struct td_err *err)
{
	struct vhd_image *v;
	int rc = vhd_image_open(path, VHD_READ, &v, err);

	if (rc < 0)
		return rc;
	rc = make_journal(v, journal, err);
	vhd_image_close(v);
	return rc;
}

static int grow(struct vhd_image *v, uint64_t size, const char *journal, struct td_err *err)
{
	int rc = 0;

	if (size < v->size)
		return td_fail(err, EINVAL, "%s has %llu MiB and cannot be made smaller (to %llu MiB): copy it to a smaller disk instead", v->path,
			       (unsigned long long)(v->size >> 20), (unsigned long long)(size >> 20));
	if (size == v->size)
		return 0;
	if (journal)
		rc = make_journal(v, journal, err);
	if (!rc)
		rc = v->footer.type == VHD_FIXED ? grow_fixed(v, size, err) : grow_dynamic(v, size, journal != NULL, err);
	if (!rc && journal)
		rc = journal_remove(journal, err);
	return rc;
}

int vhd_resize(const char *path, uint64_t size, const char *journal, struct td_err *err)
{
	struct vhd_image *v;
	int rc;

	if (!size || size % VHD_SECTOR || size > VHD_SIZE_MAX)
		return td_fail(err, EINVAL, "%s cannot have %llu MiB: a VHD has at least one sector and at most 2040 GiB", path,
			       (unsigned long long)(size >> 20));
	rc = vhd_image_open(path, VHD_WRITE, &v, err);
	if (rc < 0)
		return rc;
	if (v->state != VHD_FOOTERS_GOOD)
		rc = td_fail(err, EINVAL, "%s was not closed properly: run vhd-util repair -n %s first", path, path);
	if (!rc)
		rc = grow(v, size, journal, err);
	vhd_image_close(v);
	return rc;
}

/* --- back --- */

/* b, len: the journal; -EAGAIN: it is not complete, and nothing was changed. */
static int journal_check(const uint8_t *b, size_t len, const char *path, struct td_err *err)
{
	if (len < JOURNAL_HEADER || memcmp(b, JOURNAL_MAGIC, 8) || !td_get_be32(b + J_COMPLETE))
		return len == 0 || (len >= 8 && !memcmp(b, JOURNAL_MAGIC, 8))
			       ? -EAGAIN
			       : td_fail(err, EINVAL, "%s is not a journal of vhd-util resize", path);
	if (td_get_be64(b + J_LENGTH) > len || td_get_be64(b + J_LENGTH) < JOURNAL_HEADER ||
	    td_get_be64(b + J_CHECKSUM) != journal_sum(b + JOURNAL_HEADER, td_get_be64(b + J_LENGTH) - JOURNAL_HEADER))
		return td_fail(err, EINVAL, "the journal %s is damaged", path);
	return 0;
}

static int journal_read(const char *path, uint8_t **out, struct td_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	struct stat st;
	uint8_t *b;
	size_t len = 0, room;

	if (fd < 0)
		return td_fail(err, errno, "cannot open the journal %s: %s", path, strerror(errno));
	room = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= (off_t)JOURNAL_MAX ? (size_t)st.st_size : JOURNAL_MAX;
	b = malloc(room + 1);
	while (b && len < room) {
		ssize_t n = pread(fd, b + len, room - len, (off_t)len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = td_fail(err, errno, "cannot read the journal %s: %s", path, strerror(errno));
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(fd);
	if (!b)
		return td_fail(err, ENOMEM, "no memory for the journal");
	if (!rc)
		rc = journal_check(b, len, path, err);
	if (rc < 0)
		free(b);
	else
		*out = b;
	return rc;
}

/* The k-th piece of a checked journal, of at least len bytes; NULL. */
static const uint8_t *piece(const uint8_t *b, int k, uint64_t len)
{
	uint64_t at = JOURNAL_HEADER, end = td_get_be64(b + J_LENGTH);

	for (; at + 16 <= end && td_get_be64(b + at + 8) <= end - at - 16; at += 16 + td_get_be64(b + at + 8))
		if (!k--)
			return td_get_be64(b + at + 8) >= len ? b + at + 16 : NULL;
	return NULL;
}

/* Does the image hold what it held when the journal was made?  A resize leaves its entries, and its batmap's bits, as they were. */
static bool same_blocks(const struct vhd_image *now, const uint8_t *b)
{
	uint32_t blocks = td_get_be32(b + J_BLOCKS);
	const uint8_t *bat = piece(b, PIECE_BAT, 4ull * blocks), *map = piece(b, PIECE_BATMAP, (blocks + 7ull) / 8);

	if (!bat || blocks > now->layout.blocks)
		return false;
	for (uint32_t i = 0; i < now->layout.blocks; i++) {
		if (now->bat[i] != (i < blocks ? td_get_be32(bat + 4ull * i) : VHD_UNUSED))
			return false;
		if (i < blocks && map && now->map_good && vhd_bit(now->map, i) != vhd_bit(map, i))
			return false;
	}
	return true;
}

/* What was written since the resize was cut off must not be undone. */
static int unused_since(struct vhd_image *v, const uint8_t *b, struct td_err *err)
{
	struct vhd_image *now;
	int rc = 0;

	if (vhd_image_open(v->path, VHD_LOOK, &now, NULL) < 0)
		return 0; /* nobody can have used it */
	if (memcmp(now->footer.uuid, b + J_UUID, 16))
		rc = td_fail(err, EINVAL, "the journal is of another image than %s", v->path);
	else if (now->footer.type != VHD_FIXED && !same_blocks(now, b))
		rc = td_fail(err, EINVAL, "%s has been written to since its resize was cut off: reverting would lose data. It is good as it is, "
					  "with %llu MiB; remove the journal", v->path, (unsigned long long)(now->size >> 20));
	vhd_image_close(now);
	return rc;
}

static int put_back(struct vhd_image *v, const uint8_t *b, struct td_err *err)
{
	uint64_t size = td_get_be64(b + J_FILE_SIZE), end = td_get_be64(b + J_LENGTH);
	int rc = 0;

	for (uint64_t at = JOURNAL_HEADER; at + 16 <= end && !rc;) {
		uint64_t from = td_get_be64(b + at), len = td_get_be64(b + at + 8);

		if (len > end - at - 16 || from > size || len > size - from)
			return td_fail(err, EINVAL, "the journal of %s is damaged", v->path);
		rc = vhd_pwrite(v, b + at + 16, len, from, err);
		if (!rc)
			rc = vhd_sync(v, err);
		at += 16 + len;
	}
	if (!rc && !v->blockdev && ftruncate(v->fd, (off_t)size) < 0)
		rc = td_fail(err, errno, "cannot cut %s to its old length: %s", v->path, strerror(errno));
	return rc ? rc : vhd_sync(v, err);
}

int vhd_revert(const char *path, const char *journal, struct td_err *err)
{
	struct vhd_image *v;
	uint8_t *b = NULL;
	int rc = vhd_image_open_raw(path, VHD_WRITE, &v, err);

	if (rc < 0)
		return rc;
	rc = journal_read(journal, &b, err);
	if (!rc)
		rc = unused_since(v, b, err);
	if (!rc)
		rc = put_back(v, b, err);
	if (!rc || rc == -EAGAIN)
		rc = journal_remove(journal, err);
	free(b);
	vhd_image_close(v);
	return rc;
}
