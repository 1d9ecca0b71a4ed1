/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server for nbd-again.c's target: it listens at a socket, has one connection at a time, and
 * a disk with a volatile cache, which it loses in part when it crashes.  It never says that it has
 * done what it has not.  Checked of its client: operations, flags and ranges are those of the
 * export that this connection was offered, and cookies are unique.
 */
#ifndef TESTS_FUZZ_NBD_VOLATILE_H
#define TESTS_FUZZ_NBD_VOLATILE_H

#include <stdbool.h>

#include "drivers/nbd/nbd.h"
#include "tests/fuzz/fuzz.h"

enum { SECTORS = 64, COMMAND_SECTORS = 16 };

/* What a write puts into its sector, 64 times: the number of the write, and the sector's. */
static inline uint64_t sector_word(uint64_t write, uint64_t sector)
{
	return write ? UINT64_C(0x57) << 56 | write << 8 | sector : 0;
}

extern uint64_t safe[SECTORS]; /* the number of the write that is durable; 0: zeroes */

enum { GREET_OLDSTYLE = 1, GREET_NO_GO = 2, GREET_STRUCTURED = 4, GREET_NO_SIZES = 8 };

void server_start(const char *path);
void server_begin(void); /* a new disk, of zeroes; it listens */
void server_end(void);

/* From the next connection on.  cut: bytes of it after which the server closes it; 0: none. */
void server_offers(const struct nbdc_offer *x, unsigned how, unsigned cut);
void server_listens(bool yes); /* anew, or not at all */

/* Lets a client in, hears it, and sends so much of what it has to say. */
void server_turn(size_t most);
void server_drop(void);
/* What is volatile and has its bit in `lost' is. */
void server_crash(uint64_t lost);

unsigned server_asked(void); /* commands that it has, and has not answered */
/* The i-th is carried out, if it has not been. */
void server_do(unsigned i);
/* It is answered; how: of a read, whether in chunks, and which.  An error: it is not done. */
void server_answer(unsigned i, uint32_t error, unsigned how);
/* A command's answer of an earlier connection, or one that was given already; false: there is
 * none. */
bool server_repeats(unsigned i);
void server_says(const void *p, size_t n);
bool server_talks(void); /* a connection has its greeting behind it */

#endif
