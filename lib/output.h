/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of what a program prints on standard output: a reader that has got a part of it must not
 * take it for all. */
#ifndef TD_LIB_OUTPUT_H
#define TD_LIB_OUTPUT_H

#include "td/log.h"

/* Call it last.  0 when every byte has been written, or -errno with text: no space, for one. */
int td_output_end(struct td_err *err);

#endif
