/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* In the place of lib/log-out.c: lines are made and go nowhere; a stranger has many of them. */
#include "lib/log-out.h"

#include <string.h>

#include "td/log.h"
#include "tests/fuzz/fuzz.h"

void td_log_to_daemon(int priority, const char *ident, const char *line)
{
	FUZZ_ASSERT(strlen(line) < TD_ERR_TEXT);
	for (; *line; line++)
		FUZZ_ASSERT((unsigned char)*line >= 0x20 && *line != 0x7f);
}

void td_log_to_stderr(int priority, const char *ident, const char *line)
{
}

void td_log_stderr_nowait(void)
{
}

void td_log_socket(const char *path)
{
}
