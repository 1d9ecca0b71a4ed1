/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that the opener makes answer as the kernel would, and wait as long as they may. */
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "lib/dial.h"
#include "tests/support/test-opener.h"

static int told[2]; /* sockets between the child and its test */

/* --- it is as without it --- */

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

static void add(Suite *s)
{
	ADD(calls_answer_as_the_kernel_does, 0, 9);
	ADD(a_server_of_another_host_is_reached_if_the_host_has_named_it, 0, 1);
	ADD(a_call_that_hangs_keeps_no_other_waiting, 0, 1);
	ADD(a_thread_that_serves_guests_waits_for_so_long_alone, 0, 1);
	ADD(what_nobody_waits_for_any_more_is_not_begun, 0, 1);
}

int main(void)
{
	return opener_main("opener", add);
}
