/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The requests that a ring has taken and not answered, in a file that outlives the process: blkif's
 * responses overwrite its request slots, so that this table alone says what a guest is still owed
 * when its tapdisk has died.
 *
 * One process at a time writes it, in the ring's thread; a successor reads it when that process is
 * gone.  The stores are made in this order; only a death of the process can come between them (when
 * the machine dies, so do its guests):
 *
 * T1 an entry is whole (request, seq) before it is TAKEN
 * T2 it is TAKEN before head.next moves past it
 * T3 it is ANSWERING, with its response's index, before the ring's rsp_prod moves past that index
 * T4 it is FREE only after rsp_prod has
 *
 * So at any instant an entry is owed exactly if it is not FREE, its seq is below head.next (else T2
 * has not come: the request is still in the ring, and will be taken), and it is not ANSWERING at an
 * index below rsp_prod (else T4 has not come: the guest has its answer).  A request that is owed is
 * done again.  A read, a write or a flush may be done twice before its answer, since the guest
 * touches its data, and the page with the segments of an INDIRECT, only after that.  The requests
 * are done in the order of seq, which is the guest's, so that barriers and flushes cover what they
 * did.  Flushes whose outcome died with the process are lib/syncmark.h's concern.
 */
#ifndef TAPDISK_INFLIGHT_H
#define TAPDISK_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/kill.h"
#include "tapdisk/blkif/blkif-abi.h"
#include "td/log.h"

enum { INFLIGHT_FREE, INFLIGHT_TAKEN, INFLIGHT_ANSWERING };

struct inflight_entry {
	struct blkif_desc desc;
	uint64_t seq;   /* the request's index in the ring, not wrapped */
	uint32_t state; /* INFLIGHT_* */
	uint32_t rsp;   /* ANSWERING: the response's index in the ring */
};

/* Which ring it is: must be the same for a successor. */
struct inflight_ring {
	uint32_t domid, devid, queue, port, abi, pages, slots;
	uint32_t refs[1 << BLKIF_MAX_RING_ORDER];
};

struct inflight_head {
	uint32_t magic, entry_size;
	struct inflight_ring ring;
	uint32_t rsp_prod; /* as last pushed, or a little earlier */
	uint64_t next;     /* seq of the next request; modulo 2^32 the ring's req_cons */
};

struct inflight {
	struct inflight_head *head;
	struct inflight_entry *entry; /* ring.slots of them */
	size_t bytes;
	char *path; /* NULL: in memory only */
};

/*
 * New and empty, at path; path NULL, or a file that cannot be made (which is logged), gives one in
 * memory, that no successor finds. 0 or -ENOMEM.  What stood at path is gone.
 */
int inflight_new(struct inflight *t, const char *path, const struct inflight_ring *ring);
/* A dead process's.  -ENOENT when there is none, -EPROTO when it is not this ring's. */
int inflight_adopt(struct inflight *t, const char *path, const struct inflight_ring *ring,
		   struct td_err *err);
/* the file goes, unless keep; of a zeroed one, nothing */
void inflight_close(struct inflight *t, bool keep);

/* The layout of this process's tables in a word: one who says the same can take them over. */
const char *inflight_layout(void);

/* Is this entry owed to the guest of a ring whose rsp_prod is `rsp_prod'? */
bool inflight_owed(const struct inflight *t, const struct inflight_entry *e, uint32_t rsp_prod);

/* T1, T2; e->desc is there.  The caller's private req_cons is seq + 1 from now on. */
static inline void inflight_take(struct inflight *t, struct inflight_entry *e)
{
	e->seq = t->head->next;
	TD_KILL(TAKE_SEQ);
	__atomic_store_n(&e->state, INFLIGHT_TAKEN, __ATOMIC_RELEASE);
	TD_KILL(TAKE_TAKEN);
	__atomic_store_n(&t->head->next, e->seq + 1, __ATOMIC_RELEASE);
	TD_KILL(TAKE_NEXT);
}

/* T3 */
static inline void inflight_answer(struct inflight_entry *e, uint32_t rsp)
{
	e->rsp = rsp;
	TD_KILL(ANSWER_INDEX);
	__atomic_store_n(&e->state, INFLIGHT_ANSWERING, __ATOMIC_RELEASE);
}

/* T4 */
static inline void inflight_free(struct inflight_entry *e)
{
	__atomic_store_n(&e->state, INFLIGHT_FREE, __ATOMIC_RELEASE);
}

#endif
