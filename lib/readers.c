/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/readers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { READERS_LEN = 100, QEMU_READS = 100, QEMU_PERMS = 100 }; /* as in lib/io/file-lock.c */

/* How the kernel names fd's file in a line about a lock, blanks around it. */
static bool lock_name(int fd, char out[64])
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	snprintf(out, 64, " %02x:%02x:%lu ", major(st.st_dev), minor(st.st_dev),
		 (unsigned long)st.st_ino);
	return true;
}

/* Is it the lock of a reader or a parent of ours, or of a QEMU that reads?  A line: "1: OFDLCK
 * ADVISORY  READ -1 08:01:42 0 99". */
static bool is_readers(const char *line, const char *name)
{
	const char *at = strstr(line, name);
	unsigned long long from;
	char to[32] = "";

	if (!at || !strstr(line, " READ ") || sscanf(at + strlen(name), "%llu %31s", &from, to) < 1)
		return false;
	return (from == 0 && atoi(to) == READERS_LEN - 1) ||
	       (from >= QEMU_READS && from < QEMU_READS + QEMU_PERMS);
}

static unsigned count_readers(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	char line[256];
	unsigned n = 0;

	while (f && fgets(line, sizeof line, f))
		n += is_readers(line, name);
	if (f)
		fclose(f);
	return n;
}

/* Locks of the open files of a process. */
static unsigned count_of(const char *pid, const char *name)
{
	char path[300];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%s/fdinfo", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%s/fdinfo/%s", pid, e->d_name);
		n += e->d_name[0] == '.' ? 0 : count_readers(path, name);
	}
	if (d)
		closedir(d);
	return n;
}

/* The process that has more locks on the one than on the other. */
static void find_reader(const char *name, const char *through, char *who, size_t len)
{
	char path[300], comm[64] = "?";
	struct dirent *e;
	DIR *d = opendir("/proc");
	FILE *f;

	while (d && !*who && (e = readdir(d))) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || atoi(e->d_name) == getpid() ||
		    count_of(e->d_name, name) <= count_of(e->d_name, through))
			continue;
		snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
		f = fopen(path, "re");
		if (f && fgets(comm, sizeof comm, f))
			comm[strcspn(comm, "\n")] = 0;
		if (f)
			fclose(f);
		snprintf(who, len, " by %s (pid %.20s)", comm, e->d_name);
	}
	if (d)
		closedir(d);
}

/* Is there one at all, of whatever host?  fd's own do not count. */
static bool is_locked(int fd)
{
	struct flock fl = {.l_type = F_WRLCK,
			   .l_whence = SEEK_SET,
			   .l_start = 0,
			   .l_len = READERS_LEN + QEMU_PERMS};

	return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

bool td_readers_beside(int fd, unsigned mine, int through, unsigned own, char *who, size_t len)
{
	char name[64], pass[64];

	*who = 0;
	if (!is_locked(fd) || !lock_name(fd, name) || !lock_name(through, pass))
		return false;
	if (is_locked(through) &&
	    count_readers("/proc/locks", name) + own <= count_readers("/proc/locks", pass) + mine)
		return false;
	find_reader(name, pass, who, len);
	return true;
}

unsigned td_readers(int fd)
{
	char name[64];

	return lock_name(fd, name) ? count_readers("/proc/locks", name) : 0;
}
