/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent grants: a frontend that always uses the same pages has them mapped here once, and the
 * disk reads and writes them without a copy.
 *
 * PG1 a page is mapped at its first request and stays mapped while a request uses it; the least
 *     recently used that none uses goes when MOST are mapped for its ring, or MOST_OF_GUEST for all
 *     rings of its guest in this process; all go at disconnect (R6)
 * PG2 what cannot be mapped (no such grant, one for reading only, all in use) is copied, as it is
 *     without this
 * PG3 a frontend that keeps changing its pages pays for a mapping each time; after CHANGES of them
 *     all further pages are copied
 * PG4 the guest may change a page while the disk reads it: nothing of it is judged here, and a
 *     driver must look at data once only
 * PG5 a page that the guest sees never holds what is still encrypted: such a disk reads into memory
 *     of ours
 * PG6 a page that no request has used for OLD seconds is unmapped
 */
#include "tapdisk/blkif/blkif-ring.h"

#include <stdlib.h>
#include <string.h>

#define MOST          2048 /* pages */
#define MOST_OF_GUEST 8192
#define CHANGES       (8 * MOST)
#define BUCKETS       1024
#define OLD           60  /* s */
#define AGED_AT_ONCE  256 /* pages: each is a system call, and guests wait */

/* A guest that has rings with persistent grants.  The list is the main thread's. */
struct guest {
	struct td_list link;
	uint16_t domid;
	unsigned rings;
	unsigned pages; /* mapped by all of them; atomic */
};

static struct td_list guests = {&guests, &guests};
static unsigned all_pages; /* atomic */

struct grant {
	uint32_t ref;
	uint16_t next;  /* in its bucket, or of the places that are free: index + 1; 0: none */
	unsigned used;  /* when: persist.now */
	unsigned users; /* segments of requests under way */
	void *page;
	struct td_list lru; /* in use.. last: the most recent */
};

struct blkif_persist {
	struct guest *guest;
	struct td_list lru;
	unsigned n;    /* mapped */
	unsigned made; /* places that have ever been taken */
	uint16_t free; /* of these: the first that is free */
	unsigned changes;
	unsigned now;             /* s that it has been looked at by age */
	uint16_t bucket[BUCKETS]; /* index + 1 */
	struct grant grant[MOST];
};

static uint16_t *bucket_of(struct blkif_persist *p, uint32_t ref)
{
	return &p->bucket[ref * 2654435761u >> 22];
}

_Static_assert(BUCKETS == 1u << 10, "bucket_of() takes the upper ten bits");

static struct grant *find_grant(struct blkif_persist *p, uint32_t ref)
{
	for (uint16_t i = *bucket_of(p, ref); i; i = p->grant[i - 1].next)
		if (p->grant[i - 1].ref == ref)
			return &p->grant[i - 1];
	return NULL;
}

static void forget_grant(struct blkif_persist *p, struct grant *g)
{
	uint16_t *at = bucket_of(p, g->ref), me = (uint16_t)(g - p->grant + 1);

	while (*at != me)
		at = &p->grant[*at - 1].next;
	*at = g->next;
	td_list_del(&g->lru);
}

static void count(struct blkif_persist *p, unsigned d)
{
	p->n += d;
	__atomic_add_fetch(&p->guest->pages, d, __ATOMIC_RELAXED);
	__atomic_add_fetch(&all_pages, d, __ATOMIC_RELAXED);
}

/* One more may be mapped, without another's going.  Two rings may both see the last place: the cap
 * is passed by as many pages as there are rings, at most. */
static bool has_place(const struct blkif_persist *p)
{
	return p->n < MOST && __atomic_load_n(&p->guest->pages, __ATOMIC_RELAXED) < MOST_OF_GUEST;
}

/* A place for one more: a new one, or that of the least recently used; NULL: all are in use, or
 * there were too many changes. */
static struct grant *place(struct blkif *b, struct blkif_persist *p)
{
	struct grant *free;

	if (has_place(p)) {
		free = p->free ? &p->grant[p->free - 1] : &p->grant[p->made++];
		p->free = p->free ? free->next : 0;
		count(p, 1);
		return free;
	}
	if (p->changes == CHANGES)
		return NULL;
	td_list_each (l, &p->lru) {
		struct grant *g = td_entry(l, struct grant, lru);

		if (g->users)
			continue;
		if (++p->changes == CHANGES)
			td_log(LOG_NOTICE,
			       "domain %u, device %u: its frontend keeps changing its persistent "
			       "grants: further ones are copied",
			       b->p.domid, b->p.devid);
		forget_grant(p, g);
		b->x->ops->unmap(b->x, g->page);
		return g;
	}
	return NULL;
}

static struct grant *map_grant(struct blkif *b, struct blkif_persist *p, uint32_t ref)
{
	void *page = has_place(p) || p->changes < CHANGES ? b->x->ops->map(b->x, ref) : NULL;
	struct grant *g = page ? place(b, p) : NULL;
	uint16_t *at = bucket_of(p, ref);

	if (!g) {
		if (page)
			b->x->ops->unmap(b->x, page);
		return NULL;
	}
	*g = (struct grant){.ref = ref, .next = *at, .page = page};
	*at = (uint16_t)(g - p->grant + 1);
	td_list_add(&p->lru, &g->lru);
	return g;
}

static void *get(struct blkif *b, uint32_t ref)
{
	struct grant *g = find_grant(b->persist, ref);

	if (!g)
		g = map_grant(b, b->persist, ref);
	if (!g)
		return NULL;
	g->users++;
	g->used = b->persist->now;
	td_list_del(&g->lru);
	td_list_add(&b->persist->lru, &g->lru);
	return g->page;
}

static void put_grants(struct blkif_req *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		find_grant(r->ring->persist, r->seg[i].ref)->users--;
}

bool blkif_persist_get(struct blkif_req *r, struct iovec *iov)
{
	int n = 0;

	if (!r->ring->persist ||
	    (r->req.op == TD_READ && __atomic_load_n(&r->ring->disk->decrypts, __ATOMIC_RELAXED)))
		return false; /* PG5 */
	for (unsigned i = 0; i < r->nr_segs; i++) {
		const struct blkif_seg *s = &r->seg[i];
		size_t len = (size_t)(s->last - s->first + 1) * 512;
		char *p = get(r->ring, s->ref);

		if (!p) {
			put_grants(r, i);
			return false;
		}
		p += s->first * 512;
		if (n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == p)
			iov[n - 1].iov_len += len;
		else
			iov[n++] = (struct iovec){p, len};
	}
	r->req.iov = iov;
	r->req.iovcnt = n;
	return true;
}

void blkif_persist_put(struct blkif_req *r)
{
	put_grants(r, r->nr_segs);
}

/* PG6 */
bool blkif_persist_age(struct blkif *b)
{
	struct blkif_persist *p = b->persist;
	unsigned looked = 0;

	p->now++;
	td_list_each_safe (l, next, &p->lru) {
		struct grant *g = td_entry(l, struct grant, lru);

		if (p->now - g->used <= OLD || looked++ == AGED_AT_ONCE)
			break;
		if (g->users)
			continue;
		forget_grant(p, g);
		b->x->ops->unmap(b->x, g->page);
		g->next = p->free;
		p->free = (uint16_t)(g - p->grant + 1);
		count(p, -1u);
	}
	return p->n;
}

unsigned blkif_grants(void)
{
	return __atomic_load_n(&all_pages, __ATOMIC_RELAXED);
}

static void leave_guest(struct guest *g)
{
	if (--g->rings)
		return;
	td_list_del(&g->link);
	free(g);
}

static struct guest *guest_of(uint16_t domid)
{
	struct guest *g;

	td_list_each (l, &guests) {
		g = td_entry(l, struct guest, link);
		if (g->domid == domid) {
			g->rings++;
			return g;
		}
	}
	g = calloc(1, sizeof *g);
	if (!g)
		return NULL;
	*g = (struct guest){.domid = domid, .rings = 1};
	td_list_add(&guests, &g->link);
	return g;
}

int blkif_persist_open(struct blkif *b)
{
	struct guest *guest;

	if (!b->p.persistent || !b->x->ops->map)
		return 0;
	guest = guest_of(b->p.domid);
	if (!guest)
		return -1;
	b->persist = calloc(1, sizeof *b->persist);
	if (!b->persist) {
		leave_guest(guest);
		return -1;
	}
	b->persist->guest = guest;
	td_list_init(&b->persist->lru);
	return 0;
}

void blkif_persist_close(struct blkif *b)
{
	struct td_list *l;

	if (!b->persist)
		return;
	while ((l = td_list_pop(&b->persist->lru)))
		b->x->ops->unmap(b->x, td_entry(l, struct grant, lru)->page);
	count(b->persist, -b->persist->n);
	leave_guest(b->persist->guest);
	free(b->persist);
	b->persist = NULL;
}
