/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of a VHD file: its parent's name, in UTF-16 and in file URLs.  By hand and not by
 * iconv, whose tables are files, which a process in a sandbox cannot open.
 */
#include <errno.h>
#include <string.h>

#include "drivers/vhd/vhd-format.h"
#include "lib/bytes.h"

uint64_t vhd_locator_space(const struct vhd_locator *loc)
{
	if (!loc->code)
		return 0;
	if (!loc->space)
		return td_round_up(loc->len, VHD_SECTOR);
	return loc->space < VHD_SECTOR ? (uint64_t)loc->space * VHD_SECTOR
				       : td_round_up(loc->space, VHD_SECTOR);
}

/* Appends one character; false when it does not fit. */
static bool put_utf8(char *out, size_t *n, uint32_t c)
{
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	unsigned len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	if (*n + len >= VHD_PATH_MAX)
		return false;
	for (unsigned i = len - 1; i > 0; i--, c >>= 6)
		out[*n + i] = (char)(0x80 | (c & 0x3f));
	out[*n] = (char)(len == 1 ? c : lead[len] | c);
	*n += len;
	return true;
}

/* A NUL ends it, and so does the end of the data. */
static int from_utf16(const uint8_t *b, size_t len, bool big, char out[VHD_PATH_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i + 1 < len; i += 2) {
		uint32_t c = big ? td_get_be16(b + i) : td_get_le16(b + i);

		if (!c)
			break;
		if (c >= 0xd800 && c < 0xe000) {
			uint32_t low = i + 3 < len ? (big ? td_get_be16(b + i + 2)
							  : td_get_le16(b + i + 2))
						   : 0;

			if (c >= 0xdc00 || low < 0xdc00 || low >= 0xe000)
				return -EILSEQ;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			i += 2;
		}
		if (!put_utf8(out, &n, c))
			return -ENAMETOOLONG;
	}
	out[n] = 0;
	return 0;
}

/* The next character of strict UTF-8, 0 at the end; -EILSEQ. */
static int64_t next_utf8(const char **p)
{
	const uint8_t *s = (const uint8_t *)*p;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned len = *s < 0x80                 ? 1
		       : *s >= 0xc2 && *s < 0xe0 ? 2
		       : *s >= 0xe0 && *s < 0xf0 ? 3
		       : *s >= 0xf0 && *s < 0xf5 ? 4
						 : 0;
	uint32_t c = len == 1 ? *s : len ? *s & (0x7fu >> len) : 0;

	if (!len)
		return -EILSEQ;
	for (unsigned i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return -EILSEQ;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[len] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
		return -EILSEQ;
	*p += len;
	return c;
}

/* Bytes written, without a NUL. */
static int to_utf16(const char *path, bool big, uint8_t *out, size_t room)
{
	size_t n = 0;
	int64_t c;

	while (*path) {
		uint16_t unit[2];
		int units = 1;

		c = next_utf8(&path);
		if (c < 0)
			return (int)c;
		unit[0] = (uint16_t)c;
		if (c >= 0x10000) {
			unit[0] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
			unit[1] = (uint16_t)(0xdc00 + ((c - 0x10000) & 0x3ff));
			units = 2;
		}
		if (n + 2 * units > room)
			return -ENAMETOOLONG;
		for (int i = 0; i < units; i++, n += 2) {
			if (big)
				td_put_be16(out + n, unit[i]);
			else
				td_put_le16(out + n, unit[i]);
		}
	}
	return (int)n;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Windows' slashes to ours, and no drive in front. */
static void unwindow(char *path)
{
	for (char *p = path; *p; p++)
		if (*p == '\\')
			*p = '/';
	if (is_letter(path[0]) && path[1] == ':')
		memmove(path, path + 2, strlen(path + 2) + 1);
}

static int bytes_path(const uint8_t *data, size_t len, char out[VHD_PATH_MAX])
{
	len = strnlen((const char *)data, len);
	if (len >= VHD_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(out, data, len);
	out[len] = 0;
	return 0;
}

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

static int file_url(char *path, bool literal)
{
	char *from = path + 7, *to = path;

	if (strncmp(path, "file://", 7))
		return -EILSEQ;
	if (!strncmp(from, "localhost/", 10))
		from += 9;
	while (*from) {
		if (!literal && *from == '%' && hex(from[1]) >= 0 && hex(from[2]) >= 0) {
			*to = (char)(hex(from[1]) << 4 | hex(from[2]));
			if (!*to++)
				return -EILSEQ;
			from += 3;
		} else {
			*to++ = *from++;
		}
	}
	*to = 0;
	return 0;
}

int vhd_locator_decode(uint32_t code, const uint8_t *data, size_t len, bool literal,
		       char out[VHD_PATH_MAX])
{
	int rc;

	switch (code) {
	case VHD_LOC_W2RU:
	case VHD_LOC_W2KU:
		rc = from_utf16(data, len, false, out);
		break;
	case VHD_LOC_WI2R:
	case VHD_LOC_WI2K:
		rc = bytes_path(data, len, out);
		break;
	case VHD_LOC_MACX:
		rc = bytes_path(data, len, out);
		return rc < 0 ? rc : file_url(out, literal);
	default:
		return -EOPNOTSUPP;
	}
	if (!rc)
		unwindow(out);
	return rc;
}

int vhd_locator_encode(uint32_t code, const char *path, uint8_t out[VHD_LOC_MAX])
{
	size_t len = strlen(path);

	switch (code) {
	case VHD_LOC_W2RU:
	case VHD_LOC_W2KU:
		return to_utf16(path, false, out, VHD_LOC_MAX);
	case VHD_LOC_MACX:
		if (len + 7 > VHD_LOC_MAX)
			return -ENAMETOOLONG;
		memcpy(out, "file://", 7);
		memcpy(out + 7, path, len);
		return (int)len + 7;
	default:
		return -EOPNOTSUPP;
	}
}

/*
 * Every name has letters of ASCII in it, of its extension at least: in their units it is the first
 * byte that is zero, or, where a maker got the order wrong, the second.
 */
static bool big_endian(const uint8_t name[512])
{
	int first = 0, second = 0;

	for (size_t i = 0; i < 512 && (name[i] || name[i + 1]); i += 2) {
		first += !name[i];
		second += !name[i + 1];
	}
	return first >= second;
}

int vhd_name_decode(const uint8_t name[512], char out[VHD_PATH_MAX])
{
	int rc = from_utf16(name, 512, big_endian(name), out);

	if (!rc)
		unwindow(out);
	return rc;
}

int vhd_name_encode(const char *path, uint8_t name[512])
{
	int n = to_utf16(path, true, name, 512);

	if (n < 0)
		return n;
	memset(name + n, 0, (size_t)(512 - n));
	return 0;
}
