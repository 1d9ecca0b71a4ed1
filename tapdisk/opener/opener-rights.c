/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The answers: may it? */
#include "tapdisk/opener/opener-rights.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/marker.h"
#include "lib/redo-inside.h"
#include "tapdisk/opener/opener-inside.h"

/* What is not there is not there for anybody. */
static int not_named(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR) ? -errno : -EACCES;
}

static bool is_named(const char *path, const char *full)
{
	return (*path && named_has(path)) || (*full && named_has(full));
}

static bool is_written(const char *path, const char *full)
{
	return (*path && named_writes(path)) || (*full && named_writes(full));
}

/* --- logs (lib/redo.h) --- */

static bool is_log_of(const struct stat *st, const char *path, void *arg)
{
	const struct td_redo *r = arg;
	struct redo_id id;

	redo_identify(st, &id);
	return redo_same(r->head, &id, path);
}

static bool is_log_of_image(const struct td_redo *r)
{
	for (const struct named *f = named_first(); f; f = f->next) {
		struct stat st;

		if (stat(f->path, &st) == 0 && is_log_of(&st, f->path, (void *)r))
			return true;
	}
	return seen_any(is_log_of, (void *)r);
}

/* One of an image of ours is looked at, whoever's it was.  One that cannot be read may be: the
 * tapdisk gets to hear why.  Any other is none. */
static int check_log(const char *path)
{
	struct td_redo *r = NULL;
	int rc = redo_map(path, &r);

	if (rc < 0)
		return rc;
	rc = is_log_of_image(r) ? 0 : -ENOENT;
	td_redo_free(r);
	return rc;
}

/* --- opening --- */

static int reopen(int found, uint64_t flags)
{
	char via[40];
	int fd;

	snprintf(via, sizeof via, "/proc/self/fd/%d", found);
	fd = open(via, (int)(flags & ~(uint64_t)O_NOFOLLOW) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

bool rights_makes(uint64_t flags)
{
	return flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;
}

static bool reads(uint64_t flags)
{
	return (flags & O_ACCMODE) == O_RDONLY && !rights_makes(flags);
}

static bool may_reopen(const struct stat *st, uint64_t flags)
{
	return seen_has(st) && (reads(flags) || (named_commits() && !rights_makes(flags)));
}

/* A parent that was granted, by its name.  -ENOENT: it is none. */
static int open_seen(const char *path, uint64_t flags)
{
	int found = rights_makes(flags) || !*path ? -1 : open(path, O_PATH | O_CLOEXEC),
	    fd = -ENOENT;
	struct stat st;

	if (found < 0)
		return -ENOENT;
	if (fstat(found, &st) == 0 && may_reopen(&st, flags))
		fd = reopen(found, flags);
	close(found);
	return fd;
}

/* Names with ".." in sysfs, where links lead up and down: what is found there is judged by where it
 * is. */
static int open_dots(const char *path, uint64_t flags)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW),
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	const char *rest, *dir = reads(flags) ? place_with_dots(path, &rest) : NULL;
	int at = dir ? open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1, found, fd = -EACCES;
	char via[40], real[PATH_MAX];
	ssize_t n;

	if (at < 0)
		return -EACCES;
	found = (int)syscall(SYS_openat2, at, rest, &how, sizeof how);
	if (found < 0)
		fd = errno == EXDEV || errno == ELOOP ? -EACCES : -errno;
	close(at);
	if (found < 0)
		return fd;
	snprintf(via, sizeof via, "/proc/self/fd/%d", found);
	n = readlink(via, real, sizeof real - 1);
	real[n > 0 ? n : 0] = 0;
	if (strcmp(dir, "/sys") != 0 || place_is_for_all(real))
		fd = reopen(found, flags);
	close(found);
	return fd;
}

/* This process may read more than every user, also where a link in such a place leads to. */
static int open_library(const char *path, uint64_t flags)
{
	int found = open(path, O_PATH | O_CLOEXEC | (int)(flags & O_NOFOLLOW)), fd = -EACCES;
	struct stat st;

	if (found < 0)
		return -errno;
	if (fstat(found, &st) == 0 && st.st_mode & S_IROTH)
		fd = reopen(found, flags);
	close(found);
	return fd;
}

/* Channels of one guest alone, where it has no other one. */
static int open_channels(uint64_t flags)
{
	int fd = open("/dev/xen/evtchn", (int)flags), domain = named_only_domain();
	uint16_t only = (uint16_t)domain;

	if (fd < 0)
		return -errno;
	if (domain >= 0 && domain < 0x7ff0)
		ioctl(fd, _IOC(_IOC_NONE, 'E', 6, sizeof only), &only); /* Linux 4.14 */
	return fd;
}

static int got(int result, int *fd)
{
	if (result < 0)
		return result;
	*fd = result;
	return 0;
}

/* Whoever applies a dead tapdisk's log has to know whether one of its flushes has failed. */
static int check_flushes(const char *full)
{
	char log[PATH_MAX];
	long minor = place_flushes(full);

	return minor < 0 || td_ctl_redo_path((int)minor, log) ? -EACCES : check_log(log);
}

static int may_open_own(const char *full, uint64_t flags)
{
	if (!strcmp(place_below(full, td_ctl_dir()) ?: "", "nbd.lock"))
		return 0;
	if (place_is_own(full) && (reads(flags) || !place_is_record(full)))
		return 0;
	if (rights_makes(flags))
		return -EACCES;
	if (place_is_log(full))
		return check_log(full);
	if (!reads(flags))
		return -EACCES;
	if (place_is_successors(full) || place_is_record_beneath(full))
		return 0;
	return check_flushes(full);
}

/* In the control directory nobody follows a link. */
static int open_own(const char *full, uint64_t *flags)
{
	int rc = may_open_own(full, *flags);

	if (!rc)
		*flags |= O_NOFOLLOW;
	/* a disk that comes back after a handover that failed (OR4) */
	if (!rc && place_is_own(full) && place_is_record(full) && named_successor() > 0)
		named_learn_record(full);
	return rc;
}

int rights_open(const char *path, const char *full, uint64_t *flags, int *fd)
{
	int rc;

	*fd = -1;
	if (*flags & O_PATH)
		return 0; /* what it is good for is asked again */
	if (is_named(path, full) && (reads(*flags) || is_written(path, full)))
		return rights_makes(*flags) ? -EACCES : 0;
	rc = open_seen(path, *flags);
	if (rc != -ENOENT)
		return got(rc, fd);
	if (!*full)
		return got(open_dots(path, *flags), fd);
	rc = open_own(full, flags);
	if (rc != -EACCES)
		return rc;
	if (!strcmp(full, "/dev/null") && !rights_makes(*flags))
		return 0;
	if (named_has_devices() && !rights_makes(*flags) && !strcmp(full, "/dev/xen/gntdev"))
		return 0;
	if (named_has_devices() && !rights_makes(*flags) && !strcmp(full, "/dev/xen/evtchn"))
		return got(open_channels(*flags), fd);
	if (reads(*flags) && place_has_libraries(full))
		return got(open_library(full, *flags), fd);
	if (reads(*flags) &&
	    (place_is_for_all(full) || place_is_marker(full) ||
	     (named_remote() && (place_is_for_remote(full) || named_is_beside(full)))))
		return 0;
	return rights_makes(*flags) ? -EACCES : not_named(path);
}

/* Memory of the tapdisk's own, which libcryptsetup takes for a file with LUKS's header
 * (drivers/rbd/rbd-crypt.c). */
static bool is_memory(int found, const struct stat *st)
{
	static const char name[] = "/memfd:";
	char via[40], to[sizeof name] = "";

	snprintf(via, sizeof via, "/proc/self/fd/%d", found);
	return S_ISREG(st->st_mode) && !st->st_nlink &&
	       readlink(via, to, sizeof to - 1) == sizeof to - 1 && !strcmp(to, name);
}

int rights_reopen(int n, uint64_t flags)
{
	char path[64];
	struct stat st;
	int found, fd = -EACCES;

	snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)opener_for, n);
	found = open(path, O_PATH | O_CLOEXEC);
	if (found < 0)
		return -errno;
	if (fstat(found, &st) == 0 &&
	    (may_reopen(&st, flags) || (is_memory(found, &st) && !rights_makes(flags)) ||
	     (n == STDERR_FILENO && !rights_makes(flags) && !S_ISREG(st.st_mode) &&
	      !S_ISBLK(st.st_mode))))
		fd = reopen(found, flags);
	close(found);
	return fd;
}

/* --- names --- */

int rights_name(const char *full)
{
	if (place_is_own(full))
		return 0;
	/* logs that were moved aside, after they were applied */
	return place_is_log(full) ? check_log(full) : -EACCES;
}

int rights_directory(const char *full)
{
	const char *name = place_below(full, td_ctl_dir());

	return !strcmp(full, td_ctl_dir()) || (name && !strcmp(name, "tapdisk")) ||
			       place_is_own(full)
		       ? 0
		       : -EACCES;
}

int rights_remove(const char *full)
{
	int rc = place_is_successors(full) || place_is_own_marker(full) ? 0 : rights_name(full);

	return rc == -EACCES ? not_named(full) : rc;
}

int rights_rename(const char *from, const char *to)
{
	int rc = rights_remove(from);

	return rc < 0 ? rc : rights_name(to);
}

int rights_link(const char *from, const char *to)
{
	int rc = place_is_log(from) && place_is_log(to) ? rights_name(from) : not_named(from);

	return rc < 0 || place_is_own(to) ? rc : -EACCES;
}

int rights_symlink(const char *target, const char *full)
{
	return place_is_disk_link(target, full) ? 0 : -EACCES;
}

int rights_mark(int held, long minor, pid_t pid, bool beside)
{
	if (!named_has_minor(minor) || (pid && pid != opener_for && !named_keeper(pid)))
		return -EACCES;
	if (flock(held, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	return td_marker_write(held, (int)minor, pid, beside);
}

/* --- other processes --- */

/* By the socket that is only read: the disk may be written by others, and stand beneath many. */
static bool is_disk_beneath(const char *name)
{
	const char *rest;

	return name && place_number(name, "nbd-ro", &rest) > 0 && *rest == '.' &&
	       named_stands_on(place_number(rest, ".", &rest)) && !*rest;
}

int rights_connect(const char *path, const char *full)
{
	const char *name = place_below(full, td_ctl_dir()), *rest;
	pid_t to = named_successor();

	if (!strcmp(full, "/dev/log") || is_named(path, full))
		return 0;
	if (name && to > 0 && place_number(name, "ctl", &rest) == to && !*rest)
		return 0;
	return is_disk_beneath(name) ? 0 : not_named(full);
}

int rights_network(void)
{
	return named_remote() ? 0 : -EACCES;
}

int rights_socket(long family, int type, long protocol)
{
	if (family == AF_UNIX)
		return !protocol && (type == SOCK_STREAM || type == SOCK_SEQPACKET ||
				     type == SOCK_DGRAM)
			       ? 0
			       : -EACCES;
	if (family == AF_NETLINK)
		return protocol == NETLINK_SOCK_DIAG ? 0 : -EACCES;
	return family == AF_INET || family == AF_INET6 ? rights_network() : -EACCES;
}

int rights_pid(long pid)
{
	return pid > 0 && pid == named_successor() ? 0 : -EACCES;
}

/* To a successor that fails, which is another user's process (B8 of tapdisk/sandbox/sandbox.h). */
int rights_signal(int pidfd)
{
	char path[40], line[80];
	long pid = -1;
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
	f = fopen(path, "re");
	while (f && pid < 0 && fgets(line, sizeof line, f))
		sscanf(line, "Pid: %ld", &pid);
	if (f)
		fclose(f);
	return rights_pid(pid);
}
