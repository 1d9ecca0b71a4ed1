/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command read: what is inside, for eyes and for programs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"
#include "lib/output.h"

#define SECTORS_MAX (VHD_FIXED_MAX / VHD_SECTOR)

static bool hex;

/* A number as it was asked for; of four at a time the text stays. */
static const char *num(uint64_t n)
{
	static char text[4][24];
	static int at;

	at = (at + 1) % 4;
	snprintf(text[at], sizeof text[at], hex ? "0x%llx" : "%llu", (unsigned long long)n);
	return text[at];
}

/* --- headers --- */

static void print_sum(const uint8_t *b, size_t at, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < at || i >= at + 4)
			sum += b[i];
	printf("Checksum            : 0x%x|0x%x (%s)\n", td_get_be32(b + at), ~sum,
	       td_get_be32(b + at) == ~sum ? "Good!" : "Bad!");
}

static void print_time(const char *label, uint32_t timestamp)
{
	time_t t = vhd_unix_time(timestamp);
	char text[40];
	struct tm tm;

	strftime(text, sizeof text, "%a %b %e %H:%M:%S %Y", gmtime_r(&t, &tm));
	printf("%-20s: %s\n", label, text);
}

static void print_footer(const struct vhd_image *v)
{
	static const char *const types[] = {"None", "Reserved (deprecated)", "Fixed hard disk",
					    "Dynamic hard disk", "Differencing hard disk"};
	const struct vhd_footer *f = &v->footer;
	uint64_t c = f->geometry >> 16, h = f->geometry >> 8 & 255, s = f->geometry & 255;
	uint8_t b[VHD_FOOTER];
	char uuid[37], app[5] = "";

	printf("VHD Footer Summary:\n-------------------\n");
	printf("Cookie              : conectix\n");
	printf("Features            : (0x%08x) %s%s\n", f->features,
	       f->features & 1 ? "<TEMP>" : "", f->features & 2 ? "<RESV>" : "");
	printf("File format version : Major: %u, Minor: %u\n", f->version >> 16,
	       f->version & 0xffff);
	printf("Data offset         : %s\n", num(f->data_offset));
	print_time("Timestamp", f->timestamp);
	memcpy(app, f->app, 4);
	fputs("Creator Application : '", stdout);
	td_output_name(stdout, app, false);
	puts("'");
	printf("Creator version     : Major: %u, Minor: %u\n", f->app_version >> 16,
	       f->app_version & 0xffff);
	printf("Creator OS          : %s\n", f->os == 0x5769326b   ? "Windows"
					     : f->os == 0x4d616320 ? "Macintosh"
								   : "Unknown!");
	printf("Original disk size  : %s MB (%s Bytes)\n", num(f->orig_size >> 20),
	       num(f->orig_size));
	printf("Current disk size   : %s MB (%s Bytes)\n", num(f->size >> 20), num(f->size));
	printf("Geometry            : Cyl: %s, Hds: %s, Sctrs: %s\n", num(c), num(h), num(s));
	printf("                    : = %s MB (%s Bytes)\n", num(c * h * s >> 11),
	       num(c * h * s << 9));
	printf("Disk type           : %s\n", types[f->type]);
	vhd_footer_encode(f, b);
	print_sum(b, 64, sizeof b);
	vhd_uuid_text(f->uuid, uuid);
	printf("UUID                : %s\n", uuid);
	printf("Saved state         : %s\n", f->saved ? "Yes" : "No");
	printf("Hidden              : %u\n\n", f->hidden);
}

static void print_header(const struct vhd_image *v)
{
	const struct vhd_header *h = &v->header;
	char name[VHD_PATH_MAX] = "", uuid[37];
	uint8_t b[VHD_HEADER];

	printf("VHD Header Summary:\n-------------------\n");
	printf("Cookie              : cxsparse\n");
	printf("Data offset (unusd) : %s\n", num(h->data_offset));
	printf("Table offset        : %s\n", num(h->table_off));
	printf("Header version      : 0x%08x\n", h->version);
	printf("Max BAT size        : %s\n", num(h->entries));
	printf("Block size          : %s ", num(h->block_size));
	printf("(%s MB)\n", num(h->block_size >> 20));
	vhd_name_decode(h->parent_name, name);
	fputs("Parent name         : ", stdout);
	td_output_name(stdout, name, false);
	putchar('\n');
	vhd_uuid_text(h->parent_uuid, uuid);
	printf("Parent UUID         : %s\n", uuid);
	print_time("Parent timestamp", h->parent_timestamp);
	vhd_header_encode(h, b);
	print_sum(b, 36, sizeof b);
	putchar('\n');
}

static const char *code_name(uint32_t code)
{
	switch (code) {
	case VHD_LOC_W2RU:
		return "PLAT_CODE_W2RU";
	case VHD_LOC_W2KU:
		return "PLAT_CODE_W2KU";
	case VHD_LOC_MACX:
		return "PLAT_CODE_MACX";
	case VHD_LOC_MAC:
		return "PLAT_CODE_MAC";
	case VHD_LOC_WI2R:
		return "PLAT_CODE_WI2R";
	case VHD_LOC_WI2K:
		return "PLAT_CODE_WI2K";
	default:
		return "unknown";
	}
}

static int print_locators(const struct vhd_image *v, struct td_err *err)
{
	uint8_t *data = malloc(VHD_LOC_MAX);
	int rc = data ? 0 : td_fail(err, ENOMEM, "out of memory");

	printf("VHD Parent Locators:\n--------------------\n");
	for (int i = 0; i < VHD_LOCATORS && !rc; i++) {
		const struct vhd_locator *loc = &v->header.loc[i];
		uint32_t len = loc->len < VHD_LOC_MAX ? loc->len : VHD_LOC_MAX;
		char name[VHD_PATH_MAX];

		if (!loc->code)
			continue;
		rc = vhd_pread(v, data, len, loc->off, err);
		if (rc < 0)
			break;
		printf("locator:            : %d\n       code         : %s\n       data_space   : "
		       "%s\n",
		       i, code_name(loc->code), num(loc->space));
		printf("       data_length  : %s\n       data_offset  : %s\n", num(loc->len),
		       num(loc->off));
		if (vhd_locator_decode(loc->code, data, len, !memcmp(v->footer.app, "tap", 4),
				       name) < 0) {
			printf("       decoding name failed\n\n");
			continue;
		}
		fputs("       decoded name : ", stdout);
		td_output_name(stdout, name, false);
		puts("\n");
	}
	free(data);
	return rc;
}

static int print_headers(const struct vhd_image *v, struct td_err *err)
{
	int rc = 0;

	print_footer(v);
	if (v->footer.type == VHD_FIXED)
		return 0;
	print_header(v);
	if (v->footer.type == VHD_DIFF)
		rc = print_locators(v, err);
	if (rc || !v->has_batmap)
		return rc;
	printf("VHD Batmap Summary:\n-------------------\n");
	printf("Batmap offset       : %s\n", num(v->batmap.off));
	printf("Batmap size (secs)  : %s\n", num(v->batmap.sectors));
	printf("Batmap version      : 0x%08x\n", v->batmap.version);
	printf("Checksum            : 0x%x|0x%x (%s)\n\n", v->batmap.checksum,
	       vhd_batmap_checksum(&v->batmap, v->map), v->map_good ? "Good!" : "Bad!");
	return 0;
}

/* --- pieces --- */

static int block_range(const struct vhd_image *v, uint64_t block, uint64_t count,
		       struct td_err *err)
{
	if (v->footer.type == VHD_FIXED)
		return td_fail(err, EINVAL, "%s is a fixed disk, which has no blocks", v->path);
	if (block > v->layout.blocks || count > v->layout.blocks - block)
		return td_fail(err, ERANGE,
			       "%s has %u blocks: %llu and %llu from it on are not all there",
			       v->path, v->layout.blocks, (unsigned long long)block,
			       (unsigned long long)count);
	return 0;
}

static int sector_range(const struct vhd_image *v, uint64_t sector, uint64_t count,
			struct td_err *err)
{
	uint64_t sectors = v->size / VHD_SECTOR;

	if (sector > sectors || count > sectors - sector)
		return td_fail(err, ERANGE,
			       "%s has %llu sectors: %llu and %llu from it on are not all there",
			       v->path, (unsigned long long)sectors, (unsigned long long)sector,
			       (unsigned long long)count);
	return 0;
}

static int translate(struct vhd_image *v, uint64_t sector, uint64_t count, struct td_err *err)
{
	int rc = v->footer.type == VHD_FIXED ? block_range(v, 0, 0, err)
					     : sector_range(v, sector, count, err);

	for (uint64_t s = sector; s < sector + count && !rc; s++) {
		uint32_t block = (uint32_t)(s / v->layout.block_sectors),
			 in = (uint32_t)(s % v->layout.block_sectors);

		printf("logical sector %s: block number: %s, sector offset: %s, file offset: ",
		       num(s), num(block), num(in));
		if (v->bat[block] == VHD_UNUSED)
			puts("not allocated");
		else
			puts(num((uint64_t)v->bat[block] * VHD_SECTOR + v->layout.bitmap_bytes +
				 (uint64_t)in * VHD_SECTOR));
	}
	return rc;
}

static int print_bat(struct vhd_image *v, uint64_t block, uint64_t count, struct td_err *err)
{
	int rc = block_range(v, block, count, err);

	for (uint64_t b = block; b < block + count && !rc; b++)
		printf("block: %s: offset: %s\n", num(b),
		       v->bat[b] == VHD_UNUSED ? "not allocated"
					       : num((uint64_t)v->bat[b] * VHD_SECTOR));
	return rc;
}

static int print_bitmaps(struct vhd_image *v, uint64_t block, uint64_t count, struct td_err *err)
{
	int rc = block_range(v, block, count, err);

	for (uint64_t b = block; b < block + count && !rc; b++) {
		if (v->bat[b] == VHD_UNUSED) {
			printf("block %s not allocated\n", num(b));
			continue;
		}
		rc = vhd_image_bitmap(v, (uint32_t)b, err);
		if (!rc)
			rc = vu_put(v->bitmap, v->layout.bitmap_bytes, err);
	}
	return rc;
}

static int test_bitmap(struct vhd_image *v, uint64_t sector, uint64_t count, struct td_err *err)
{
	int rc = v->footer.type == VHD_FIXED ? block_range(v, 0, 0, err)
					     : sector_range(v, sector, count, err);

	for (uint64_t s = sector; s < sector + count && !rc; s++) {
		uint32_t in = (uint32_t)(s % v->layout.block_sectors);

		rc = vhd_image_bitmap(v, (uint32_t)(s / v->layout.block_sectors), err);
		if (!rc)
			printf("block %s: sec: %s: %d\n", num(s / v->layout.block_sectors), num(in),
			       vhd_bit(v->bitmap, in));
	}
	return rc;
}

static int need_batmap(const struct vhd_image *v, struct td_err *err)
{
	return v->map ? 0 : td_fail(err, EINVAL, "%s has no batmap", v->path);
}

static int test_batmap(struct vhd_image *v, uint64_t block, uint64_t count, struct td_err *err)
{
	int rc = block_range(v, block, count, err);

	if (!rc)
		rc = need_batmap(v, err);
	for (uint64_t b = block; b < block + count && !rc; b++)
		printf("batmap for block %s: %d\n", num(b), vhd_bit(v->map, b));
	return rc;
}

/* What is encrypted is not data: a tapdisk that has the key reads it. */
static int not_encrypted(const struct vhd_image *v, struct td_err *err)
{
	const struct vhd_image *is = vhd_image_encrypted(v);

	return is ? td_fail(err, EOPNOTSUPP,
			    "%s is encrypted: read it through a tapdisk that has its key", is->path)
		  : 0;
}

/* A short block is as if it had zeroes where nothing was written, unless something is lost. */
static int read_data(struct vhd_image *v, uint32_t block, uint8_t *buf, struct td_err *err)
{
	uint64_t at = (uint64_t)v->bat[block] * VHD_SECTOR + v->layout.bitmap_bytes,
		 there = v->layout.block_size;

	if (block == v->short_block && v->lost)
		return vhd_lost_text(&v->layout, block, v->lost, v->lost_from, v->limit, v->path,
				     err);
	if (block == v->short_block)
		there = v->limit > at ? v->limit - at : 0;
	memset(buf + there, 0, v->layout.block_size - there);
	return vhd_pread(v, buf, there, at, err);
}

static int print_data(struct vhd_image *v, uint64_t block, uint64_t count, struct td_err *err)
{
	uint8_t *buf = NULL;
	int rc = block_range(v, block, count, err);

	if (!rc)
		rc = not_encrypted(v, err);

	if (!rc && !(buf = malloc(v->layout.block_size)))
		rc = td_fail(err, ENOMEM, "out of memory");
	for (uint64_t b = block; b < block + count && !rc; b++) {
		if (v->bat[b] == VHD_UNUSED) {
			printf("block %s not allocated\n", num(b));
			continue;
		}
		rc = read_data(v, (uint32_t)b, buf, err);
		if (!rc)
			rc = vu_put(buf, v->layout.block_size, err);
	}
	free(buf);
	return rc;
}

static int read_sectors(const struct vu_args *a, uint64_t sector, uint64_t count,
			struct td_err *err)
{
	static uint8_t buf[1 << 20];
	struct vhd_image *v;
	int rc = vhd_image_open(a->val['n'], VHD_LOOK | VHD_CHAIN, &v, err);

	if (rc < 0)
		return rc;
	rc = sector_range(v, sector, count, err);
	if (!rc)
		rc = not_encrypted(v, err);
	for (uint64_t n; count && !rc; sector += n, count -= n) {
		n = count < sizeof buf / VHD_SECTOR ? count : sizeof buf / VHD_SECTOR;
		rc = vhd_image_read(v, buf, sector * VHD_SECTOR, n * VHD_SECTOR, err);
		if (!rc)
			rc = vu_put(buf, n * VHD_SECTOR, err);
	}
	vhd_image_close(v);
	return rc;
}

/* A bit a block of the disk, the most significant of the first byte for the first. */
static int print_blocks(const struct vhd_image *v, struct td_err *err)
{
	uint64_t blocks = v->footer.type == VHD_FIXED ? vhd_image_allocated(v) : v->layout.blocks;
	uint8_t *map = calloc(1, blocks / 8 + 1);
	int rc;

	if (!map)
		return td_fail(err, ENOMEM, "out of memory");
	for (uint64_t b = 0; b < blocks; b++)
		if (v->footer.type == VHD_FIXED || v->bat[b] != VHD_UNUSED)
			vhd_bits_set(map, b, b + 1);
	rc = vu_put(map, (blocks + 7) / 8, err);
	free(map);
	return rc;
}

static int read_pieces(const struct vu_args *a, struct vhd_image *v, struct td_err *err)
{
	static const struct {
		char letter;
		int (*fn)(struct vhd_image *v, uint64_t at, uint64_t count, struct td_err *err);
	} pieces[] = {{'t', translate},   {'b', print_bat},   {'m', print_bitmaps},
		      {'i', test_bitmap}, {'j', test_batmap}, {'d', print_data}};
	uint64_t count = 1, at = 0;
	int rc = vu_number(a, 'c', SECTORS_MAX, &count, err);

	if (!rc && a->val['p'])
		rc = print_headers(v, err);
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces && !rc; i++)
		if (a->val[(unsigned char)pieces[i].letter]) {
			rc = vu_number(a, pieces[i].letter, SECTORS_MAX, &at, err);
			if (!rc)
				rc = pieces[i].fn(v, at, count, err);
		}
	if (!rc && a->val['a']) {
		rc = need_batmap(v, err);
		if (!rc)
			rc = vu_put(v->map, (size_t)v->batmap.sectors * VHD_SECTOR, err);
	}
	if (!rc && a->val['r']) {
		rc = vu_number(a, 'r', SECTORS_MAX, &at, err);
		if (!rc)
			rc = read_sectors(a, at, count, err);
	}
	return rc || !a->val['B'] ? rc : print_blocks(v, err);
}

/* Are the headers all that is asked for? */
static bool headers_alone(const struct vu_args *a)
{
	for (const char *p = "tbmijdarB"; *p; p++)
		if (a->val[(unsigned char)*p])
			return false;
	return true;
}

int vu_read(const struct vu_args *a, struct td_err *err)
{
	struct vhd_image *v;
	int rc =
		vhd_image_open(a->val['n'], VHD_LOOK | (headers_alone(a) ? VHD_AS_IS : 0), &v, err);

	if (rc < 0)
		return rc;
	hex = a->val['x'] != NULL;
	rc = read_pieces(a, v, err);
	vhd_image_close(v);
	return rc;
}
