/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process that plays a tapdisk taken over: inside the sandbox it tries what an intruder would,
 * and is refused. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pthread.h>

#include "lib/conf.h"
#include "tapdisk/sandbox.h"
#include "tests/support/suite.h"

enum { REFUSED = 10, DONE };

#ifdef TD_SANITIZED /* which needs what the filter forbids */
enum { FILTERS = false };
#else
enum { FILTERS = true };
#endif

static void conf(const char *text)
{
	FILE *f = fopen("test-sandbox.conf", "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	setenv(TD_CONF_ENV, "test-sandbox.conf", 1);
}

/* DONE: it did it; REFUSED: an error; -SIGSYS: it died of it. */
static int inside(int (*attempt)(void))
{
	struct td_err err = {0};
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (sandbox_enter(&err))
			_exit(1);
		_exit(attempt() < 0 ? REFUSED : DONE);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_program(void)
{
	return execl("/bin/true", "true", (char *)NULL);
}

static int make_process(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid;
}

static int trace(void)
{
	return (int)ptrace(PTRACE_ATTACH, 0, NULL, NULL);
}

static int mount_it(void)
{
	return mount("none", "/nowhere", "tmpfs", 0, NULL);
}

static int namespace(void)
{
	return unshare(CLONE_NEWUSER);
}

static int enter_namespace(void)
{
	return setns(0, 0);
}

static int dial_out(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int packets(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static int bpf(void)
{
	return (int)syscall(SYS_bpf, 5, NULL, 0);
}

static int read_memory(void)
{
	return (int)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
}

static int kill_parent(void)
{
	return kill(getppid(), 0);
}

static int other_user(void)
{
	return setresuid(1, 1, 1);
}

static int become(void)
{
	return (int)syscall(SYS_chroot, "/");
}

static int module(void)
{
	return (int)syscall(SYS_finit_module, 0, "", 0);
}

static int another_arch(void)
{
#ifdef __x86_64__
	return (int)syscall(0x40000000 | SYS_getpid); /* x32's */
#else
	raise(SIGSYS);
	return -1;
#endif
}

/* Harmless where it is let through: what is asked for is not there. */
static int (*const deadly[])(void) = {run_program, make_process,    trace,       mount_it,
				      namespace,   enter_namespace, dial_out,    packets,
				      bpf,         read_memory,     kill_parent, other_user,
				      become,      module,          another_arch};

#define DEADLY (int)(sizeof deadly / sizeof *deadly)

START_TEST(what_an_intruder_tries_ends_the_process)
{
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(deadly[_i]), -SIGSYS);
	/* and without it, it is not the test that fails */
	conf("sandbox = no\n");
	ck_assert_int_ne(inside(deadly[_i]), -SIGSYS);
}
END_TEST

static int own_files(void)
{
	int fd = open("test-sandbox.data", O_RDWR | O_CREAT, 0600);

	return fd < 0 || pwrite(fd, "#", 1, 0) != 1 || fdatasync(fd) || close(fd) ||
			       unlink("test-sandbox.data")
		       ? -1
		       : 0;
}

static void *nothing(void *arg)
{
	return arg;
}

static int thread(void)
{
	pthread_t t;

	return pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL) ? -1 : 0;
}

static int unix_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : close(fd);
}

static int raise_limit(void)
{
	struct rlimit r = {1 << 20, RLIM_INFINITY};

	return setrlimit(RLIMIT_CORE, &r);
}

static int has_capabilities(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long cap, kept = 1ull << 1 | 1ull << 19 | 1ull << 14;
	int extra = 0, seen = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Cap%*3s: %llx", &cap) == 1) {
			extra |= (cap & ~kept) != 0;
			seen++;
		}
	return extra || seen < 5 ? 0 : -1;
}

static int is_whole(void)
{
	return strcmp(sandbox_state(), "yes") ? -1 : 0;
}

START_TEST(what_a_tapdisk_needs_is_there)
{
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(own_files), DONE);
	ck_assert_int_eq(inside(thread), DONE);
	ck_assert_int_eq(inside(unix_socket), DONE);
	ck_assert_int_eq(inside(is_whole), DONE);
	ck_assert_int_eq(inside(raise_limit), REFUSED);
	ck_assert_int_eq(inside(has_capabilities), REFUSED);
}
END_TEST

START_TEST(a_word_that_is_neither_is_an_error)
{
	struct td_err err = {0};

	conf("sandbox = maybe\n");
	ck_assert_int_eq(sandbox_enter(&err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "yes or no"));
	ck_assert_str_eq(sandbox_state(), "no");
	conf("");
	ck_assert_int_eq(sandbox_enter(&err), 0);
	ck_assert_str_eq(sandbox_state(), "no");
	unlink("test-sandbox.conf");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sandbox");

	if (FILTERS) {
		SUITE_ADD_LOOP(s, what_an_intruder_tries_ends_the_process, DEADLY);
		SUITE_ADD(s, what_a_tapdisk_needs_is_there);
	}
	SUITE_ADD(s, a_word_that_is_neither_is_an_error);
	return suite_run(s);
}
