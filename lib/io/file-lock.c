/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may have an image open beside whom: its locks, and what stands in the way of one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "lib/io/file.h"

/*
 * Locks are OFD locks.  A writer holds a write lock over the whole file.  Readers and parents hold
 * a read lock on bytes 0-99, and on the byte by which QEMU's block layer says "I do not share
 * writing" (200 + 1 in block/file-posix.c's scheme), and look for QEMU's "I write" (100 + 1): so a
 * QEMU that writes and a parent of ours keep off each other, and its readers do not mind.  Who
 * writes what a parent's children do read (TD_FILE_CLAIM) holds that byte too: who has it as a
 * parent keeps it, and nobody else comes to have it, be it another tapdisk or a QEMU.
 *
 * OCFS2 with o2cb, its own cluster stack, keeps OFD locks on their host and carries flock(2) to all
 * hosts.  So a file there has a flock as well: LOCK_EX for the one writer, LOCK_SH for those that
 * may be several.  On this host it refuses nobody whom the OFD locks admit.
 *
 * Each open has a description of its own, and locks it once: no flock is ever converted, which is
 * not atomic.  A leaf that becomes a parent is closed, and opened anew.
 *
 * LOCK_SH is also the lock of a writer beneath (TD_FILE_BENEATH): its own chain has the parent open
 * beside it when it begins and when it ends, so that LOCK_EX would refuse the chain itself.  It
 * keeps off another host's writer of that image, but neither a second writer beneath nor a new
 * reader: on o2cb a claim (TD_FILE_CLAIM) does not cross hosts, and who asks for a commit answers
 * for the other hosts (LC7 of tapdisk/commit.h).  A QEMU of another host takes no flock.
 */
enum { READERS_FROM = 0, READERS_LEN = 100, QEMU_WRITES = 101, QEMU_UNSHARES_WRITE = 201 };

#define WAIT_FOR_THE_DEAD 10 /* s */
#define COMMITS           "is committing another image into it"
#define ELSEWHERE         "another host"
#define OCFS2             0x7461636f /* statfs(2)'s f_type */

static int ofd(int fd, int cmd, short type, off_t from, off_t len)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = len};

	if (fcntl(fd, cmd, &fl) < 0)
		return -errno;
	return cmd == F_OFD_GETLK && fl.l_type != F_UNLCK ? -EAGAIN : 0;
}

/* Around the bytes that readers and parents hold; and without QEMU's "I write", which would keep
 * new parents off, unless that is meant (claim). */
static int lock_beneath(int fd, bool claim)
{
	off_t from = claim ? QEMU_WRITES : QEMU_WRITES + 1;
	int rc = ofd(fd, F_OFD_GETLK, F_WRLCK, QEMU_WRITES, 1);

	if (!rc)
		rc = ofd(fd, F_OFD_SETLK, F_WRLCK, from, QEMU_UNSHARES_WRITE - from);
	return rc ? rc : ofd(fd, F_OFD_SETLK, F_WRLCK, QEMU_UNSHARES_WRITE + 1, 0);
}

/* Does somebody hold a claim, by the lock that lock_beneath() takes and nobody else? */
static bool is_claimed(int fd)
{
	struct flock fl = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = QEMU_WRITES, .l_len = 1};

	return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type == F_WRLCK &&
	       fl.l_start == QEMU_WRITES;
}

static uint32_t fs_type(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) < 0 ? 0 : (uint32_t)fs.f_type;
}

/* Without LOCK_NB it would wait for the other host to close the file; with it, for the answer of
 * the host that keeps the lock. */
static int lock_all_hosts(int fd, const char *path, unsigned flags)
{
	const unsigned several = TD_FILE_RDONLY | TD_FILE_PARENT | TD_FILE_SHARED | TD_FILE_BENEATH;
	int rc;

	if (flags & TD_FILE_LOOK || fs_type(fd) != OCFS2)
		return 0;
	do
		rc = flock(fd, (flags & several ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0 ? -errno : 0;
	while (rc == -EINTR);
	if (rc != -ENOLCK && rc != -EOPNOTSUPP && rc != -ENOSYS && rc != -EINVAL)
		return rc;
	td_log(LOG_WARNING,
	       "%s: its OCFS2 gives no lock that other hosts see (flock: %s), so that they are not "
	       "kept off it",
	       path, strerror(-rc));
	return 0;
}

static int lock_this_host(int fd, unsigned flags)
{
	int rc;

	if (flags & TD_FILE_LOOK)
		return 0;
	if (flags & TD_FILE_BENEATH)
		return lock_beneath(fd, flags & TD_FILE_CLAIM);
	if (!(flags & (TD_FILE_RDONLY | TD_FILE_PARENT | TD_FILE_SHARED)))
		return ofd(fd, F_OFD_SETLK, F_WRLCK, 0, 0);
	rc = ofd(fd, F_OFD_SETLK, F_RDLCK, READERS_FROM, READERS_LEN);
	if (rc < 0 || (flags & TD_FILE_SHARED))
		return rc;
	rc = ofd(fd, F_OFD_SETLK, F_RDLCK, QEMU_UNSHARES_WRITE, 1);
	return rc < 0 || (flags & TD_FILE_CLAIM) ? rc
						 : ofd(fd, F_OFD_GETLK, F_WRLCK, QEMU_WRITES, 1);
}

/* All of it, or nothing: what is left of a lock that is refused would be found as its holder. */
static int lock_file(int fd, const char *path, unsigned flags)
{
	int rc = lock_this_host(fd, flags);

	if (!rc)
		rc = lock_all_hosts(fd, path, flags);
	if (rc < 0)
		ofd(fd, F_OFD_SETLK, F_UNLCK, 0, 0);
	return rc;
}

/* Does an open file of process `pid' hold a lock on the inode?  /proc/PID/fdinfo says so on a line
 * "lock:". */
static bool pid_holds(const char *pid, const char *inode)
{
	char path[300], line[256];
	struct dirent *e;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%s/fdinfo", pid);
	d = opendir(path);
	while (d && !found && (e = readdir(d))) {
		FILE *f;

		snprintf(path, sizeof path, "/proc/%s/fdinfo/%s", pid, e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
		while (f && !found && fgets(line, sizeof line, f))
			found = !strncmp(line, "lock:", 5) && strstr(line, inode);
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return found;
}

/* Finds who holds a lock on fd's file, for the error's text only: " by NAME (pid N)", or nothing.
 */
static void find_holder(int fd, char *out, size_t len)
{
	char inode[64], path[300], name[64] = "?";
	struct dirent *e;
	struct stat st;
	DIR *d;

	out[0] = 0;
	if (fstat(fd, &st) < 0 || !(d = opendir("/proc")))
		return;
	snprintf(inode, sizeof inode, " %02x:%02x:%lu ", major(st.st_dev), minor(st.st_dev),
		 (unsigned long)st.st_ino);
	while (!out[0] && (e = readdir(d))) {
		FILE *f;

		if (e->d_name[0] < '1' || e->d_name[0] > '9' || atoi(e->d_name) == getpid() ||
		    !pid_holds(e->d_name, inode))
			continue;
		snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof name, f))
			name[strcspn(name, "\n")] = 0;
		if (f)
			fclose(f);
		snprintf(out, len, " by %s (pid %.20s)", name, e->d_name);
	}
	closedir(d);
	if (!out[0] && pid_holds("self", inode))
		snprintf(out, len, " by this tapdisk (pid %d)", (int)getpid());
}

/*
 * A process that died may have left writes in the kernel, each of which keeps its file open and
 * locked until it is over (io-uring.c, U1): a lock that nobody has is waited for, and the claim on
 * a device that comes with it.
 */
static bool is_over(const struct timespec *start)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	if (t.tv_sec - start->tv_sec >= WAIT_FOR_THE_DEAD)
		return true;
	/* a look may be a message to another host */
	usleep(t.tv_sec - start->tv_sec < 2 ? 5000 : 100000);
	return false;
}

/* Where a lock is held by all hosts' leave, and not by this one's alone (linux/magic.h, and the
 * kernel's own file of each file system): which host has it is not told. */
static bool locks_are_of_all_hosts(int fd)
{
	static const uint32_t magics[] = {
		0x6969,     /* NFS */
		0xfe534d42, /* SMB */
		0x01161970, /* GFS2 */
		0x00c36400, /* CephFS */
		OCFS2,
	};
	uint32_t type = fs_type(fd);

	for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
		if (type == magics[i])
			return true;
	return false;
}

/* Does this host serve the file over NFS, and is the lock a client's?  It is then a thread of the
 * kernel's that has it, which has no descriptors to be found by. */
static bool is_served(int fd)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[32], name[32] = "";
	FILE *f = NULL;

	if (fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK && fl.l_pid > 0) {
		snprintf(path, sizeof path, "/proc/%d/comm", (int)fl.l_pid);
		f = fopen(path, "re");
	}
	if (f) {
		if (!fgets(name, sizeof name, f))
			name[0] = 0;
		fclose(f);
	}
	return !strcmp(name, "nfsd\n") || !strcmp(name, "lockd\n"); /* NFS 4; NFS 3 */
}

/* The lock is of no process here: whose may it be? */
static void guess_holder(int fd, char *who, size_t len)
{
	if (is_served(fd))
		snprintf(who, len,
			 " by a client of this host's NFS server, most likely " ELSEWHERE);
	else if (locks_are_of_all_hosts(fd))
		snprintf(who, len,
			 " by a process that this host does not show, most likely of " ELSEWHERE);
}

/* Who commits an image into this one has more to say than that it has it open. */
static void add_claim(int fd, char *who, size_t len)
{
	static const char more[] = ", which " COMMITS;
	size_t n = strlen(who);

	if (!is_claimed(fd))
		return;
	if (!n)
		n = (size_t)snprintf(who, len, " by a process that this host does not show");
	snprintf(who + n, len - n, "%s", more);
}

int td_file_lock(int fd, const char *path, unsigned flags, const struct timespec *start, char *who,
		 size_t len)
{
	int rc;

	while ((rc = lock_file(fd, path, flags)) == -EAGAIN || rc == -EACCES) {
		find_holder(fd, who, len);
		if (!who[0] && !is_over(start))
			continue;
		if (!who[0])
			guess_holder(fd, who, len);
		add_claim(fd, who, len);
		return -EAGAIN;
	}
	return rc;
}

bool td_file_read_by_others(int fd)
{
	return ofd(fd, F_OFD_GETLK, F_WRLCK, READERS_FROM, READERS_LEN + 1) == -EAGAIN;
}

/* Is the device claimed by one that has died? */
static bool dead_claims(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char who[128] = "";
	bool locked = fd >= 0 && ofd(fd, F_OFD_GETLK, F_WRLCK, 0, 0) == -EAGAIN;

	if (locked)
		find_holder(fd, who, sizeof who);
	if (fd >= 0)
		close(fd);
	return locked && !who[0];
}

int td_file_open_wait(const char *path, int how, const struct timespec *start)
{
	int fd;

	while ((fd = open(path, how)) < 0 && errno == EBUSY)
		if (!dead_claims(path) || is_over(start)) {
			errno = EBUSY;
			break;
		}
	return fd;
}

/* What to do about an image that is in use depends on who has it. */
static const char *way_out(const char *who)
{
	if (strstr(who, COMMITS))
		return "wait for the end of that commit (`tap-ctl query'), or cancel it (`tap-ctl "
		       "cancel'; `tap-ctl list' shows its PID and MINOR)";
	if (strstr(who, "tapdisk"))
		return "close it there with `tap-ctl destroy' (`tap-ctl list' shows its PID and "
		       "MINOR) or by detaching it from its guest";
	if (strstr(who, "qemu"))
		return "end that QEMU, or give it the disk through a tapdisk, whose NBD socket it "
		       "opens (for an HVM guest of xl: script=block-tap)";
	if (strstr(who, ELSEWHERE))
		return "close it there (`tap-ctl list' and `tap-ctl audit' on each host that has "
		       "this file system); if that host has died, wait until its locks are given "
		       "up";
	return "end that first";
}

int td_file_busy(const char *who, const char *path, unsigned flags, struct td_err *err)
{
	bool reads = flags & (TD_FILE_PARENT | TD_FILE_RDONLY);

	return td_fail(err, EBUSY, "%s is in use%s: %s; %s%s", path, who,
		       flags & TD_FILE_PARENT
			       ? "a parent may be shared for reading, but somebody writes to it"
		       : flags & TD_FILE_RDONLY ? "somebody writes to it"
						: "an image has one writer",
		       way_out(who),
		       !reads && (flags & TD_FILE_MAY_SHARE)
			       ? "; or open it everywhere with shared=yes"
			       : "");
}
