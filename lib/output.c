/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int td_output_end(struct td_err *err)
{
	int code;

	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	code = errno ? errno : EIO; /* an earlier write failed: with what, nobody knows any more */
	return td_fail(err, code, "writing the output: %s", strerror(code));
}
