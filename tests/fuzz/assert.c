/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests/support asserts by check's macros ends a fuzzer's process; so its programs are not
 * linked with check. */
#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: %s", file, line, expr);
	if (msg) {
		fputs(": ", stderr);
		va_start(ap, msg);
		vfprintf(stderr, msg, ap);
		va_end(ap);
	}
	fputc('\n', stderr);
	abort();
}

void _mark_point(const char *file, int line)
{
}
