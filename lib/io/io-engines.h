/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engines that lib/io/io.c chooses from. */
#ifndef TD_LIB_IO_ENGINES_H
#define TD_LIB_IO_ENGINES_H

#include "td/io.h"

extern const struct td_io_ops td_io_aio; /* kernel AIO, for O_DIRECT files */
/* io_uring, for both; where liburing is built in (HAVE_URING) */
extern const struct td_io_ops td_io_uring;
extern const struct td_io_ops td_io_threads; /* a pool of threads, for buffered files */

#endif
