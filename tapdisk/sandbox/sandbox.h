/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a tapdisk gives up before it reads an image or a guest's ring, so that an intruder who takes
 * it over through one of these finds less to use.
 *
 * B1 it gets no new privileges, and keeps none of root's capabilities
 * B2 no core dumps: a guest's data and keys are in the memory
 * B3 only the system calls that it makes: one that is not on the list ends the process.  It may
 *    make threads, but no processes; sockets of AF_UNIX, and of AF_NETLINK to ask who owns one; no
 *    exec, ptrace, mount, namespaces, bpf, kexec, modules, keys; signals to itself alone.  Calls
 *    that name files are made by its opener (tapdisk/opener/opener.h), which decides
 * B4 io_urings are made before, and take only reads, writes and syncs: an operation that is asked
 *    for through an io_uring passes no filter, even one that makes a socket of AF_INET
 * B5 sockets of AF_INET and AF_INET6 are for disks on other hosts (rbd) alone.  Which disks it will
 *    have is not known when it starts: it gives them up before it opens its first disk, unless that
 *    one needs them, or it takes disks over of which one does
 * B6 its root is an empty file system that nobody can fill, so that a name that no call is caught
 *    for (a datagram's, within a message) leads nowhere; it has no mount of the host
 * B7 it makes no socket but pairs of connected ones: its opener makes them (OP6).  So those of
 *    AF_INET and AF_INET6 are there for a disk on other hosts alone, and a datagram, which names
 * its reader without a call that is caught, reaches no abstract Unix socket.  The process stays in
 * the host's network, where others look for the Unix sockets of a tapdisk (/proc/PID/net/unix). Its
 *    IPC objects are its own: there are none.  A tapdisk without an opener makes its sockets itself
 * B8 its user id is its own: that of the first user (sandbox-uids in tapdisk.conf) and its pid
 *    added, so that no other process has it; its group's is the same, and it is in no other.  Files
 *    are root's, as the opener makes them, and opens them: NFS takes their writes for root's.  What
 *    a file system looks at the caller for, the opener does (OP7).  A tapdisk without an opener has
 *    root's id, as it opens files itself
 *
 * tests/unit/test-sandbox-*.c try what is refused; tapdisk.conf(5) and SECURITY say what remains.
 */
#ifndef TAPDISK_SANDBOX_H
#define TAPDISK_SANDBOX_H

#include <stdbool.h>

#include "td/log.h"

/*
 * Before there is another thread.  For good; what its threads are later, they are likewise.  0, or
 * -errno when the host's configuration makes no sense.  A piece that this host does not have is
 * left out, and is told in the log and by sandbox_state().  rings: the io_urings that it may need,
 * as none can be made later.
 */
int sandbox_enter(unsigned rings, struct td_err *err);

/* B5: the disk spec is opened next; needed: it is on other hosts.  -EPERM with text: too late. */
int sandbox_network(const char *spec, bool needed, struct td_err *err);
/* B5: for a handover: a disk needs it; one that does will come. */
bool sandbox_has_network(void);
void sandbox_expect_network(void);

/* "yes" (by default), "no" (as tapdisk.conf says), "no: a build with sanitizers", or "partly: " and
 * what is missing; a static string. */
const char *sandbox_state(void);

#endif
