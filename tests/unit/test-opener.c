/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process in the sandbox, whose calls that name files are made by its opener: they answer as the
 * kernel would, they wait as long as they may, and what a hostile tapdisk sends is refused.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/conf.h"
#include "lib/dial.h"
#include "lib/io/reach.h"
#include "lib/marker.h"
#include "td/ctl.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tests/support/suite.h"

#define DIR_NAME "test-opener.d" /* the control directory */
#define OWN      DIR_NAME "/left7."
#define ALIEN    "test-opener.alien"

static char here[PATH_MAX];
static bool commits;
static int far_port; /* on 127.0.0.1 */

/* In the child a check that fails is told by its line. */
#define SAY(what)                                                                                  \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "test-opener.c:%d: %s (%s)\n", __LINE__, #what,            \
				strerror(errno));                                                  \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

#define REFUSED(what) SAY((what) < 0 && errno == EACCES)

/* What the host says before the tapdisk asks for anything. */
static bool read_only;

static void say(const char *op, const char *type, const char *name, const char *option)
{
	json_t *msg = json_pack("{s:s, s:i, s:b}", "op", op, "minor", 7, "read_only", read_only);

	if (name)
		json_object_set_new(msg, "args",
				    json_sprintf("%s:%s/" DIR_NAME "/%s", type, here, name));
	if (option)
		json_object_set_new(
			msg, "options",
			json_pack("[o]", json_sprintf("%s%s/" DIR_NAME "/left7.s", option, here)));
	rights_learn(msg);
	json_decref(msg);
}

#define MARKER DIR_NAME "/tapdisk/tapdisk-7"

/* Whose the minor is. */
static bool write_marker(pid_t pid)
{
	FILE *f = fopen(MARKER, "we");

	return f && (!pid || fprintf(f, "%d\n", (int)pid) > 0) && !fclose(f);
}

/* Disks on other hosts, and one beneath. */
static void say_far(void)
{
	json_t *msg = json_pack("{s:s, s:i, s:o, s:[o, s]}", "op", "open", "minor", 7, "args",
				json_sprintf("nbd://127.0.0.1:%d/a", far_port), "options",
				json_sprintf("mirror=nbd:127.0.0.1:%d", far_port), "parent-disk=9");

	rights_learn(msg);
	json_decref(msg);
}

static pid_t start(void (*fn)(void))
{
	pid_t pid = fork();

	if (!pid) {
		struct td_err err = {0};

		SAY(write_marker(getpid()));
		say("attach", NULL, NULL, NULL);
		say("open", "aio", "fifo", "mirror=nbd:");
		say("unpause", "vhd", "image", NULL);
		say_far();
		if (commits)
			say("commit", NULL, NULL, NULL);
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
	if (!getcwd(here, sizeof here - 100))
		return false;
	snprintf(here + strlen(here), 100, "/" DIR_NAME);
	setenv(TD_CTL_DIR_ENV, here, 1);
	*strrchr(here, '/') = 0;
	return !system("rm -rf " DIR_NAME " " ALIEN) && !mkdir(DIR_NAME, 0700) &&
	       !mkdir(DIR_NAME "/tapdisk", 0700);
}

static bool tidy(void)
{
	return !system("rm -rf " DIR_NAME " " ALIEN " test-opener.conf");
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
	char text[64] = "", real[PATH_MAX], link[PATH_MAX + 100];
	struct stat a, b;
	struct statfs fs;
	int fd;

	write_file(OWN "a", "hello");
	fd = open(OWN "a", O_RDONLY | O_CLOEXEC);
	SAY(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && read(fd, text, 9) == 5);
	SAY(!strcmp(text, "hello") && !fstat(fd, &a) && !stat(OWN "a", &b));
	SAY(a.st_ino == b.st_ino && a.st_size == 5 && (b.st_mode & 0777) == 0640);
	SAY(!close(fd));
	fd = open(OWN "a", O_RDONLY);
	SAY(fd >= 0 && fcntl(fd, F_GETFD) == 0 && !close(fd));
	SAY(open(OWN "a", O_CREAT | O_EXCL | O_CLOEXEC, 0600) < 0 && errno == EEXIST);
	SAY(open(OWN "none", O_RDWR | O_CLOEXEC) < 0 && errno == ENOENT);
	SAY(!symlink("nbd2.7", DIR_NAME "/nbd1.7") &&
	    readlink(DIR_NAME "/nbd1.7", link, sizeof link) == 6);
	SAY(readlink(OWN "a", link, sizeof link) < 0 && errno == EINVAL);
	SAY(!lstat(DIR_NAME "/nbd1.7", &a) && S_ISLNK(a.st_mode));
	snprintf(link, sizeof link, "%s/" OWN "a", here);
	SAY(realpath(link, real) && !strcmp(strrchr(real, '/'), "/left7.a"));
	SAY(!statfs(DIR_NAME, &fs) && fs.f_bsize > 0);
	SAY(!rename(OWN "a", OWN "b") && access(OWN "a", F_OK) < 0);
}

/* A directory that is its own. */
static const char *own_dir(char path[64])
{
	snprintf(path, 64, DIR_NAME "/td3-%d", (int)getpid());
	return path;
}

static void use_directories(void)
{
	char own[64], file[80];
	int at, fd, seen = 0;
	struct dirent *e;
	DIR *d;

	SAY(!mkdir(own_dir(own), 0700));
	snprintf(file, sizeof file, "%s/f", own);
	write_file(file, "x");
	at = open(DIR_NAME, O_PATH | O_DIRECTORY | O_CLOEXEC);
	SAY(at >= 0);
	fd = openat(at, file + sizeof DIR_NAME, O_RDWR | O_CLOEXEC);
	SAY(fd >= 0 && !close(fd));
	SAY(!renameat(at, file + sizeof DIR_NAME, at, "redo7.g") &&
	    !linkat(at, "redo7.g", at, "redo7.h", 0));
	SAY(!unlinkat(at, "redo7.g", 0) && !unlinkat(at, own + sizeof DIR_NAME, AT_REMOVEDIR) &&
	    !fchmodat(at, "redo7.h", 0600, 0));
	SAY(openat(at, "redo7.g", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOENT);
	d = opendir(DIR_NAME);
	while (d && (e = readdir(d)))
		seen += !strcmp(e->d_name, "redo7.h");
	SAY(seen == 1 && !closedir(d) && !close(at));
	SAY(openat(at, "redo7.h", O_RDONLY | O_CLOEXEC) < 0 && errno == EBADF);
}

/* Memory of its own is a file that it may open by name, as libcryptsetup does; a file that it has
 * is opened no further by that. */
static void use_memory(void)
{
	char path[40], c = 0;
	int fd = memfd_create("header", MFD_CLOEXEC), again;

	SAY(fd >= 0);
	snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	SAY(again >= 0 && pwrite(again, "x", 1, 0) == 1 && pread(fd, &c, 1, 0) == 1 && c == 'x');
	REFUSED(open(path, O_RDWR | O_TRUNC | O_CLOEXEC));
	close(again);
	close(fd);
	fd = open(OWN "memory", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	SAY(fd >= 0 && !unlink(OWN "memory"));
	snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
	REFUSED(open(path, O_RDWR | O_CLOEXEC));
	close(fd);
}

/* What /proc calls this process is this one, and not its opener. */
static void use_proc(void)
{
	char text[64] = "", *end;
	FILE *f = fopen("/proc/self/stat", "re");

	SAY(f && fgets(text, sizeof text, f) && strtol(text, &end, 10) == getpid());
	SAY(!fclose(f));
}

static void use_sockets(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int dir = open(DIR_NAME, O_PATH | O_DIRECTORY | O_CLOEXEC), to, fd;

	snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/left7.s", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	SAY(dir >= 0 && fd >= 0 && to >= 0 && !bind(fd, (struct sockaddr *)&sa, sizeof sa));
	SAY(!listen(fd, 1) && !connect(to, (struct sockaddr *)&sa, sizeof sa));
	strcpy(sa.sun_path, OWN "none");
	SAY(connect(to, (struct sockaddr *)&sa, sizeof sa) < 0);
}

/* Closed here, a file is open nowhere: nothing of its lock is left. */
static void leave_no_lock(void)
{
	for (int i = 0; i < 300; i++) {
		struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		int fd = open(OWN "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		struct stat st;

		SAY(fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !fcntl(fd, F_OFD_SETLK, &l));
		SAY(!syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
		SAY(fchmodat(fd, "none", 0600, 0) < 0);
		SAY(!close(fd));
	}
}

/* OP7, without a file system that refuses it to the tapdisk: by a descriptor that may. */
static void changes_by_descriptor(void)
{
	int fd = open(OWN "room", O_RDWR | O_CREAT | O_CLOEXEC, 0600), reads;
	struct stat st;

	SAY(fd >= 0 && !opener_allocate(fd, FALLOC_FL_KEEP_SIZE, 4096, 8192));
	SAY(!fstat(fd, &st) && st.st_size == 0 && st.st_blocks >= 16);
	SAY(!opener_truncate(fd, 1 << 20) && !fstat(fd, &st) && st.st_size == 1 << 20);
	SAY(pwrite(fd, "x", 1, 65536) == 1);
	SAY(opener_seek(fd, 70000, SEEK_END) == (1 << 20) + 70000);
	SAY(opener_seek(fd, 1 << 20, SEEK_DATA) == -ENXIO);
	reads = open(OWN "room", O_RDONLY | O_CLOEXEC);
	SAY(reads >= 0 && opener_allocate(reads, 0, 0, 4096) == -EBADF);
	SAY(opener_truncate(reads, 0) < 0 && !fstat(fd, &st) && st.st_size == 1 << 20);
	SAY(opener_truncate(-1, 0) == -EBADF);
	SAY(!close(reads) && !close(fd) && !unlink(OWN "room"));
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

static void *open_masked(void *arg)
{
	sigset_t all, now;

	sigfillset(&all);
	SAY(!pthread_sigmask(SIG_SETMASK, &all, NULL) && !pthread_sigmask(SIG_BLOCK, &all, &now));
	SAY(sigismember(&now, SIGUSR1) && !sigismember(&now, SIGSYS));
	SAY(access(DIR_NAME, F_OK) == 0);
	sigemptyset(&all);
	sigaddset(&all, SIGUSR1);
	SAY(!pthread_sigmask(SIG_UNBLOCK, &all, NULL) && !pthread_sigmask(SIG_BLOCK, NULL, &now));
	SAY(!sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2));
	SAY(pthread_sigmask(77, &all, NULL) == EINVAL);
	return arg;
}

/* As libraries do in threads of their own, which open files. */
static void block_signals(void)
{
	pthread_t t;

	SAY(!pthread_create(&t, NULL, open_masked, NULL) && !pthread_join(t, NULL));
}

START_TEST(calls_answer_as_the_kernel_does)
{
	static void (*const use[])(void) = {use_files,     use_directories,       use_proc,
					    use_sockets,   leave_no_lock,         bad_arguments,
					    block_signals, changes_by_descriptor, use_memory};

	inside(use[_i]);
}
END_TEST

/* --- other hosts (OR7) --- */

static int listen_far(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t len = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert(fd >= 0 && !bind(fd, (struct sockaddr *)&in, sizeof in) && !listen(fd, 5) &&
		  !getsockname(fd, (struct sockaddr *)&in, &len));
	far_port = ntohs(in.sin_port);
	return fd;
}

static int dial(const char *before, const char *behind, int cancel, struct td_err *err)
{
	char path[100];

	*err = (struct td_err){0};
	snprintf(path, sizeof path, "%s%d%s", before, far_port, behind);
	return td_dial(path, cancel, err);
}

static void dial_far(void)
{
	struct td_err err;
	int sv[2], fd, on = 0;
	socklen_t len = sizeof on;

	SAY(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fd = dial("//127.0.0.1:", "/a", sv[1], &err);
	SAY(fd >= 0 && fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
	SAY(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) && on);
	SAY(!getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len) && on && !close(fd));
	fd = dial("127.0.0.1:", "", sv[1], &err);
	SAY(fd >= 0 && !close(fd));
	SAY(dial("nbd://127.0.0.1:", "/a", sv[1], &err) >= 0); /* the same in full */
	/* what the host has not said in these words */
	SAY(dial("//127.0.0.1:", "/b", sv[1], &err) == -EACCES);
	SAY(dial("//127.0.0.1:", "", sv[1], &err) == -EACCES);
	SAY(dial("//localhost:", "/a", sv[1], &err) == -EACCES);
	SAY(dial("", "", sv[1], &err) == -EACCES);
	/* nobody waits any more */
	close(sv[0]);
	fd = dial("//127.0.0.1:", "/a", sv[1], &err);
	SAY(fd >= 0 || fd == -ECANCELED);
}

static void dial_nobody(void)
{
	struct td_err err;
	int sv[2];

	SAY(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	SAY(dial("//127.0.0.1:", "/a", -1, &err) == -EBADF);
	SAY(dial("//127.0.0.1:", "/a", sv[1], &err) == -ECONNREFUSED);
	SAY(strstr(err.text, "cannot connect to an NBD server at 127.0.0.1"));
}

START_TEST(a_server_of_another_host_is_reached_if_the_host_has_named_it)
{
	int fd = listen_far();

	inside(dial_far);
	close(fd);
	inside(dial_nobody);
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
	char c, late[64];

	opener_patience = 200;
	opener_serving();
	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	SAY(mkdir(own_dir(late), 0700) < 0 && errno == ETIMEDOUT);
	SAY(write(told[1], "", 1) == 1 && read(told[0], &c, 1) == 1);
	opener_patience = 60000;
	SAY(access(late, F_OK) < 0 && errno == ENOENT);
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
	int fd = open(OWN "o", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	pid_t its = opener_pid();
	char c;

	SAY(fd >= 0 && !strcmp(sandbox_state(), "yes"));
	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	SAY(open(OWN "o", O_RDWR | O_CLOEXEC) < 0 && errno == EIO);
	SAY(open(OWN "o", O_RDWR | O_CLOEXEC) < 0 && errno == EIO);
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

static void ask_and_wait(void)
{
	pid_t its = opener_pid();
	char c, late[64];

	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	mkdir(own_dir(late), 0700);
}

/* It has asked: it waits for the answer. */
static void wait_for_ask(pid_t pid)
{
	char path[64], text[64] = "";

	snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	while (strtol(text, NULL, 10) != SYS_ppoll) {
		FILE *f = fopen(path, "r");

		ck_assert(f && fgets(text, sizeof text, f));
		fclose(f);
		usleep(1000);
	}
}

START_TEST(what_a_dead_tapdisk_asked_for_is_not_begun)
{
	int sv[2];
	pid_t pid, its;
	char late[64];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(ask_and_wait);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGSTOP), 0);
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	wait_for_ask(pid);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(status_of(pid), -SIGKILL);
	ck_assert_int_eq(kill(its, SIGCONT), 0);
	wait_for_end(its);
	snprintf(late, sizeof late, DIR_NAME "/td3-%d", (int)pid);
	ck_assert(access(late, F_OK) < 0 && errno == ENOENT);
}
END_TEST

/* --- whose a minor is (OP5) --- */

enum { ANOTHER = 0x3ffffff0 }; /* no process has this pid */

#define GONE(what) SAY((what) < 0 && (errno == EACCES || errno == ENOENT))

static int make(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

/* Detached, or handed to another tapdisk: nothing of the minor is this one's. */
static void lose_the_minor(void)
{
	static const pid_t others[] = {0, ANOTHER};
	char own[64];
	pid_t me = getpid();
	int fd = -1;

	SAY(make(OWN "kept") >= 0 && opener_mark(-1, 7, me, false) == -EBADF);
	fd = open(MARKER, O_RDONLY | O_CLOEXEC);
	SAY(fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB));
	for (int i = 0; i < 2; i++) {
		SAY(write(told[1], &others[i], sizeof *others) == sizeof *others &&
		    read(told[0], own, 1) == 1);
		REFUSED(make(OWN "a"));
		REFUSED(unlink(OWN "kept"));
		REFUSED(rename(OWN "kept", DIR_NAME "/disk7"));
		REFUSED(open(OWN "kept", O_RDWR | O_CLOEXEC));
		REFUSED(symlink("nbd2.7", DIR_NAME "/nbd1.7"));
		GONE(unlink(MARKER));
		/* its own names are */
		SAY(!mkdir(own_dir(own), 0700) && !rmdir(own));
		snprintf(own, sizeof own, DIR_NAME "/nbd%d.7", (int)me);
		SAY(!symlink("nbd2.7", own) && !unlink(own));
	}
	SAY(!opener_mark(fd, 7, me, false) && !unlink(OWN "kept") && !unlink(MARKER));
}

static void rewrite_when_told(int from)
{
	pid_t to;

	while (read(from, &to, sizeof to) == sizeof to)
		ck_assert(write_marker(to) && write(from, "", 1) == 1);
}

START_TEST(a_minor_that_is_given_away_is_not_its_own)
{
	int sv[2];
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(lose_the_minor);
	close(sv[1]);
	rewrite_when_told(sv[0]);
	ck_assert_int_eq(status_of(pid), 0);
}
END_TEST

static void make_when_told(void)
{
	char c;

	SAY(write(told[1], "", 1) == 1 && read(told[0], &c, 1) == 1);
	REFUSED(make(OWN "late"));
}

/* A successor writes its name under the seal, while the call has been judged by nobody yet. */
START_TEST(a_call_is_made_while_the_minor_is_its_own_or_not_at_all)
{
	bool dies = _i;
	int sv[2], fd;
	pid_t pid;
	char c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(make_when_told);
	close(sv[1]);
	ck_assert_int_eq(read(sv[0], &c, 1), 1);
	fd = open(MARKER, O_RDWR | O_CLOEXEC);
	ck_assert(fd >= 0 && !td_marker_seal(fd, 0));
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	wait_for_ask(pid);
	if (dies) {
		ck_assert_int_eq(kill(pid, SIGKILL), 0);
		ck_assert_int_eq(status_of(pid), -SIGKILL);
	} else {
		ck_assert(write_marker(ANOTHER));
	}
	close(fd);
	if (!dies)
		ck_assert_int_eq(status_of(pid), 0);
	for (int i = 0; i < 100; i++) { /* an opener that made it nevertheless would by now */
		ck_assert(access(OWN "late", F_OK) < 0);
		usleep(1000);
	}
}
END_TEST

static void change_markers(void)
{
	int fd = open(MARKER, O_RDONLY | O_CLOEXEC), other;

	REFUSED(open(MARKER, O_RDWR | O_CLOEXEC));
	REFUSED(open(MARKER, O_WRONLY | O_TRUNC | O_CLOEXEC));
	REFUSED(rename(OWN "a", MARKER));
	REFUSED(chmod(MARKER, 0666));
	SAY(fd >= 0 && opener_mark(fd, 7, ANOTHER, false) == -EACCES); /* no keeper */
	SAY(opener_mark(fd, 8, getpid(), false) == -EACCES);
	other = open(DIR_NAME "/tapdisk/tapdisk-8", O_RDONLY | O_CLOEXEC);
	SAY(other >= 0 && opener_mark(other, 7, 0, false) == -ESTALE);
	SAY(opener_mark(fd, 7, 0, false) == 0);
	/* it is locked now, by what was passed; nobody else marks it */
	other = open(MARKER, O_RDONLY | O_CLOEXEC);
	SAY(other >= 0 && opener_mark(other, 7, getpid(), false) == -EWOULDBLOCK);
}

static void overtake(void)
{
	int fd = open(MARKER, O_RDONLY | O_CLOEXEC);
	char text[40] = "";

	SAY(opener_mark(fd, 7, getpid(), false) == 0 && write_marker(ANOTHER) == false);
	SAY(read(fd, text, sizeof text - 1) > 0 && atoi(text) == getpid());
}

START_TEST(the_opener_alone_writes_markers)
{
	static void (*const tries[])(void) = {change_markers, overtake};
	int fd = open(DIR_NAME "/tapdisk/tapdisk-8", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(fd >= 0 && !close(fd));
	inside(tries[_i]);
}
END_TEST

START_TEST(who_takes_a_minor_over_stands_behind_who_has_it)
{
	char text[40] = "";
	int fd;

	ck_assert(write_marker(11));
	fd = open(MARKER, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(td_marker_write(fd, 7, 12, true), 0);
	ck_assert(read(fd, text, sizeof text - 1) > 0 && !strcmp(text, "11 12\n"));
	ck_assert(td_marker_names(fd, 11) && td_marker_names(fd, 12) && !td_marker_names(fd, 1));
	ck_assert_int_eq(td_marker_write(fd, 7, 12, false), 0);
	ck_assert(!td_marker_names(fd, 11) && td_marker_names(fd, 12));
	ck_assert_int_eq(td_marker_write(fd, 7, 0, false), 0);
	ck_assert(!td_marker_names(fd, 12) && !td_marker_names(fd, 0));
	ck_assert(!unlink(MARKER) && write_marker(11));
	ck_assert_int_eq(td_marker_write(fd, 7, 12, false), -ESTALE);
	close(fd);
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

/* --- what no host has named --- */

static void open_what_is_not_its_own(void)
{
	static const char *const there[] = {"/etc/shadow",    "/proc/1/mem",      "/proc/self/mem",
					    "/proc/self/exe", "/dev/xen/privcmd", "/dev/mem"};
	char path[100];

	for (size_t i = 0; i < sizeof there / sizeof *there; i++)
		SAY(open(there[i], O_RDONLY | O_CLOEXEC) < 0 &&
		    (errno == EACCES || (errno == ENOENT && access(there[i], F_OK) < 0)));
	REFUSED(open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC));
	REFUSED(open(ALIEN, O_RDWR | O_CLOEXEC));
	REFUSED(open(ALIEN, O_RDONLY | O_CLOEXEC));
	REFUSED(open("../../etc/hostname", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/sys/../etc/passwd", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/sys/kernel/uevent_seqnum", O_RDONLY | O_CLOEXEC));
	/* by a descriptor that is good for nothing else */
	snprintf(path, sizeof path, "/proc/self/fd/%d", open(ALIEN, O_PATH | O_CLOEXEC));
	REFUSED(open(path, O_RDONLY | O_CLOEXEC));
	REFUSED(open(path, O_RDWR | O_CLOEXEC));
	/* a link in its own directory leads nowhere */
	SAY(open(OWN "link", O_RDWR | O_CLOEXEC) < 0 && errno == ELOOP);
	SAY(open(OWN "link", O_RDWR | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == ELOOP);
}

static void make_what_is_not_its_own(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = DIR_NAME "/ctl1"};

	REFUSED(open(DIR_NAME "/disk8", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	REFUSED(open(DIR_NAME "/other", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	REFUSED(mkdir(DIR_NAME "/sub", 0700));
	/* the directories that all tapdisks have */
	SAY(mkdir(DIR_NAME, 0700) < 0 && errno == EEXIST);
	REFUSED(chmod(DIR_NAME, 0777));
	REFUSED(chmod(DIR_NAME "/tapdisk", 0777));
	REFUSED(rename(DIR_NAME "/tapdisk", OWN "a"));
	REFUSED(rmdir(DIR_NAME "/tapdisk"));
	REFUSED(unlink(ALIEN));
	REFUSED(chmod(ALIEN, 0666));
	REFUSED(rename(ALIEN, OWN "a"));
	REFUSED(link(ALIEN, DIR_NAME "/redo7.a"));
	REFUSED(symlink("/etc/shadow", OWN "b"));
	REFUSED(symlink("../nbd1.8", DIR_NAME "/nbd1.7"));
	REFUSED(bind(fd, (struct sockaddr *)&sa, sizeof sa));
	strcpy(sa.sun_path + 1, "abstract");
	sa.sun_path[0] = 0;
	REFUSED(connect(fd, (struct sockaddr *)&sa, sizeof sa));
	REFUSED(syscall(SYS_pidfd_open, getppid(), 0));
}

static void connect_to_another(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = ALIEN};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	REFUSED(connect(fd, (struct sockaddr *)&sa, sizeof sa));
}

static bool joins(const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	snprintf(sa.sun_path, sizeof sa.sun_path, DIR_NAME "/%s", name);
	rc = connect(fd, (struct sockaddr *)&sa, sizeof sa);
	close(fd);
	return !rc;
}

static void connect_to_the_disk_beneath(void)
{
	SAY(joins("nbd-ro77.9"));
	SAY(!joins("nbd77.9") && errno == EACCES);
	SAY(!joins("nbdserver77.9") && errno == EACCES);
	SAY(!joins("nbd-ro77.8") && errno == EACCES);
}

#define TRUE_RECORD "{\"args\": \"vhd:%s/" DIR_NAME "/image\", "

/* How a disk is open is what its successor believes. */
static void record_lies(void)
{
	static const char *const lies[] = {
		"\"options\": [\"data-file=/x\"]", "\"options\": [\"mirror=aio:/x\"]",
		"\"options\": [\"parent-disk=3\"]", "\"options\": [\"changed-blocks=/x\"]",
		"\"commit\": {}"};
	char text[2 * PATH_MAX];
	FILE *f;

	snprintf(text, sizeof text, TRUE_RECORD "\"options\": []}", here);
	write_file(DIR_NAME "/disk7.new", text);
	SAY(!rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
	REFUSED(open(DIR_NAME "/disk7", O_WRONLY | O_CLOEXEC));
	f = fopen(DIR_NAME "/disk7", "re");
	SAY(f && fgets(text, 10, f) && !fclose(f));
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		snprintf(text, sizeof text, TRUE_RECORD "%s}", here, lies[i]);
		write_file(DIR_NAME "/disk7.new", text);
		REFUSED(rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
	}
	write_file(DIR_NAME "/disk7.new", "{\"args\": \"aio:" ALIEN "\"}");
	REFUSED(rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
}

START_TEST(what_no_host_has_named_is_refused)
{
	static void (*const tries[])(void) = {open_what_is_not_its_own, make_what_is_not_its_own,
					      record_lies};
	int fd = open(ALIEN, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(fd >= 0 && pwrite(fd, "another's", 9, 0) == 9 && !close(fd));
	ck_assert(!symlink("../" ALIEN, OWN "link"));
	inside(tries[_i]);
	ck_assert_int_eq(access(ALIEN, F_OK), 0);
}
END_TEST

/* A disk that is open read-only: its image may be others', too. */
static void write_to_read_only(void)
{
	char text[2 * PATH_MAX];

	SAY(open(DIR_NAME "/image", O_RDONLY | O_CLOEXEC) >= 0);
	REFUSED(open(DIR_NAME "/image", O_RDWR | O_CLOEXEC));
	snprintf(text, sizeof text, TRUE_RECORD "\"read_only\": false}", here);
	write_file(DIR_NAME "/disk7.new", text);
	REFUSED(rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
	snprintf(text, sizeof text, TRUE_RECORD "\"read_only\": true}", here);
	write_file(DIR_NAME "/disk7.new", text);
	SAY(!rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
}

START_TEST(an_image_of_a_read_only_disk_is_not_written)
{
	int fd = open(DIR_NAME "/image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(fd >= 0 && !close(fd));
	read_only = true;
	inside(write_to_read_only);
	read_only = false;
}
END_TEST

START_TEST(nobody_is_called_whom_no_host_has_named)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = ALIEN};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	inside(connect_to_another);
	close(fd);
}
END_TEST

START_TEST(a_disk_beneath_is_reached_where_it_takes_no_writes)
{
	static const char *const names[] = {"nbd-ro77.9", "nbd77.9", "nbdserver77.9", "nbd-ro77.8"};
	int fd[4];

	for (int i = 0; i < 4; i++) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};

		snprintf(sa.sun_path, sizeof sa.sun_path, DIR_NAME "/%s", names[i]);
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(fd[i], (struct sockaddr *)&sa, sizeof sa), 0);
		ck_assert_int_eq(listen(fd[i], 1), 0);
	}
	inside(connect_to_the_disk_beneath);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
}
END_TEST

/* --- parents --- */

static int grant(const char *name, bool write)
{
	char path[PATH_MAX + 100];
	struct td_err err = {0};
	int fd;

	snprintf(path, sizeof path, "%s/" DIR_NAME "/%s", here, name);
	fd = td_reach_find(path, NULL, write, &err);
	errno = fd < 0 ? -fd : 0;
	SAY(fd >= 0 || err.text[0]);
	return fd;
}

static void find_parents(void)
{
	char path[64];
	int fd;

	REFUSED(grant("open", false));
	REFUSED(grant("../" ALIEN, false));
	REFUSED(open(DIR_NAME "/frozen", O_RDONLY | O_CLOEXEC)); /* not before it was granted */
	fd = grant("frozen", false);
	SAY(fd >= 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	SAY(open(path, O_RDONLY | O_CLOEXEC) >= 0 &&
	    open(DIR_NAME "/frozen", O_RDONLY | O_CLOEXEC) >= 0);
	if (commits) {
		SAY(grant("frozen", true) >= 0 && open(path, O_RDWR | O_CLOEXEC) >= 0);
		REFUSED(grant("open", true));
	} else {
		REFUSED(grant("frozen", true));
		REFUSED(open(path, O_RDWR | O_CLOEXEC));
		REFUSED(open(DIR_NAME "/frozen", O_RDWR | O_CLOEXEC));
	}
}

START_TEST(a_parent_is_read_and_written_for_a_commit_alone)
{
	int fd = open(DIR_NAME "/frozen", O_RDWR | O_CREAT | O_CLOEXEC, 0400);

	ck_assert(fd >= 0 && !close(fd));
	fd = open(DIR_NAME "/open", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert(fd >= 0 && !close(fd));
	commits = _i;
	inside(find_parents);
	commits = false;
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
	char dir[32];
	Suite *s;

	if (suite_enter_dir(dir))
		return 1;
	if (!has_opener()) {
		puts("this host, or this build, has none");
		return suite_leave_dir(dir, 77);
	}
	s = suite_create("opener");
	ADD(calls_answer_as_the_kernel_does, 0, 9);
	ADD(a_server_of_another_host_is_reached_if_the_host_has_named_it, 0, 1);
	ADD(a_call_that_hangs_keeps_no_other_waiting, 0, 1);
	ADD(a_thread_that_serves_guests_waits_for_so_long_alone, 0, 1);
	ADD(what_nobody_waits_for_any_more_is_not_begun, 0, 1);
	ADD(a_tapdisk_outlives_its_opener, 0, 1);
	ADD(an_opener_dies_with_its_tapdisk_and_holds_nothing, 0, 1);
	ADD(what_a_dead_tapdisk_asked_for_is_not_begun, 0, 1);
	ADD(a_minor_that_is_given_away_is_not_its_own, 0, 1);
	ADD(a_call_is_made_while_the_minor_is_its_own_or_not_at_all, 0, 2);
	ADD(the_opener_alone_writes_markers, 0, 2);
	ADD(who_takes_a_minor_over_stands_behind_who_has_it, 0, 1);
	ADD(no_call_goes_past_the_opener, 0, 1);
	ADD(what_no_host_has_named_is_refused, 0, 3);
	ADD(an_image_of_a_read_only_disk_is_not_written, 0, 1);
	ADD(nobody_is_called_whom_no_host_has_named, 0, 1);
	ADD(a_disk_beneath_is_reached_where_it_takes_no_writes, 0, 1);
	ADD(a_parent_is_read_and_written_for_a_commit_alone, 0, 2);
	ADD(noise_is_refused, 0, 1);
	return suite_leave_dir(dir, suite_run(s));
}
