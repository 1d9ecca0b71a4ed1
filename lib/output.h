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

/* An error's text is one line, and nothing that a name in it could do to a terminal. */
void td_output_line(char *text);

#endif
