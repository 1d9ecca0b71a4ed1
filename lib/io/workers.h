/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small pool of threads for operations that would block the loop: buffered reads and writes,
 * fallocate, open. Threads start when there is work for them and stay; results come back to the
 * loop of the engine.
 */
#ifndef TD_LIB_WORKERS_H
#define TD_LIB_WORKERS_H

#include "td/io.h"

#define TD_WORKERS_MAX 8

struct td_workers;

int td_workers_new(struct td_io *io, struct td_workers **out);
void td_workers_free(struct td_workers *w); /* joins; nothing in flight */

/* Hands a list of td_iop over (spliced away); each comes back through td_iop_result() in the loop;
 * one with TD_IO_NEAR, most often, in this turn of it. */
void td_workers_run(struct td_workers *w, struct td_list *ops);

/* file-op.c: does it, in a worker thread.  Bytes or 0, or -errno. */
long td_file_op(struct td_iop *op);

#endif
