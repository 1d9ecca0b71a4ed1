/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/pool.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096u

struct buffer {
	unsigned touched; /* pages, from its start: these are in memory */
	unsigned used;    /* the most since the last td_pool_age(), */
	unsigned before;  /* and between the two before it */
};

struct td_pool {
	char *mem;
	size_t size;
	unsigned n, nfree;
	size_t touched; /* pages */
	struct td_account *account;
	struct buffer *buffer;
	unsigned free[]; /* stack of indices; the lowest index is on top at first */
};

struct td_pool *td_pool_new(size_t size, unsigned n, struct td_account *a)
{
	struct td_pool *p = calloc(1, sizeof *p + n * sizeof p->free[0]);

	if (!p)
		return NULL;
	p->buffer = calloc(n, sizeof *p->buffer);
	p->mem = mmap(NULL, size * n, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->mem == MAP_FAILED || !p->buffer) {
		if (p->mem != MAP_FAILED)
			munmap(p->mem, size * n);
		free(p->buffer);
		free(p);
		return NULL;
	}
	/* huge pages would make a whole ring's worth resident for one request */
	madvise(p->mem, size * n, MADV_NOHUGEPAGE);
	p->size = size;
	p->n = p->nfree = n;
	p->account = a;
	for (unsigned i = 0; i < n; i++)
		p->free[i] = n - 1 - i;
	return p;
}

void td_pool_free(struct td_pool *p)
{
	if (!p)
		return;
	munmap(p->mem, p->size * p->n);
	if (p->account)
		td_account_give(p->account, p->touched * PAGE);
	free(p->buffer);
	free(p);
}

/* Leaves `pages' of a buffer in memory. */
static void cut(struct td_pool *p, unsigned i, unsigned pages)
{
	struct buffer *b = &p->buffer[i];
	size_t n;

	if (b->touched <= pages)
		return;
	n = b->touched - pages;
	madvise(p->mem + i * p->size + pages * (size_t)PAGE, n * PAGE, MADV_DONTNEED);
	b->touched = pages;
	p->touched -= n;
	if (p->account)
		td_account_give(p->account, n * PAGE);
}

void *td_pool_get_part(struct td_pool *p, size_t bytes, bool must)
{
	unsigned pages = (unsigned)((bytes + PAGE - 1) / PAGE), i;
	struct buffer *b;

	if (!p->nfree)
		return NULL;
	i = p->free[p->nfree - 1];
	b = &p->buffer[i];
	if (pages > b->touched) {
		size_t more = pages - b->touched;

		if (p->account && !td_account_take(p->account, more * PAGE, must))
			return NULL;
		b->touched = pages;
		p->touched += more;
	}
	if (pages > b->used)
		b->used = pages;
	p->nfree--;
	return p->mem + i * p->size;
}

void *td_pool_get(struct td_pool *p)
{
	return td_pool_get_part(p, p->size, false);
}

void td_pool_put(struct td_pool *p, void *buf)
{
	unsigned i = (unsigned)((size_t)((char *)buf - p->mem) / p->size);

	p->free[p->nfree++] = i;
	if (p->account && td_account_pressed(p->account))
		cut(p, i, 0);
}

unsigned td_pool_left(const struct td_pool *p)
{
	return p->nfree;
}

size_t td_pool_trim(struct td_pool *p)
{
	size_t before = p->touched;

	for (unsigned i = 0; before && i < p->nfree; i++)
		cut(p, p->free[i], 0);
	return (before - p->touched) * PAGE;
}

void td_pool_age(struct td_pool *p)
{
	for (unsigned i = 0; i < p->nfree; i++) {
		struct buffer *b = &p->buffer[p->free[i]];

		cut(p, p->free[i], b->used > b->before ? b->used : b->before);
		b->before = b->used;
		b->used = 0;
	}
}

size_t td_pool_touched(const struct td_pool *p)
{
	return p->touched * PAGE;
}
