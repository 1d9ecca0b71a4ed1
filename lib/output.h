/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a program prints on standard output.  Its end: a reader that has got a part of it must not
 * take it for all.  And names in it, which anybody may have chosen. */
#ifndef TD_LIB_OUTPUT_H
#define TD_LIB_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "td/log.h"

/* Call it last.  0 when every byte has been written, or -errno with text: no space, for one. */
int td_output_end(struct td_err *err);

/*
 * A name to f, which others read line by line: control characters, which a file's name may have,
 * are shown as \xHH, so that no name makes a line of its own.  fields: nor a field (" hidden=1")
 * among others that blanks part; a name without `=' keeps its blanks.
 */
void td_output_name(FILE *f, const char *name, bool fields);

/*
 * What ends a line, moves a terminal's cursor, or begins a command to a terminal: the bytes of the
 * control character that text begins with, 0 where it begins with none.  Those that UTF-8 has in
 * two bytes (U+0080 to U+009F) are obeyed as the others are: U+009B is ESC [.
 */
static inline unsigned td_control(const char *text)
{
	const unsigned char *c = (const unsigned char *)text;

	return *c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0 ? 2 : *c && (*c < 0x20 || *c == 0x7f);
}

/* A text to f, with a `?' for each control character: for who reads it on a terminal. */
void td_output_text(FILE *f, const char *text);

/* The same in its place: it is one line then, whatever a name in it had. */
static inline void td_output_line(char *text)
{
	char *to = text;

	for (unsigned n; *text; text += n ? n : 1) {
		n = td_control(text);
		*to++ = n ? '?' : *text;
	}
	*to = 0;
}

/* An error on standard error, as "PROGRAM: TEXT", one line. */
void td_output_fault(const char *program, const struct td_err *err);

#endif
