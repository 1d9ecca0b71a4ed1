/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server for nbd-again.c's target: it listens at a socket, and has a disk with a volatile
 * cache, which it loses in part when it crashes.  It never says that it has done what it has not.
 * To a connection it shows what was written through another one when that is durable, and not
 * before.  Checked of its client: operations, flags and ranges are those of the export that this
 * connection was offered, cookies are unique, and what is no read comes through one connection.
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
/* A new disk, of zeroes; it listens.  most: connections that it has at once, 0: any number; to more
 * it says nothing if it is silent, or hangs up. */
void server_begin(unsigned most, bool silent);
void server_end(void);

/* From the next connection on.  cut: bytes of that one after which the server closes it; 0: none.
 */
void server_offers(const struct nbdc_offer *x, unsigned how, unsigned cut);
void server_listens(bool yes); /* anew, or not at all */

/* Hears its clients, lets others in, and sends each so much of what it has to say. */
void server_turn(size_t upto);
void server_drop(unsigned i); /* the i-th connection */
void server_drop_all(void);
/* What is volatile and has its bit in `lost' is. */
void server_crash(uint64_t lost);

unsigned server_asked(void); /* commands that it has, and has not answered */
/* The i-th is carried out, if it has not been. */
void server_do(unsigned i);
/* It is answered; how: of a read, whether in chunks, and which.  An error: it is not done. */
void server_answer(unsigned i, uint32_t error, unsigned how);
/* A command's answer of an earlier connection, or one that was given already; but none that the
 * client waits for and may send again, as it could not tell a lie from an answer then.  False:
 * there is none. */
bool server_repeats(unsigned i, bool (*waits)(uint64_t cookie));
/* An answer that belongs to another connection, with other data. */
bool server_answers_elsewhere(unsigned i);
void server_says(unsigned i, const void *p, size_t n); /* through the i-th connection */

#endif
