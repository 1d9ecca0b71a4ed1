/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clock_gettime() instead of libc's, for a program that attaches its loop to lib/io/clock.h: libev
 * asks for the time twice a turn, and has no option against it.  Whoever else asks, OpenSSL for
 * one, gets libc's answer.  It is not in the library, because it stands before libc's for the whole
 * process, and in tapdisk only with --enable-turn-clock.
 */
#include <dlfcn.h>
#include <ev.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "lib/io/clock.h"

typedef int look_fn(clockid_t id, struct timespec *t);

static look_fn *libc;

static int libc_time(clockid_t id, struct timespec *t)
{
	look_fn *fn = __atomic_load_n(&libc, __ATOMIC_RELAXED);

	if (!fn) { /* as soon as some library looks, which may be before main() */
		fn = (look_fn *)dlsym(RTLD_NEXT, "clock_gettime");
		__atomic_store_n(&libc, fn, __ATOMIC_RELAXED);
	}
	return fn(id, t);
}

/* Where libev's code is: from there, so many bytes; looked is set last.  A libev that is linked
 * statically is not found, and gets libc's answers. */
static struct {
	uintptr_t begin, size;
	bool looked;
} libev;

static int look_for_libev(struct dl_phdr_info *info, size_t size, void *fn)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t begin = info->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || (uintptr_t)fn - begin >= p->p_memsz)
			continue;
		__atomic_store_n(&libev.begin, begin, __ATOMIC_RELAXED);
		__atomic_store_n(&libev.size, p->p_memsz, __ATOMIC_RELAXED);
		return 1;
	}
	return 0;
}

static bool is_libev(uintptr_t caller)
{
	if (!__atomic_load_n(&libev.looked, __ATOMIC_ACQUIRE)) {
		dl_iterate_phdr(look_for_libev, dlsym(RTLD_DEFAULT, "ev_run"));
		__atomic_store_n(&libev.looked, true, __ATOMIC_RELEASE);
	}
	return caller - __atomic_load_n(&libev.begin, __ATOMIC_RELAXED) <
	       __atomic_load_n(&libev.size, __ATOMIC_RELAXED);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	if (id != CLOCK_MONOTONIC || !td_clock_turn ||
	    !is_libev((uintptr_t)__builtin_return_address(0)))
		return libc_time(id, t);
	t->tv_sec = (time_t)(td_clock_turn / 1000000000);
	t->tv_nsec = (long)(td_clock_turn % 1000000000);
	return 0;
}
