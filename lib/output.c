/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/output.h"

#include <errno.h>
#include <string.h>

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

void td_output_name(FILE *f, const char *name, bool fields)
{
	bool blanks = fields && strchr(name, '=');

	for (const char *p = name; *p; p++)
		if (is_control(*p) || (blanks && *p == ' '))
			fprintf(f, "\\x%02x", (unsigned char)*p);
		else
			putc(*p, f);
}

void td_output_line(char *text)
{
	for (char *p = text; *p; p++)
		if (is_control(*p))
			*p = '?';
}

int td_output_end(struct td_err *err)
{
	int code;

	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	code = errno ? errno : EIO; /* an earlier write failed: with what, nobody knows any more */
	return td_fail(err, code, "writing the output: %s", strerror(code));
}
