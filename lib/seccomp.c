/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/seccomp.h"

#include <assert.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void td_seccomp_emit(struct td_seccomp *f, unsigned code, unsigned k, unsigned char yes,
		     unsigned char no)
{
	assert(f->length < f->room);
	f->program[f->length++] = (struct sock_filter)BPF_JUMP((unsigned short)code, k, yes, no);
}

void td_seccomp_answer(struct td_seccomp *f, unsigned action)
{
	td_seccomp_emit(f, BPF_RET | BPF_K, action, 0, 0);
}

void td_seccomp_load(struct td_seccomp *f, unsigned at)
{
	td_seccomp_emit(f, BPF_LD | BPF_W | BPF_ABS, at, 0, 0);
}

void td_seccomp_load_arg(struct td_seccomp *f, unsigned n)
{
	td_seccomp_load(f, TD_SECCOMP_ARG + n * TD_SECCOMP_ARG_SIZE);
}

void td_seccomp_is(struct td_seccomp *f, unsigned k, unsigned char yes, unsigned char no)
{
	td_seccomp_emit(f, BPF_JMP | BPF_JEQ | BPF_K, k, yes, no);
}

#ifdef TD_SECCOMP_ARCH
void td_seccomp_begin(struct td_seccomp *f)
{
	f->length = 0;
	td_seccomp_load(f, offsetof(struct seccomp_data, arch));
	td_seccomp_is(f, TD_SECCOMP_ARCH, 1, 0);
	td_seccomp_answer(f, SECCOMP_RET_KILL_PROCESS);
	td_seccomp_load(f, TD_SECCOMP_NR);
}
#endif

bool td_seccomp_set(const struct td_seccomp *f, bool all_threads)
{
	struct sock_fprog p = {.len = f->length, .filter = f->program};

	return !(all_threads ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				       SECCOMP_FILTER_FLAG_TSYNC, &p)
			     : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p));
}
