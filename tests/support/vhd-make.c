/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/vhd-make.h"

#include <assert.h>
#include <openssl/evp.h>
#include <string.h>

#include "lib/bytes.h"

static void put_batmap(const struct vhd_make *m, uint8_t *at, uint64_t off, uint64_t sectors)
{
	struct vhd_batmap b = {
		.off = off + VHD_SECTOR, .sectors = (uint32_t)sectors, .version = 0x00010002};
	uint8_t text[96];
	unsigned n;

	memset(at + VHD_SECTOR, 0, sectors * VHD_SECTOR);
	b.checksum = vhd_batmap_checksum(&b, at + VHD_SECTOR);
	if (m->key) {
		b.has_key = 1;
		memset(b.nonce, 7, sizeof b.nonce);
		memcpy(text, b.nonce, sizeof b.nonce);
		memcpy(text + sizeof b.nonce, m->key, m->key_len);
		EVP_Digest(text, sizeof b.nonce + m->key_len, b.hash, &n, EVP_sha256(), NULL);
	}
	vhd_batmap_encode(&b, at);
}

static void put_locators(const struct vhd_make *m, struct vhd_header *header, uint8_t *bytes,
			 uint64_t off)
{
	static const uint32_t codes[] = {VHD_LOC_W2RU, VHD_LOC_MACX, VHD_LOC_W2KU};
	uint8_t data[VHD_LOC_MAX];

	for (unsigned i = 0; i < (m->locators ?: 1); i++, off += VHD_SECTOR) {
		int n = vhd_locator_encode(codes[i], m->parent, data);

		assert(n > 0 && n <= (int)VHD_SECTOR);
		memcpy(bytes + off, data, (size_t)n);
		header->loc[i] = (struct vhd_locator){
			.code = codes[i], .space = VHD_SECTOR, .len = (uint32_t)n, .off = off};
	}
	vhd_name_encode(m->parent, header->parent_name);
}

struct fault_file *vhd_make(struct fault_io *f, const struct vhd_make *m)
{
	bool fixed = m->type == VHD_FIXED;
	struct vhd_footer footer = {.features = 2,
				    .version = 0x00010000,
				    .data_offset = fixed ? UINT64_MAX : VHD_FOOTER,
				    .app = "tap",
				    .app_version = VHD_TAP_VERSION,
				    .orig_size = m->size,
				    .size = m->size,
				    .geometry = vhd_geometry(m->size),
				    .type = m->type,
				    .uuid = {m->uuid}};
	struct vhd_header header = {.data_offset = UINT64_MAX,
				    .table_off = VHD_FOOTER + VHD_HEADER,
				    .version = 0x00010000,
				    .block_size = m->block_size,
				    .parent_uuid = {m->parent_uuid}};
	uint64_t table, batmap, locator, end;
	struct fault_file *file;

	if (fixed) {
		file = fault_io_file(f, m->name, m->size + VHD_FOOTER);
		vhd_footer_encode(&footer, file->data + m->size);
		return file;
	}
	header.entries = (uint32_t)((m->size + m->block_size - 1) / m->block_size);
	table = header.table_off + td_round_up(4ull * header.entries, VHD_SECTOR);
	batmap = td_round_up((header.entries + 7) / 8, VHD_SECTOR);
	locator = m->no_batmap ? table : table + VHD_SECTOR + batmap;
	end = locator + (m->parent ? (m->locators ?: 1) * VHD_SECTOR : 0);
	file = fault_io_file(f, m->name, m->device ? m->device : end + VHD_FOOTER);
	file->blockdev = m->device;
	if (m->device)
		memset(file->data, 0xee, m->device);
	memset(file->data + header.table_off, 0xff, table - header.table_off);
	if (!m->no_batmap)
		put_batmap(m, file->data + table, table, batmap / VHD_SECTOR);
	if (m->parent)
		put_locators(m, &header, file->data, locator);
	vhd_header_encode(&header, file->data + VHD_FOOTER);
	vhd_footer_encode(&footer, file->data);
	vhd_footer_encode(&footer, file->data + file->size - VHD_FOOTER);
	return file;
}
