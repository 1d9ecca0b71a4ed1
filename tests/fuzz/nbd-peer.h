/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server, for nbd-client.c's target (drivers/nbd): reads what our client sends, and checks
 * of it that it keeps to the protocol and to what was offered:
 *
 * - operations and flags that the export has, within its size and the longest request
 * - cookies that no other command under way has, and at most NBD_CMDS of these
 * - a write's data are those of the disk's user
 */
#ifndef TESTS_FUZZ_NBD_PEER_H
#define TESTS_FUZZ_NBD_PEER_H

#include <stdbool.h>

#include "drivers/nbd/nbd.h"
#include "tests/fuzz/fuzz.h"

void peer_begin(int fd, const struct nbdc_offer *x, bool believed); /* believed: by the client */
void peer_say(const void *p, size_t n); /* queues bytes for the client */
void peer_send(size_t most);            /* sends so many of them, at most */
void peer_hear(void);                   /* commands that have come */
unsigned peer_asked(void);              /* those that are not answered */
/* Answers the i-th of them; error 0: a read with its data. */
void peer_answer(unsigned i, uint32_t error);
uint64_t peer_cookie(unsigned i); /* 0 when there is none */

uint64_t peer_number(int what, uint64_t sector); /* what a sector is 64 times: 'D', or 'W' */

#endif
