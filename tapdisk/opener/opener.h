/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The opener: a process beside each tapdisk, made by it before it gives up its rights, which makes
 * those system calls for it that name files.  The tapdisk itself can make none.
 *
 * OP1 Each call of the tapdisk that names a file (tapdisk/opener/opener-calls.c) raises SIGSYS in
 *    its thread, whose handler sends the call to the opener and returns what that replies: so libc
 *    and every library go this way, too, and no source has to know.
 * OP2 The opener reads fixed tables and texts of bounded length from the tapdisk, no guest's data,
 *    and of an image only what tells whether it may be a parent: a footer, or before a commit the
 *    headers of the images beside it.  It has no descriptor of an image for longer than that.
 * OP3 It ends when the tapdisk ends, and does not keep its sockets open.  If it dies first, the
 *    tapdisk goes on with what it has open and hears the host itself.  Each further call fails with
 *    EIO, so that nothing is opened, made or named anew, and nothing is done with less than was
 *    asked.  sandbox_state() reports it: a death and a revival give its disks to another process.
 * OP4 A thread that serves guests asks it for nothing: it has td_call() of lib/fiber/call.h for
 *    that.  Where a callback asks all the same, it waits OPENER_PATIENCE at most (ETIMEDOUT), and
 *    the opener does not begin what nobody waits for any more.  Other threads wait as long as the
 *    file system makes them, as they would without it: a call that hangs does not keep another one
 *    waiting.
 * OP5 A call whose tapdisk has ended is not begun: a successor may have the disk by then, and its
 *    record and files are not to be replaced by what the dead one had wanted.  A call that changes
 *    a minor's files is made under the seal of the minor's marker, and while that names the tapdisk
 *    (lib/marker.h).  Whoever has the minor next writes its name there, under the seal: so such a
 *    call has ended before that, or is refused, also one for a tapdisk that lives and has given the
 *    minor away.  The opener alone writes markers: its tapdisk can look at them, and lock them.
 * OP6 It makes sockets, too: of the host's network, but datagrams of AF_UNIX in an empty one
 *    (opener-datagram.c), since whoever has such a socket sends by name to whom it likes, without a
 *    call that is caught.
 * OP7 What a file system refuses to the tapdisk's user id (B8 of tapdisk/sandbox/sandbox.h), on a
 * file that it has open, the opener does as root: fallocate() into the room that ext4 keeps for
 * root; fallocate() and lseek() on NFS; ftruncate() and fstat() on FUSE.  The kernel checks that
 * the descriptor may.
 */
#ifndef TAPDISK_OPENER_H
#define TAPDISK_OPENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define OPENER_PATIENCE 5000 /* ms */

/*
 * Makes the opener; while there is one thread alone.  restrict_it is called in each of its threads
 * that it has then, before it hears anything: false when it cannot.  isolate gives the calling
 * thread an empty network (OP6).  0, or -errno without an opener.  Then the caller makes each call
 * that opener_catches() raise SIGSYS.
 */
int opener_start(bool (*restrict_it)(void), bool (*isolate)(void));

/* Before: processes that it makes to connect to other hosts have the user id first and their pid.
 */
void opener_dials_as(uint32_t first);

bool opener_isolates(void); /* it can, OP6 */

bool opener_catches(long nr);

/* The calling thread serves guests (OP4). */
void opener_serving(void);

/* The opener does not answer any more; it has been seen to: -EIO. */
bool opener_is_dead(void);
int opener_lost(void);

/* The socket to it, which becomes readable at its end; -1: there is none. */
int opener_channel(void);

/* For tests: the opener's process, and OP4's patience. */
pid_t opener_pid(void);
extern unsigned opener_patience; /* ms */

/*
 * Gives it the listening control socket: a socket on which each message is one from the host, with
 * its connection as the first descriptor; closed, nobody is listened to any more.  -ENOSYS: there
 * is no opener.
 */
int opener_take_listener(int fd);

/* td_marker_write() (lib/marker.h), by the opener.  -ENOSYS: there is none. */
int opener_mark(int held, int minor, pid_t pid, bool beside);

/* td_root_allocate(), _truncate() and _seek() (lib/io/file.h), by the opener: OP7. */
int opener_allocate(int fd, int mode, uint64_t off, uint64_t len);
int opener_truncate(int fd, uint64_t size);
int64_t opener_seek(int fd, uint64_t off, int whence);

struct td_driver;
struct td_err;

/* Its td_driver.beneath, which the opener calls where there is one (OR6 of opener-rights.h). */
int opener_beneath(const struct td_driver *d, const char *child, const char *parent,
		   struct td_err *err);

/* --- the opener's side --- */

int opener_listen(int fd);

/* The opener itself: answers what comes from the channel, until its end.  for_pid: the tapdisk. */
void opener_serve(int channel, pid_t for_pid) __attribute__((noreturn));

#endif
