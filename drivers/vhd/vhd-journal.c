/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: the journal of a resize, and back.  The journal has all that a resize may change,
 * as it was.  To revert: the saved bytes go back in the order that the journal has, the footer's
 * copy at 0 first, since the old tables are enough for the old size alone; the file gets its old
 * length.  Reverting can be cut off and begun again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"
#include "lib/zeroes.h"

/* The journal: a header of 64 bytes, and pieces of the image, each with its place and length before
 * it. */
#define JOURNAL_MAGIC  "tdvhdjnl"
#define JOURNAL_HEADER 64
#define JOURNAL_MAX    (256u << 20)

enum {
	J_COMPLETE = 8,
	J_BLOCKS = 12,
	J_FILE_SIZE = 16,
	J_LENGTH = 24,
	J_UUID = 32,
	J_CHECKSUM = 48
};
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
static int journal_add(struct journal *j, const struct vhd_image *v, uint64_t from, uint64_t to,
		       struct td_err *err)
{
	size_t need = j->len + 16 + (to - from);

	if (to - from > JOURNAL_MAX || need > JOURNAL_MAX)
		return td_fail(err, EFBIG, "%s: its tables are too large for a journal", v->path);
	if (need > j->room) {
		uint8_t *b = realloc(j->b, need * 2);

		if (!b)
			return td_fail(err, ENOMEM, "out of memory for the journal");
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
		return td_fail(err, ENOMEM, "out of memory for the journal");
	if (v->footer.type != VHD_FIXED) {
		rc = journal_add(j, v, 0, VHD_FOOTER, err);
		if (!rc)
			rc = journal_add(j, v, home, home + VHD_HEADER, err);
		if (!rc)
			rc = journal_add(j, v, v->layout.table_off,
					 v->layout.table_off + 4ull * v->bat_room, err);
		if (!rc && v->has_batmap)
			rc = journal_add(j, v, v->batmap.off,
					 v->batmap.off + (uint64_t)v->batmap.sectors * VHD_SECTOR,
					 err);
		if (!rc && v->has_batmap)
			rc = journal_add(j, v, v->layout.batmap_header,
					 v->layout.batmap_header + VHD_SECTOR, err);
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

static bool journal_there(int fd)
{
	uint8_t b[JOURNAL_HEADER];

	return pread(fd, b, sizeof b, 0) == sizeof b && !memcmp(b, JOURNAL_MAGIC, 8) &&
	       td_get_be32(b + J_COMPLETE);
}

/* RZ1.  Where the journal is a block device, as on LVM, it is overwritten. */
static int journal_write(const struct journal *j, const char *path, struct td_err *err)
{
	struct stat st;
	bool dev = stat(path, &st) == 0 && S_ISBLK(st.st_mode);
	int fd = open(path, O_RDWR | O_CLOEXEC | (dev ? 0 : O_CREAT | O_EXCL), 0600), rc;

	if ((fd < 0 && errno == EEXIST) || (fd >= 0 && dev && journal_there(fd))) {
		if (fd >= 0)
			close(fd);
		return td_fail(
			err, EEXIST,
			"the journal %s exists: a resize was interrupted; see vhd-util revert",
			path);
	}
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
	if (rc < 0)
		td_fail(err, -rc, "cannot write the journal %s: %s", path, strerror(-rc));
	else if (!dev)
		rc = vhd_sync_name(path, err);
	if (rc < 0 && !dev)
		unlink(path);
	return rc;
}

int vhd_journal_remove(const char *path, struct td_err *err)
{
	struct stat st;
	int rc = 0;

	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		rc = fd < 0 ? -errno : write_all(fd, td_zeroes, VHD_SECTOR, 0);
		if (fd >= 0 && fsync(fd) < 0 && !rc)
			rc = -errno;
		if (fd >= 0)
			close(fd);
	} else {
		rc = unlink(path) < 0 ? -errno : vhd_sync_name(path, err);
	}
	return rc < 0 ? td_fail(err, -rc, "cannot remove the journal %s: %s", path, strerror(-rc))
		      : 0;
}

int vhd_journal_make(const struct vhd_image *v, const char *path, struct td_err *err)
{
	struct journal j = {0};
	int rc = journal_fill(&j, v, err);

	if (!rc)
		rc = journal_write(&j, path, err);
	free(j.b);
	return rc;
}

/* --- back --- */

/* b, len: the journal, or its header and as much of it as there is; -EAGAIN: it is not complete,
 * and nothing was changed. */
static int journal_check(const uint8_t *b, size_t len, const char *path, struct td_err *err)
{
	uint64_t length = len < JOURNAL_HEADER ? 0 : td_get_be64(b + J_LENGTH);

	if (len < JOURNAL_HEADER || memcmp(b, JOURNAL_MAGIC, 8))
		return len < 8 || !memcmp(b, JOURNAL_MAGIC, 8)
			       ? -EAGAIN
			       : td_fail(err, EINVAL, "%s is not a journal of vhd-util resize",
					 path);
	if (!td_get_be32(b + J_COMPLETE))
		return -EAGAIN;
	if (length > len || length < JOURNAL_HEADER ||
	    td_get_be64(b + J_CHECKSUM) != journal_sum(b + JOURNAL_HEADER, length - JOURNAL_HEADER))
		return td_fail(err, EINVAL, "the journal %s is damaged", path);
	return 0;
}

/* Up to len bytes from the start: how many there were, or -errno. */
static ssize_t read_start(int fd, uint8_t *b, size_t len)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = pread(fd, b + at, len - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		at += (size_t)n;
	}
	return (ssize_t)at;
}

/* The journal may be a device, which is larger: its header says how long it is. */
static int journal_read(const char *path, uint8_t **out, struct td_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	uint8_t header[JOURNAL_HEADER], *b;
	uint64_t want = JOURNAL_HEADER;
	ssize_t n;

	if (fd < 0)
		return td_fail(err, errno, "cannot open the journal %s: %s", path, strerror(errno));
	n = read_start(fd, header, sizeof header);
	if (n == sizeof header && td_get_be64(header + J_LENGTH) <= JOURNAL_MAX &&
	    td_get_be64(header + J_LENGTH) > want)
		want = td_get_be64(header + J_LENGTH);
	b = malloc(want);
	if (b && n >= 0)
		n = read_start(fd, b, want);
	close(fd);
	if (!b)
		return td_fail(err, ENOMEM, "out of memory for the journal");
	if (n < 0)
		rc = td_fail(err, (int)-n, "cannot read the journal %s: %s", path,
			     strerror((int)-n));
	if (!rc)
		rc = journal_check(b, (size_t)n, path, err);
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

	for (; at + 16 <= end && td_get_be64(b + at + 8) <= end - at - 16;
	     at += 16 + td_get_be64(b + at + 8))
		if (!k--)
			return td_get_be64(b + at + 8) >= len ? b + at + 16 : NULL;
	return NULL;
}

/* Does the image hold what it held when the journal was made?  A resize leaves its entries, and its
 * batmap's bits, as they were.
 */
static bool same_blocks(const struct vhd_image *now, const uint8_t *b)
{
	uint32_t blocks = td_get_be32(b + J_BLOCKS);
	const uint8_t *bat = piece(b, PIECE_BAT, 4ull * blocks),
		      *map = piece(b, PIECE_BATMAP, (blocks + 7ull) / 8);

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

/* The same of a fixed disk: what lies beyond its old end is zero, but for its old footer. */
static bool same_fixed(const struct vhd_image *now, const uint8_t *b)
{
	static uint8_t chunk[1 << 20];
	const uint8_t *footer = piece(b, 0, VHD_FOOTER);

	for (uint64_t at = footer ? td_get_be64(footer + 48) + VHD_FOOTER : 0, n; at < now->size;
	     at += n) {
		n = now->size - at < sizeof chunk ? now->size - at : sizeof chunk;
		if (vhd_pread(now, chunk, n, at, NULL) < 0 || chunk[0] ||
		    memcmp(chunk, chunk + 1, n - 1))
			return false;
	}
	return true;
}

/* What was written since the resize was cut off must not be undone. */
static int unused_since(struct vhd_image *v, const uint8_t *b, struct td_err *err)
{
	struct td_err why = {0};
	struct vhd_image *now;
	int rc;

	rc = vhd_image_open(v->path, VHD_LOOK, &now, &why);
	if (rc == -EBUSY) /* a log waits for it */
		return td_fail(err, EBUSY, "%s", why.text);
	if (rc < 0)
		return 0; /* nobody can have used it */
	if (memcmp(now->footer.uuid, b + J_UUID, 16))
		rc = td_fail(err, EINVAL, "the journal belongs to an image other than %s", v->path);
	else if (now->footer.type == VHD_FIXED ? !same_fixed(now, b) : !same_blocks(now, b))
		rc = td_fail(err, EINVAL,
			     "%s has been written to since its resize was cut off: reverting would "
			     "lose data. It is good as it is, "
			     "with %llu MiB; remove the journal",
			     v->path, (unsigned long long)(now->size >> 20));
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
		rc = td_fail(err, errno, "cannot cut %s to its old length: %s", v->path,
			     strerror(errno));
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
		rc = vhd_journal_remove(journal, err);
	free(b);
	vhd_image_close(v);
	return rc;
}
