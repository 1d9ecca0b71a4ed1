/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD client that keeps to the protocol, and reads what the server says: for nbd-server.c.  Its
 * options and requests may ask for anything.  What it checks:
 *
 * - each option is answered, and ends with an acknowledgement or an error
 * - each request is answered once, by its cookie, in the form that was negotiated; one that is not
 *   allowed with an error, one that is, on a disk that did not fail, without
 * - a read's data are the disk's, at the place that the reply names, and all of them
 * - block status covers no more than it was asked for
 * - the server ends the connection only when it may
 */
#ifndef TESTS_FUZZ_NBD_GUEST_H
#define TESTS_FUZZ_NBD_GUEST_H

#include <stdbool.h>

#include "lib/nbd-proto.h"
#include "tapdisk/nbd/nbd.h"
#include "tests/fuzz/fuzz.h"

#define CLIENT_DATA                                                                                \
	(1u << 17) /* bytes of a write, at most; longer ones are refused by the server */

void client_begin(int fd, const struct nbd_disk *disk, bool oldstyle);
/* Bytes from the socket; each is looked at.  False: nothing came. */
bool client_hear(void);
void client_failed(void); /* the image has failed a request: others may */

bool client_may_ask(void);  /* for options */
bool client_may_send(void); /* requests; false too where many are unanswered */
bool client_waits(void);    /* for an answer, or a greeting */
bool client_is_over(void);  /* the server has ended the connection, and might */

/* Makes what is to be sent, at most CLIENT_DATA + 64 bytes: its length. */
size_t client_flags(uint32_t flags, uint8_t *out);
size_t client_option(uint32_t option, const uint8_t *data, uint32_t len, uint8_t *out);
size_t client_request(uint16_t type, uint16_t flags, uint64_t off, uint32_t len, uint8_t *out);

uint64_t client_number(int what, uint64_t sector); /* what a sector is 64 times */
enum { CLIENT_DISK = 'D', CLIENT_WRITTEN = 'W' };

#endif
