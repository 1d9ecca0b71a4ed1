/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the opener opens, makes and removes for its tapdisk: what the host has named to it, and what
 * every tapdisk needs.  It never believes the tapdisk about that.
 *
 * OR1 The host names things in its control messages, which the opener hears before the tapdisk does
 *    (opener-host.c): minors, images, mirrors, their data files and logs of changed blocks, disks
 *    beneath others, devices of guests, a live commit, a successor.  What was named once stays so
 *    until the tapdisk ends.
 * OR2 An image that the host has named is opened as the tapdisk likes; one that it has named for a
 *    read-only disk is read.  What an image names is read and not written, within lib/io/reach.h,
 *    and known by its uuid only to a tapdisk that can tell it.  Once the host has asked for a live
 *    commit, a parent that was granted may be written.
 * OR3 In the control directory: its own sockets, the files of its minors while it has them (OP5),
 *    and to look at, markers and the logs of its own images.  A log of another image is not there
 *    for it.
 * OR4 How a disk is open, for a successor (tapdisk/vbd/record.h), is written by the opener, and
 *    only with what the host has named; a disk that comes from another tapdisk, or comes back from
 *    a successor that failed, is as its record says.
 *    A tapdisk that was told of a disk on other hosts connects to them, and reads how to find them.
 *    The opener makes the sockets for that, and for no other tapdisk.
 * OR5 Whether a file is there, and what it is, is told of any.
 * OR6 What would be done with less than was asked, if a file were refused, the opener does itself:
 *    it looks for the other children of a parent before a commit (LC7 of tapdisk/commit.h).
 * OR7 It connects to those NBD servers on other hosts that the host has named, by a child of its
 *    own without rights (opener-dial.c), and passes the connection.  Of one with TLS it passes a
 *    plain socket, and the connection beneath to be looked at: the keys, whose files the host has
 *    named with the server, are in another child, the relay
 * OR8 A disk beneath another one (tapdisk/parent-disk.h) is reached by the one socket of it that
 *    takes no writes: it may be written by its own guest, or stand beneath others' disks
 */
#ifndef TAPDISK_OPENER_RIGHTS_H
#define TAPDISK_OPENER_RIGHTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "td/log.h"

void rights_init(pid_t tapdisk);

/* --- what the host has said; any thread --- */

/* One of its messages, whose op is as in td/ctl.h.  Some look at an image, and may wait for it. */
void rights_learn(const json_t *msg);
bool rights_takes_time(const json_t *msg);

/*
 * --- questions ---
 *
 * full: the path from the root on, without "." and "//", by its text; "" when there is ".." in it.
 * 0: it may, by that path; or -EACCES, or what opening says.
 */

bool rights_makes(uint64_t flags); /* does open() with them make or empty a file? */
/* path: as the tapdisk has it.  flags may get O_NOFOLLOW.  *fd: it was opened here; else -1. */
int rights_open(const char *path, const char *full, uint64_t *flags, int *fd);
/* Its name may be made, removed, bound; a directory's too, if it is the tapdisk's own. */
int rights_name(const char *full);
int rights_directory(const char *full); /* may be made: also those that all tapdisks have */
int rights_remove(const char *full);
int rights_rename(const char *from, const char *to);
int rights_link(const char *from, const char *to);
int rights_symlink(const char *target, const char *full);
int rights_connect(const char *path, const char *full);
int rights_network(void);                                /* a connect() to another host */
int rights_socket(long family, int type, long protocol); /* type: without flags */
int rights_pid(long pid);
int rights_signal(int pidfd);

/* td_marker_write(): the tapdisk has the flock on held. */
int rights_mark(int held, long minor, pid_t pid, bool beside);

/* A file by the tapdisk's descriptor n, opened anew: the descriptor or -errno. */
int rights_reopen(int n, uint64_t flags);

/* OR2.  uuid: 16 bytes, or NULL.  write: for a commit.  A descriptor (O_PATH), or -errno with
 * text. */
int rights_parent(const char *path, const unsigned char *uuid, bool write, struct td_err *err);

/* OR6: td_driver.beneath of the driver of that name. */
int rights_beneath(const char *driver, const char *child, const char *parent, struct td_err *err);

/* OR7: a connection to the NBD server that an image's path names; cancel: hung up when nobody waits
 * any more.  The descriptor, or -errno with text. */
int rights_dial(const char *path, int cancel, struct td_err *err);

/* OR4: renames a new record to `to'. */
bool rights_is_record(const char *to);
int rights_record(const char *from, const char *to);

#endif
