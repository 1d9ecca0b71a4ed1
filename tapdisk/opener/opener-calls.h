/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls that name files, and how one of them goes from a tapdisk to its opener: one
 * packet with the call's number, its integers, the bytes that its pointers point to, and the
 * descriptors that it uses.  The reply is its result, with the bytes or the descriptor that it
 * gives.  For the two sides of tapdisk/opener/opener.h.
 */
#ifndef TAPDISK_OPENER_CALLS_H
#define TAPDISK_OPENER_CALLS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPENER_ARGS = 6, OPENER_PARTS = 2, OPENER_FDS = 3, OPENER_PART_MAX = PATH_MAX };

/* Beside the kernel's: a parent (path, uuid or nothing, is it to be written, error); the control
 * socket; the other children of a parent (child, parent, is it qcow2, error); a marker's text
 * (descriptor, minor, pid, is it added); a connection to an NBD server (path, a socket that is hung
 * up when nobody waits, error); fallocate(), ftruncate() and lseek(), which the tapdisk makes
 * itself where it may. */
enum {
	OPENER_PARENT = -2,
	OPENER_LISTEN = -3,
	OPENER_BENEATH = -4,
	OPENER_MARK = -5,
	OPENER_DIAL = -6,
	OPENER_ALLOCATE = -7,
	OPENER_TRUNCATE = -8,
	OPENER_SEEK = -9
};

/* As fstat()'s third argument, which it does not have: made by the tapdisk itself. */
enum { OPENER_FSTAT_HERE = 0x4f50 };

struct opener_ask {
	int32_t nr;
	uint32_t len[OPENER_PARTS]; /* bytes of each argument that is a pointer to read from */
	int64_t arg[OPENER_ARGS];   /* 0 for pointers and for descriptors that are passed */
	uint64_t deadline;          /* ns of CLOCK_MONOTONIC after which nobody waits; 0: none */
};

struct opener_reply {
	int64_t rc; /* as the kernel returns it; a descriptor is passed instead, with 0 */
};

/*
 * What an argument is:
 *   D  a directory's descriptor, passed unless it is AT_FDCWD      F  any descriptor, passed
 *   P  a path          T  a text that is not looked up (a link's)  I  an integer
 *   B  bytes to read, whose number is the next argument
 *   S  room for a result of a known size   L  room for one, whose size is the next argument
 */
struct opener_call {
	short nr;
	char args[OPENER_ARGS + 1];
	bool opens; /* the result is a descriptor */
	uint16_t room;
};

/* By the kernel's own entry: whoever puts a sendmsg of his own before libc's (tests do) does not
 * expect to be called in a signal's handler. */
static inline ssize_t opener_send(int fd, const struct msghdr *mh, int flags)
{
	return syscall(SYS_sendmsg, fd, mh, flags);
}

/* Those that the sandbox hands to the opener, *n of them. */
const struct opener_call *opener_calls(size_t *n);
const struct opener_call *opener_call(long nr); /* or NULL */

#endif
