/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Preloaded: fdatasync does not come back while the file exists that $STUCK_SYNC names, as on
 * storage that is away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int fd)
{
	static int (*next)(int);
	const char *file = getenv("STUCK_SYNC");

	while (file && !access(file, F_OK))
		usleep(10000);
	if (!next)
		next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	return next(fd);
}
