/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of a VHD file: where everything is, and the batmap's header. */
#include <errno.h>
#include <string.h>

#include "drivers/vhd/vhd-format.h"
#include "lib/bytes.h"

static const char batmap_cookie[] = "tdbatmap";

static void add_meta(struct vhd_layout *l, uint64_t from, uint64_t len, const char *what)
{
	l->meta[l->metas++] = (struct vhd_extent){from, from + len, what};
	if (from + len > l->meta_end)
		l->meta_end = from + len;
}

static int meta_apart(const struct vhd_layout *l, const char *path, struct td_err *err)
{
	for (unsigned i = 0; i < l->metas; i++)
		for (unsigned j = 0; j < i; j++)
			if (l->meta[i].from < l->meta[j].to && l->meta[j].from < l->meta[i].to)
				return td_fail(err, EINVAL,
					       "%s: the %s (bytes %llu to %llu) and the %s (bytes "
					       "%llu to %llu) overlap",
					       path, l->meta[j].what,
					       (unsigned long long)l->meta[j].from,
					       (unsigned long long)l->meta[j].to, l->meta[i].what,
					       (unsigned long long)l->meta[i].from,
					       (unsigned long long)l->meta[i].to);
	return 0;
}

static int layout_locators(const struct vhd_header *h, uint64_t file_size, struct vhd_layout *l,
			   const char *path, struct td_err *err)
{
	for (int i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *loc = &h->loc[i];
		uint64_t space = vhd_locator_space(loc), end;

		if (!loc->code || !space)
			continue;
		if (loc->len > space || !td_add(loc->off, space, &end) ||
		    loc->off + loc->len > file_size)
			return td_fail(err, EINVAL,
				       "%s: parent locator %d (%u bytes, %llu reserved, at byte "
				       "%llu) does not fit the file of %llu "
				       "bytes",
				       path, i, loc->len, (unsigned long long)space,
				       (unsigned long long)loc->off, (unsigned long long)file_size);
		add_meta(l, loc->off, space, "parent locator");
	}
	return 0;
}

int vhd_layout(const struct vhd_footer *f, const struct vhd_header *h, uint64_t file_size,
	       struct vhd_layout *l, const char *path, struct td_err *err)
{
	uint64_t blocks = (f->size + h->block_size - 1) / h->block_size, end;
	int rc;

	memset(l, 0, sizeof *l);
	if (blocks > VHD_BLOCKS_MAX)
		return td_fail(
			err, EFBIG,
			"%s: %llu bytes in blocks of %u are %llu blocks; at most %u can be served",
			path, (unsigned long long)f->size, h->block_size,
			(unsigned long long)blocks, VHD_BLOCKS_MAX);
	if (h->entries < blocks)
		return td_fail(err, EINVAL,
			       "%s: its block table has %u entries, but the disk has %llu blocks",
			       path, h->entries, (unsigned long long)blocks);
	l->size = f->size;
	l->block_size = h->block_size;
	l->block_shift = (uint32_t)__builtin_ctz(h->block_size);
	l->block_sectors = h->block_size / VHD_SECTOR;
	l->bitmap_bytes = (uint32_t)td_round_up((l->block_sectors + 7) / 8, VHD_SECTOR);
	l->blocks = (uint32_t)blocks;
	l->entries = h->entries;
	l->table_off = h->table_off;
	l->table_bytes = td_round_up(4ull * h->entries, VHD_SECTOR);
	if (h->table_off % VHD_SECTOR || !td_add(h->table_off, l->table_bytes, &end) ||
	    end > file_size)
		return td_fail(err, EINVAL,
			       "%s: its block table (%u entries at byte %llu) does not fit the "
			       "file of %llu bytes",
			       path, h->entries, (unsigned long long)h->table_off,
			       (unsigned long long)file_size);
	if (f->data_offset + VHD_HEADER > file_size)
		return td_fail(err, EINVAL,
			       "%s: its VHD header (at byte %llu) lies beyond the end of the file",
			       path, (unsigned long long)f->data_offset);
	l->batmap_header = end;
	add_meta(l, 0, VHD_FOOTER, "copy of the footer");
	add_meta(l, f->data_offset, VHD_HEADER, "header");
	add_meta(l, h->table_off, l->table_bytes, "block table");
	/* of a disk without a parent they mean nothing: vhd-lib leaves those of the chain that it
	 * made one disk of */
	rc = f->type == VHD_DIFF ? layout_locators(h, file_size, l, path, err) : 0;
	return rc < 0 ? rc : meta_apart(l, path, err);
}

int vhd_batmap_decode(const uint8_t b[VHD_SECTOR], const struct vhd_layout *l, uint64_t file_size,
		      struct vhd_batmap *m, const char *path, struct td_err *err)
{
	struct vhd_layout with = *l;
	uint64_t end;

	if (memcmp(b, batmap_cookie, 8))
		return -ENOENT;
	m->off = td_get_be64(b + 8);
	m->sectors = td_get_be32(b + 16);
	m->version = td_get_be32(b + 20);
	m->checksum = td_get_be32(b + 24);
	m->marker = b[28];
	m->has_key = b[29];
	memcpy(m->nonce, b + 30, 32);
	memcpy(m->hash, b + 62, 32);
	memcpy(m->rest, b + 94, sizeof m->rest);
	if (m->version != 0x00010001 && m->version != 0x00010002)
		return td_fail(err, EINVAL, "%s: batmap version %u.%u is not known", path,
			       m->version >> 16, m->version & 0xffff);
	if (m->off % VHD_SECTOR || !td_add(m->off, (uint64_t)m->sectors * VHD_SECTOR, &end) ||
	    end > file_size)
		return td_fail(err, EINVAL,
			       "%s: its batmap (%u sectors at byte %llu) does not fit the file of "
			       "%llu bytes",
			       path, m->sectors, (unsigned long long)m->off,
			       (unsigned long long)file_size);
	if (m->sectors > VHD_BATMAP_MAX / VHD_SECTOR)
		return td_fail(err, EINVAL,
			       "%s: its batmap has %u sectors; %u are enough for any disk", path,
			       m->sectors, VHD_BATMAP_MAX / VHD_SECTOR);
	if (m->sectors * 4096ull < l->blocks)
		return td_fail(err, EINVAL, "%s: its batmap has %u sectors, too few for %u blocks",
			       path, m->sectors, l->blocks);
	vhd_layout_batmap(&with, m);
	return meta_apart(&with, path, err);
}

void vhd_batmap_encode(const struct vhd_batmap *m, uint8_t b[VHD_SECTOR])
{
	memcpy(b, batmap_cookie, 8);
	td_put_be64(b + 8, m->off);
	td_put_be32(b + 16, m->sectors);
	td_put_be32(b + 20, m->version);
	td_put_be32(b + 24, m->checksum);
	b[28] = m->marker;
	b[29] = m->has_key;
	memcpy(b + 30, m->nonce, 32);
	memcpy(b + 62, m->hash, 32);
	memcpy(b + 94, m->rest, sizeof m->rest);
}

uint32_t vhd_batmap_checksum(const struct vhd_batmap *m, const uint8_t *map)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < (size_t)m->sectors * VHD_SECTOR; i++)
		sum += m->version == 0x00010001 ? (uint32_t)(int8_t)map[i] : map[i];
	return ~sum;
}

void vhd_layout_batmap(struct vhd_layout *l, const struct vhd_batmap *m)
{
	add_meta(l, l->batmap_header, VHD_SECTOR, "batmap header");
	add_meta(l, m->off, (uint64_t)m->sectors * VHD_SECTOR, "batmap");
}
