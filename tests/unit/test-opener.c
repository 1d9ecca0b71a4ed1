/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process in the sandbox, whose calls that name files are made by its opener: they answer as the
 * kernel would, they wait as long as they may, and what a hostile tapdisk sends is refused.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/conf.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/sandbox.h"
#include "tests/support/suite.h"

#define DIR_NAME "test-opener.d"

/* In the child a check that fails is told by its line. */
#define SAY(what)                                                                                  \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "test-opener.c:%d: %s (%s)\n", __LINE__, #what,            \
				strerror(errno));                                                  \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static pid_t start(void (*fn)(void))
{
	pid_t pid = fork();

	if (!pid) {
		struct td_err err = {0};

		SAY(sandbox_enter(1, &err) == 0);
		fn();
		_exit(0);
	}
	return pid;
}

static int status_of(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void inside(void (*fn)(void))
{
	ck_assert_int_eq(status_of(start(fn)), 0);
}

static bool prepare(void)
{
	FILE *f = fopen("test-opener.conf", "w");

	if (!f || fputs("sandbox = yes\n", f) < 0 || fclose(f))
		return false;
	setenv(TD_CONF_ENV, "test-opener.conf", 1);
	return !system("rm -rf " DIR_NAME) && !mkdir(DIR_NAME, 0700);
}

static bool tidy(void)
{
	return !system("rm -rf " DIR_NAME " test-opener.conf");
}

static void setup(void)
{
	ck_assert(prepare());
}

static void teardown(void)
{
	ck_assert(tidy());
}

/* --- it is as without it --- */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

	SAY(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static void use_files(void)
{
	char text[64] = "", real[PATH_MAX], link[PATH_MAX];
	struct stat a, b;
	struct statfs fs;
	int fd;

	write_file(DIR_NAME "/a", "hello");
	fd = open(DIR_NAME "/a", O_RDONLY | O_CLOEXEC);
	SAY(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && read(fd, text, 9) == 5);
	SAY(!strcmp(text, "hello") && !fstat(fd, &a) && !stat(DIR_NAME "/a", &b));
	SAY(a.st_ino == b.st_ino && a.st_size == 5 && (b.st_mode & 0777) == 0640);
	SAY(!close(fd));
	fd = open(DIR_NAME "/a", O_RDONLY);
	SAY(fd >= 0 && fcntl(fd, F_GETFD) == 0 && !close(fd));
	SAY(open(DIR_NAME "/a", O_CREAT | O_EXCL | O_CLOEXEC, 0600) < 0 && errno == EEXIST);
	SAY(open(DIR_NAME "/none", O_RDWR | O_CLOEXEC) < 0 && errno == ENOENT);
	SAY(!symlink("a", DIR_NAME "/l") && readlink(DIR_NAME "/l", link, sizeof link) == 1);
	SAY(readlink(DIR_NAME "/a", link, sizeof link) < 0 && errno == EINVAL);
	SAY(!lstat(DIR_NAME "/l", &a) && S_ISLNK(a.st_mode) && realpath(DIR_NAME "/l", real));
	SAY(!strcmp(strrchr(real, '/'), "/a") && !statfs(DIR_NAME, &fs) && fs.f_bsize > 0);
	SAY(!rename(DIR_NAME "/a", DIR_NAME "/b") && access(DIR_NAME "/a", F_OK) < 0);
}

static void use_directories(void)
{
	int at, fd, seen = 0;
	struct dirent *e;
	DIR *d;

	SAY(!mkdir(DIR_NAME "/sub", 0700));
	write_file(DIR_NAME "/sub/f", "x");
	at = open(DIR_NAME, O_PATH | O_DIRECTORY | O_CLOEXEC);
	SAY(at >= 0);
	fd = openat(at, "sub/f", O_RDWR | O_CLOEXEC);
	SAY(fd >= 0 && !close(fd));
	SAY(!renameat(at, "sub/f", at, "g") && !linkat(at, "g", at, "h", 0));
	SAY(!unlinkat(at, "g", 0) && !unlinkat(at, "sub", AT_REMOVEDIR) &&
	    !fchmodat(at, "h", 0600, 0));
	SAY(openat(at, "g", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOENT);
	d = opendir(DIR_NAME);
	while (d && (e = readdir(d)))
		seen += !strcmp(e->d_name, "h");
	SAY(seen == 1 && !closedir(d) && !close(at));
	SAY(openat(at, "h", O_RDONLY | O_CLOEXEC) < 0 && errno == EBADF);
}

/* What /proc calls this process is this one, and not its opener. */
static void use_proc(void)
{
	char path[64], text[64] = "", *end;
	int fd = open(DIR_NAME "/p", O_RDWR | O_CREAT | O_CLOEXEC, 0600), again;
	FILE *f = fopen("/proc/self/stat", "re");

	SAY(fd >= 0 && f && fgets(text, sizeof text, f) && strtol(text, &end, 10) == getpid());
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	SAY(again >= 0 && write(fd, "12", 2) == 2 && read(again, text, 9) == 2);
	SAY(!fclose(f) && !close(fd) && !close(again));
}

static void use_sockets(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = open(DIR_NAME, O_PATH | O_DIRECTORY | O_CLOEXEC), to, fd;

	snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/s", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	SAY(dir >= 0 && fd >= 0 && to >= 0 && !bind(fd, (struct sockaddr *)&sa, sizeof sa));
	SAY(!listen(fd, 1) && !connect(to, (struct sockaddr *)&sa, sizeof sa));
	strcpy(sa.sun_path, DIR_NAME "/none");
	SAY(connect(to, (struct sockaddr *)&sa, sizeof sa) < 0);
}

/* Closed here, a file is open nowhere: nothing of its lock is left. */
static void leave_no_lock(void)
{
	for (int i = 0; i < 300; i++) {
		struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		int fd = open(DIR_NAME "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		struct stat st;

		SAY(fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !fcntl(fd, F_OFD_SETLK, &l));
		SAY(!syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
		SAY(fchmodat(fd, "none", 0600, 0) < 0);
		SAY(!close(fd));
	}
}

static void bad_arguments(void)
{
	static char longer[PATH_MAX + 10];
	struct stat st;

	memset(longer, 'x', sizeof longer - 1);
	SAY(stat(longer, &st) < 0 && errno == ENAMETOOLONG);
	longer[PATH_MAX - 1] = 0;
	SAY(stat(longer, &st) < 0 && errno == ENAMETOOLONG);
	SAY(stat("", &st) < 0 && errno == ENOENT);
	SAY(syscall(SYS_openat, AT_FDCWD, NULL, O_RDONLY) < 0 && errno == EFAULT);
}

START_TEST(calls_answer_as_the_kernel_does)
{
	static void (*const use[])(void) = {use_files,   use_directories, use_proc,
					    use_sockets, leave_no_lock,   bad_arguments};

	inside(use[_i]);
}
END_TEST

/* --- who waits, and for how long --- */

/* Hangs until somebody writes. */
static void *open_pipe(void *arg)
{
	int *fd = arg;

	*fd = open(DIR_NAME "/fifo", O_RDONLY | O_CLOEXEC);
	return NULL;
}

enum { HUNG = 12 };

static void hang_beside(void)
{
	pthread_t t[HUNG];
	int fd[HUNG], w;

	for (int i = 0; i < HUNG; i++)
		SAY(!pthread_create(&t[i], NULL, open_pipe, &fd[i]));
	for (int i = 0; i < 200; i++)
		SAY(access(DIR_NAME, F_OK) == 0);
	w = open(DIR_NAME "/fifo", O_RDWR | O_CLOEXEC);
	SAY(w >= 0);
	for (int i = 0; i < HUNG; i++)
		SAY(!pthread_join(t[i], NULL) && fd[i] >= 0);
}

START_TEST(a_call_that_hangs_keeps_no_other_waiting)
{
	ck_assert_int_eq(mkfifo(DIR_NAME "/fifo", 0600), 0);
	inside(hang_beside);
}
END_TEST

static void serve_guests(void)
{
	int fd;

	opener_patience = 300;
	opener_serving();
	SAY(open(DIR_NAME "/fifo", O_RDONLY | O_CLOEXEC) < 0 && errno == ETIMEDOUT);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	SAY(fd >= 0);
}

START_TEST(a_thread_that_serves_guests_waits_for_so_long_alone)
{
	ck_assert_int_eq(mkfifo(DIR_NAME "/fifo", 0600), 0);
	inside(serve_guests);
}
END_TEST

static int told[2];

static void stopped(void)
{
	pid_t its = opener_pid();
	char c;

	opener_patience = 200;
	opener_serving();
	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	SAY(mkdir(DIR_NAME "/late", 0700) < 0 && errno == ETIMEDOUT);
	SAY(write(told[1], "", 1) == 1 && read(told[0], &c, 1) == 1);
	opener_patience = 60000;
	SAY(access(DIR_NAME "/late", F_OK) < 0 && errno == ENOENT);
}

START_TEST(what_nobody_waits_for_any_more_is_not_begun)
{
	int sv[2];
	pid_t pid, its;
	char c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(stopped);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGSTOP), 0);
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	ck_assert_int_eq(read(sv[0], &c, 1), 1);
	ck_assert_int_eq(kill(its, SIGCONT), 0);
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	ck_assert_int_eq(status_of(pid), 0);
}
END_TEST

/* --- deaths --- */

/* Gone, or a zombie of whoever reaps orphans here. */
static void wait_for_end(pid_t pid)
{
	char path[64], text[256], *at;
	bool ends = false;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	while (!ends) {
		FILE *f = fopen(path, "r");

		ends = !f || !fgets(text, sizeof text, f) ||
		       ((at = strrchr(text, ')')) && at[2] == 'Z');
		if (f)
			fclose(f);
		usleep(1000);
	}
}

static void outlive(void)
{
	int fd = open(DIR_NAME "/o", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	pid_t its = opener_pid();
	char c;

	SAY(fd >= 0 && !strcmp(sandbox_state(), "yes"));
	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	SAY(open(DIR_NAME "/o", O_RDWR | O_CLOEXEC) < 0 && errno == EIO);
	SAY(open(DIR_NAME "/o", O_RDWR | O_CLOEXEC) < 0 && errno == EIO);
	SAY(pwrite(fd, "x", 1, 0) == 1 && !fdatasync(fd));
	SAY(strstr(sandbox_state(), "opener") && strstr(sandbox_state(), "died"));
}

START_TEST(a_tapdisk_outlives_its_opener)
{
	int sv[2];
	pid_t pid, its;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(outlive);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGKILL), 0);
	wait_for_end(its);
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	ck_assert_int_eq(status_of(pid), 0);
}
END_TEST

static void tell_and_wait(void)
{
	pid_t its = opener_pid();

	SAY(write(told[1], &its, sizeof its) == sizeof its);
	for (;;)
		poll(NULL, 0, -1);
}

/* A socket that the tapdisk had ends with it: the opener holds none. */
START_TEST(an_opener_dies_with_its_tapdisk_and_holds_nothing)
{
	int sv[2];
	pid_t pid, its;
	char c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(tell_and_wait);
	close(sv[1]);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGSTOP), 0);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(status_of(pid), -SIGKILL);
	ck_assert_int_eq(read(sv[0], &c, 1), 0);
	ck_assert_int_eq(kill(its, SIGCONT), 0);
	wait_for_end(its);
}
END_TEST

/* --- a tapdisk taken over --- */

static int open_by_itself(const char *path)
{
	signal(SIGSYS, SIG_DFL);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void past_the_opener(void)
{
	open_by_itself("/dev/null");
}

START_TEST(no_call_goes_past_the_opener)
{
	ck_assert_int_eq(status_of(start(past_the_opener)), -SIGSYS);
}
END_TEST

static unsigned seed = 1;

static unsigned some(unsigned n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 8) % n;
}

static void send_noise(void)
{
	struct {
		struct opener_ask ask;
		char data[2 * OPENER_PART_MAX + 100];
	} m;
	size_t n;
	const struct opener_call *calls = opener_calls(&n);

	for (int i = 0; i < 20000; i++) {
		union {
			struct cmsghdr align;
			char bytes[CMSG_SPACE(8 * sizeof(int))];
		} control = {0};
		int fds[8], nfds = (int)some(8), sv[2];
		struct iovec iov = {&m, some(sizeof m)};
		struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

		for (size_t b = 0; b < sizeof m; b += 64)
			((unsigned char *)&m)[b] = (unsigned char)some(256);
		m.ask.nr = calls[some((unsigned)n)].nr;
		/* harmless to this machine: nothing below / has this name */
		memset(m.data, 1 + (int)some(31), some(200));
		m.ask.len[0] = some(3) ? some(300) : some(~0u >> 1);
		m.ask.len[1] = some(3) ? 0 : some(300);
		if (some(2))
			iov.iov_len = sizeof m.ask + m.ask.len[0] % 9000 + m.ask.len[1];
		if (iov.iov_len > sizeof m)
			iov.iov_len = sizeof m;
		m.ask.deadline = 0;
		SAY(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
		for (int k = 0; k < nfds; k++)
			fds[k] = sv[1];
		if (nfds) {
			mh.msg_control = &control;
			mh.msg_controllen = CMSG_SPACE((unsigned)nfds * sizeof(int));
			control.align.cmsg_level = SOL_SOCKET;
			control.align.cmsg_type = SCM_RIGHTS;
			control.align.cmsg_len = CMSG_LEN((unsigned)nfds * sizeof(int));
			memcpy(CMSG_DATA(&control.align), fds, (unsigned)nfds * sizeof(int));
		}
		if (iov.iov_len) /* an end of file is one */
			SAY(sendmsg(opener_channel(), &mh, MSG_NOSIGNAL) >= 0);
		close(sv[0]);
		close(sv[1]);
	}
	SAY(!access(DIR_NAME, F_OK) && !opener_is_dead());
}

START_TEST(noise_is_refused)
{
	inside(send_noise);
}
END_TEST

#define ADD(test, from, to)                                                                        \
	do {                                                                                       \
		TCase *tc = tcase_create(#test);                                                   \
		tcase_set_timeout(tc, SUITE_PATIENCE);                                             \
		tcase_add_checked_fixture(tc, setup, teardown);                                    \
		tcase_add_loop_test(tc, test, from, to);                                           \
		suite_add_tcase(s, tc);                                                            \
	} while (0)

static bool has_opener(void)
{
	int status = -1;

	if (prepare() && !fork()) {
		struct td_err err = {0};

		_exit(sandbox_enter(1, &err) || strcmp(sandbox_state(), "yes"));
	}
	wait(&status);
	return tidy() && status == 0;
}

int main(void)
{
	Suite *s = suite_create("opener");

	if (!has_opener()) {
		puts("this host, or this build, has none");
		return 77;
	}
	ADD(calls_answer_as_the_kernel_does, 0, 6);
	ADD(a_call_that_hangs_keeps_no_other_waiting, 0, 1);
	ADD(a_thread_that_serves_guests_waits_for_so_long_alone, 0, 1);
	ADD(what_nobody_waits_for_any_more_is_not_begun, 0, 1);
	ADD(a_tapdisk_outlives_its_opener, 0, 1);
	ADD(an_opener_dies_with_its_tapdisk_and_holds_nothing, 0, 1);
	ADD(no_call_goes_past_the_opener, 0, 1);
	ADD(noise_is_refused, 0, 1);
	return suite_run(s);
}
