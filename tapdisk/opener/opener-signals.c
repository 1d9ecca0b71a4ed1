/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Libraries block all signals in threads of their own (librados does), and the kernel ends a
 * process in which SIGSYS is blocked where it is raised.  This takes libc's place for them, too: it
 * is of the program tapdisk alone, which is linked so that they find it.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t others;

	if (set && how != SIG_UNBLOCK) {
		others = *set;
		sigdelset(&others, SIGSYS);
		set = &others;
	}
	return syscall(SYS_rt_sigprocmask, how, set, old, _NSIG / 8) < 0 ? errno : 0;
}
