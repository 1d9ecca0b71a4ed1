/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How much room the log of changes has, in hostlab (lib/redo.h). */
#include <stdint.h>
extern uint32_t crash_redo_bytes;
