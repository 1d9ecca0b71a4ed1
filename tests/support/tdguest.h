/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The larger commands of tdguest; each returns its exit code. */
#ifndef TESTS_TDGUEST_H
#define TESTS_TDGUEST_H

#include "tests/support/guest.h"

int guest_span(struct guest *g, uint8_t op, uint64_t off, uint64_t len, uint64_t seed);
int tdguest_pairs(struct guest *g, unsigned count, unsigned depth, uint64_t seed);
int tdguest_stream(struct guest *g, uint64_t seed);
/* From when this was called a SIGTERM ends the load, as the time does. */
void tdguest_load_prepare(void);
/* file: keeps what has been written, and is first compared with the disk; NULL: none */
int tdguest_load(struct guest *g, double seconds, unsigned depth, const char *file);
int tdguest_loaded(struct guest *g, const char *file);
/* "list": prints the names; g is not used */
int tdguest_hostile(struct guest *g, const char *name);

#endif
