/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holes (RB11).  librbd tells of a range where there are data, after it has flushed what it caches.
 * Nobody else writes to the image while we have its lock, so that the answer is kept; each change
 * that is done cuts it off where the change begins.
 *
 * An answer comes by the image's map of objects where that is good (fast-diff), and else by looking
 * at each object.  By the map, librbd before 17.1 tells wrong places for a range that does not
 * begin with an object, and for a clone; so there it is asked by whole objects, and of no clone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/rbd/rbd.h"

#define ASK_MIN  (64u << 20) /* bytes: what a question costs does not fall below that */
#define ASK_SLOW (1u << 30)  /* bytes of a question that looks at each object */
#define ASK_FAST (1ull << 40)

/* --- an answer --- */

static void put_known(struct rbdc_known *k, uint64_t to, unsigned flags)
{
	struct td_extent *last = k->n ? &k->e[k->n - 1] : NULL;

	if (to <= k->to || k->full)
		return;
	if (last && last->flags == flags)
		last->len += to - k->to;
	else if (k->n == RBDC_KNOWN)
		k->full = true;
	else
		k->e[k->n++] = (struct td_extent){k->to, to - k->to, flags};
	if (!k->full)
		k->to = to;
}

/* A sector that is not a hole as a whole is data.  -ECANCELED ends the answer. */
int rbdc_known_take(uint64_t off, size_t len, int exists, void *arg)
{
	struct rbdc_known *k = arg;
	uint64_t from = off / 512 * 512, end = off + len, to = (end + 511) / 512 * 512;

	if (off < k->heard) { /* which is no order that is understood */
		k->bad = true;
		return -ECANCELED;
	}
	k->heard = end;
	if (!exists || end <= k->from)
		return 0;
	to = to < k->end ? to : k->end;
	put_known(k, from < to ? from : to, TD_EXTENT_HOLE | TD_EXTENT_ZERO);
	put_known(k, to, 0);
	return k->full ? -ECANCELED : 0;
}

void rbdc_known_finish(struct rbdc_known *k, int rc)
{
	if (!rc)
		put_known(k, k->end, TD_EXTENT_HOLE | TD_EXTENT_ZERO);
	else if (!k->full)
		k->bad = true;
	if (k->bad)
		k->to = k->from;
}

/* The number of extents; 0: it is not known what is at off. */
int rbdc_known_tell(const struct rbdc_known *k, uint64_t off, uint64_t len, struct td_extent *out,
		    int max)
{
	uint64_t to = k->to < k->cut ? k->to : k->cut;
	int n = 0;

	if (off < k->from || off >= to)
		return 0;
	to = off + len < to ? off + len : to;
	for (int i = 0; i < k->n && n < max && off < to; i++) {
		uint64_t end = k->e[i].off + k->e[i].len;

		if (end <= off)
			continue;
		end = end < to ? end : to;
		out[n++] = (struct td_extent){off, end - off, k->e[i].flags};
		off = end;
	}
	return n;
}

/* --- a question: on a thread that may wait --- */

/* Is the map of objects there, good, and told rightly? */
static bool is_fast(const struct rbdc_handle *h)
{
	uint64_t features = 0, flags = 0, overlap = 0, unit = 0, count = 0;

	return rbdc_lib->rbd_get_features(h->rbd, &features) >= 0 &&
	       features & RBD_FEATURE_FAST_DIFF && rbdc_lib->rbd_get_flags(h->rbd, &flags) >= 0 &&
	       !(flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID)) &&
	       rbdc_lib->rbd_get_overlap(h->rbd, &overlap) >= 0 && !overlap &&
	       rbdc_lib->rbd_get_stripe_unit(h->rbd, &unit) >= 0 && unit == h->object &&
	       rbdc_lib->rbd_get_stripe_count(h->rbd, &count) >= 0 && count == 1;
}

static int ask_extents(void *arg)
{
	struct rbdc_question *q = arg;
	struct rbdc_known *k = &q->known;
	bool fast = is_fast(q->h);
	int rc;

	k->end = k->from + q->want[fast];
	k->end = k->end < q->size ? k->end : q->size;
	rc = rbdc_lib->rbd_diff_iterate2(q->h->rbd, NULL, k->from, k->end - k->from, 1, fast,
					 rbdc_known_take, k);
	rbdc_known_finish(k, rc);
	return 0;
}

/* --- on a fiber --- */

/* What comes before the change is as it was told. */
static void lower_cut(uint64_t *cut, uint64_t from, uint64_t off, uint64_t len)
{
	if (off + len > from && off < *cut)
		*cut = off;
}

/* Begins with an object. */
static struct rbdc_question *make_question(struct rbdc_client *c, uint64_t off, uint64_t len)
{
	struct rbdc_question *q = rbdc_question_new(c->h);
	uint64_t from = off / c->h->object * c->h->object, want = off + len - from;

	if (!q)
		return NULL;
	want = want > ASK_MIN ? want : ASK_MIN;
	q->size = c->now;
	q->want[0] = want < ASK_SLOW ? want : ASK_SLOW;
	q->want[1] = want < ASK_FAST ? want : ASK_FAST;
	q->known = (struct rbdc_known){.from = from, .to = from, .end = UINT64_MAX};
	return q;
}

static void leave(struct rbdc_client *c, struct rbdc_asking *a)
{
	struct rbdc_asking **at = &c->asking;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
}

void rbdc_extents_forget(struct rbdc_client *c)
{
	if (c->told)
		rbdc_question_free(c->told);
	c->told = NULL;
}

static int ask_librbd(struct rbdc_client *c, uint64_t off, uint64_t len, struct td_extent *out,
		      int max)
{
	struct rbdc_question *q = make_question(c, off, len);
	struct rbdc_asking a = {.next = c->asking, .cut = UINT64_MAX};
	int rc, n;

	if (!q)
		return 0;
	a.from = q->known.from;
	c->asking = &a;
	rc = rbdc_call(c->loop, ask_extents, rbdc_question_free, q, RBDC_OPEN_WAIT);
	leave(c, &a);
	if (rc == -EINPROGRESS)
		return 0;
	q->known.cut = a.cut;
	n = rc < 0 ? 0 : rbdc_known_tell(&q->known, off, len, out, max);
	rbdc_extents_forget(c);
	if (c->alone)
		c->told = q;
	else
		rbdc_question_free(q);
	return n;
}

void rbdc_extents_changed(struct rbdc_client *c, uint64_t off, uint64_t len)
{
	for (struct rbdc_asking *a = c->asking; a; a = a->next)
		lower_cut(&a->cut, a->from, off, len);
	if (c->told)
		lower_cut(&c->told->known.cut, c->told->known.from, off, len);
}

int rbdc_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out, int max)
{
	struct rbdc_client *c = image->priv;
	bool asks = !c->lost && !c->h->encrypted && off + len <= c->now;
	int n = asks && c->told ? rbdc_known_tell(&c->told->known, off, len, out, max) : 0;

	if (asks && !n)
		n = ask_librbd(c, off, len, out, max);
	if (n)
		return n;
	out[0] = (struct td_extent){off, len, 0};
	return 1;
}
