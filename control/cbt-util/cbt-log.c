/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/cbt-util/cbt-log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/zeroes.h"

#define PIECE 65536u

static int fail_errno(const char *path, const char *what, struct td_err *err)
{
	return td_fail(err, errno, "cannot %s %s: %s", what, path, strerror(errno));
}

static int read_at(const struct cbt_log *l, void *buf, size_t len, uint64_t off, struct td_err *err)
{
	for (char *p = buf; len;) {
		ssize_t n = pread(l->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(l->path, "read", err);
		if (!n)
			return td_fail(err, EIO, "%s is cut off at byte %llu", l->path,
				       (unsigned long long)off);
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static int write_at(const struct cbt_log *l, const void *buf, size_t len, uint64_t off,
		    struct td_err *err)
{
	for (const char *p = buf; len;) {
		ssize_t n = pwrite(l->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n ? errno : ENOSPC;
			return fail_errno(l->path, "write", err);
		}
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

/* Written and not left as a hole, so that a tapdisk finds room for its bits. */
static int write_zeroes(const struct cbt_log *l, uint64_t from, uint64_t to, struct td_err *err)
{
	int rc = 0;

	for (uint64_t n; from < to && !rc; from += n) {
		n = to - from < TD_ZEROES ? to - from : TD_ZEROES;
		rc = write_at(l, td_zeroes, n, from, err);
	}
	return rc;
}

static int make_durable(const struct cbt_log *l, struct td_err *err)
{
	return fsync(l->fd) < 0 ? fail_errno(l->path, "make durable", err) : 0;
}

static int find_room(struct cbt_log *l, struct td_err *err)
{
	struct stat st;
	off_t end;

	if (fstat(l->fd, &st) < 0)
		return fail_errno(l->path, "look at", err);
	l->blockdev = S_ISBLK(st.st_mode);
	if (!l->blockdev && !S_ISREG(st.st_mode))
		return td_fail(err, EINVAL, "%s is neither a file nor a block device", l->path);
	end = lseek(l->fd, 0, SEEK_END);
	if (end < 0)
		return fail_errno(l->path, "look at", err);
	l->room = (uint64_t)end;
	return 0;
}

static int check_size(const char *path, uint64_t size, struct td_err *err)
{
	return size <= CBT_SIZE_MAX
		       ? 0
		       : td_fail(err, EINVAL, "%s: a disk of %llu bytes is larger than any", path,
				 (unsigned long long)size);
}

static int needs(const struct cbt_log *l, uint64_t size, struct td_err *err)
{
	uint64_t bytes = CHANGED_HEADER + changed_bytes(size);

	return !l->blockdev || bytes <= l->room
		       ? 0
		       : td_fail(err, ENOSPC,
				 "the device %s has %llu bytes, and a log of a disk of %llu bytes "
				 "takes %llu",
				 l->path, (unsigned long long)l->room, (unsigned long long)size,
				 (unsigned long long)bytes);
}

int cbt_create(const char *path, uint64_t size, struct td_err *err)
{
	struct cbt_log l = {.path = path};
	int rc = check_size(path, size, err);
	bool made;

	if (rc < 0)
		return rc;
	l.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	made = l.fd >= 0;
	if (!made && errno == EEXIST)
		l.fd = open(path, O_RDWR | O_CLOEXEC);
	if (l.fd < 0)
		return fail_errno(path, "create", err);
	td_put_le64(l.head + CHANGED_SIZE, size);
	rc = find_room(&l, err);
	if (!rc)
		rc = needs(&l, size, err);
	if (!rc && !l.blockdev && ftruncate(l.fd, 0) < 0)
		rc = fail_errno(path, "empty", err);
	if (!rc)
		rc = write_zeroes(&l, CHANGED_HEADER, CHANGED_HEADER + changed_bytes(size), err);
	if (!rc)
		rc = cbt_put_head(&l, err);
	cbt_close(&l);
	if (rc && made)
		unlink(path); /* or a tapdisk would be given a log that is cut off */
	return rc;
}

int cbt_open(struct cbt_log *l, const char *path, bool write, struct td_err *err)
{
	int rc;

	*l = (struct cbt_log){.path = path};
	l->fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (l->fd < 0)
		return fail_errno(path, "open", err);
	rc = find_room(l, err);
	if (!rc)
		rc = read_at(l, l->head, sizeof l->head, 0, err);
	l->size = td_get_le64(l->head + CHANGED_SIZE);
	if (!rc)
		rc = check_size(path, l->size, err);
	if (!rc && l->room < CHANGED_HEADER + changed_bytes(l->size))
		rc = td_fail(err, EIO, "%s is cut off: it has %llu bytes instead of %llu", path,
			     (unsigned long long)l->room,
			     (unsigned long long)(CHANGED_HEADER + changed_bytes(l->size)));
	if (rc < 0)
		cbt_close(l);
	return rc;
}

void cbt_close(struct cbt_log *l)
{
	close(l->fd);
	l->fd = -1;
}

int cbt_put_head(struct cbt_log *l, struct td_err *err)
{
	int rc = write_at(l, l->head, sizeof l->head, 0, err);

	return rc ? rc : make_durable(l, err);
}

int cbt_grow(struct cbt_log *l, uint64_t size, struct td_err *err)
{
	uint64_t old = CHANGED_HEADER + changed_bytes(l->size);
	int rc = check_size(l->path, size, err);

	if (!rc && size < l->size)
		rc = td_fail(err, EINVAL, "%s: its disk has %llu bytes, and a log does not shrink",
			     l->path, (unsigned long long)l->size);
	if (!rc)
		rc = needs(l, size, err);
	/* the bits before the size that covers them */
	if (!rc)
		rc = write_zeroes(l, old, CHANGED_HEADER + changed_bytes(size), err);
	if (!rc)
		rc = make_durable(l, err);
	if (rc < 0)
		return rc;
	l->size = size;
	td_put_le64(l->head + CHANGED_SIZE, size);
	return 0;
}

int cbt_read_bits(const struct cbt_log *l, int (*fn)(const void *bits, size_t len, void *arg),
		  void *arg, struct td_err *err)
{
	uint64_t bytes = changed_bytes(l->size);
	static uint8_t piece[PIECE];
	int rc = 0;

	for (uint64_t at = 0, n; at < bytes && !rc; at += n) {
		n = bytes - at < PIECE ? bytes - at : PIECE;
		rc = read_at(l, piece, n, CHANGED_HEADER + at, err);
		if (!rc)
			rc = fn(piece, n, arg);
	}
	return rc;
}

struct merge {
	struct cbt_log *into;
	uint64_t at;
	struct td_err *err;
};

static int merge_piece(const void *bits, size_t len, void *arg)
{
	static uint8_t piece[PIECE];
	struct merge *m = arg;
	int rc = read_at(m->into, piece, len, CHANGED_HEADER + m->at, m->err);

	for (size_t i = 0; i < len; i++)
		piece[i] |= ((const uint8_t *)bits)[i];
	if (!rc)
		rc = write_at(m->into, piece, len, CHANGED_HEADER + m->at, m->err);
	m->at += len;
	return rc;
}

int cbt_merge(const struct cbt_log *from, struct cbt_log *into, struct td_err *err)
{
	struct merge m = {.into = into, .err = err};
	int rc;

	if (from->size > into->size)
		return td_fail(
			err, EINVAL,
			"%s is the log of a disk of %llu bytes, larger than that of %s (%llu "
			"bytes): lengthen that with set -s first",
			from->path, (unsigned long long)from->size, into->path,
			(unsigned long long)into->size);
	rc = cbt_read_bits(from, merge_piece, &m, err);
	return rc ? rc : make_durable(into, err);
}
