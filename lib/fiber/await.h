/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A request to an image, waited for on a fiber. */
#ifndef TD_LIB_AWAIT_H
#define TD_LIB_AWAIT_H

#include "td/block.h"

/* iov: of READ and WRITE, else NULL and 0; it may be on the fiber's stack.  0 or -errno. */
int td_await_request(struct td_image *image, struct td_io *io, enum td_op op, unsigned flags,
		     uint64_t off, uint64_t len, struct iovec *iov, int iovcnt);

#endif
