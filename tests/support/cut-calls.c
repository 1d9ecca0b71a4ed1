/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/cut-calls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/vhd-trial.h"

struct event *events;
size_t nevents;
unsigned names_synced;
static bool recording;
static ino_t recorded;

unsigned fault_at, calls;
int fault_errno;

static bool fault_now(void)
{
	return fault_at && ++calls == fault_at;
}

static bool of_interest(int fd)
{
	struct stat st;

	return recording && fstat(fd, &st) == 0 && st.st_ino == recorded;
}

static void record(enum kind kind, uint64_t off, uint64_t len, const void *data)
{
	struct event *e;

	if (nevents % 1024 == 0)
		events = realloc(events, (nevents + 1024) * sizeof *events);
	e = &events[nevents++];
	*e = (struct event){kind, off, len, NULL};
	if (data) {
		e->data = malloc(len);
		memcpy(e->data, data, len);
	}
}

ssize_t __real_pwrite(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *b, size_t n, off_t off)
{
	if (of_interest(fd)) {
		if (fault_now()) {
			if (fault_errno == SHORT)
				return __real_pwrite(fd, b, n / 2, off);
			errno = fault_errno;
			return -1;
		}
		record(WRITE, (uint64_t)off, n, b);
	}
	return __real_pwrite(fd, b, n, off);
}

ssize_t __real_pwrite64(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *b, size_t n, off_t off)
{
	if (of_interest(fd)) {
		if (fault_now()) {
			if (fault_errno == SHORT)
				return __real_pwrite64(fd, b, n / 2, off);
			errno = fault_errno;
			return -1;
		}
		record(WRITE, (uint64_t)off, n, b);
	}
	return __real_pwrite64(fd, b, n, off);
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	if (of_interest(fd)) {
		if (fault_errno != EINTR && fault_errno != SHORT && fault_now()) {
			errno = fault_errno;
			return -1;
		}
		record(SYNC, 0, 0, NULL);
	}
	return 0; /* nobody cuts the real power */
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	struct stat st;

	names_synced += recording && !nevents && !fstat(fd, &st) && S_ISDIR(st.st_mode);
	return 0;
}

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size)
{
	if (of_interest(fd)) {
		if (fault_errno != EINTR && fault_errno != SHORT && fault_now()) {
			errno = fault_errno;
			return -1;
		}
		record(TRUNCATE, 0, (uint64_t)size, NULL);
	}
	return __real_ftruncate(fd, size);
}

int __real_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size)
{
	if (of_interest(fd)) {
		if (fault_errno != EINTR && fault_errno != SHORT && fault_now()) {
			errno = fault_errno;
			return -1;
		}
		record(TRUNCATE, 0, (uint64_t)size, NULL);
	}
	return __real_ftruncate64(fd, size);
}

uint8_t *slurp(const char *path, uint64_t *len)
{
	FILE *f = fopen(path, "r");
	uint8_t *b;

	ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
	fseek(f, 0, SEEK_END);
	*len = (uint64_t)ftell(f);
	rewind(f);
	b = malloc(*len + 1);
	ck_assert_uint_eq(fread(b, 1, *len, f), *len);
	fclose(f);
	return b;
}

void spill(const char *path, const uint8_t *b, uint64_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(b, 1, len, f), len);
	fclose(f);
}

static void disk_apply(struct disk *d, const struct event *e, bool surely)
{
	uint64_t end = e->off + e->len;

	if (e->kind == TRUNCATE) {
		if (!surely && rnd(2))
			return;
		if (e->len > d->len)
			memset(d->b + d->len, 0, e->len - d->len);
		d->len = e->len;
		return;
	}
	if (end > d->len) { /* a file's length may survive where its data does not */
		if (!surely && !rnd(3))
			end = d->len;
		else {
			memset(d->b + d->len, 0, end - d->len);
			d->len = end;
		}
	}
	for (uint64_t at = e->off; at < e->off + e->len && at + 512 <= d->len; at += 512)
		if (surely || rnd(2))
			memcpy(d->b + at, e->data + (at - e->off), 512);
}

/* What the disk may hold when the power goes after `cut' events. */
void disk_after(struct disk *d, const uint8_t *before, uint64_t len, size_t cut)
{
	size_t synced = 0;

	memcpy(d->b, before, len);
	d->len = len;
	for (size_t i = 0; i < cut; i++)
		if (events[i].kind == SYNC)
			synced = i;
	for (size_t i = 0; i < cut; i++)
		if (events[i].kind != SYNC)
			disk_apply(d, &events[i], i < synced);
}

void start_recording(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	recorded = st.st_ino;
	recording = true;
	nevents = 0;
}

void stop_recording(void)
{
	recording = false;
}

void forget_events(void)
{
	for (size_t i = 0; i < nevents; i++)
		free(events[i].data);
	nevents = 0;
}
