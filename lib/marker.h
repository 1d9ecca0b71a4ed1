/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A minor's marker (td/ctl.h): which tapdisk has the minor?
 *
 * The tapdisk that has it holds a flock on the marker, whose text begins with its pid.  In a
 * handover the text is "OLD NEW" while the new one opens the disk.
 *
 * The text is changed, and the minor's files are made and removed, by a process that holds the
 * marker's seal, a lock beside the flock.  So an opener (tapdisk/opener/opener.h, OP5) that has
 * read the text under the seal acts while it is true.
 */
#ifndef TD_LIB_MARKER_H
#define TD_LIB_MARKER_H

#include <stdbool.h>
#include <sys/types.h>

#define TD_MARKER_PATIENCE 5000 /* ms for a seal, which another process holds for one call */

/* Opens a minor's marker for writing: a descriptor, or -errno. */
int td_marker_open(int minor);

/* Takes the seal on fd (open for writing), which is kept until fd is closed.  0; -EBUSY when
 * another process has held it for that long; or -errno. */
int td_marker_seal(int fd, int ms);

/* Is the process pid in the text: is it the one that has the minor, or takes it over? */
bool td_marker_names(int fd, pid_t pid);

/*
 * Writes pid, or nothing for 0, or for `beside' pid behind the one that is there.  held: a
 * descriptor of the same marker, on which the caller has the flock.  0; -ESTALE: another marker has
 * the name by now; or -errno.
 */
int td_marker_write(int held, int minor, pid_t pid, bool beside);

#endif
