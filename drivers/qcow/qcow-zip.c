/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One compressed cluster: bounded on both sides, so that a bomb has nowhere to go. */
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "drivers/qcow/qcow.h"

/* Raw deflate.  The input may go on behind the end of the stream, up to a sector's end; the output
 * is exactly a cluster. */
static int unzip_deflate(const void *from, size_t len, void *to, size_t size)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)from,
		      .avail_in = (uInt)len,
		      .next_out = to,
		      .avail_out = (uInt)size};
	int rc;

	if (inflateInit2(&z, -15) != Z_OK)
		return -ENOMEM;
	rc = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* Z_BUF_ERROR: the cluster is full, and the stream's end mark lies behind */
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int unzip_zstd(const void *from, size_t len, void *to, size_t size)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer in = {from, len, 0};
	ZSTD_outBuffer out = {to, size, 0};
	size_t rc = 1;

	if (!z)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 23); /* a cluster has 2 MiB at most */
	while (out.pos < size) {
		size_t in_was = in.pos, out_was = out.pos;

		rc = ZSTD_decompressStream(z, &out, &in);
		if (ZSTD_isError(rc) || (in.pos == in_was && out.pos == out_was))
			break;
	}
	ZSTD_freeDStream(z);
	return out.pos == size ? 0 : -EIO;
}

int qcow_unzip(unsigned compression, const void *from, size_t len, void *to, size_t size)
{
	return compression == QCOW_ZSTD ? unzip_zstd(from, len, to, size)
					: unzip_deflate(from, len, to, size);
}
