/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zeroes to write, for whoever sends them as data: one buffer for the whole program, which nobody
 * can write to.  It is aligned for O_DIRECT.
 */
#ifndef LIB_ZEROES_H
#define LIB_ZEROES_H

#include <stdint.h>
#include <sys/uio.h>

#define TD_ZEROES (256u << 10) /* bytes */

extern const uint8_t td_zeroes[TD_ZEROES];

/* len bytes of it, or all of it where len is more. */
static inline struct iovec td_zeroes_iov(uint64_t len)
{
	/* an iovec cannot say that its bytes are only read */
	return (struct iovec){(void *)(uintptr_t)td_zeroes,
			      len < TD_ZEROES ? (size_t)len : TD_ZEROES};
}

#endif
