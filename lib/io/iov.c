/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/iov.h"

#include <string.h>

/* The first piece of the bytes skip..skip+len-1 from iov[*i] on; both move on behind it.  A length
 * of 0: there is none any more. */
static struct iovec next(const struct iovec *iov, int n, int *i, uint64_t *skip, uint64_t *len)
{
	for (; *i < n && *len; ++*i) {
		uint64_t have = iov[*i].iov_len;
		struct iovec part;

		if (*skip >= have) {
			*skip -= have;
			continue;
		}
		have = have - *skip < *len ? have - *skip : *len;
		part = (struct iovec){(char *)iov[*i].iov_base + *skip, have};
		*len -= have;
		*skip = 0;
		++*i;
		return part;
	}
	return (struct iovec){NULL, 0};
}

int td_iov_slice(const struct iovec *from, int n, uint64_t skip, uint64_t len, struct iovec *to,
		 int max)
{
	int used = 0, i = 0;

	for (struct iovec part; (part = next(from, n, &i, &skip, &len)).iov_len; used++) {
		if (to && used == max)
			return -1;
		if (to)
			to[used] = part;
	}
	return used;
}

void td_iov_zero(const struct iovec *iov, int n, uint64_t skip, uint64_t len)
{
	int i = 0;

	for (struct iovec part; (part = next(iov, n, &i, &skip, &len)).iov_len;)
		memset(part.iov_base, 0, part.iov_len);
}
