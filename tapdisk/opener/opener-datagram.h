/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The opener's sockets for datagrams (OP6 of tapdisk/opener/opener.h): a thread that is in an empty
 * network makes them.  A socket stays in the network in which it was made, whoever has it; one that
 * has a file is reached from any.
 */
#ifndef TAPDISK_OPENER_DATAGRAM_H
#define TAPDISK_OPENER_DATAGRAM_H

#include <stdbool.h>

/* While there is one thread alone.  False: they are made in the host's network. */
bool datagrams_start(bool (*isolate)(void), bool (*restrict_it)(void));

/* type: SOCK_DGRAM with flags.  The descriptor, or -errno; any thread. */
int datagrams_socket(int type);

#endif
