/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes that overlap, one after the other (MI4 of mirror.h). */
#include "tapdisk/mirror/mirror-inside.h"

#define CROWD_BITS 16 /* bytes of a disk, as a power of two, whose changes are counted together */
#define CROWDS_MAX 16 /* of one change; a wider one is compared with all */

static unsigned crowds(const struct td_req *req)
{
	uint64_t n = ((req->off + req->len - 1) >> CROWD_BITS) - (req->off >> CROWD_BITS) + 1;

	return n > CROWDS_MAX ? 0 : (unsigned)n;
}

static uint16_t *crowd(struct mirror *m, const struct td_req *req, unsigned i)
{
	return &m->crowd[((req->off >> CROWD_BITS) + i) % MIRROR_CROWDS];
}

void mirror_count(struct mirror *m, const struct td_req *req, int by)
{
	unsigned n = crowds(req);

	if (!n)
		m->wide += (unsigned)by;
	for (unsigned i = 0; i < n; i++)
		*crowd(m, req, i) = (uint16_t)(*crowd(m, req, i) + by);
}

/* False: it surely overlaps none that is under way.  The cheap look, and most often the only one.
 */
static bool may_overlap(struct mirror *m, const struct td_req *req)
{
	unsigned n = crowds(req);
	bool any = m->wide || (!n && !td_list_empty(&m->changes));

	for (unsigned i = 0; i < n && !any; i++)
		any = *crowd(m, req, i);
	return any;
}

static bool meet(const struct td_req *a, const struct td_req *b)
{
	return a->off < b->off + b->len && b->off < a->off + a->len;
}

bool mirror_must_wait(struct mirror *m, struct td_req *req, const struct td_list *last)
{
	if (may_overlap(m, req))
		td_list_each (l, &m->changes)
			if (meet(td_entry(l, struct mirror_op, link)->req, req))
				return true;
	for (struct td_list *l = m->waiting.next; l != last; l = l->next)
		if (meet(td_entry(l, struct td_req, link), req))
			return true;
	return false;
}

/* Takes the first off the list that waited for what is over, and overlaps none any more. */
static struct td_req *take_waiting(struct mirror *m, const struct td_req *over)
{
	td_list_each (at, &m->waiting) {
		struct td_req *w = td_entry(at, struct td_req, link);

		if (meet(over, w) && !mirror_must_wait(m, w, at)) {
			td_list_del(at);
			return w;
		}
	}
	return NULL;
}

void mirror_begin_waiting(struct mirror *m, const struct td_req *over)
{
	struct td_req *w;

	while (!td_list_empty(&m->waiting) && (w = take_waiting(m, over)))
		mirror_submit_change(m, w);
}
