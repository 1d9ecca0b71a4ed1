/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a tapdisk takes away from itself before it looks at an image or a guest's ring: whoever
 * takes it over by one of these finds less to use.
 *
 * B1 no new privileges, and of root's capabilities those alone that opening images takes: of any
 *    owner (DAC_OVERRIDE), and to tell who has one open (SYS_PTRACE)
 * B2 no core dumps: a guest's data and keys are in the memory
 * B3 the system calls that it makes, and no others: one that is not on the list ends the process.
 *    Threads, but no processes; sockets of AF_UNIX, and of AF_NETLINK to ask whose they are; no
 *    exec, ptrace, mount, namespaces, bpf, kexec, modules, keys
 * B4 io_urings are made before, and take reads, writes and syncs alone: what is asked for by a ring
 *    passes no filter, a socket of AF_INET too
 *
 * It is still root, and opens files by their names: what an image may name, lib/io/reach.h says.
 * So this keeps an intruder from the kernel's interfaces and from the network, and not from what
 * root's open() and connect() reach; tests/unit/test-sandbox.c has both lists, the manual
 * (tapdisk.conf(5)) and SECURITY say the second.
 */
#ifndef TAPDISK_SANDBOX_H
#define TAPDISK_SANDBOX_H

#include "td/log.h"

/*
 * Before there is another thread.  For good; what its threads are later, they are likewise.  0, or
 * -errno when the host's configuration makes no sense.  A piece that this host does not have is
 * left out, and is told in the log and by sandbox_state().  rings: the io_urings that it may need,
 * as none can be made later.
 */
int sandbox_enter(unsigned rings, struct td_err *err);

/* "yes" (by default), "no" (as tapdisk.conf says), "no: a build with sanitizers", or "partly: " and
 * what is missing; a static string. */
const char *sandbox_state(void);

#endif
