/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Merges adjacent READs, and adjacent WRITEs, into one operation of the engine, to save system
 * calls for guests that cut a large transfer into many requests.  Between lib/io/io.c and the
 * engine; all in the loop's thread.
 */
#ifndef TD_LIB_MERGE_H
#define TD_LIB_MERGE_H

#include "td/io.h"

/* 0 or -ENOMEM.  For an engine that says `merges' only: of any other io->merge is NULL. */
int td_merge_new(struct td_merge **out);
void td_merge_free(struct td_merge *m); /* nothing in flight; NULL is fine */

/* Takes a READ or WRITE over, or says no: then what it held has gone to the engine, and op is the
 * caller's to send. */
bool td_merge_take(struct td_io *io, struct td_iop *op);
void td_merge_send(struct td_io *io); /* what it holds goes to the engine */

/* An operation of its own making is over with res bytes, or -errno. */
void td_merge_result(struct td_iop *op, long res);

/* --- lib/io/io.c, for lib/io/merge.c --- */
void td_iop_send(struct td_iop *op);            /* one round, alone */
void td_iop_finish(struct td_iop *op, int err); /* done() */

#endif
