/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/path.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* Appends the parts of `from' (len bytes) to out, which ends without a slash; "" is the root. */
static int append(char *out, size_t max, const char *from, size_t len)
{
	while (len) {
		const char *slash = memchr(from, '/', len);
		size_t part = slash ? (size_t)(slash - from) : len, have = strlen(out);

		if (part == 2 && !memcmp(from, "..", 2)) {
			char *last = strrchr(out, '/');

			if (last)
				*last = 0;
		} else if (part && !(part == 1 && *from == '.')) {
			if (have + 1 + part + 1 > max)
				return -ENAMETOOLONG;
			out[have] = '/';
			memcpy(out + have + 1, from, part);
			out[have + 1 + part] = 0;
		}
		part += slash ? 1 : 0;
		from += part;
		len -= part;
	}
	return 0;
}

int td_path_resolve(const char *beside, const char *name, char *out, size_t max)
{
	const char *slash = strrchr(beside, '/');
	int rc = 0;

	if (!*name)
		return -EINVAL;
	*out = 0;
	if (*name != '/' && slash)
		rc = append(out, max, beside, (size_t)(slash - beside));
	return rc ? rc : append(out, max, name, strlen(name));
}
