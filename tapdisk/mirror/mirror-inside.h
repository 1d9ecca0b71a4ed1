/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of a mirror know of each other; its rules are at the top of mirror.h. */
#ifndef TAPDISK_MIRROR_INSIDE_H
#define TAPDISK_MIRROR_INSIDE_H

#include "tapdisk/mirror/mirror.h"

#define MIRROR_CROWDS 1024       /* a power of two */
#define MIRROR_PIECE  (1u << 20) /* bytes of zeroes that the copy gets as one write */

/* A change or a flush, from here to both and back. */
struct mirror_op {
	struct td_list link; /* a change: mirror.changes */
	struct td_list full; /* mirror.full: the leaf has found no space for it */
	struct mirror_op *next;
	struct mirror *m;
	struct td_req *req;
	struct td_req leaf, copy;
	struct iovec *iov; /* of `copy'; `room' of them, which stay with the operation */
	int room;
	unsigned pending; /* of the two, and who is about to send one */
	int err;          /* the leaf's */
	int copy_err;     /* the copy's, where that counts (MI9) */
	bool by_hand;     /* zeroes that the copy gets as writes */
	uint64_t zeroed;  /* bytes of them */
};

struct mirror {
	struct td_image *image, *leaf, *copy;
	struct td_gate gate;
	struct ev_loop *loop;
	bool failed; /* other threads look at it */
	char why[200];
	void (*on_failed)(void *owner);
	void *owner;
	struct td_list changes;        /* mirror_op.link: under way */
	struct td_list waiting;        /* td_req.link: behind those that they overlap (MI4) */
	unsigned wide;                 /* of the changes, those that `crowd' does not count */
	uint16_t crowd[MIRROR_CROWDS]; /* changes that touch a place, by its hash */
	struct mirror_op *free;
	unsigned at_copy; /* requests that it has */
	double heard;     /* td_clock_s(), when it last answered, or was first asked */
	int patience;
	ev_timer look;
	uint64_t waited;
	enum mirror_part part;
	bool redirected, asked; /* MI10; the owner is recording it */
	struct td_list full;    /* mirror_op.full: waits for that */
	void (*on_full)(void *owner);
	void (*on_lost)(void *owner, int err);
};

/* --- mirror.c */
void mirror_put_op(struct mirror_op *op); /* one of its halves is over */
void mirror_submit_change(struct mirror *m, struct td_req *req);

/* --- mirror-order.c: MI4 */
void mirror_count(struct mirror *m, const struct td_req *req, int by); /* one begins, or ends */
/* `req' stands in the list of those that wait, or is not in it yet (last). */
bool mirror_must_wait(struct mirror *m, struct td_req *req, const struct td_list *last);
void mirror_begin_waiting(struct mirror *m, const struct td_req *over);

/* --- mirror-copy.c */
void mirror_submit_copy(struct mirror_op *op);
void mirror_watch_copy(struct mirror *m); /* MI2: does it answer, is it found bad? */
void mirror_leave_copy(struct mirror *m);
void mirror_on_copy(struct td_req *child, int err);

/* --- mirror-full.c: MI10 */
bool mirror_overflows(const struct mirror *m, const struct td_req *child, int err);
/* The leaf's half of it has found no space: this takes the caller's place in `pending'. */
void mirror_leaf_is_full(struct mirror_op *op);

#endif
