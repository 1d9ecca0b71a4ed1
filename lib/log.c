/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "td/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "lib/log-out.h"
#include "lib/output.h"

static const char *log_ident;
static enum td_log_stderr log_stderr;
static int log_max = LOG_INFO;

int td_fail(struct td_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err && !err->code) {
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof err->text, fmt, ap);
		va_end(ap);
	}
	return -code;
}

void td_log_open(const char *ident, enum td_log_stderr to_stderr)
{
	log_ident = ident;
	log_stderr = to_stderr;
	if (to_stderr == TD_LOG_STDERR_NOWAIT)
		td_log_stderr_nowait();
}

void td_log_level(int priority)
{
	log_max = priority;
}

__attribute__((format(printf, 2, 0))) static void log_v(int priority, const char *fmt, va_list ap)
{
	const char *ident = log_ident ? log_ident : program_invocation_short_name;
	char line[TD_ERR_TEXT];

	vsnprintf(line, sizeof line, fmt, ap);
	td_output_line(line);
	td_log_to_daemon(priority, ident, line);
	if (log_stderr)
		td_log_to_stderr(priority, ident, line);
}

void td_log(int priority, const char *fmt, ...)
{
	va_list ap;

	if (priority > log_max)
		return;
	va_start(ap, fmt);
	log_v(priority, fmt, ap);
	va_end(ap);
}

void td_log_limited(struct td_log_limit *limit, int priority, const char *fmt, ...)
{
	struct timespec ts;
	va_list ap;

	if (priority > log_max)
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	if (!limit->count || ts.tv_sec - limit->since >= TD_LOG_WINDOW) {
		if (limit->dropped)
			td_log(priority, "%u more lines like the last were left out",
			       limit->dropped);
		limit->since = ts.tv_sec;
		limit->count = limit->dropped = 0;
	}
	if (limit->count >= TD_LOG_BURST) {
		limit->dropped++;
		return;
	}
	limit->count++;
	va_start(ap, fmt);
	log_v(priority, fmt, ap);
	va_end(ap);
}
