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
 * OP4 A thread that serves guests waits OPENER_PATIENCE for it at most (ETIMEDOUT), and the opener
 *    does not begin what nobody waits for any more.  Other threads wait as long as the file system
 *    makes them, as they would without it: a call that hangs does not keep another one waiting.
 * OP5 A call whose tapdisk has ended is not begun: a successor may have the disk by then, and its
 *    record and files are not to be replaced by what the dead one had wanted.
 */
#ifndef TAPDISK_OPENER_H
#define TAPDISK_OPENER_H

#include <stdbool.h>
#include <sys/types.h>

#define OPENER_PATIENCE 5000 /* ms */

/*
 * Makes the opener; while there is one thread alone.  restrict_it is called in it, before it hears
 * anything: false when it cannot.  0, or -errno without an opener.  Then the caller makes each call
 * that opener_catches() raise SIGSYS.
 */
int opener_start(bool (*restrict_it)(void));

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
