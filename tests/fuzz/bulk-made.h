/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image of each kind, for bulk-image to change: made once, by the drivers and tools themselves,
 * with some data, and by hand what they do not write. */
#ifndef TESTS_FUZZ_BULK_MADE_H
#define TESTS_FUZZ_BULK_MADE_H

#include "td/block.h"
#include "tests/fuzz/bulk.h"
#include "tests/support/fault-io.h"

enum { MADE_MAX = 32, MADE_OTHERS = 2, MADE_WORDS = 4096 };

struct made_file {
	char name[16];
	uint8_t *bytes;
	uint64_t size;
};

/* A number of the header, big-endian. */
struct made_field {
	unsigned at, bytes;
};

struct made {
	const char *what, *type;
	struct made_file image, other[MADE_OTHERS]; /* other: parents, a data file */
	unsigned nothers;
	const struct made_field *field;
	unsigned nfields;
	uint32_t word[MADE_WORDS]; /* where it has something: multiples of 8 */
	unsigned nwords;
	struct td_key key;
	const char *data; /* the data file, as the host names it; or NULL */
	bool offline;     /* there are tools for it that use a store */
};

extern struct made made_all[MADE_MAX];

unsigned made_make(struct fault_io *fio, struct ev_loop *loop);      /* how many */
void made_sums(const struct made *m, uint8_t *image, uint64_t size); /* makes them right */
/* A guess at a passphrase costs no more than with the image as it was made. */
void made_cheap(const struct made *m, uint8_t *image, uint64_t size);

#endif
