/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lab's guest: a frontend on the memory transport in the tapdisk's own thread.  It is told of
 * an answer in the moment of the notification, so that no event of the disk stands between the two.
 */
#ifndef CRASH_RING_H
#define CRASH_RING_H

#include "tapdisk/vbd/vbd.h"
#include "tests/crash/rng.h"

struct ring;

/* told: called in the notification; it may reap, and nothing else. */
struct ring *ring_new(struct ev_loop *loop, void (*told)(void *arg), void *arg);
void ring_owner(struct ring *r, void *arg); /* whom told() gets */
void ring_reset(struct ring *r);            /* new again: a ring is dear to make */
void ring_free(struct ring *r);             /* disconnected */

/* On a fiber, with the disk open; as domain 1, device 1.  persistent: its pages may be used without
 * a copy. */
int ring_connect(struct ring *r, struct vbd *v, bool persistent, struct td_err *err);

/* Its parts, for who connects several, or again: a way to it, and what it is as ring `queue' of the
 * device. */
int ring_reach(struct ring *r, struct td_xport **x, struct td_err *err);
void ring_params(unsigned queue, bool persistent, struct blkif_params *p);

bool ring_room(const struct ring *r);
/* Memory for a request called `name', of n sectors; segments: whole pages, or ragged by rng. */
unsigned char *ring_build(struct ring *r, size_t name, uint32_t n, struct rng *rng);
/* its data goes to the guest's pages */
void ring_put(struct ring *r, size_t name, uint8_t op, uint64_t sector);
void ring_push(struct ring *r);

bool ring_reap(struct ring *r, size_t *name, int *status);         /* status: 0, or BLKIF_* */
unsigned char *ring_data(struct ring *r, size_t name, uint32_t n); /* what a read has brought */
void ring_release(struct ring *r, size_t name);

#endif
