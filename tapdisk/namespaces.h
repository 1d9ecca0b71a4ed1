/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What of the host a tapdisk does not see (B6, B7 of tapdisk/sandbox/sandbox.h).  Each is for good.
 */
#ifndef TAPDISK_NAMESPACES_H
#define TAPDISK_NAMESPACES_H

#include <stdbool.h>

/* The calling thread gets a network of its own, which has no interface that is up, and where no
 * abstract Unix socket of another process is. */
bool namespaces_network(void);

/* IPC objects of its own: there are none. */
bool namespaces_ipc(void);

/*
 * While there is one thread alone.  Mounts of its own: an empty root, and nothing else.  It has no
 * name that could be left behind when the process is killed, and keeps no mount of the host busy.
 * False: nothing has changed for paths.
 */
bool namespaces_root(void);

#endif
