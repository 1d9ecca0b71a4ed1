/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images that another host has: the flock that one on OCFS2 has beside its OFD lock, and an NFS
 * client's lock on its server.  The file is of whatever file system the test runs on, and fstatfs
 * says what the case wants.  Another host is a description that no process of this one has; on
 * OCFS2 it holds a flock alone, as o2cb carries no OFD lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "lib/log-out.h"
#include "lib/readers.h"
#include "tests/support/suite.h"

enum { OCFS2 = 0x7461636f, GFS2 = 0x01161970, NFS = 0x6969, EXT4 = 0xef53 };
enum { NONE = LOCK_UN };

static char image[32];
static long fs_type;
static int flock_error, flock_times; /* so many calls fail with it; -1: all */
static unsigned flock_calls;
static char logged[1024];
static pid_t lock_pid; /* whose each lock is; 0: the kernel's answer, which names nobody of an OFD
			  lock */

int __real_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs);
int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);
int __real_fcntl64(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);
/* what fcntl() is where files have 64 bits */
int __wrap_fcntl64(int fd, int cmd, ...) __attribute__((alias("__wrap_fcntl")));
void __wrap_td_log_to_daemon(int priority, const char *ident, const char *line);

int __wrap_fstatfs(int fd, struct statfs *fs)
{
	int rc = __real_fstatfs(fd, fs);

	fs->f_type = fs_type;
	return rc;
}

int __wrap_flock(int fd, int how)
{
	flock_calls++;
	ck_assert_int_eq(how & LOCK_NB, LOCK_NB);
	if (!flock_times)
		return __real_flock(fd, how);
	if (flock_times > 0)
		flock_times--;
	errno = flock_error;
	return -1;
}

int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	int rc;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	rc = __real_fcntl64(fd, cmd, arg);
	if (cmd == F_OFD_GETLK && lock_pid)
		((struct flock *)arg)->l_pid = lock_pid;
	return rc;
}

void __wrap_td_log_to_daemon(int priority, const char *ident, const char *line)
{
	snprintf(logged, sizeof logged, "%s", line);
}

static int again(void)
{
	int fd = open(image, O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void begin(long type)
{
	int fd;

	strcpy(image, "file-hosts.XXXXXX");
	fd = mkstemp(image);
	ck_assert_int_ge(fd, 0);
	close(fd);
	fs_type = type;
	flock_calls = 0;
	flock_times = 0;
	logged[0] = 0;
}

static void end(void)
{
	ck_assert_int_eq(unlink(image), 0);
}

/* Nobody is waited for. */
static int lock(int fd, unsigned flags, char who[128])
{
	struct timespec past = {0};

	who[0] = 0;
	return td_file_lock(fd, image, flags, &past, who, 128);
}

/* The flock that somebody has on the file. */
static int held(void)
{
	int fd = again(), got = LOCK_EX;

	if (!__real_flock(fd, LOCK_EX | LOCK_NB))
		got = NONE;
	else if (!__real_flock(fd, LOCK_SH | LOCK_NB))
		got = LOCK_SH;
	close(fd);
	return got;
}

static bool has_ofd(void)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = again(), rc = fcntl(fd, F_OFD_GETLK, &fl);

	close(fd);
	ck_assert_int_eq(rc, 0);
	return fl.l_type != F_UNLCK;
}

/* --- what is held --- */

static const struct {
	unsigned flags;
	int how;
} table[] = {
	{0, LOCK_EX},
	{TD_FILE_DIRECT, LOCK_EX},
	{TD_FILE_DIRECT | TD_FILE_MAY_SHARE, LOCK_EX},
	{TD_FILE_NOSYNC, LOCK_EX},
	{TD_FILE_COPY, LOCK_EX},
	{TD_FILE_RDONLY, LOCK_SH},
	{TD_FILE_RDONLY | TD_FILE_DIRECT, LOCK_SH},
	{TD_FILE_PARENT, LOCK_SH},
	{TD_FILE_PARENT | TD_FILE_RDONLY, LOCK_SH},
	{TD_FILE_PARENT | TD_FILE_RDONLY | TD_FILE_CLAIM, LOCK_SH},
	{TD_FILE_SHARED, LOCK_SH},
	{TD_FILE_SHARED | TD_FILE_DIRECT, LOCK_SH},
	{TD_FILE_BENEATH, LOCK_SH},
	{TD_FILE_BENEATH | TD_FILE_CLAIM, LOCK_SH},
	{TD_FILE_LOOK, NONE},
	{TD_FILE_LOOK | TD_FILE_RDONLY, NONE},
};

enum { ROWS = sizeof table / sizeof *table };

START_TEST(each_way_to_open_has_its_flock)
{
	char who[128];
	int fd, copy;

	begin(OCFS2);
	fd = again();
	ck_assert_int_eq(lock(fd, table[_i].flags, who), 0);
	ck_assert_int_eq(held(), table[_i].how);
	ck_assert_int_eq(has_ofd(), table[_i].how != NONE);
	/* as it is handed to another process: the lock is the description's */
	copy = dup(fd);
	close(fd);
	ck_assert_int_eq(held(), table[_i].how);
	close(copy);
	ck_assert_int_eq(held(), NONE);
	ck_assert_str_eq(logged, "");
	end();
}
END_TEST

START_TEST(other_file_systems_are_asked_for_none)
{
	static const long types[] = {EXT4, GFS2, NFS};
	char who[128];

	begin(EXT4);
	for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
		int fd = again();

		fs_type = types[i];
		ck_assert_int_eq(lock(fd, table[_i].flags, who), 0);
		ck_assert_int_eq(has_ofd(), table[_i].how != NONE);
		close(fd);
	}
	ck_assert_uint_eq(flock_calls, 0);
	end();
}
END_TEST

/* A flock for reading counts no reader a second time (lib/readers.h). */
START_TEST(a_reader_is_one_reader)
{
	char who[128];
	int fd, other;

	begin(OCFS2);
	fd = again();
	other = again();
	ck_assert_int_eq(lock(fd, TD_FILE_SHARED, who), 0);
	ck_assert_uint_eq(td_readers(other), 1);
	ck_assert(td_file_read_by_others(other));
	close(fd);
	ck_assert_uint_eq(td_readers(other), 0);
	close(other);
	end();
}
END_TEST

/* --- who is refused --- */

/* A description that no process has: it is under way in a socket. */
static void give_away(int fd, int sv[2])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec one = {"", 1};
	struct msghdr msg = {.msg_iov = &one,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof control};

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	control.align = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
	ck_assert_int_eq(sendmsg(sv[0], &msg, 0), 1);
	close(fd);
}

/* Beside a writer of another host (_i is even), or a reader. */
START_TEST(what_another_host_has_is_refused_in_its_name)
{
	int how = _i % 2 ? LOCK_SH : LOCK_EX, mine = table[_i / 2].how;
	unsigned flags = table[_i / 2].flags;
	bool may = mine == NONE || (mine == LOCK_SH && how == LOCK_SH);
	struct td_err err = {0};
	char who[128];
	int sv[2], fd;

	begin(OCFS2);
	fd = again();
	ck_assert_int_eq(__real_flock(fd, how | LOCK_NB), 0);
	give_away(fd, sv);
	fd = again();
	ck_assert_int_eq(lock(fd, flags, who), may ? 0 : -EAGAIN);
	if (!may) {
		ck_assert_int_eq(td_file_busy(who, image, flags, &err), -EBUSY);
		ck_assert_ptr_nonnull(strstr(err.text, "most likely of another host"));
		ck_assert_ptr_nonnull(strstr(err.text, "on each host that has this file system"));
		ck_assert(!has_ofd()); /* it keeps off nobody here */
	}
	close(sv[0]);
	close(sv[1]);
	ck_assert_int_eq(lock(fd, flags, who), 0);
	ck_assert_int_eq(held(), mine);
	close(fd);
	end();
}
END_TEST

START_TEST(who_has_it_on_this_host_is_named)
{
	char who[128];
	int fd, other;

	begin(OCFS2);
	fd = again();
	other = again();
	ck_assert_int_eq(__real_flock(other, LOCK_EX | LOCK_NB), 0);
	ck_assert_int_eq(lock(fd, 0, who), -EAGAIN);
	ck_assert_ptr_nonnull(strstr(who, "by this tapdisk"));
	close(other);
	close(fd);
	end();
}
END_TEST

/* A process with the name of a kernel thread. */
static pid_t named(const char *name)
{
	int ready[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_NAME, name);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

START_TEST(a_client_of_this_hosts_nfs_server_is_told_as_one)
{
	static const struct {
		const char *name;
		bool serves;
	} all[] = {{"nfsd", true}, {"lockd", true}, {"nfsd-stat", false}};
	char who[128];
	int sv[2], fd;

	begin(EXT4);
	fd = again();
	ck_assert_int_eq(lock(fd, 0, who), 0);
	give_away(fd, sv);
	fd = again();
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		struct td_err err = {0};

		lock_pid = named(all[i].name);
		ck_assert_int_eq(lock(fd, TD_FILE_RDONLY, who), -EAGAIN);
		ck_assert_int_eq(!!strstr(who, "this host's NFS server"), all[i].serves);
		td_file_busy(who, image, TD_FILE_RDONLY, &err);
		ck_assert_int_eq(!!strstr(err.text, "on each host that has"), all[i].serves);
		kill(lock_pid, SIGKILL);
		waitpid(lock_pid, NULL, 0);
	}
	ck_assert_int_eq(lock(fd, 0, who), -EAGAIN); /* by a process that has gone */
	ck_assert_str_eq(who, "");
	lock_pid = 0;
	close(sv[0]);
	close(sv[1]);
	close(fd);
	end();
}
END_TEST

/* --- errors --- */

START_TEST(without_the_other_hosts_locks_it_is_opened)
{
	static const int none[] = {ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL};
	char who[128];

	begin(OCFS2);
	for (unsigned i = 0; i < sizeof none / sizeof *none; i++) {
		int fd = again();

		logged[0] = 0;
		flock_times = 1;
		flock_error = none[i];
		ck_assert_int_eq(lock(fd, 0, who), 0);
		ck_assert(has_ofd());
		ck_assert_int_eq(held(), NONE);
		ck_assert_msg(strstr(logged, image) && strstr(logged, strerror(none[i])) &&
				      strstr(logged, "other hosts"),
			      "%s", logged);
		close(fd);
	}
	end();
}
END_TEST

START_TEST(a_signal_interrupts_it_and_another_error_ends_it)
{
	char who[128];
	int fd;

	begin(OCFS2);
	fd = again();
	flock_times = 2;
	flock_error = EINTR;
	ck_assert_int_eq(lock(fd, 0, who), 0);
	ck_assert_uint_eq(flock_calls, 3);
	ck_assert_int_eq(held(), LOCK_EX);
	close(fd);
	fd = again();
	flock_times = -1;
	flock_error = EIO;
	ck_assert_int_eq(lock(fd, 0, who), -EIO);
	ck_assert(!has_ofd());
	close(fd);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file-hosts");

	SUITE_ADD_LOOP(s, each_way_to_open_has_its_flock, ROWS);
	SUITE_ADD_LOOP(s, other_file_systems_are_asked_for_none, ROWS);
	SUITE_ADD(s, a_reader_is_one_reader);
	SUITE_ADD_LOOP(s, what_another_host_has_is_refused_in_its_name, 2 * ROWS);
	SUITE_ADD(s, who_has_it_on_this_host_is_named);
	SUITE_ADD(s, a_client_of_this_hosts_nfs_server_is_told_as_one);
	SUITE_ADD(s, without_the_other_hosts_locks_it_is_opened);
	SUITE_ADD(s, a_signal_interrupts_it_and_another_error_ends_it);
	return suite_run(s);
}
