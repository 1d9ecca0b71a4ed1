/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The null driver: accepts writes and forgets them, reads zeroes.  It measures what all the rest
 * costs. Its path is a size: 1G, 512M, or a number of bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"

static int null_open(struct td_image *image, struct td_err *err)
{
	char *end;
	unsigned long long n = strtoull(image->path, &end, 10);
	int shift = 0;

	switch (*end) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	case 'T':
		shift = 40;
		break;
	}
	if (end == image->path || (shift && end[1]) || (!shift && *end) || !n ||
	    n > (UINT64_C(1) << 62 >> shift) || (n << shift) % 512)
		return td_fail(err, EINVAL,
			       "null:%s: what follows null: is a size in bytes, a multiple of 512, "
			       "with K, M, G or T "
			       "behind it if you like",
			       image->path);
	image->info.size = n << shift;
	image->info.physical = 512;
	return 0;
}

static void null_close(struct td_image *image)
{
}

static void null_submit(struct td_image *image, struct td_req *req)
{
	if (req->op == TD_READ)
		for (int i = 0; i < req->iovcnt; i++)
			memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
	td_req_done(req, 0);
}

static int null_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
			int max)
{
	out[0] = (struct td_extent){off, len, TD_EXTENT_HOLE | TD_EXTENT_ZERO};
	return 1;
}

static bool null_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	*out = (struct td_map){.len = UINT64_MAX, .whole = true};
	return true;
}

const struct td_driver td_driver_null = {
	.name = "null",
	.type = 100,
	.open = null_open,
	.close = null_close,
	.submit = null_submit,
	.extents = null_extents,
	.map = null_map,
};
