/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/opener/opener-rights.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/conf.h"
#include "lib/ctl-dir.h"
#include "lib/disk-words.h"
#include "lib/io/reach.h"
#include "lib/redo-inside.h"
#include "td/ctl.h"

enum { SEEN_MAX = 256, RECORD_MAX = 64 * 1024, DEVICES_MAX = 64 };

struct named {
	struct named *next;
	bool image; /* and not a file beside one */
	char path[];
};

struct object {
	dev_t dev;
	ino_t ino;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t tapdisk;
static struct named *files; /* only added to */
static unsigned char minors[TD_MINOR_MAX / 8];
static struct object seen[SEEN_MAX]; /* parents that were granted */
static unsigned seens;
static struct {
	unsigned domid, devid;
} devices[DEVICES_MAX];
static unsigned ndevices;
static pid_t successor; /* that the host has named for a handover */

void rights_init(pid_t pid)
{
	tapdisk = pid;
}

/* --- what the host has named --- */

static void name_file(const char *path, bool image)
{
	size_t n = strlen(path) + 1;
	struct named *f;

	for (f = files; f; f = f->next)
		if (!strcmp(f->path, path))
			return;
	f = malloc(sizeof *f + n);
	if (!f)
		return;
	memcpy(f->path, path, n);
	f->image = image;
	f->next = files;
	__atomic_store_n(&files, f, __ATOMIC_RELEASE);
}

static bool is_named(const char *path)
{
	for (struct named *f = __atomic_load_n(&files, __ATOMIC_ACQUIRE); f; f = f->next)
		if (!strcmp(f->path, path))
			return true;
	return false;
}

static void name_word(const char *word)
{
	static const char *const keys[] = {"data-file=", "changed-blocks="};

	for (size_t i = 0; word && i < sizeof keys / sizeof *keys; i++)
		if (!strncmp(word, keys[i], strlen(keys[i])))
			name_file(word + strlen(keys[i]), false);
}

/* What the host's files say of the image (lib/disk-words.h). */
static void name_disk_words(const char *path)
{
	static char words[TD_DISK_WORDS], file[PATH_MAX];
	char *word, *next = words;

	if (td_disk_words(path, words, file, NULL) < 0)
		return;
	while ((word = strsep(&next, "\n")) && *word)
		name_word(word);
}

static const char *path_of(const json_t *msg)
{
	const char *spec = json_string_value(json_object_get(msg, "args"));
	const char *colon = spec ? strchr(spec, ':') : NULL;

	return colon ? colon + 1 : NULL;
}

static void name_disk(const json_t *msg)
{
	const char *path = path_of(msg);
	const json_t *w;
	size_t i;

	if (path) {
		name_file(path, true);
		name_disk_words(path);
	}
	json_array_foreach (json_object_get(msg, "options"), i, w)
		name_word(json_string_value(w));
}

static void name_minor(const json_t *msg)
{
	json_int_t n = json_integer_value(json_object_get(msg, "minor"));

	if (n >= 0 && n < TD_MINOR_MAX)
		minors[n / 8] |= (unsigned char)(1 << n % 8);
}

static bool has_minor(long n)
{
	return n >= 0 && n < TD_MINOR_MAX && minors[n / 8] >> n % 8 & 1;
}

static void name_device(const json_t *msg)
{
	unsigned domid = (unsigned)json_integer_value(json_object_get(msg, "domid"));
	unsigned devid = (unsigned)json_integer_value(json_object_get(msg, "devid"));

	for (unsigned i = 0; i < ndevices && i < DEVICES_MAX; i++)
		if (devices[i].domid == domid && devices[i].devid == devid)
			return;
	devices[ndevices % DEVICES_MAX].domid = domid;
	devices[ndevices++ % DEVICES_MAX].devid = devid;
}

static bool has_words_of(const json_t *record, const json_t *msg)
{
	const json_t *w, *r;
	size_t i, k;

	json_array_foreach (json_object_get(msg, "options"), i, w) {
		const char *word = json_string_value(w) ?: "";
		bool found =
			strncmp(word, "data-file=", 10) && strncmp(word, "changed-blocks=", 15);

		json_array_foreach (json_object_get(record, "options"), k, r)
			found = found || json_equal(w, r);
		if (!found)
			return false;
	}
	return true;
}

/* OR4.  The other tapdisk, which says this, is as little to be believed. */
static bool is_recorded(const json_t *msg)
{
	int minor = (int)json_integer_value(json_object_get(msg, "minor"));
	char path[PATH_MAX];
	json_t *record;
	bool same;

	if (td_ctl_disk_path(minor, path) || !(record = json_load_file(path, 0, NULL)))
		return false;
	same = json_equal(json_object_get(record, "args"), json_object_get(msg, "args")) &&
	       has_words_of(record, msg);
	json_decref(record);
	return same;
}

void rights_learn(const json_t *msg)
{
	const char *op = json_string_value(json_object_get(msg, "op")) ?: "";
	const json_t *ring;
	size_t i;

	pthread_mutex_lock(&lock);
	if (!strcmp(op, "attach") || !strcmp(op, "settle") || !strcmp(op, "adopt"))
		name_minor(msg);
	if (!strcmp(op, "open") || !strcmp(op, "unpause") || !strcmp(op, "settle") ||
	    (!strcmp(op, "adopt") && is_recorded(msg)))
		name_disk(msg);
	if (!strcmp(op, "connect"))
		name_device(msg);
	json_array_foreach (json_object_get(msg, "rings"), i, ring)
		name_device(ring);
	if (!strcmp(op, "handover"))
		successor = (pid_t)json_integer_value(json_object_get(msg, "to"));
	pthread_mutex_unlock(&lock);
}

/* --- the control directory --- */

/* What remains of path below dir; NULL: it is not there. */
static const char *below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	return !strncmp(path, dir, n) && path[n] == '/' ? path + n + 1 : NULL;
}

/* PREFIX<number> and then nothing, or a dot: the number; else -1. */
static long number_after(const char *name, const char *prefix, const char **rest)
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

/* Of a disk's NBD sockets, those of ours, and links to them under any pid's name: the minor. */
static bool is_own_socket(const char *name)
{
	static const char *const of_disk[] = {"nbd", "nbd-old", "nbdserver", "nbdserver-new"};
	const char *rest;

	if ((number_after(name, "ctl", &rest) == tapdisk ||
	     number_after(name, "nbdclient", &rest) == tapdisk) &&
	    !*rest)
		return true;
	for (size_t i = 0; i < sizeof of_disk / sizeof *of_disk; i++) {
		long pid = number_after(name, of_disk[i], &rest);
		char *end;

		if (pid < 0 || *rest != '.')
			continue;
		return pid == tapdisk || (has_minor(strtol(rest + 1, &end, 10)) && !*end);
	}
	return false;
}

static bool is_own_file(const char *name)
{
	static const char *const of_minor[] = {"disk", "flush", "redo", "left", "ring"};
	const char *rest;

	for (size_t i = 0; i < sizeof of_minor / sizeof *of_minor; i++)
		if (has_minor(number_after(name, of_minor[i], &rest)))
			return true;
	return has_minor(number_after(name, "tapdisk/tapdisk-", &rest)) && !*rest;
}

/* Counters (lib/shm-dir.h), in /dev/shm or, where there is another control directory, in it. */
static const char *counters(const char *path)
{
	const char *dir = getenv(TD_CTL_DIR_ENV);

	return below(path, dir && *dir ? dir : "/dev/shm");
}

static bool is_own_counter(const char *path)
{
	const char *name = counters(path), *rest;
	unsigned domid, devid;
	int at = 0;

	if (!name)
		return false;
	if (!strncmp(name, "td3-", 4)) {
		char *end;

		return strtol(name + 4, &end, 10) == tapdisk &&
		       (!*end || (*end == '/' && !strchr(end + 1, '/')));
	}
	if (sscanf(name, "vbd3-%u-%u%n", &domid, &devid, &at) < 2 || !at)
		return false;
	rest = name + at;
	if (*rest && (*rest != '/' || strchr(rest + 1, '/')))
		return false;
	for (unsigned i = 0; i < ndevices && i < DEVICES_MAX; i++)
		if (devices[i].domid == domid && devices[i].devid == devid)
			return true;
	return false;
}

static bool is_own(const char *path)
{
	const char *name = below(path, td_ctl_dir());

	return (name && (is_own_socket(name) || is_own_file(name))) || is_own_counter(path);
}

bool rights_is_record(const char *path)
{
	const char *name = below(path, td_ctl_dir()), *rest;

	return name && number_after(name, "disk", &rest) >= 0 && !*rest;
}

/* Is it a log of changes of one of our images?  Then it is looked at, whoever's it was. */
static bool is_our_log(const char *path)
{
	const char *name = below(path, td_ctl_dir()), *rest;
	struct td_redo *r = NULL;
	bool ours = false;

	if (!name || number_after(name, "redo", &rest) < 0 || redo_map(path, &r) < 0)
		return false;
	for (struct named *f = __atomic_load_n(&files, __ATOMIC_ACQUIRE); f && !ours; f = f->next) {
		struct redo_id id;
		struct stat st;

		if (stat(f->path, &st) < 0)
			continue;
		redo_identify(&st, &id);
		ours = redo_same(r->head, &id, f->path);
	}
	td_redo_free(r);
	return ours;
}

/* --- what every tapdisk reads --- */

static bool matches_proc(const char *rest)
{
	static const char *const of_host[] = {"stat",
					      "locks",
					      "meminfo",
					      "cpuinfo",
					      "drbd",
					      "sys/kernel/random/boot_id",
					      "sys/vm/overcommit_memory"};
	static const char *const of_process[] = {"stat", "status", "comm", "fdinfo"};
	const char *slash = strchr(rest, '/');

	for (size_t i = 0; i < sizeof of_host / sizeof *of_host; i++)
		if (!strcmp(rest, of_host[i]))
			return true;
	if (!slash || strspn(rest, "0123456789") != (size_t)(slash - rest))
		return false;
	for (size_t i = 0; i < sizeof of_process / sizeof *of_process; i++)
		if (!strcmp(slash + 1, of_process[i]))
			return true;
	return !strncmp(slash, "/fdinfo/", 8) && slash[8 + strspn(slash + 8, "0123456789")] == 0;
}

static bool is_for_all(const char *path)
{
	static const char *const dirs[] = {"/sys/dev",         "/sys/devices", "/sys/block",
					   "/sys/class/block", "/usr",         "/lib",
					   "/lib64",           "/etc/ssl",     "/sys/hypervisor"};
	static const char *const exact[] = {"/proc",         "/etc/localtime", "/etc/ld.so.cache",
					    "/dev/urandom",  "/dev/random",    "/etc/ld.so.preload",
					    "/etc/timezone", "/sys/bus/xen"};
	const char *root = getenv("TAPDISK_HOST_ROOT"), *rest = below(path, "/proc");
	char dir[PATH_MAX];

	if (rest && matches_proc(rest))
		return true;
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
		if (below(path, dirs[i]) || !strcmp(path, dirs[i]))
			return true;
	for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
		if (!strcmp(path, exact[i]))
			return true;
	for (int i = 0; i < TD_DISKS_DIRS; i++)
		if (!td_disks_dir(i, dir, sizeof dir) && (below(path, dir) || !strcmp(path, dir)))
			return true;
	return !strcmp(path, td_conf_path()) || (root && *root && below(path, root));
}

static bool is_marker(const char *path)
{
	const char *name = below(path, td_ctl_dir()), *rest;

	return !strcmp(path, td_ctl_dir()) ||
	       (name && (!strcmp(name, "tapdisk") ||
			 (number_after(name, "tapdisk/tapdisk-", &rest) >= 0 && !*rest)));
}

static bool is_device(const char *path)
{
	return !strcmp(path, "/dev/null") ||
	       (ndevices && (!strcmp(path, "/dev/xen/gntdev") || !strcmp(path, "/dev/xen/evtchn")));
}

static bool is_lock_of_nbd(const char *path)
{
	const char *name = below(path, td_ctl_dir());

	return name && !strcmp(name, "nbd.lock");
}

/* --- the answers --- */

/* What is not there is not there for anybody. */
static int refuse(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR) ? -errno : -EACCES;
}

int rights_open(const char *path, uint64_t *flags)
{
	bool reads = (*flags & O_ACCMODE) == O_RDONLY && !(*flags & (O_CREAT | O_TRUNC)) &&
		     (*flags & O_TMPFILE) != O_TMPFILE;

	if (*flags & O_PATH)
		return 0; /* what it is good for is asked again */
	if (is_named(path))
		return *flags & (O_CREAT | O_TRUNC) ? -EACCES : 0;
	if (is_own(path) && (reads || !rights_is_record(path))) {
		*flags |= O_NOFOLLOW;
		return 0;
	}
	if (is_lock_of_nbd(path)) {
		*flags |= O_NOFOLLOW;
		return 0;
	}
	if (is_device(path) && !(*flags & (O_CREAT | O_TRUNC)))
		return 0;
	if (reads && (is_for_all(path) || is_marker(path)))
		return 0;
	if (!(*flags & (O_CREAT | O_TRUNC)) && is_our_log(path)) {
		*flags |= O_NOFOLLOW;
		return 0;
	}
	return refuse(path);
}

int rights_name(const char *path)
{
	const char *name = below(path, td_ctl_dir());

	if (is_own(path) || !strcmp(path, td_ctl_dir()) || (name && !strcmp(name, "tapdisk")))
		return 0;
	/* logs that were moved aside, after they were applied */
	return is_our_log(path) ? 0 : refuse(path);
}

int rights_rename(const char *from, const char *to)
{
	int rc = rights_name(from);

	return rc < 0 ? rc : rights_name(to);
}

int rights_link(const char *from, const char *to)
{
	const char *a = below(from, td_ctl_dir()), *b = below(to, td_ctl_dir()), *rest;

	return a && b && has_minor(number_after(a, "redo", &rest)) &&
			       has_minor(number_after(b, "redo", &rest))
		       ? 0
		       : refuse(from);
}

/* For those who know a disk's socket by the name of the process that had it. */
int rights_symlink(const char *target, const char *path)
{
	const char *name = below(path, td_ctl_dir()), *rest;
	char *end;
	long minor = -1;

	if (!strncmp(target, "nbd", 3) && !strchr(target, '/') && (rest = strrchr(target, '.')))
		minor = strtol(rest + 1, &end, 10);
	return name && !strncmp(name, "nbd", 3) && is_own_socket(name) && has_minor(minor) && !*end
		       ? 0
		       : -EACCES;
}

int rights_connect(const char *path)
{
	const char *name = below(path, td_ctl_dir()), *rest;

	if (!strcmp(path, "/dev/log") || is_named(path))
		return 0;
	if (name && successor > 0 && number_after(name, "ctl", &rest) == successor && !*rest)
		return 0;
	return refuse(path);
}

/* --- parents --- */

static bool is_seen(const struct stat *st)
{
	bool is = false;

	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < seens && i < SEEN_MAX && !is; i++)
		is = seen[i].dev == st->st_dev && seen[i].ino == st->st_ino;
	pthread_mutex_unlock(&lock);
	return is;
}

static void see(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || is_seen(&st))
		return;
	pthread_mutex_lock(&lock);
	seen[seens++ % SEEN_MAX] = (struct object){st.st_dev, st.st_ino};
	pthread_mutex_unlock(&lock);
}

int rights_reopen(int n, uint64_t flags)
{
	bool reads = (flags & O_ACCMODE) == O_RDONLY;
	char path[64];
	struct stat st;
	int found, fd;

	snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)tapdisk, n);
	found = open(path, O_PATH | O_CLOEXEC);
	if (found < 0)
		return -errno;
	if (fstat(found, &st) < 0 || flags & (O_CREAT | O_TRUNC) ||
	    !((reads && is_seen(&st)) ||
	      (n == STDERR_FILENO && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))) {
		close(found);
		return -EACCES;
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", found);
	fd = open(path, (int)flags);
	if (fd < 0)
		fd = -errno;
	close(found);
	return fd;
}

static bool is_at(int fd, off_t at, const unsigned char *uuid)
{
	enum { UUID = 68 }; /* in a VHD's footer */
	unsigned char b[512];

	return at >= 0 && pread(fd, b, sizeof b, at) == sizeof b && !memcmp(b, "conectix", 8) &&
	       !memcmp(b + UUID, uuid, 16);
}

/* Does the tapdisk tell the file's uuid, or guess it? */
static bool is_known(int found, const unsigned char *uuid)
{
	char path[64];
	bool is;
	int fd;

	snprintf(path, sizeof path, "/proc/self/fd/%d", found);
	fd = uuid ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
	if (fd < 0)
		return false;
	is = is_at(fd, 0, uuid) || is_at(fd, lseek(fd, 0, SEEK_END) - 512, uuid) ||
	     is_at(fd, lseek(fd, 0, SEEK_END) - 511, uuid);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	return is;
}

struct words {
	char dirs[1024], parents[1024];
};

static int set_word(const char *key, const char *value, void *arg, struct td_err *err)
{
	struct words *w = arg;

	if (!strcmp(key, "parent-dirs"))
		snprintf(w->dirs, sizeof w->dirs, "%s", value);
	if (!strcmp(key, "parents"))
		snprintf(w->parents, sizeof w->parents, "%s", value);
	return 0;
}

static int parent_of(const char *image, const struct words *w, const char *path,
		     const unsigned char *uuid, struct td_err *err)
{
	struct td_reach r;
	struct stat st;
	int fd, rc = td_reach_init(&r, image, w->dirs, w->parents);

	fd = rc < 0 ? rc : td_reach_open(&r, path, err);
	if (fd >= 0) {
		r.known = (!fstat(fd, &st) && is_seen(&st)) || is_known(fd, uuid);
		rc = td_reach_may(&r, fd, path, err);
		if (rc < 0) {
			close(fd);
			fd = rc;
		}
	}
	td_reach_fini(&r);
	return fd;
}

int rights_parent(const char *path, const unsigned char *uuid, struct td_err *err)
{
	struct words w = {"", ""};
	int fd = -EACCES, rc = td_conf_read(set_word, &w, err);

	if (rc < 0)
		return rc;
	for (struct named *f = __atomic_load_n(&files, __ATOMIC_ACQUIRE); f && fd < 0; f = f->next)
		if (f->image) {
			struct td_err why = {0};

			fd = parent_of(f->path, &w, path, uuid, &why);
			if (fd < 0)
				td_fail(err, why.code ? why.code : -fd, "%s", why.text);
		}
	if (fd >= 0)
		see(fd);
	return fd >= 0 ? fd : td_fail(err, -fd, "cannot open %s: %s", path, strerror(-fd));
}

/* --- records --- */

static bool may_be_recorded(const json_t *record)
{
	const char *path = path_of(record);
	const json_t *w;
	size_t i;

	if (!path || !is_named(path))
		return false;
	json_array_foreach (json_object_get(record, "options"), i, w) {
		const char *word = json_string_value(w) ?: "", *eq = strchr(word, '=');

		if ((!strncmp(word, "data-file=", 10) || !strncmp(word, "changed-blocks=", 15)) &&
		    !is_named(eq + 1))
			return false;
	}
	return true;
}

/* The tapdisk still has the file that it has written open, so that another one gets the name. */
int rights_record(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), out, rc = 0;
	char made[PATH_MAX + 8], *text = malloc(RECORD_MAX);
	ssize_t n = in >= 0 && text ? read(in, text, RECORD_MAX) : -1;
	json_t *record = n > 0 && n < RECORD_MAX ? json_loadb(text, (size_t)n, 0, NULL) : NULL;

	if (in >= 0)
		close(in);
	if (!record || !may_be_recorded(record))
		rc = -EACCES;
	json_decref(record);
	snprintf(made, sizeof made, "%s.made", to);
	if (!rc) {
		unlink(made);
		out = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		rc = out < 0 ? -errno : write(out, text, (size_t)n) != n ? -ENOSPC : 0;
		if (out >= 0)
			close(out);
		if (!rc && rename(made, to) < 0)
			rc = -errno;
		if (rc < 0)
			unlink(made);
	}
	free(text);
	if (!rc)
		unlink(from);
	return rc;
}
