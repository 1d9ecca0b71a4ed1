/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/output.h"

#include <errno.h>
#include <string.h>

void td_output_name(FILE *f, const char *name, bool fields)
{
	bool blanks = fields && strchr(name, '=');

	for (const char *p = name; *p; p++) {
		unsigned n = blanks && *p == ' ' ? 1 : td_control(p);

		for (; n > 1; n--)
			fprintf(f, "\\x%02x", (unsigned char)*p++);
		if (n)
			fprintf(f, "\\x%02x", (unsigned char)*p);
		else
			putc(*p, f);
	}
}

void td_output_text(FILE *f, const char *text)
{
	for (unsigned n; *text; text += n ? n : 1) {
		n = td_control(text);
		putc(n ? '?' : *text, f);
	}
}

void td_output_fault(const char *program, const struct td_err *err)
{
	char text[sizeof err->text];

	memcpy(text, err->text, sizeof text);
	td_output_line(text);
	fprintf(stderr, "%s: %s\n", program, text);
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
