/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* B3, B5, B7: the system calls that a tapdisk may make, and its opener. */
#include <asm/sockios.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/seccomp.h"
#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/sandbox/sandbox-inside.h"

#ifdef TD_SECCOMP_ARCH
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
	C(bind), C(listen), C(accept), C(accept4), C(connect), C(sendto),
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
	C(sysinfo), C(uname), C(sched_yield), C(sched_getaffinity), C(getcpu),
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

static struct sock_filter program[COUNT * 2 + 96];
static struct td_seccomp filter = {program, 0, sizeof program / sizeof *program};

static void emit(unsigned code, unsigned k, unsigned char yes, unsigned char no)
{
	td_seccomp_emit(&filter, code, k, yes, no);
}

static void is(unsigned k, unsigned char yes, unsigned char no)
{
	td_seccomp_is(&filter, k, yes, no);
}

static void answer(unsigned action)
{
	td_seccomp_answer(&filter, action);
}

static void load_number(void)
{
	td_seccomp_load(&filter, TD_SECCOMP_NR);
}

static void load_arg(unsigned n)
{
	td_seccomp_load_arg(&filter, n);
}

/* What sends signals: to threads of its own alone, and to nobody who is to hear of a descriptor. */
static void filter_signals(void)
{
	is(SYS_tgkill, 0, 4);
	load_arg(0);
	is((unsigned)getpid(), 0, 1);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
	is(SYS_fcntl, 0, 5);
	load_arg(1);
	is(F_SETOWN, 2, 0);
	is(F_SETOWN_EX, 1, 0);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
	is(SYS_ioctl, 0, 5);
	load_arg(1);
	is(FIOSETOWN, 2, 0);
	is(SIOCSPGRP, 1, 0);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
}

/* OR7 of the opener: children that connect to other hosts, without a right of their own. */
static void filter_dialling(void)
{
	static const short drops[] = {SYS_capset, SYS_setgroups, SYS_setresgid, SYS_setresuid};
	const unsigned fork_flags = CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD;

	is(SYS_clone, 0, 3);
	load_arg(0);
	is(fork_flags, 0, 1);
	answer(SECCOMP_RET_ALLOW);
	load_number();
	for (size_t i = 0; i < sizeof drops / sizeof *drops; i++) {
		is((unsigned)drops[i], 0, 1);
		answer(SECCOMP_RET_ALLOW);
	}
	is(SYS_socket, 0, 10);
	load_arg(0);
	is(AF_INET, 6, 0);
	is(AF_INET6, 5, 0);
	is(AF_VSOCK, 4, 0);
	/* whose a Unix socket is; a name is looked up without it, too */
	is(AF_NETLINK, 0, 4);
	load_arg(2);
	is(NETLINK_SOCK_DIAG, 1, 0);
	answer(SECCOMP_RET_ERRNO | EPERM);
	answer(SECCOMP_RET_ALLOW);
	load_number();
}

/* A call that the handler makes itself before it asks (opener.c), and that is caught otherwise. */
static void filter_fstat(void)
{
	is(SYS_fstat, 0, 4);
	load_arg(2);
	is(OPENER_FSTAT_HERE, 0, 1);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_TRAP);
}

bool sandbox_filter(bool traps, bool dials)
{
	td_seccomp_begin(&filter);
	if (dials)
		filter_dialling();
	filter_signals();
	if (traps)
		filter_fstat();
	for (size_t i = 0; i < COUNT;
	     i++) { /* x32's calls have another bit set, and are on no list */
		is((unsigned)allowed[i], 0, 1);
		answer(traps && opener_catches(allowed[i]) ? SECCOMP_RET_TRAP : SECCOMP_RET_ALLOW);
	}
	/* whose flags are in memory: libc then makes threads by clone() */
	is(SYS_clone3, 0, 1);
	answer(SECCOMP_RET_ERRNO | ENOSYS);
	is(SYS_socketpair, 0, 8);
	load_arg(0);
	is(AF_UNIX, 0, 4);
	load_arg(1);
	emit(BPF_ALU | BPF_AND | BPF_K, ~(unsigned)(SOCK_CLOEXEC | SOCK_NONBLOCK), 0, 0);
	is(SOCK_SEQPACKET, 2, 0);
	is(SOCK_STREAM, 1, 0);
	answer(SECCOMP_RET_KILL_PROCESS);
	answer(SECCOMP_RET_ALLOW);
	is(SYS_sched_setaffinity, 0, 4); /* where a thread itself runs: lib/io/workers.c */
	load_arg(0);
	is(0, 0, 1);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_KILL_PROCESS);
	is(SYS_prlimit64, 0, 6); /* to look at limits, not to set them: no pointer, in both
					  of its halves */
	load_arg(2);
	is(0, 0, 3);
	td_seccomp_load(&filter, TD_SECCOMP_ARG + 2 * TD_SECCOMP_ARG_SIZE + 4);
	is(0, 0, 1);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_ERRNO | EPERM);
	is(SYS_clone, 0, 3);
	load_arg(0);
	emit(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 14);
	answer(SECCOMP_RET_ALLOW);
	is(SYS_seccomp, 0, 3); /* B5: a further filter, upon all threads */
	load_arg(1);
	is(SECCOMP_FILTER_FLAG_TSYNC, 0, 10);
	answer(SECCOMP_RET_ALLOW);
	is(SYS_socket, 0, 8);
	load_arg(0);
	is(AF_UNIX, 7 + traps, 0);
	is(FIRST_NETWORK, 6 + traps, 0);
	is(LAST_NETWORK, 5 + traps, 0);
	is(AF_NETLINK, 0, 3);
	load_arg(2);
	is(NETLINK_SOCK_DIAG, 2 + traps, 0);
	answer(OTHER_NETLINK);
	answer(SECCOMP_RET_KILL_PROCESS);
	answer(SECCOMP_RET_ALLOW);
	answer(SECCOMP_RET_TRAP); /* B7 */
	return td_seccomp_set(&filter, false);
}

/* The first filter has let pass what this one looks at, and goes on to judge the rest. */
bool sandbox_filter_network(void)
{
	filter.length = 0;
	load_number();
	is(SYS_seccomp, 7, 0);
	is(SYS_socket, 0, 7);
	load_arg(0);
	is(FIRST_NETWORK, 4, 0);
	is(LAST_NETWORK, 3, 0);
	is(AF_NETLINK, 0, 3);
	load_arg(2);
	is(NETLINK_SOCK_DIAG, 1, 0);
	answer(SECCOMP_RET_KILL_PROCESS);
	answer(SECCOMP_RET_ALLOW);
	return td_seccomp_set(&filter, true);
}
#else
bool sandbox_filter(bool traps, bool dials)
{
	return false;
}

bool sandbox_filter_network(void)
{
	return false;
}
#endif
