/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A ring that another process has served: what it left is taken up, or the ring is refused. */
#include "tapdisk/blkif/blkif-ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The indices of a ring that is new to both sides are 0; another's responses may have overwritten
 * its requests. */
static int check_fresh(struct blkif *b, struct td_err *err)
{
	uint32_t rsp_prod = b->ring->rsp_prod;

	if (rsp_prod)
		return td_fail(err, EBUSY,
			       "domain %u, device %u: its ring has been served before (%u "
			       "responses), and there is no record of what is in flight in it: "
			       "the guest must detach the disk first",
			       b->p.domid, b->p.devid, rsp_prod);
	return 0;
}

static int by_seq(const void *a, const void *b)
{
	const struct inflight_entry *x = *(struct inflight_entry *const *)a,
				    *y = *(struct inflight_entry *const *)b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Splits the requests into those that a dead process owed, in the guest's order, and the free ones.
 */
static unsigned sort_out(struct blkif *b)
{
	struct inflight_entry *owed[BLKIF_MAX_SLOTS];
	struct blkif_req **tail = &b->replay;
	unsigned n = 0;

	b->free = NULL;
	for (unsigned i = b->slots; i-- > 0;) {
		struct inflight_entry *e = &b->table.entry[i];

		if (inflight_owed(&b->table, e, b->rsp_prod)) {
			owed[n++] = e;
			/* its mark names an index that another's answer may get now */
			__atomic_store_n(&e->state, INFLIGHT_TAKEN, __ATOMIC_RELEASE);
			TD_KILL(ADOPT_SORTING);
			continue;
		}
		inflight_free(e);
		b->reqs[i].next = b->free;
		b->free = &b->reqs[i];
	}
	qsort(owed, n, sizeof owed[0], by_seq);
	for (unsigned i = 0; i < n; i++) {
		*tail = &b->reqs[owed[i] - b->table.entry];
		tail = &(*tail)->next;
	}
	*tail = NULL;
	return n;
}

/*
 * Goes on where a dead process stopped.  Its rsp_prod is believed only within what it can be: the
 * guest may have changed it, and would then be told that its ring is broken.
 */
static int adopt(struct blkif *b, struct td_err *err)
{
	uint32_t rsp_prod = __atomic_load_n(&b->ring->rsp_prod, __ATOMIC_ACQUIRE);
	uint32_t next = (uint32_t)b->table.head->next;

	TD_KILL(ADOPT_MAPPED);
	b->req_cons = next;
	b->rsp_prod = rsp_prod;
	BLKIF_COUNT(b->inflight, sort_out(b));
	TD_KILL(ADOPT_SORTED);
	if (next - rsp_prod > b->slots || b->inflight != next - rsp_prod)
		return td_fail(err, EPROTO,
			       "domain %u, device %u: its ring says %u responses, the record of "
			       "the last tapdisk %u requests, %u of them "
			       "not answered: it cannot be taken over",
			       b->p.domid, b->p.devid, rsp_prod, next, b->inflight);
	b->table.head->rsp_prod = rsp_prod;
	b->taken_over = true;
	td_log(LOG_NOTICE, "domain %u, device %u: taken over, with %u requests in flight",
	       b->p.domid, b->p.devid, b->inflight);
	return 0;
}

int blkif_open_table(struct blkif *b, const struct blkif_keep *keep, struct td_err *err)
{
	struct inflight_ring id = {.domid = b->p.domid,
				   .devid = b->p.devid,
				   .queue = b->p.queue,
				   .port = b->p.port,
				   .abi = b->p.abi,
				   .pages = b->p.pages,
				   .slots = b->slots};
	int rc;

	memcpy(id.refs, b->p.refs, sizeof id.refs);
	if (keep && keep->take_over) {
		rc = inflight_adopt(&b->table, keep->path, &id, err);
		return rc < 0 ? rc : adopt(b, err);
	}
	rc = check_fresh(b, err);
	if (rc < 0)
		return rc;
	rc = inflight_new(&b->table, keep ? keep->path : NULL, &id);
	return rc < 0 ? td_fail(err, ENOMEM, "out of memory for a ring of %u pages", b->p.pages)
		      : 0;
}
