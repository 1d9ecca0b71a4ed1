/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a fuzzer's process ends when something is found: by a signal, a sanitizer or an assertion. */
#ifndef TESTS_FUZZ_ENDS_H
#define TESTS_FUZZ_ENDS_H

#include <stdbool.h>

#define ENDS_MEMORY (2u << 20) /* KiB: more than what a sanitizer holds back of freed memory */

/* report is called before the process ends, whatever ends it, an exit() too; it may come twice. */
void ends_watch(void (*report)(void));
/* Calls fn each second of time. */
void ends_each_second(void (*fn)(void));

bool ends_leaks(void);                  /* looks for leaks; false where there is no LeakSanitizer */
void ends_check_size(const char *name); /* the process has at most ENDS_MEMORY */

#endif
