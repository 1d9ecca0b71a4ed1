/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TL5: what is left of a process's rights once it has its keys and its two sockets. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/seccomp.h"
#include "lib/tls/tls.h"

#ifdef TD_SECCOMP_ARCH
#define C(name) SYS_##name
/* clang-format off */
static const short permitted[] = {
	C(read), C(write), C(readv), C(writev), C(recvfrom), C(recvmsg), C(sendto), C(sendmsg),
	C(shutdown), C(close), C(ppoll), C(munmap), C(mremap), C(madvise), C(brk), C(futex),
	C(clock_gettime), C(gettimeofday), C(getrandom), C(getpid), C(gettid), C(exit),
	C(exit_group), C(rt_sigprocmask), C(rt_sigreturn), C(restart_syscall),
#ifdef SYS_poll
	C(poll), C(time),
#endif
};
/* clang-format on */

enum { COUNT = sizeof permitted / sizeof *permitted };

/* Memory, but none that is executed. */
static void allow_memory(struct td_seccomp *f, unsigned nr)
{
	td_seccomp_is(f, nr, 0, 4);
	td_seccomp_load_arg(f, 2);
	td_seccomp_emit(f, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
	td_seccomp_answer(f, SECCOMP_RET_ALLOW);
	td_seccomp_answer(f, SECCOMP_RET_KILL_PROCESS);
}

static bool filter(void)
{
	static struct sock_filter program[COUNT * 2 + 32];
	struct td_seccomp f = {program, 0, sizeof program / sizeof *program};

	td_seccomp_begin(&f);
	for (size_t i = 0; i < COUNT; i++) {
		td_seccomp_is(&f, (unsigned)permitted[i], 0, 1);
		td_seccomp_answer(&f, SECCOMP_RET_ALLOW);
	}
	allow_memory(&f, SYS_mmap);
	allow_memory(&f, SYS_mprotect);
	/* what a library does without: it asks for a file, or who it is */
	td_seccomp_answer(&f, SECCOMP_RET_ERRNO | EPERM);
	return td_seccomp_set(&f, false);
}
#else
static bool filter(void)
{
	return false;
}
#endif

bool td_tls_jail(void)
{
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* nobody looks into it, and finds a key */
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && filter();
}
