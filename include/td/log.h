/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log lines, and errors with text.
 *
 * Every function of this project returns 0 (or a value >= 0) or -errno.  On control paths the text
 * goes along in a struct td_err, written once, where the cause is known: what was tried, on which
 * file, and what the user can do.
 */
#ifndef TD_LOG_H
#define TD_LOG_H

#include <syslog.h>

#define TD_ERR_TEXT 5120 /* bytes: a path of 4,095 and a sentence around it */

struct td_err {
	int code; /* a positive errno; 0: no error */
	char text[TD_ERR_TEXT];
};

/*
 * Sets the error, unless one is set already (the first cause counts), and returns -code.  err may
 * be NULL. code: a positive errno.
 */
int td_fail(struct td_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Where lines go: to the log daemon under `ident' (kept by reference), without ever waiting for it,
 * and also to stderr if `to_stderr' says so: a tool waits for the reader of stderr (STDERR), a
 * process that serves does not (STDERR_NOWAIT).  Lines that cannot be written at once are counted,
 * and the count is logged when lines can be written again.
 */
enum td_log_stderr { TD_LOG_NO_STDERR, TD_LOG_STDERR, TD_LOG_STDERR_NOWAIT };

void td_log_open(const char *ident, enum td_log_stderr to_stderr);

/* Another socket than /dev/log, for tests; kept by reference.  NULL: the same, connected anew. */
void td_log_socket(const char *path);

/* From now on another thread connects to the log daemon, as the process that makes its socket may
 * be stopped; lines that come meanwhile are lost, and counted. */
void td_log_apart(void);

/* The least urgent priority that is written; LOG_INFO until set. */
void td_log_level(int priority);

/* One line.  priority: LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO or LOG_DEBUG.  Thread safe.
 * Control characters in the text (they may come from a guest or a file name) are shown as '?'. */
void td_log(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * For what a guest can cause again and again: at most TD_LOG_BURST lines per `limit' in
 * TD_LOG_WINDOW seconds, and then one that says how many were left out.  A zeroed struct
 * td_log_limit is ready for use; one per guest.
 */
#define TD_LOG_BURST  10
#define TD_LOG_WINDOW 60

struct td_log_limit {
	long long since; /* CLOCK_MONOTONIC seconds of the window's start */
	unsigned count, dropped;
};

void td_log_limited(struct td_log_limit *limit, int priority, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
