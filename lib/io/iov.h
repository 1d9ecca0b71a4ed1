/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory in pieces, as requests have it: parts of it, by byte.  Pure functions: any thread. */
#ifndef TD_LIB_IOV_H
#define TD_LIB_IOV_H

#include <stdint.h>
#include <sys/uio.h>

/* The bytes skip..skip+len-1 of `from' as pieces in `to' (room for max); how many, or -1 where they
 * do not fit.  to NULL: counts alone. */
int td_iov_slice(const struct iovec *from, int n, uint64_t skip, uint64_t len, struct iovec *to,
		 int max);
/* These bytes become zeroes; what goes beyond the last piece is passed over. */
void td_iov_zero(const struct iovec *iov, int n, uint64_t skip, uint64_t len);

#endif
