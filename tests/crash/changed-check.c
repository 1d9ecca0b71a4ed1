/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/changed-check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 48u  /* bytes; then the bits */
#define BLOCK  128u /* sectors that have one */
#define TAIL   100u /* bytes behind the bits, as on a block device */
#define SET    5u   /* a block whose bit is set at first, as are those of blocks that are none */

static uint64_t blocks_of(uint64_t sectors)
{
	return (sectors + BLOCK - 1) / BLOCK;
}

static unsigned char *bytes_of(uint64_t sectors, uint64_t *len)
{
	uint64_t blocks = blocks_of(sectors), bits = (blocks + 7) / 8, size = sectors * SECTOR;
	unsigned char *b = calloc(1, HEADER + bits + TAIL);

	if (!b)
		abort();
	memset(b, 0x11, 16);
	memset(b + 16, 0x22, 16);
	for (unsigned i = 0; i < 8; i++)
		b[40 + i] = (unsigned char)(size >> 8 * i);
	for (uint64_t i = blocks; i < bits * 8; i++)
		b[HEADER + i / 8] |= (unsigned char)(1u << i % 8);
	b[HEADER + SET / 8] |= 1u << SET % 8;
	memset(b + HEADER + bits, 0xcc, TAIL);
	*len = HEADER + bits + TAIL;
	return b;
}

void changed_make(struct pages *log, uint64_t sectors)
{
	uint64_t len;
	unsigned char *b = bytes_of(sectors, &len);

	pages_init(log, len);
	pages_write(log, 0, b, len);
	free(b);
}

static bool is_change(const struct gop *op)
{
	return op->n && (op->kind == GOP_WRITE || op->kind == GOP_ZERO || op->kind == GOP_DISCARD);
}

/* The last event at which the log was one to rely on; 0: none. */
static uint32_t marked(const struct gtrace *t, uint32_t at)
{
	uint32_t mark = 0;

	for (size_t i = 0; i < t->nops; i++)
		if (t->op[i].kind == GOP_SETTLE && !t->op[i].status && t->op[i].ack < at &&
		    t->op[i].ack > mark)
			mark = t->op[i].ack;
	return mark;
}

/* The first block of a change without its bit; or blocks. */
static uint64_t missing(const unsigned char *b, const struct gop *op, uint64_t blocks)
{
	for (uint64_t i = op->sector / BLOCK; i < blocks && i * BLOCK < op->sector + op->n; i++)
		if (!(b[HEADER + i / 8] >> i % 8 & 1))
			return i;
	return blocks;
}

int changed_check(const struct pages *log, uint64_t log_sectors, const struct gtrace *t,
		  uint64_t sectors, uint32_t at, char *text, size_t len)
{
	uint64_t n, blocks = blocks_of(sectors), bits = (blocks_of(log_sectors) + 7) / 8;
	unsigned char *first = bytes_of(log_sectors, &n), *now = malloc(n);
	uint32_t mark = marked(t, at);
	int rc = 0;

	if (!now)
		abort();
	pages_read(log, 0, now, n);
	for (uint64_t i = 0; i < n && !rc; i++)
		if (i < HEADER || i >= HEADER + bits ? now[i] != first[i] : first[i] & ~now[i]) {
			snprintf(text, len,
				 "byte %llu of the log of changed blocks is 0x%02x, and was 0x%02x",
				 (unsigned long long)i, now[i], first[i]);
			rc = -1;
		}
	for (size_t i = 0; i < t->nops && !rc; i++) {
		const struct gop *op = &t->op[i];
		uint64_t block;

		if (!is_change(op) || op->status || op->ack >= mark)
			continue;
		block = missing(now, op, blocks);
		if (block == blocks)
			continue;
		snprintf(text, len,
			 "block %llu has no bit in the log of changed blocks, though request %zu "
			 "had changed it before the disk was paused or closed at %u",
			 (unsigned long long)block, i + 1, mark);
		rc = -1;
	}
	free(first);
	free(now);
	return rc;
}
