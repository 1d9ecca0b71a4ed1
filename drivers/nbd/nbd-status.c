/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * K16: what the server says of holes and zeroes (base:allocation).  It is asked on a fiber, while
 * requests go on; where a change of the range was under way, the answer is not used.
 */
#include "drivers/nbd/nbd.h"
#include "lib/fiber/fiber.h"

#define RANGE_MAX (1u << 30) /* bytes of a question */

/* --- an answer --- */

static void put_extent(struct nbdc_ask *a, uint64_t to, unsigned flags)
{
	struct td_extent *last = a->n ? &a->out[a->n - 1] : NULL;

	if (to <= a->at || a->full)
		return;
	if (last && last->flags == flags)
		last->len += to - a->at;
	else if (a->n == a->max)
		a->full = true;
	else
		a->out[a->n++] = (struct td_extent){a->at, to - a->at, flags};
	a->at = to;
}

/* A sector that is not zero as a whole is data. */
void nbdc_ask_take(struct nbdc_ask *a, uint32_t len, uint32_t state)
{
	uint64_t from = (a->heard + 511) / 512 * 512, to;

	a->heard += len < a->end - a->heard ? len : a->end - a->heard;
	to = a->heard == a->end ? a->end : a->heard / 512 * 512;
	if (!(state & NBD_STATE_ZERO)) {
		put_extent(a, to, 0);
	} else if (to > from) {
		put_extent(a, from, 0);
		put_extent(a, to, TD_EXTENT_ZERO | (state & NBD_STATE_HOLE ? TD_EXTENT_HOLE : 0));
	}
}

/* --- a question --- */

static bool asks(const struct nbdc_client *n, uint64_t off, uint64_t len)
{
	return n->x.context && n->phase == NBD_RUNS && !n->lost && !n->first.leaving &&
	       n->own_free && !nbdc_cmd_changes(n, off, len);
}

/* A change of what it asks for was submitted: which of the two is first, nobody knows. */
void nbdc_ask_spoil(struct nbdc_client *n, const struct td_req *req)
{
	for (struct nbdc_ask *a = n->asking; a; a = a->next)
		if (req->op != TD_READ && req->off < a->end && a->off < req->off + req->len)
			a->spoilt = true;
}

void nbdc_ask_end(struct nbdc_client *n, struct nbdc_ask *a)
{
	struct nbdc_ask **at = &n->asking;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	a->over = true;
	td_fiber_wake(a->fiber);
}

int nbdc_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out, int max)
{
	struct nbdc_client *n = image->priv;
	struct nbdc_ask a = {.fiber = td_fiber_self(),
			     .next = n->asking,
			     .out = out,
			     .max = max,
			     .off = off,
			     .at = off,
			     .heard = off};

	len = len < RANGE_MAX ? len : RANGE_MAX;
	a.end = off + len;
	if (asks(n, off, len)) {
		n->asking = &a;
		nbdc_cmd_ask(n, &a);
		while (!a.over)
			td_fiber_wait();
		if (a.ok && !a.spoilt && a.n)
			return a.n;
	}
	out[0] = (struct td_extent){off, len, 0};
	return 1;
}
