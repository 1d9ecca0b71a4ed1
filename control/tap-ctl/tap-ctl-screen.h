/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A terminal taken over for a live view, in plain ANSI, and given back as it was: at the end, on a
 * signal, and while we are stopped.
 */
#ifndef CONTROL_TAP_CTL_SCREEN_H
#define CONTROL_TAP_CTL_SCREEN_H

#include <stdbool.h>

#include "td/log.h"

/* stdin and stdout are terminals that can be taken over. */
bool tc_screen_possible(void);
int tc_screen_open(struct td_err *err);
void tc_screen_close(void); /* may be called at any time, and twice */

/* Lines and columns. */
void tc_screen_size(int *lines, int *columns);

/* Begins a picture at the top left; then lines are printed with tc_screen_line, and the rest is
 * cleared by tc_screen_end. */
void tc_screen_begin(void);
/* cut to so many columns; UTF-8, without control characters */
void tc_screen_line(const char *text, int columns, bool reverse);
void tc_screen_end(void);

/* Waits.  A key; 0: the time is over; -1: it is to be drawn again (another size, or we were
 * stopped); -2: a signal asks for the end. */
int tc_screen_wait(double seconds);

#endif
