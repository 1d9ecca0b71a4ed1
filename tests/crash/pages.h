/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of a file, sparse and copied on write: a copy costs its page table alone, so that a
 * disk can be built for each of a million cuts.  Not part of what is tested: libc only.
 */
#ifndef CRASH_PAGES_H
#define CRASH_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096u

struct pages {
	uint64_t size;   /* bytes */
	size_t n;        /* pages in the table */
	uintptr_t *page; /* 0: zeroes; otherwise a page's address, and bit 0 when it is borrowed */
};

void pages_init(struct pages *p, uint64_t size); /* zeroes */
/* all of it; the pages are shared, not allocated */
void pages_fill(struct pages *p, unsigned char byte);
void pages_free(struct pages *p);

/* `p' (not initialised) becomes what `of' is now; `of' must stay as it is until p is freed. */
void pages_borrow(struct pages *p, const struct pages *of);
void pages_copy(struct pages *p, const struct pages *of); /* the same with pages of its own */

/* what is beyond a smaller size is gone: zeroes when it grows again */
void pages_resize(struct pages *p, uint64_t size);
/* zeroes beyond the end */
void pages_read(const struct pages *p, uint64_t off, void *buf, size_t len);
void pages_write(struct pages *p, uint64_t off, const void *buf, size_t len); /* grows */
void pages_zero(struct pages *p, uint64_t off, uint64_t len);                 /* does not grow */

/* As pages_write(), but buf stays as it is for as long as p and what borrows from it: whole pages
 * are borrowed, not copied. */
void pages_lend(struct pages *p, uint64_t off, const void *buf, size_t len);

/* nothing but zeroes, and no memory, in the page at off */
bool pages_hole(const struct pages *p, uint64_t off);

#endif
