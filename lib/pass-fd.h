/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A descriptor for another process, over a Unix socket. */
#ifndef TD_LIB_PASS_FD_H
#define TD_LIB_PASS_FD_H

#include <stddef.h>

/* Sends fd, which stays the caller's, beside len bytes, one at least.  0 or -errno; -EMSGSIZE when
 * a stream took a part of the bytes.  Never raises SIGPIPE. */
int td_pass_fd(int to, int fd, const void *data, size_t len);

#endif
