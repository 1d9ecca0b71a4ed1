/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the opener opens, makes and removes for its tapdisk: what the host has named to it, and what
 * every tapdisk needs.  It never believes the tapdisk about that.
 *
 * OR1 The host names things in its control messages, which the opener hears before the tapdisk does
 *    (opener-host.c): minors, images, their data files and logs of changed blocks, devices of
 *    guests, a successor.
 * OR2 An image that the host has named is opened as the tapdisk likes.  What an image names is read
 *    and never written, within lib/io/reach.h, and known by its uuid only to a tapdisk that can
 *    tell it.
 * OR3 In the control directory: its own sockets, the files of its minors, and to look at, markers
 *    and the logs of its own images.
 * OR4 How a disk is open, for a successor (tapdisk/vbd/record.h), is written by the opener, and
 * only with what the host has named; a disk that comes from another tapdisk is as its record says.
 * OR5 Whether a file is there, and what it is, is told of any.
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

/* One of its messages, whose op is as in td/ctl.h. */
void rights_learn(const json_t *msg);

/* --- questions; path is absolute, without "." and "..".  0 or -EACCES, or what opening says --- */

/* flags may get O_NOFOLLOW. */
int rights_open(const char *path, uint64_t *flags);
/* Its name may be made, removed, bound; a directory's too. */
int rights_name(const char *path);
int rights_rename(const char *from, const char *to);
int rights_link(const char *from, const char *to);
int rights_symlink(const char *target, const char *path);
int rights_connect(const char *path);

/* A file by the tapdisk's descriptor n, opened anew: the descriptor or -errno. */
int rights_reopen(int n, uint64_t flags);

/* OR2.  uuid: 16 bytes, or NULL.  A descriptor (O_PATH), or -errno with text. */
int rights_parent(const char *path, const unsigned char *uuid, struct td_err *err);

/* OR4: renames a new record to `to'. */
bool rights_is_record(const char *to);
int rights_record(const char *from, const char *to);

#endif
