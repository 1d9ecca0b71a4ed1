/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A control directory of the target's own, which is removed when its process exits. */
#ifndef TESTS_FUZZ_DIR_H
#define TESTS_FUZZ_DIR_H

const char *fuzz_dir(void); /* makes it, once, and lets TAPDISK_CONTROL_DIR name it */

#endif
