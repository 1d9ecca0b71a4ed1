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

/* What moves a terminal's cursor, ends a line, or starts a command to a terminal. */
static inline bool td_is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

/* Each control character in text becomes a `?': it is one line then, whatever a name in it had. */
void td_output_line(char *text);

/* An error on standard error, as "PROGRAM: TEXT", one line. */
void td_output_fault(const char *program, const struct td_err *err);

#endif
