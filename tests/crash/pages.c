/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/pages.h"

#include <stdlib.h>
#include <string.h>

#define BORROWED 1u

static void *address(uintptr_t v)
{
	return (void *)(v & ~(uintptr_t)BORROWED);
}

static void drop(uintptr_t v)
{
	if (!(v & BORROWED))
		free(address(v));
}

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

void pages_init(struct pages *p, uint64_t size)
{
	memset(p, 0, sizeof *p);
	pages_resize(p, size);
}

void pages_fill(struct pages *p, unsigned char byte)
{
	static __attribute__((section("lab"))) unsigned char *filled[256] = {0}; /* see process.h */

	if (!filled[byte]) {
		filled[byte] = must(malloc(PAGE));
		memset(filled[byte], byte, PAGE);
	}
	for (size_t i = 0; i < p->n; i++) {
		drop(p->page[i]);
		p->page[i] = (uintptr_t)filled[byte] | BORROWED;
	}
}

void pages_free(struct pages *p)
{
	for (size_t i = 0; i < p->n; i++)
		drop(p->page[i]);
	free(p->page);
	memset(p, 0, sizeof *p);
}

void pages_borrow(struct pages *p, const struct pages *of)
{
	*p = *of;
	p->page = must(malloc(of->n * sizeof *p->page + 1));
	for (size_t i = 0; i < of->n; i++)
		p->page[i] = of->page[i] ? of->page[i] | BORROWED : 0;
}

void pages_copy(struct pages *p, const struct pages *of)
{
	pages_borrow(p, of);
	for (size_t i = 0; i < p->n; i++)
		if (p->page[i])
			p->page[i] =
				(uintptr_t)memcpy(must(malloc(PAGE)), address(p->page[i]), PAGE);
}

/* The page as memory to write to. */
static unsigned char *own(struct pages *p, size_t i)
{
	uintptr_t v = p->page[i];

	if (!v) {
		p->page[i] = (uintptr_t)must(calloc(1, PAGE));
	} else if (v & BORROWED) {
		p->page[i] = (uintptr_t)must(malloc(PAGE));
		memcpy((void *)p->page[i], address(v), PAGE);
	}
	return (unsigned char *)p->page[i];
}

void pages_resize(struct pages *p, uint64_t size)
{
	size_t n = (size_t)((size + PAGE - 1) / PAGE);

	if (size < p->size && size % PAGE && p->page[n - 1])
		memset(own(p, n - 1) + size % PAGE, 0, PAGE - size % PAGE);
	for (size_t i = n; i < p->n; i++)
		drop(p->page[i]);
	if (n != p->n) {
		p->page = must(realloc(p->page, n * sizeof *p->page + 1));
		if (n > p->n)
			memset(p->page + p->n, 0, (n - p->n) * sizeof *p->page);
		p->n = n;
	}
	p->size = size;
}

void pages_read(const struct pages *p, uint64_t off, void *buf, size_t len)
{
	unsigned char *out = buf;

	while (len) {
		size_t i = (size_t)(off / PAGE), at = off % PAGE,
		       n = PAGE - at < len ? PAGE - at : len;

		if (i >= p->n || !p->page[i])
			memset(out, 0, n);
		else
			memcpy(out, (unsigned char *)address(p->page[i]) + at, n);
		out += n;
		off += n;
		len -= n;
	}
}

void pages_write(struct pages *p, uint64_t off, const void *buf, size_t len)
{
	const unsigned char *in = buf;

	if (off + len > p->size)
		pages_resize(p, off + len);
	while (len) {
		size_t i = (size_t)(off / PAGE), at = off % PAGE,
		       n = PAGE - at < len ? PAGE - at : len;

		memcpy(own(p, i) + at, in, n);
		in += n;
		off += n;
		len -= n;
	}
}

void pages_lend(struct pages *p, uint64_t off, const void *buf, size_t len)
{
	const unsigned char *in = buf;

	if (off + len > p->size)
		pages_resize(p, off + len);
	while (len) {
		size_t n = PAGE - off % PAGE < len ? PAGE - off % PAGE : len;

		if (n == PAGE && !((uintptr_t)in & BORROWED)) {
			drop(p->page[off / PAGE]);
			p->page[off / PAGE] = (uintptr_t)in | BORROWED;
		} else {
			pages_write(p, off, in, n);
		}
		in += n;
		off += n;
		len -= n;
	}
}

bool pages_hole(const struct pages *p, uint64_t off)
{
	return off / PAGE >= p->n || !p->page[off / PAGE];
}

void pages_zero(struct pages *p, uint64_t off, uint64_t len)
{
	uint64_t end = off + len < p->size ? off + len : p->size;

	while (off < end) {
		size_t i = (size_t)(off / PAGE), at = off % PAGE;
		uint64_t n = PAGE - at < end - off ? PAGE - at : end - off;

		if (!at && (n == PAGE || off + n == p->size)) {
			drop(p->page[i]);
			p->page[i] = 0;
		} else if (p->page[i]) {
			memset(own(p, i) + at, 0, n);
		}
		off += n;
	}
}
