/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of a VHD file: its block table checked as a whole, and the bits of bitmaps. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd-format.h"

int vhd_entry_check(const struct vhd_layout *l, uint32_t block, uint32_t entry, uint64_t file_size,
		    const char *path, struct td_err *err)
{
	uint64_t from = (uint64_t)entry * VHD_SECTOR, to = from + l->bitmap_bytes + l->block_size;

	/* its data may be short (vhd_short_block), but its bitmap, which says what of them is
	 * meant, is there */
	if (from + l->bitmap_bytes > file_size)
		return td_fail(
			err, EINVAL,
			"%s: block %u lies at sector %u, beyond the end of the file (%llu bytes)",
			path, block, entry, (unsigned long long)file_size);
	for (unsigned i = 0; i < l->metas; i++)
		if (from < l->meta[i].to && l->meta[i].from < to)
			return td_fail(
				err, EINVAL,
				"%s: block %u lies at sector %u, over the %s (bytes %llu to %llu)",
				path, block, entry, l->meta[i].what,
				(unsigned long long)l->meta[i].from,
				(unsigned long long)l->meta[i].to);
	return 0;
}

/*
 * Sorts in place by the byte at `shift' and then each bucket by the next: linear, since a table of
 * a million entries is checked at every open.
 */
static void sort_sectors(uint32_t *v, uint32_t n, int shift)
{
	/* of 32 bits: this runs on a fiber's stack */
	uint32_t at[256], end[256], sum = 0, count[256] = {0};

	for (uint32_t i = 0; i < n; i++)
		count[v[i] >> shift & 255]++;
	for (int b = 0; b < 256; b++) {
		at[b] = sum;
		end[b] = sum += count[b];
	}
	for (int b = 0; b < 256; b++)
		while (at[b] < end[b]) {
			int to = v[at[b]] >> shift & 255;
			uint32_t t = v[at[to]];

			v[at[to]++] = v[at[b]];
			if (to != b)
				v[at[b]] = t;
		}
	for (int b = 0; shift && b < 256; b++)
		if (count[b] > 1)
			sort_sectors(v + end[b] - count[b], count[b], shift - 8);
}

static int overlap(const struct vhd_layout *l, const uint32_t *bat, uint32_t a, uint32_t b,
		   const char *path, struct td_err *err)
{
	uint32_t first = VHD_UNUSED, second = VHD_UNUSED;

	for (uint32_t i = 0; i < l->blocks; i++)
		if (bat[i] == a && first == VHD_UNUSED)
			first = i;
		else if (bat[i] == b)
			second = i;
	return td_fail(err, EINVAL,
		       "%s: the blocks %u (at sector %u) and %u (at sector %u) overlap", path,
		       first, a, second, b);
}

int vhd_bat_check(const struct vhd_layout *l, const uint32_t *bat, uint64_t file_size,
		  const char *path, struct td_err *err)
{
	uint32_t unit = (l->bitmap_bytes + l->block_size) / VHD_SECTOR, *used, n = 0;
	bool sorted = true;
	int rc = 0;

	used = malloc(4ull * l->blocks + 4);
	if (!used)
		return td_fail(err, ENOMEM, "%s: out of memory, cannot check its block table",
			       path);
	for (uint32_t i = 0; i < l->blocks && !rc; i++) {
		if (bat[i] == VHD_UNUSED)
			continue;
		rc = vhd_entry_check(l, i, bat[i], file_size, path, err);
		sorted = sorted && (!n || used[n - 1] <= bat[i]);
		used[n++] = bat[i];
	}
	if (!rc && !sorted)
		sort_sectors(used, n, 24);
	for (uint32_t i = 1; i < n && !rc; i++)
		if (used[i] - used[i - 1] < unit)
			rc = overlap(l, bat, used[i - 1], used[i], path, err);
	free(used);
	return rc;
}

/* --- the end of the file --- */

uint32_t vhd_short_block(const struct vhd_layout *l, const uint32_t *bat, uint64_t limit)
{
	for (uint32_t i = 0; i < l->blocks; i++)
		if (bat[i] != VHD_UNUSED &&
		    (uint64_t)bat[i] * VHD_SECTOR + l->bitmap_bytes + l->block_size > limit)
			return i;
	return VHD_UNUSED;
}

uint32_t vhd_lost(const struct vhd_layout *l, uint32_t block, uint32_t entry, uint64_t limit,
		  const uint8_t *bitmap, uint32_t *first)
{
	uint64_t data = (uint64_t)entry * VHD_SECTOR + l->bitmap_bytes,
		 start = (uint64_t)block << l->block_shift;
	uint64_t from = limit > data ? (limit - data) / VHD_SECTOR : 0, to = l->block_sectors;
	uint32_t n = 0;
	bool set;

	if (l->size - start < l->block_size)
		to = (l->size - start) / VHD_SECTOR;
	for (uint64_t run; from < to; from += run) {
		run = vhd_bits_run(bitmap, from, to, &set);
		if (set && !n)
			*first = (uint32_t)from;
		n += set ? (uint32_t)run : 0;
	}
	return n;
}

int vhd_lost_text(const struct vhd_layout *l, uint32_t block, uint32_t n, uint32_t first,
		  uint64_t limit, const char *path, struct td_err *err)
{
	return td_fail(err, EIO,
		       "%s was cut off: %u sectors of block %u, from sector %llu of the disk on, "
		       "lie beyond the end of the file (byte "
		       "%llu), and are lost. Fetch it again from where it came; to save the rest, "
		       "open it read-only, which gives an "
		       "error for these sectors",
		       path, n, block,
		       ((unsigned long long)block << l->block_shift) / VHD_SECTOR + first,
		       (unsigned long long)limit);
}

/* --- bits --- */

static void bits_put(uint8_t *map, uint64_t from, uint64_t to, bool on)
{
	uint64_t n = from;

	for (; n < to && n % 8; n++)
		map[n / 8] =
			(uint8_t)(on ? map[n / 8] | 0x80 >> n % 8 : map[n / 8] & ~(0x80 >> n % 8));
	if (to > n && to - n >= 8) {
		memset(map + n / 8, on ? 0xff : 0, (to - n) / 8);
		n += (to - n) / 8 * 8;
	}
	for (; n < to; n++)
		map[n / 8] =
			(uint8_t)(on ? map[n / 8] | 0x80 >> n % 8 : map[n / 8] & ~(0x80 >> n % 8));
}

void vhd_bits_set(uint8_t *map, uint64_t from, uint64_t to)
{
	bits_put(map, from, to, true);
}

void vhd_bits_clear(uint8_t *map, uint64_t from, uint64_t to)
{
	bits_put(map, from, to, false);
}

uint64_t vhd_bits_run(const uint8_t *map, uint64_t from, uint64_t to, bool *set)
{
	bool on = vhd_bit(map, from);
	uint64_t n = from + 1, same = on ? UINT64_MAX : 0, word;

	*set = on;
	while (n < to) {
		if (n % 8 == 0 && to - n >= 64) {
			memcpy(&word, map + n / 8, 8);
			if (word == same) {
				n += 64;
				continue;
			}
		}
		if (n % 8 == 0 && to - n >= 8 && map[n / 8] == (uint8_t)same) {
			n += 8;
			continue;
		}
		if (vhd_bit(map, n) != on)
			break;
		n++;
	}
	return n - from;
}
