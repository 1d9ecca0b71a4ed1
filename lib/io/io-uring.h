/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making io_urings before a process forbids itself to make any (io-uring.c, U2). */
#ifndef TD_LIB_IO_URING_H
#define TD_LIB_IO_URING_H

#include <errno.h>

#define TD_URING_RESERVE_MAX 16

/*
 * Makes up to n restricted rings (at most TD_URING_RESERVE_MAX), which engines take from then on
 * instead of making their own: an engine that finds none is started as where there is no io_uring.
 * 0, or -errno when the kernel has no such rings, or fewer.  Before there is another thread.
 */
#ifdef HAVE_URING
int td_uring_reserve(unsigned n);
#else
static inline int td_uring_reserve(unsigned n)
{
	return n ? -ENOSYS : 0;
}
#endif

#endif
