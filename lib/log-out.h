/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where log lines go, without ever waiting for those that read them: a thread that serves guests
 * writes here.  A line that cannot be taken at once, because the log daemon stands still, is not
 * there, or the pipe behind stderr is full, is dropped and counted.  The count is written in front
 * of the first line that is taken again.
 */
#ifndef TD_LIB_LOG_OUT_H
#define TD_LIB_LOG_OUT_H

/* Both are thread safe; no newline at the end of line.  priority: LOG_ERR, ... */
void td_log_to_daemon(int priority, const char *ident, const char *line);
void td_log_to_stderr(int priority, const char *ident, const char *line);

/*
 * Makes file descriptor 2 of this process one that does not wait.  A pipe or a terminal is opened
 * anew for that, since O_NONBLOCK set on the descriptor that the process was given would also hold
 * for the shell that gave it.
 */
void td_log_stderr_nowait(void);

#endif
