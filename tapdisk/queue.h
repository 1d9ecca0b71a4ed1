/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A queue: a thread, its event loop and its I/O engines.  Queue 0 is the main thread's.
 * There are two engines, each started when the first disk asks for it: kernel AIO for O_DIRECT, threads for buffered files.
 */
#ifndef TAPDISK_QUEUE_H
#define TAPDISK_QUEUE_H

#include "td/io.h"

struct queue {
	struct ev_loop *loop;
	struct td_io *direct, *buffered;
};

/* The engine for files opened with or without O_DIRECT; $TAPDISK_IO names another for both.  0 or -errno. */
int queue_engine(struct queue *q, bool direct, struct td_io **io, struct td_err *err);
void queue_fini(struct queue *q); /* nothing in flight */

#endif
