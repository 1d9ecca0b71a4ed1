/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/sandbox.h"

#include <asm/sockios.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/conf.h"
#include "lib/ctl-dir.h"
#include "lib/io/io-uring.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener.h"

static char state[160] = "no";
static bool filters; /* B3 is in force */
/* a build without such disks has no use for a network */
#ifdef HAVE_RBD
enum { REMOTE_DISKS = true };
#else
enum { REMOTE_DISKS = false };
#endif
static enum { UNDECIDED, EXPECTED, KEPT, LEFT } network; /* B5 */

const char *sandbox_state(void)
{
	if (opener_is_dead())
		return "partly: its opener of files has died; kill the tapdisk, and `tap-ctl "
		       "revive' or tapback starts one with another";
	return state;
}

static void misses(const char *what)
{
	size_t n;

	if (strncmp(state, "partly", 6))
		strcpy(state, "partly:");
	n = strlen(state);
	snprintf(state + n, sizeof state - n, "%s no %s", state[n - 1] == ':' ? "" : ",", what);
}

/* --- B1 --- */

enum { TO_OPEN = 1u << CAP_DAC_OVERRIDE | 1u << CAP_SYS_PTRACE };

static bool drop_capabilities(uint32_t keep)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap >= 32 || !(keep & 1u << cap))
			/* without the right to, there are none to drop */
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capget, &h, d) < 0)
		return false;
	for (int i = 0; i < 2; i++) {
		d[i].permitted &= i ? 0 : keep;
		d[i].effective &= d[i].permitted;
		d[i].inheritable = 0;
	}
	return syscall(SYS_capset, &h, d) == 0;
}

/* --- B3 --- */

#if defined __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCH AUDIT_ARCH_AARCH64
#endif

#if defined ARCH && !defined TD_SANITIZED
#define C(name) SYS_##name
/* clang-format off */
static const short allowed[] = {
	/* files */
	C(read), C(write), C(readv), C(writev), C(pread64), C(pwrite64), C(preadv), C(pwritev),
	C(preadv2), C(pwritev2), C(lseek), C(close), C(openat), C(openat2), C(fstat),
	C(newfstatat), C(statx), C(statfs), C(fstatfs), C(faccessat), C(readlinkat),
	C(getdents64), C(fcntl), C(flock), C(ftruncate), C(fallocate), C(fsync), C(fdatasync),
	C(sync_file_range), C(fadvise64), C(unlinkat), C(renameat), C(renameat2), C(linkat),
	C(symlinkat), C(mkdirat), C(fchmod), C(fchmodat), C(umask), C(getcwd), C(dup), C(dup3),
	C(pipe2), C(ioctl), C(close_range),
	/* memory */
	C(mmap), C(munmap), C(mprotect), C(mremap), C(madvise), C(msync), C(brk), C(mlock),
	C(munlock), C(memfd_create),
	/* sockets, beside socket() */
	C(socketpair), C(bind), C(listen), C(accept), C(accept4), C(connect), C(sendto),
	C(sendmsg), C(sendmmsg), C(recvfrom), C(recvmsg), C(shutdown), C(getsockopt),
	C(setsockopt), C(getsockname), C(getpeername),
	/* waiting */
	C(ppoll), C(pselect6), C(epoll_create1), C(epoll_ctl), C(epoll_pwait), C(eventfd2),
	C(timerfd_create), C(timerfd_settime), C(timerfd_gettime), C(signalfd4), C(nanosleep),
	C(clock_nanosleep), C(futex), C(restart_syscall),
	/* engines */
	C(io_setup), C(io_submit), C(io_getevents), C(io_destroy), C(io_cancel),
	C(io_uring_enter), /* of rings that were made before, and take reads, writes and syncs */
	/* the time, the process, its threads */
	C(clock_gettime), C(clock_getres), C(gettimeofday), C(getpid), C(gettid), C(getppid),
	C(getuid), C(geteuid), C(getgid), C(getegid), C(getresuid), C(getresgid), C(getrusage),
	C(sysinfo), C(uname), C(sched_yield), C(sched_getaffinity),
	C(set_robust_list), C(get_robust_list), C(set_tid_address), C(membarrier), C(prctl),
	C(getrandom), C(capget), C(exit), C(exit_group), C(rt_sigaction), C(rt_sigprocmask),
	C(rt_sigreturn), C(rt_sigpending), C(rt_sigtimedwait), C(sigaltstack), C(tgkill),
	/* handover.c: the process that it hands its disks to, if that fails */
	C(pidfd_open), C(pidfd_send_signal),
#ifdef SYS_rseq
	C(rseq),
#endif
#ifdef SYS_faccessat2
	C(faccessat2),
#endif
#ifdef SYS_epoll_pwait2
	C(epoll_pwait2),
#endif
#ifdef SYS_io_pgetevents
	C(io_pgetevents),
#endif
#ifdef SYS_open /* what newer architectures do without */
	C(open), C(stat), C(lstat), C(access), C(readlink), C(unlink), C(rename), C(link),
	C(symlink), C(mkdir), C(rmdir), C(chmod), C(dup2), C(pipe), C(poll), C(select),
	C(epoll_create), C(epoll_wait), C(eventfd), C(time), C(arch_prctl), C(getrlimit),
#endif
};
/* clang-format on */

enum { COUNT = sizeof allowed / sizeof *allowed };

/*
 * What a disk on other hosts needs (B5); a build without such drivers has no use for it.  A name
 * is looked up without NETLINK_ROUTE where that is refused.
 */
#ifdef HAVE_RBD
enum { FIRST_NETWORK = AF_INET, LAST_NETWORK = AF_INET6 };
#define OTHER_NETLINK (SECCOMP_RET_ERRNO | EPERM)
#else
enum { FIRST_NETWORK = AF_UNIX, LAST_NETWORK = AF_UNIX };
#define OTHER_NETLINK SECCOMP_RET_KILL_PROCESS
#endif

static struct sock_filter program[COUNT * 2 + 64];
static unsigned short length;

static void emit(unsigned code, unsigned k, unsigned char yes, unsigned char no)
{
	program[length++] = (struct sock_filter)BPF_JUMP((unsigned short)code, k, yes, no);
}

static void answer(unsigned action)
{
	emit(BPF_RET | BPF_K, action, 0, 0);
}

static void load_filter(size_t at)
{
	emit(BPF_LD | BPF_W | BPF_ABS, (unsigned)at, 0, 0);
}

enum {
	NR = offsetof(struct seccomp_data, nr),
	FIRST = offsetof(struct seccomp_data, args[0]),
	SECOND = offsetof(struct seccomp_data, args[1]),
	EQ = BPF_JMP | BPF_JEQ | BPF_K
};

/* What sends signals: to threads of its own alone, and to nobody who is to hear of a descriptor. */
static void filter_signals(void)
{
	emit(EQ, SYS_tgkill, 0, 4);
	load_filter(FIRST);
	emit(EQ, (unsigned)getpid(), 0, 1);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
	emit(EQ, SYS_fcntl, 0, 5);
	load_filter(SECOND);
	emit(EQ, F_SETOWN, 2, 0);
	emit(EQ, F_SETOWN_EX, 1, 0);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
	emit(EQ, SYS_ioctl, 0, 5);
	load_filter(SECOND);
	emit(EQ, FIOSETOWN, 2, 0);
	emit(EQ, SIOCSPGRP, 1, 0);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
}

/* traps: the calls that name files go to the opener. */
static bool filter(bool traps)
{
	struct sock_fprog p = {.filter = program};

	length = 0;
	load_filter(offsetof(struct seccomp_data, arch));
	emit(EQ, ARCH, 1, 0);
	answer(SECCOMP_RET_KILL_PROCESS);
	load_filter(NR);
	filter_signals();
	for (size_t i = 0; i < COUNT;
	     i++) { /* x32's calls have another bit set, and are on no list */
		emit(EQ, (unsigned)allowed[i], 0, 1);
		answer(traps && opener_catches(allowed[i]) ? SECCOMP_RET_TRAP : SECCOMP_RET_ALLOW);
	}
	/* whose flags are in memory: libc then makes threads by clone() */
	emit(EQ, SYS_clone3, 0, 1);
	answer(SECCOMP_RET_ERRNO | ENOSYS);
	emit(EQ, SYS_prlimit64, 0, 6); /* to look at limits, not to set them: no pointer, in both
					  of its halves */
	load_filter(offsetof(struct seccomp_data, args[2]));
	emit(EQ, 0, 0, 3);
	load_filter(offsetof(struct seccomp_data, args[2]) + 4);
	emit(EQ, 0, 0, 1);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_ERRNO | EPERM);
	emit(EQ, SYS_clone, 0, 3);
	load_filter(FIRST);
	emit(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 14);
	answer(SECCOMP_RET_ALLOW);
	emit(EQ, SYS_seccomp, 0, 3); /* B5: a further filter, upon all threads */
	load_filter(FIRST + sizeof(uint64_t));
	emit(EQ, SECCOMP_FILTER_FLAG_TSYNC, 0, 10);
	answer(SECCOMP_RET_ALLOW);
	emit(EQ, SYS_socket, 0, 8);
	load_filter(FIRST);
	emit(EQ, AF_UNIX, 7, 0);
	emit(EQ, FIRST_NETWORK, 6, 0);
	emit(EQ, LAST_NETWORK, 5, 0);
	emit(EQ, AF_NETLINK, 0, 3);
	load_filter(offsetof(struct seccomp_data, args[2]));
	emit(EQ, NETLINK_SOCK_DIAG, 2, 0);
	answer(OTHER_NETLINK);
	answer(SECCOMP_RET_KILL_PROCESS);
	answer(SECCOMP_RET_ALLOW);
	p.len = length;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0;
}

/* B5.  The first filter has let pass what this one looks at, and goes on to judge the rest. */
static bool leave_network(void)
{
	struct sock_fprog p = {.filter = program};

	length = 0;
	load_filter(offsetof(struct seccomp_data, nr));
	emit(EQ, SYS_seccomp, 7, 0);
	emit(EQ, SYS_socket, 0, 7);
	load_filter(offsetof(struct seccomp_data, args[0]));
	emit(EQ, FIRST_NETWORK, 4, 0);
	emit(EQ, LAST_NETWORK, 3, 0);
	emit(EQ, AF_NETLINK, 0, 3);
	load_filter(offsetof(struct seccomp_data, args[2]));
	emit(EQ, NETLINK_SOCK_DIAG, 1, 0);
	answer(SECCOMP_RET_KILL_PROCESS);
	answer(SECCOMP_RET_ALLOW);
	p.len = length;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &p) == 0;
}
#else
static bool filter(bool traps)
{
	return false;
}

static bool leave_network(void)
{
	return false;
}
#endif

/* --- B6 --- */

/* A directory that is removed before it is the root: nobody can put anything there. */
static bool empty_root(void)
{
	char path[PATH_MAX];
	int fd, ok;

	snprintf(path, sizeof path, "%s/.root.%d", td_ctl_dir(), (int)getpid());
	if (td_ctl_mkdirs(NULL) < 0 || (mkdir(path, 0500) < 0 && errno != EEXIST))
		return false;
	fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	rmdir(path);
	ok = fd >= 0 && !fchdir(fd) && !chroot(".");
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool restrict_opener(void)
{
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && drop_capabilities(TO_OPEN) &&
	       filter(false);
}

/* --- whether --- */

enum setting { NOT_SAID, SAID_YES, SAID_NETWORK, SAID_NO };

static int set_key(const char *key, const char *value, void *arg, struct td_err *err)
{
	enum setting *on = arg;

	if (strcmp(key, "sandbox"))
		return 0; /* a disk's options say what they know */
	if (strcmp(value, "yes") && strcmp(value, "no") && strcmp(value, "network"))
		return td_fail(err, EINVAL, "sandbox=%.100s: say yes or no, or network", value);
	*on = *value == 'y' ? SAID_YES : !strcmp(value, "no") ? SAID_NO : SAID_NETWORK;
	return 0;
}

int sandbox_enter(unsigned rings, struct td_err *err)
{
	struct rlimit none = {0, 0};
	enum setting on = NOT_SAID;
	int rc = td_conf_read(set_key, &on, err), opener;

	if (rc < 0 || on == SAID_NO)
		return rc;
#ifdef TD_SANITIZED
	if (on == NOT_SAID) {
		strcpy(state, "no: a build with sanitizers");
		td_log(LOG_INFO, "the sandbox is off: a build with sanitizers makes system calls "
				 "that it forbids");
		return 0;
	}
#endif
	if (on == SAID_NETWORK)
		sandbox_expect_network();
	strcpy(state, "yes");
	setrlimit(RLIMIT_CORE, &none);
	/* before there are rings, which it would have mapped, too */
	opener = opener_start(restrict_opener);
	if (opener < 0)
		misses("opener of files");
	/* where there are none, other engines do; a ring that is not restricted is never used */
	rc = td_uring_reserve(rings);
	if (rc < 0)
		td_log(LOG_INFO, "no io_uring in the sandbox (%s)", strerror(-rc));
	if (!opener && !empty_root())
		misses("empty root (it was not started by root)");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		misses("no_new_privs");
	if (!drop_capabilities(opener ? TO_OPEN : 0))
		misses("dropping of capabilities");
	filters = filter(!opener);
	if (!filters)
		misses("system call filter (a kernel or an architecture without it, or a build "
		       "with sanitizers)");
	if (strcmp(state, "yes"))
		td_log(LOG_WARNING, "the sandbox is not whole: %s", state);
	return 0;
}

/* --- B5 --- */

void sandbox_expect_network(void)
{
	if (network == UNDECIDED)
		network = EXPECTED;
}

bool sandbox_has_network(void)
{
	return network == KEPT;
}

int sandbox_network(const char *spec, bool needed, struct td_err *err)
{
	if (needed && network == LEFT)
		return td_fail(
			err, EPERM,
			"%s is on other hosts, and this tapdisk has given up the network when "
			"it opened its first disk, which was not: serve it by a tapdisk of its "
			"own (tap-ctl create), or say sandbox=network in tapdisk.conf, and "
			"`tap-ctl upgrade'",
			spec);
	if (needed)
		network = KEPT;
	if (network != UNDECIDED)
		return 0;
	network = filters ? LEFT : KEPT;
	if (REMOTE_DISKS && filters && !leave_network()) {
		misses("giving up of the network");
		td_log(LOG_WARNING, "the sandbox is not whole: %s", state);
		network = KEPT;
	}
	return 0;
}
