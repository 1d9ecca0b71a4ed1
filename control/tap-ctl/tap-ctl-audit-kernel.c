/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tap-ctl/tap-ctl-audit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/peers.h"

#define DEPTH_MAX   8
#define DEVICES_MAX 16

/* --- the page cache --- */

/* cachestat(2), Linux 6.5; the number is the same on every architecture. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cache_range {
	uint64_t off, len; /* len 0: to the end */
};

struct cache_counts {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

static bool by_cachestat(json_t *o, int fd)
{
	struct cache_range all = {0, 0};
	struct cache_counts n = {0};

	if (syscall(SYS_cachestat, fd, &all, &n, 0) < 0)
		return false;
	json_object_set_new(o, "pages", json_integer((json_int_t)n.cached));
	json_object_set_new(o, "dirty", json_integer((json_int_t)(n.dirty + n.writeback)));
	json_object_set_new(o, "pages_by", json_string("cachestat"));
	return true;
}

/* A window at a time: a byte a page. */
static bool by_mincore(json_t *o, int fd, uint64_t size)
{
	static unsigned char in[65536];
	size_t page = (size_t)sysconf(_SC_PAGESIZE), window = page * sizeof in;
	uint64_t pages = 0;

	for (uint64_t off = 0; off < size; off += window) {
		size_t len = size - off < window ? (size_t)(size - off) : window;
		void *m = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)off);
		int rc = m == MAP_FAILED ? -1 : mincore(m, len, in);

		for (size_t i = 0; !rc && i < (len + page - 1) / page; i++)
			pages += in[i] & 1;
		if (m != MAP_FAILED)
			munmap(m, len);
		if (rc)
			return false;
	}
	json_object_set_new(o, "pages", json_integer((json_int_t)pages));
	json_object_set_new(o, "pages_by", json_string("mincore"));
	return true;
}

static void page_cache(json_t *o, const char *via, const struct stat *st)
{
	int fd = open(via, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint64_t size = (uint64_t)st->st_size;

	if (fd < 0)
		return;
	if (S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)
		size = 0;
	json_object_set_new(o, "size", json_integer((json_int_t)size));
	if (!by_cachestat(o, fd))
		by_mincore(o, fd, size);
	close(fd);
}

/* --- the descriptor --- */

static void put_flags(json_t *o, unsigned flags)
{
	static const char *const access[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "?"};
	json_t *a = json_array();

	json_array_append_new(a, json_string(access[flags & O_ACCMODE]));
	if (flags & O_DIRECT)
		json_array_append_new(a, json_string("O_DIRECT"));
	if ((flags & O_SYNC) == O_SYNC)
		json_array_append_new(a, json_string("O_SYNC"));
	else if (flags & O_DSYNC)
		json_array_append_new(a, json_string("O_DSYNC"));
	json_object_set_new(o, "flags", a);
	json_object_set_new(o, "direct", json_boolean(flags & O_DIRECT));
	json_object_set_new(o, "writes", json_boolean((flags & O_ACCMODE) != O_RDONLY));
}

/* "lock: 1: OFDLCK  ADVISORY  WRITE -1 fe:00:1234 0 EOF" */
static void put_lock(json_t *locks, const char *line)
{
	char kind[16], type[16], from[24], to[24];

	if (sscanf(line, "lock: %*s %15s %*s %15s %*s %*s %23s %23s", kind, type, from, to) == 4)
		json_array_append_new(locks,
				      json_sprintf("%s %s, bytes %s to %s", kind, type, from, to));
}

static bool put_fdinfo(json_t *o, pid_t pid, const char *fd)
{
	json_t *locks = json_array();
	char path[80], line[256];
	unsigned flags;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/fdinfo/%.16s", (int)pid, fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "flags: %o", &flags) == 1)
			put_flags(o, flags);
		else
			put_lock(locks, line);
	}
	json_object_set_new(o, "locks", locks);
	if (f)
		fclose(f);
	return f;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode))
		return S_ISBLK(b->st_mode) && a->st_rdev == b->st_rdev;
	return S_ISREG(b->st_mode) && a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool tc_audit_file(json_t *o, pid_t pid, const char *path, struct stat *st)
{
	char dir[40], via[80];
	struct dirent *e;
	struct stat is;
	bool found = false;
	DIR *d;

	if (stat(path, st) < 0 || (!S_ISBLK(st->st_mode) && !S_ISREG(st->st_mode)))
		return false;
	snprintf(dir, sizeof dir, "/proc/%d/fd", (int)pid);
	d = opendir(dir);
	while (d && !found && (e = readdir(d))) {
		snprintf(via, sizeof via, "%s/%.16s", dir, e->d_name);
		if (e->d_name[0] == '.' || stat(via, &is) < 0 || !same_file(st, &is))
			continue;
		found = true;
		json_object_set_new(o, "fd", json_integer(atoi(e->d_name)));
		put_fdinfo(o, pid, e->d_name);
		page_cache(o, via, st);
	}
	if (d)
		closedir(d);
	return found;
}

/* --- what it stands on --- */

/* Its options may keep locks on this host. */
static bool other_hosts_mount(const char *type)
{
	return !strncmp(type, "nfs", 3) || !strcmp(type, "cifs") || !strcmp(type, "gfs2") ||
	       !strcmp(type, "ocfs2");
}

void tc_audit_mount(json_t *o, dev_t dev)
{
	char line[4096], want[32], type[64], source[512], options[512];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	const char *tail;

	snprintf(want, sizeof want, " %u:%u ", major(dev), minor(dev));
	while (f && fgets(line, sizeof line, f)) {
		tail = strstr(line, want) ? strstr(line, " - ") : NULL;
		if (!tail || sscanf(tail, " - %63s %511s %511s", type, source, options) != 3)
			continue;
		json_object_set_new(o, "file_system", json_string(type));
		json_object_set_new(o, "source", json_string(source));
		if (other_hosts_mount(type))
			json_object_set_new(o, "options", json_string(options));
		break;
	}
	if (f)
		fclose(f);
}

static bool read_line(char *out, size_t size, const char *dir, const char *name)
{
	char path[PATH_MAX + 64];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "re");
	out[0] = 0;
	if (f && !fgets(out, (int)size, f))
		out[0] = 0;
	out[strcspn(out, "\n")] = 0;
	if (f)
		fclose(f);
	return out[0];
}

static json_t *device(const char *dir, const char *name, unsigned maj, unsigned min, int depth)
{
	json_t *o = json_object();
	char text[256];
	unsigned long long flushes;

	json_object_set_new(o, "name", json_string(name));
	json_object_set_new(o, "device", json_sprintf("%u:%u", maj, min));
	json_object_set_new(o, "depth", json_integer(depth));
	if (read_line(text, sizeof text, dir, "queue/write_cache"))
		json_object_set_new(o, "write_cache", json_string(text));
	if (read_line(text, sizeof text, dir, "queue/fua"))
		json_object_set_new(o, "fua", json_boolean(text[0] == '1'));
	/* Documentation/block/stat.rst of Linux: since 5.5 the 16th field counts flushes */
	if (read_line(text, sizeof text, dir, "stat") &&
	    sscanf(text, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
		   &flushes) == 1)
		json_object_set_new(o, "flushes", json_integer((json_int_t)flushes));
	return o;
}

static bool known(json_t *devices, unsigned maj, unsigned min)
{
	char want[32];
	json_t *d;
	size_t i;

	snprintf(want, sizeof want, "%u:%u", maj, min);
	json_array_foreach (devices, i, d)
		if (!strcmp(json_string_value(json_object_get(d, "device")) ?: "", want))
			return true;
	return false;
}

static bool dev_in(const char *dir, const char *name, unsigned *maj, unsigned *min)
{
	char text[40];

	return read_line(text, sizeof text, dir, name) && sscanf(text, "%u:%u", maj, min) == 2;
}

void tc_audit_devices(json_t *devices, dev_t dev, int depth)
{
	unsigned maj = major(dev), min = minor(dev), a, b;
	char dir[PATH_MAX], real[PATH_MAX], text[32], path[PATH_MAX + 8], below[300];
	bool last = true;
	struct dirent *e;
	json_t *o;
	DIR *d;

	if (depth > DEPTH_MAX || json_array_size(devices) >= DEVICES_MAX ||
	    td_host_path(dir, sizeof dir, "/sys/dev/block/%u:%u", maj, min) || !realpath(dir, real))
		return;
	if (read_line(text, sizeof text, dir, "partition")) { /* its disk has the cache */
		*strrchr(real, '/') = 0;
		if (dev_in(real, "dev", &a, &b))
			tc_audit_devices(devices, makedev(a, b), depth);
		return;
	}
	if (known(devices, maj, min))
		return;
	o = device(real, strrchr(real, '/') + 1, maj, min, depth);
	json_array_append_new(devices, o);
	snprintf(path, sizeof path, "%s/slaves", real);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(below, sizeof below, "%s/dev", e->d_name);
		if (e->d_name[0] == '.' || !dev_in(path, below, &a, &b))
			continue;
		last = false;
		tc_audit_devices(devices, makedev(a, b), depth + 1);
	}
	if (d)
		closedir(d);
	json_object_set_new(o, "last", json_boolean(last));
}
