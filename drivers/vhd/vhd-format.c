/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of a VHD file: footer and header. */
#include "drivers/vhd/vhd-format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/bytes.h"

static const char vhdx_cookie[] = "vhdxfile";
static const char footer_cookie[] = "conectix", poison_cookie[] = "v_poison",
		  header_cookie[] = "cxsparse";

enum { EPOCH = 946684800 }; /* 2000-01-01 00:00 UTC */

static uint32_t checksum(const uint8_t *b, size_t len, size_t field)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < field || i >= field + 4)
			sum += b[i];
	return ~sum;
}

bool vhd_footer_seen(const uint8_t b[VHD_FOOTER])
{
	return !memcmp(b, footer_cookie, 8);
}

bool vhd_footer_poisoned(const uint8_t b[VHD_FOOTER])
{
	return !memcmp(b, poison_cookie, 8);
}

static void footer_fields(const uint8_t b[VHD_FOOTER], struct vhd_footer *f)
{
	f->features = td_get_be32(b + 8);
	f->version = td_get_be32(b + 12);
	f->data_offset = td_get_be64(b + 16);
	f->timestamp = td_get_be32(b + 24);
	memcpy(f->app, b + 28, 4);
	f->app_version = td_get_be32(b + 32);
	f->os = td_get_be32(b + 36);
	f->orig_size = td_get_be64(b + 40);
	f->size = td_get_be64(b + 48);
	f->geometry = td_get_be32(b + 56);
	f->type = td_get_be32(b + VHD_H_RESERVED);
	memcpy(f->uuid, b + 68, 16);
	f->saved = b[84];
	f->hidden = b[85];
	memcpy(f->rest, b + 86, sizeof f->rest);
}

static void footer_put(const struct vhd_footer *f, uint8_t b[VHD_FOOTER])
{
	memcpy(b, footer_cookie, 8);
	td_put_be32(b + 8, f->features);
	td_put_be32(b + 12, f->version);
	td_put_be64(b + 16, f->data_offset);
	td_put_be32(b + 24, f->timestamp);
	memcpy(b + 28, f->app, 4);
	td_put_be32(b + 32, f->app_version);
	td_put_be32(b + 36, f->os);
	td_put_be64(b + 40, f->orig_size);
	td_put_be64(b + 48, f->size);
	td_put_be32(b + 56, f->geometry);
	td_put_be32(b + VHD_H_RESERVED, f->type);
	memcpy(b + 68, f->uuid, 16);
	b[84] = f->saved;
	b[85] = f->hidden;
	memcpy(b + 86, f->rest, sizeof f->rest);
}

void vhd_footer_encode(const struct vhd_footer *f, uint8_t b[VHD_FOOTER])
{
	footer_put(f, b);
	td_put_be32(b + 64, checksum(b, VHD_FOOTER, 64));
}

static bool by_tap(const struct vhd_footer *f)
{
	return !memcmp(f->app, "tap", 4);
}

/* The first tap tools set `hidden' and left the checksum as it was. */
static bool footer_sum_ok(const struct vhd_footer *f, const uint8_t b[VHD_FOOTER])
{
	uint32_t sum = checksum(b, VHD_FOOTER, 64), found = td_get_be32(b + 64);

	return sum == found || (f->hidden && by_tap(f) &&
				(f->app_version == 0x00000001 || f->app_version == 0x00010001) &&
				sum + f->hidden == found);
}

static int footer_check(const struct vhd_footer *f, const char *path, struct td_err *err)
{
	if (f->version >> 16 != 1)
		return td_fail(err, EINVAL,
			       "%s: VHD file format version %u.%u is not known, only 1.x", path,
			       f->version >> 16, f->version & 0xffff);
	if (f->type < VHD_FIXED || f->type > VHD_DIFF)
		return td_fail(err, EINVAL,
			       "%s: its VHD footer names the disk type %u; known are 2 (fixed), 3 "
			       "(dynamic), 4 (differencing)",
			       path, f->type);
	if (!f->size || f->size % VHD_SECTOR)
		return td_fail(
			err, EINVAL,
			"%s: its VHD footer gives the disk %llu bytes, which is no multiple of 512",
			path, (unsigned long long)f->size);
	if (f->size > (f->type == VHD_FIXED ? VHD_FIXED_MAX : VHD_SIZE_MAX))
		return td_fail(err, EINVAL, "%s: its VHD footer gives the disk %llu bytes; a %s",
			       path, (unsigned long long)f->size,
			       f->type == VHD_FIXED
				       ? "fixed one has at most 1 PiB here"
				       : "VHD with a block table has at most 2040 GiB");
	if (f->type == VHD_FIXED)
		return 0;
	if (f->data_offset % VHD_SECTOR || f->data_offset < VHD_FOOTER ||
	    f->data_offset > INT64_MAX - VHD_HEADER)
		return td_fail(err, EINVAL,
			       "%s: its VHD footer puts the header at byte %llu, where none can be",
			       path, (unsigned long long)f->data_offset);
	if (by_tap(f) && f->app_version <= 0x00000001)
		return td_fail(err, EOPNOTSUPP,
			       "%s was written by a tapdisk 0.1, whose bitmaps have another bit "
			       "order: convert it with the old "
			       "vhd-update first",
			       path);
	return 0;
}

int vhd_footer_decode(const uint8_t b[VHD_FOOTER], struct vhd_footer *f, const char *path,
		      struct td_err *err)
{
	if (vhd_footer_poisoned(b))
		return td_fail(err, EUCLEAN,
			       "%s was left in the middle of a resize: restore it with vhd-util "
			       "revert -n %s -j JOURNAL",
			       path, path);
	if (!memcmp(b, vhdx_cookie, 8))
		return td_fail(err, EINVAL,
			       "%s is a VHDX, a format other than VHD that is not served: convert "
			       "it, with "
			       "qemu-img convert -f vhdx -O vpc -o subformat=dynamic,force_size=on "
			       "%s NEW.vhd",
			       path, path);
	if (!vhd_footer_seen(b))
		return td_fail(err, EINVAL, "%s is not a VHD: there is no footer", path);
	footer_fields(b, f);
	if (!footer_sum_ok(f, b))
		return td_fail(err, EINVAL,
			       "%s: the checksum of its VHD footer is 0x%08x and should be 0x%08x",
			       path, td_get_be32(b + 64), checksum(b, VHD_FOOTER, 64));
	return footer_check(f, path, err);
}

bool vhd_footer_old(const uint8_t last[VHD_FOOTER], uint64_t file_size)
{
	return file_size % VHD_SECTOR == VHD_FOOTER_OLD && !memcmp(last + 1, footer_cookie, 8);
}

/* The last footer in its full length. */
static const uint8_t *whole_footer(const uint8_t last[VHD_FOOTER], uint64_t file_size,
				   uint8_t room[VHD_FOOTER])
{
	if (!vhd_footer_old(last, file_size))
		return last;
	memcpy(room, last + 1, VHD_FOOTER_OLD);
	room[VHD_FOOTER_OLD] = 0; /* it belongs to the reserved bytes */
	return room;
}

uint64_t vhd_limit(const struct vhd_footer *f, const uint8_t last[VHD_FOOTER], uint64_t file_size)
{
	uint8_t room[VHD_FOOTER];
	struct vhd_footer z;

	if (vhd_footer_decode(whole_footer(last, file_size, room), &z, "", NULL) < 0 ||
	    memcmp(z.uuid, f->uuid, sizeof z.uuid))
		return file_size;
	return file_size - (vhd_footer_old(last, file_size) ? VHD_FOOTER_OLD : VHD_FOOTER);
}

int vhd_footer_pick(const uint8_t first[VHD_FOOTER], const uint8_t end[VHD_FOOTER],
		    uint64_t file_size, struct vhd_footer *f, enum vhd_footers *state,
		    const char *path, struct td_err *err)
{
	uint8_t room[VHD_FOOTER];
	const uint8_t *last = whole_footer(end, file_size, room);
	struct vhd_footer a, z;
	bool a_ok = vhd_footer_decode(first, &a, path, NULL) == 0 && a.type != VHD_FIXED,
	     z_ok = vhd_footer_decode(last, &z, path, NULL) == 0;

	if (vhd_footer_poisoned(first))
		return vhd_footer_decode(first, &a, path, err);
	if (z_ok && z.type == VHD_FIXED) {
		if (a_ok)
			return td_fail(err, EINVAL,
				       "%s: its first sector says that it is a %s disk, its last "
				       "that it is a fixed one; nothing is "
				       "believed of a file that contradicts itself",
				       path, a.type == VHD_DIFF ? "differencing" : "dynamic");
		if (z.size > file_size - (last == end ? VHD_FOOTER : VHD_FOOTER_OLD))
			return td_fail(err, EINVAL,
				       "%s: its footer gives the disk %llu bytes, but the file has "
				       "only %llu: it was cut off",
				       path, (unsigned long long)z.size,
				       (unsigned long long)file_size);
		*f = z;
		*state = VHD_FOOTERS_GOOD;
		return 0;
	}
	if (!a_ok && !z_ok) { /* whichever was one says why it is none */
		int rc = vhd_footer_decode(vhd_footer_seen(last) && !vhd_footer_seen(first) ? last
											    : first,
					   &a, path, err);

		return rc < 0 ? rc
			      : td_fail(err, EINVAL,
					"%s is not a VHD: there is no footer at its end", path);
	}
	*f = a_ok ? a : z;
	*state = !a_ok                             ? VHD_FOOTERS_FIRST_LOST
		 : memcmp(first, last, VHD_FOOTER) ? VHD_FOOTERS_LAST_LOST
						   : VHD_FOOTERS_GOOD;
	return 0;
}

int vhd_header_decode(const uint8_t b[VHD_HEADER], struct vhd_header *h, const char *path,
		      struct td_err *err)
{
	if (memcmp(b, header_cookie, 8))
		return td_fail(err, EINVAL, "%s: there is no VHD header where the footer says",
			       path);
	if (td_get_be32(b + 36) != checksum(b, VHD_HEADER, 36))
		return td_fail(err, EINVAL,
			       "%s: the checksum of its VHD header is 0x%08x and should be 0x%08x",
			       path, td_get_be32(b + 36), checksum(b, VHD_HEADER, 36));
	h->data_offset = td_get_be64(b + 8);
	h->table_off = td_get_be64(b + 16);
	h->version = td_get_be32(b + 24);
	h->entries = td_get_be32(b + 28);
	h->block_size = td_get_be32(b + 32);
	memcpy(h->parent_uuid, b + 40, 16);
	h->parent_timestamp = td_get_be32(b + 56);
	h->reserved = td_get_be32(b + 60);
	memcpy(h->parent_name, b + 64, 512);
	for (int i = 0; i < VHD_LOCATORS; i++) {
		const uint8_t *p = b + 576 + 24 * i;

		h->loc[i] =
			(struct vhd_locator){td_get_be32(p), td_get_be32(p + 4), td_get_be32(p + 8),
					     td_get_be32(p + 12), td_get_be64(p + 16)};
	}
	memcpy(h->rest, b + 768, 256);
	if (h->version >> 16 != 1)
		return td_fail(err, EINVAL, "%s: VHD header version %u.%u is not known, only 1.x",
			       path, h->version >> 16, h->version & 0xffff);
	if (h->block_size < VHD_BLOCK_MIN || h->block_size > VHD_BLOCK_MAX ||
	    h->block_size & (h->block_size - 1))
		return td_fail(err, EINVAL,
			       "%s: its VHD header names blocks of %u bytes; known are powers of "
			       "two from 512 bytes to 1 GiB",
			       path, h->block_size);
	return 0;
}

void vhd_header_encode(const struct vhd_header *h, uint8_t b[VHD_HEADER])
{
	memcpy(b, header_cookie, 8);
	td_put_be64(b + 8, h->data_offset);
	td_put_be64(b + 16, h->table_off);
	td_put_be32(b + 24, h->version);
	td_put_be32(b + 28, h->entries);
	td_put_be32(b + 32, h->block_size);
	memcpy(b + 40, h->parent_uuid, 16);
	td_put_be32(b + 56, h->parent_timestamp);
	td_put_be32(b + 60, h->reserved);
	memcpy(b + 64, h->parent_name, 512);
	for (int i = 0; i < VHD_LOCATORS; i++) {
		uint8_t *p = b + 576 + 24 * i;

		td_put_be32(p, h->loc[i].code);
		td_put_be32(p + 4, h->loc[i].space);
		td_put_be32(p + 8, h->loc[i].len);
		td_put_be32(p + 12, h->loc[i].reserved);
		td_put_be64(p + 16, h->loc[i].off);
	}
	memcpy(b + 768, h->rest, 256);
	td_put_be32(b + 36, checksum(b, VHD_HEADER, 36));
}

/* As the specification computes it: BIOS limits first, 65535 * 16 * 255 sectors at most. */
uint32_t vhd_geometry(uint64_t size)
{
	uint64_t total = size / VHD_SECTOR, cth; /* cylinders times heads */
	uint32_t spt, heads;

	if (total > 65535ull * 16 * 255)
		total = 65535ull * 16 * 255;
	if (total > 65535ull * 16 * 63) {
		spt = 255;
		heads = 16;
		cth = total / spt;
	} else {
		spt = 17;
		cth = total / spt;
		heads = (uint32_t)((cth + 1023) / 1024);
		if (heads < 4)
			heads = 4;
		if (cth >= heads * 1024ull || heads > 16) {
			spt = 31;
			heads = 16;
			cth = total / spt;
		}
		if (cth >= heads * 1024ull) {
			spt = 63;
			heads = 16;
			cth = total / spt;
		}
	}
	return (uint32_t)(cth / heads) << 16 | heads << 8 | spt;
}

uint32_t vhd_time(int64_t unix_time)
{
	return (uint32_t)(unix_time - EPOCH);
}

int64_t vhd_unix_time(uint32_t timestamp)
{
	return (int64_t)timestamp + EPOCH;
}

bool vhd_batmap_possible(const struct vhd_footer *f)
{
	return f->type != VHD_FIXED && by_tap(f) && f->app_version >= 0x00010001;
}

bool vhd_uuid_nil(const uint8_t uuid[16])
{
	static const uint8_t nil[16];

	return !memcmp(uuid, nil, 16);
}

void vhd_uuid_text(const uint8_t u[16], char out[37])
{
	snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12],
		 u[13], u[14], u[15]);
}
