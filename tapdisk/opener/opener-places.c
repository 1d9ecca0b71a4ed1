/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names that need not be named by the host: in the control directory (OR3), and for everybody. */
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conf.h"
#include "lib/ctl-dir.h"
#include "lib/disk-words.h"
#include "lib/peers.h"
#include "td/ctl.h"
#include "tapdisk/opener/opener-inside.h"

const char *place_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	return !strncmp(path, dir, n) && path[n] == '/' ? path + n + 1 : NULL;
}

/* Its name in the control directory; NULL: it is not there, or deeper. */
static const char *in_control(const char *path)
{
	const char *name = place_below(path, td_ctl_dir());

	return name && !strchr(name, '/') ? name : NULL;
}

long place_number(const char *name, const char *prefix, const char **rest)
{
	size_t n = strlen(prefix);
	char *end;
	long v;

	if (strncmp(name, prefix, n) || !isdigit((unsigned char)name[n]))
		return -1;
	v = strtol(name + n, &end, 10);
	*rest = end;
	return *end && *end != '.' ? -1 : v;
}

static bool is_exactly(const char *name, const char *prefix, long number)
{
	const char *rest;

	return number > 0 && place_number(name, prefix, &rest) == number && !*rest;
}

/* A disk's NBD sockets: PREFIX<pid>.<minor>. */
static bool is_nbd_socket(const char *name, long *pid, long *minor)
{
	static const char *const of_disk[] = {"nbd",       "nbd-old",       "nbd-ro",
					      "nbdserver", "nbdserver-new", "nbdexport"};
	const char *rest;
	char *end;

	for (size_t i = 0; i < sizeof of_disk / sizeof *of_disk; i++) {
		*pid = place_number(name, of_disk[i], &rest);
		if (*pid < 0 || *rest != '.' || !isdigit((unsigned char)rest[1]))
			continue;
		*minor = strtol(rest + 1, &end, 10);
		return !*end;
	}
	return false;
}

/* Of a disk's NBD sockets, those of ours, and links to them under any pid's name. */
static bool is_own_socket(const char *name)
{
	long pid, minor;

	return is_exactly(name, "ctl", opener_for) || is_exactly(name, "nbdclient", opener_for) ||
	       (is_nbd_socket(name, &pid, &minor) && (pid == opener_for || seal_is_ours(minor)));
}

static long minor_of_file(const char *name)
{
	static const char *const of_minor[] = {"disk", "flush", "redo", "left", "ring"};
	const char *rest;
	long minor = -1;

	for (size_t i = 0; i < sizeof of_minor / sizeof *of_minor && minor < 0; i++)
		minor = place_number(name, of_minor[i], &rest);
	return minor;
}

static bool is_own_file(const char *name)
{
	long minor = minor_of_file(name);

	return minor >= 0 && seal_is_ours(minor);
}

static long minor_of_marker(const char *path)
{
	const char *name = place_below(path, td_ctl_dir()), *rest;
	long minor = name ? place_number(name, "tapdisk/tapdisk-", &rest) : -1;

	return minor >= 0 && !*rest ? minor : -1;
}

bool place_is_own_marker(const char *path)
{
	long minor = minor_of_marker(path);

	return minor >= 0 && seal_is_ours(minor);
}

/* That a leaf is full; beside the control directory, where toolstacks look. */
static long minor_of_full(const char *path)
{
	const char *dir = getenv(TD_CTL_DIR_ENV), *rest;
	const char *name = place_below(path, dir && *dir ? dir : "/run");
	long minor = name ? place_number(name, "tapdisk-enospc", &rest) : -1;

	return minor >= 0 && !*rest ? minor : -1;
}

long place_minor(const char *path)
{
	const char *name = in_control(path);
	long pid, minor = minor_of_marker(path);

	if (minor < 0 && name)
		minor = minor_of_file(name);
	if (minor < 0 && name && is_nbd_socket(name, &pid, &minor) && pid == opener_for)
		minor = -1;
	if (minor < 0)
		minor = minor_of_full(path);
	return minor < TD_MINOR_MAX ? minor : -1;
}

/* Counters (lib/shm-dir.h), in /dev/shm or, where there is another control directory, in it. */
static const char *in_counters(const char *path)
{
	const char *dir = getenv(TD_CTL_DIR_ENV);

	return place_below(path, dir && *dir ? dir : "/dev/shm");
}

/* The directory td3-<pid>, or a file in it. */
static bool is_counter_of(const char *path, long pid)
{
	const char *name = in_counters(path);
	char *end;

	return name && pid > 0 && !strncmp(name, "td3-", 4) && strtol(name + 4, &end, 10) == pid &&
	       (!*end || (*end == '/' && !strchr(end + 1, '/')));
}

bool place_is_successors(const char *path)
{
	const char *name = in_control(path);
	long pid = named_successor();

	return (name && (is_exactly(name, "ctl", pid) || is_exactly(name, "nbdclient", pid))) ||
	       is_counter_of(path, pid);
}

static bool is_own_counter(const char *path)
{
	const char *name = in_counters(path);
	unsigned domid, devid;
	int at = 0;

	if (!name || is_counter_of(path, opener_for))
		return name;
	if (sscanf(name, "vbd3-%u-%u%n", &domid, &devid, &at) < 2 || !at)
		return false;
	name += at;
	return (!*name || (*name == '/' && !strchr(name + 1, '/'))) &&
	       named_has_device(domid, devid);
}

/* Threads get their names by a file. */
static bool is_own_thread(const char *path)
{
	char own[64];
	const char *name;

	snprintf(own, sizeof own, "/proc/%d/task", (int)opener_for);
	name = place_below(path, own);
	return name && !strcmp(name + strspn(name, "0123456789"), "/comm");
}

bool place_is_own(const char *path)
{
	const char *name = in_control(path);

	return is_own_thread(path) || (name && (is_own_socket(name) || is_own_file(name))) ||
	       is_own_counter(path) ||
	       (minor_of_full(path) >= 0 && seal_is_ours(minor_of_full(path)));
}

/* For those who know a disk's socket by the name of the process that had it. */
bool place_is_disk_link(const char *target, const char *path)
{
	const char *name = in_control(path);
	long a, b, minor, its;

	/* its own names stay behind when the minor has gone to a successor */
	return name && is_nbd_socket(name, &a, &its) && is_nbd_socket(target, &b, &minor) &&
	       minor == its && (a == opener_for ? named_has_minor(minor) : seal_is_ours(minor));
}

bool place_is_record(const char *path)
{
	const char *name = in_control(path), *rest;

	return name && place_number(name, "disk", &rest) >= 0 && !*rest;
}

/* Which disk is it that another one stands on (PD3 of tapdisk/parent-disk.h)? */
bool place_is_record_beneath(const char *path)
{
	const char *name = in_control(path), *rest;
	long minor = name ? place_number(name, "disk", &rest) : -1;

	return minor >= 0 && !*rest && named_stands_on(minor);
}

bool place_is_log(const char *path)
{
	const char *name = in_control(path), *rest;

	return name && place_number(name, "redo", &rest) >= 0;
}

long place_flushes(const char *path)
{
	const char *name = in_control(path), *rest;
	long minor = name ? place_number(name, "flush", &rest) : -1;

	return minor >= 0 && !*rest && minor < TD_MINOR_MAX ? minor : -1;
}

bool place_is_marker(const char *path)
{
	const char *name = place_below(path, td_ctl_dir()), *rest;

	return !strcmp(path, td_ctl_dir()) ||
	       (name && (!strcmp(name, "tapdisk") ||
			 (place_number(name, "tapdisk/tapdisk-", &rest) >= 0 && !*rest)));
}

/* --- what every tapdisk reads --- */

static bool is_one_of(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

#define IS_ONE_OF(name, names) is_one_of(name, names, sizeof names / sizeof *names)

/* Below one of them, or itself. */
static bool is_in_one_of(const char *path, const char *const *dirs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (place_below(path, dirs[i]) || !strcmp(path, dirs[i]))
			return true;
	return false;
}

static bool is_in_proc(const char *rest)
{
	static const char *const of_host[] = {"stat",
					      "locks",
					      "meminfo",
					      "cpuinfo",
					      "drbd",
					      "sys/kernel/random/boot_id",
					      "sys/vm/overcommit_memory"};
	static const char *const of_process[] = {"stat", "status", "comm", "fdinfo"};
	size_t digits = strspn(rest, "0123456789");
	const char *name = rest + digits + 1;

	if (IS_ONE_OF(rest, of_host))
		return true;
	if (!digits || rest[digits] != '/')
		return false;
	return IS_ONE_OF(name, of_process) ||
	       (!strncmp(name, "fdinfo/", 7) && name[7 + strspn(name + 7, "0123456789")] == 0);
}

bool place_is_for_all(const char *path)
{
	static const char *const dirs[] = {"/sys/dev", "/sys/devices", "/sys/block",
					   "/sys/class/block", "/sys/hypervisor"};
	static const char *const exact[] = {"/proc",         "/etc/localtime", "/etc/ld.so.cache",
					    "/dev/urandom",  "/dev/random",    "/etc/ld.so.preload",
					    "/etc/timezone", "/sys/bus/xen"};
	const char *root = getenv(TD_HOST_ROOT_ENV), *rest = place_below(path, "/proc");
	char dir[PATH_MAX];

	if (rest && is_in_proc(rest))
		return true;
	if (is_in_one_of(path, dirs, sizeof dirs / sizeof *dirs) || IS_ONE_OF(path, exact))
		return true;
	for (int i = 0; i < TD_DISKS_DIRS; i++)
		if (!td_disks_dir(i, dir, sizeof dir) &&
		    (place_below(path, dir) || !strcmp(path, dir)))
			return true;
	return !strcmp(path, td_conf_path()) || (root && *root && place_below(path, root)) ||
	       place_below(path, "/sys/kernel/debug/drbd");
}

bool place_has_libraries(const char *path)
{
	/* beside the last two are the host's keys */
	static const char *const dirs[] = {"/usr", "/lib", "/lib64", "/etc/ssl/openssl.cnf",
					   "/etc/ssl/certs"};

	return is_in_one_of(path, dirs, sizeof dirs / sizeof *dirs);
}

bool place_is_for_remote(const char *path)
{
	static const char *const exact[] = {"/etc/resolv.conf",   "/etc/hosts",
					    "/etc/host.conf",     "/etc/gai.conf",
					    "/etc/nsswitch.conf", "/etc/services"};

	return IS_ONE_OF(path, exact) || place_below(path, "/etc/ceph");
}

const char *place_with_dots(const char *path, const char **rest)
{
	const char *root = getenv(TD_HOST_ROOT_ENV),
		   *dirs[] = {"/sys", root && *root ? root : NULL};

	for (int i = 0; i < 2; i++)
		if (dirs[i] && (*rest = place_below(path, dirs[i])))
			return dirs[i];
	return NULL;
}
