/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Instants at which tests/crash/killlab has a tapdisk die, by name.  They are there in that
 * program's build alone; in any other a TD_KILL() is nothing.
 */
#ifndef TD_LIB_KILL_H
#define TD_LIB_KILL_H

#ifdef TD_KILL_POINTS

#include <stdbool.h>
#include <stdint.h>

/* clang-format off */
#define TD_KILL_NAMES(X)                                                                                                          \
	/* taking: blkif.c, inflight.h */                                                                                         \
	X(TAKE_LOOKED) X(TAKE_COPIED) X(TAKE_SEQ) X(TAKE_TAKEN) X(TAKE_NEXT) X(TAKE_CONS) X(TAKE_BATCH) X(TAKE_CHECKED)           \
	X(TAKE_FETCHED) X(TAKE_SUBMIT) X(TAKE_SUBMITTED) X(TAKE_EVENT)                                                            \
	/* answering */                                                                                                           \
	X(DONE_LISTED) X(ANSWER_BEGIN) X(ANSWER_COPIED) X(ANSWER_INDEX) X(ANSWER_MARKED) X(ANSWER_PUT) X(ANSWER_ALL) X(PUSH_BEGIN) \
	X(PUSH_DONE) X(NOTIFY_BEGIN) X(NOTIFY_DONE) X(FREE_BEGIN) X(FREE_DONE) X(ANSWER_END)                                      \
	/* the cache layer's flushes */                                                                                           \
	X(FLUSH_BEGIN) X(FLUSH_SENT) X(FLUSH_BACK) X(FLUSH_STICKY) X(FLUSH_ANSWERED) X(BARRIER_STEP)                               \
	/* the engine: around the system calls, in whatever thread */                                                             \
	X(READ_BEGIN) X(READ_END) X(WRITE_BEGIN) X(WRITE_END) X(SYNC_BEGIN) X(SYNC_END) X(AIO_BEGIN) X(AIO_END)                    \
	X(SYNC_COUNTED) X(SYNC_FAILED) X(SYNC_ENDED)                                                                               \
	/* taking over */                                                                                                         \
	X(ADOPT_MAPPED) X(ADOPT_SORTING) X(ADOPT_SORTED) X(REPLAY_BEGIN) X(REPLAY_CHECKED) X(REPLAY_DONE) X(REPLAY_NOTIFIED)       \
	/* a full leaf, and the record that its copy has taken its place: tapdisk/mirror, tapdisk/vbd */                           \
	X(FULL_FOUND) X(FULL_ASKED) X(RECORD_BEGIN) X(RECORD_BESIDE) X(RECORD_RENAMED) X(FULL_TOLD) X(FULL_TURNED) X(FULL_LEFT)    \
	X(COPY_DONE)
/* clang-format on */

#define X(name) TD_KILL_##name,
enum td_kill_point { TD_KILL_NAMES(X) TD_KILL_COUNT };
#undef X

void td_kill_at(enum td_kill_point p);
int td_kill_sync(int result); /* what the test makes of an fdatasync's result */
/* Is there no room, in the test, for a write of these bytes of the file? */
bool td_kill_full(int fd, uint64_t off, uint64_t end);
#define TD_KILL(name)        td_kill_at(TD_KILL_##name)
#define TD_KILL_SYNC(result) td_kill_sync(result)
#define TD_KILL_WRITE(fd, off, end, result)                                                        \
	(td_kill_full(fd, off, end) ? (errno = ENOSPC, (long)-1) : (result))

#else
#define TD_KILL(name)                       ((void)0)
#define TD_KILL_SYNC(result)                (result)
#define TD_KILL_WRITE(fd, off, end, result) (result)
#endif

#endif
