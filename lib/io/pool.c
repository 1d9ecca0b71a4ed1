/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/pool.h"

#include <stdlib.h>
#include <sys/mman.h>

struct td_pool {
	char *mem;
	size_t size;
	unsigned n, nfree;
	unsigned touched; /* buffers below this index (of mem) have been out since the last trim */
	unsigned free[];  /* stack of indices; the lowest index is on top at first */
};

struct td_pool *td_pool_new(size_t size, unsigned n)
{
	struct td_pool *p = calloc(1, sizeof *p + n * sizeof p->free[0]);

	if (!p)
		return NULL;
	p->mem = mmap(NULL, size * n, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->mem == MAP_FAILED) {
		free(p);
		return NULL;
	}
	/* huge pages would make a whole ring's worth resident for one request */
	madvise(p->mem, size * n, MADV_NOHUGEPAGE);
	p->size = size;
	p->n = p->nfree = n;
	for (unsigned i = 0; i < n; i++)
		p->free[i] = n - 1 - i;
	return p;
}

void td_pool_free(struct td_pool *p)
{
	if (!p)
		return;
	munmap(p->mem, p->size * p->n);
	free(p);
}

void *td_pool_get(struct td_pool *p)
{
	unsigned i;

	if (!p->nfree)
		return NULL;
	i = p->free[--p->nfree];
	if (i >= p->touched)
		p->touched = i + 1;
	return p->mem + i * p->size;
}

void td_pool_put(struct td_pool *p, void *buf)
{
	p->free[p->nfree++] = (unsigned)(((char *)buf - p->mem) / p->size);
}

void td_pool_trim(struct td_pool *p)
{
	if (p->nfree == p->n && p->touched) {
		madvise(p->mem, p->size * p->touched, MADV_DONTNEED);
		p->touched = 0;
	}
}
