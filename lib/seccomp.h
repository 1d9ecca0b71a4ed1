/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A filter of system calls, written one instruction after the other, and then put into force for
 * good.  For the tapdisk's sandbox, and the relay of TLS.
 */
#ifndef TD_LIB_SECCOMP_H
#define TD_LIB_SECCOMP_H

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Undefined where there are none: on other processors, and in a build with sanitizers, which make
 * calls of their own. */
#ifndef TD_SANITIZED
#if defined __x86_64__
#define TD_SECCOMP_ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define TD_SECCOMP_ARCH AUDIT_ARCH_AARCH64
#endif
#endif

struct td_seccomp {
	struct sock_filter *program;
	unsigned short length, room; /* instructions */
};

/* What is looked at of a call: its number, and the lower half of an argument. */
enum {
	TD_SECCOMP_NR = offsetof(struct seccomp_data, nr),
	TD_SECCOMP_ARG = offsetof(struct seccomp_data, args),
	TD_SECCOMP_ARG_SIZE = sizeof(uint64_t),
};

void td_seccomp_emit(struct td_seccomp *f, unsigned code, unsigned k, unsigned char yes,
		     unsigned char no);
void td_seccomp_answer(struct td_seccomp *f, unsigned action);
void td_seccomp_load(struct td_seccomp *f, unsigned at);    /* struct seccomp_data's */
void td_seccomp_load_arg(struct td_seccomp *f, unsigned n); /* from 0 on */
/* Is what was loaded k?  How many instructions are left out, if it is, and if not. */
void td_seccomp_is(struct td_seccomp *f, unsigned k, unsigned char yes, unsigned char no);

/* The beginning: another processor's calls end the process; then the call's number is loaded. */
void td_seccomp_begin(struct td_seccomp *f);
/* Upon the calling thread, and those that it makes; or upon all threads. */
bool td_seccomp_set(const struct td_seccomp *f, bool all_threads);

#endif
