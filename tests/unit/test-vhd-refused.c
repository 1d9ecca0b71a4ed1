/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHDs that say what cannot be, or that were cut off: refused, or not written. */
#include "tests/support/test-vhd.h"

/* --- what images say --- */

static void refuse(const char *what, int code, const char *word,
		   void (*spoil)(struct fault_file *f))
{
	struct fault_file *f;
	int rc;

	begin();
	f = dynamic();
	spoil(f);
	rc = open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_DIRECT});
	ck_assert_msg(rc == -code && strstr(err.text, word), "%s: %d, '%s'", what, rc,
		      rc ? err.text : "it was opened");
	ck_assert_msg(strstr(err.text, "/a.vhd") != NULL, "%s: which file?", what);
	end();
}

static void sum(uint8_t *b, size_t len, size_t at)
{
	uint32_t n = 0;

	td_put_be32(b + at, 0);
	for (size_t i = 0; i < len; i++)
		n += b[i];
	td_put_be32(b + at, ~n);
}

static void footers(struct fault_file *f, size_t at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *b = i ? f->data + f->size - 512 : f->data;

		for (unsigned k = 0; k < bytes; k++)
			b[at + k] = (uint8_t)(v >> 8 * (bytes - 1 - k));
		sum(b, 512, 64);
	}
}

static void header(struct fault_file *f, size_t at, uint64_t v, unsigned bytes)
{
	for (unsigned k = 0; k < bytes; k++)
		f->data[512 + at + k] = (uint8_t)(v >> 8 * (bytes - 1 - k));
	sum(f->data + 512, 1024, 36);
}

#define SPOIL(name, ...)                                                                           \
	static void name(struct fault_file *f)                                                     \
	{                                                                                          \
		__VA_ARGS__;                                                                       \
	}
SPOIL(no_cookie, f->data[0] = 'x'; f->data[f->size - 512] = 'x')
SPOIL(no_sum, f->data[100]++; f->data[f->size - 412]++)
SPOIL(odd_size, footers(f, 48, SIZE + 1, 8))
SPOIL(no_size, footers(f, 48, 0, 8))
SPOIL(huge_size, footers(f, 48, 1ull << 60, 8))
SPOIL(strange_type, footers(f, 60, 9, 4))
SPOIL(far_header, footers(f, 16, 1ull << 40, 8))
SPOIL(wrapping_header, footers(f, 16, UINT64_MAX - 511, 8))
SPOIL(block_of_nothing, header(f, 32, 0, 4))
SPOIL(odd_block, header(f, 32, 3 << 16, 4))
SPOIL(huge_block, header(f, 32, 1u << 31, 4))
SPOIL(few_entries, header(f, 28, 1, 4))
SPOIL(many_entries, header(f, 28, UINT32_MAX, 4))
SPOIL(far_table, header(f, 16, 1ull << 50, 8))
SPOIL(odd_table, header(f, 16, 1537, 8))
SPOIL(table_on_header, header(f, 16, 512, 8))
SPOIL(entry_in_header, td_put_be32(f->data + 1536, 1))
SPOIL(entry_beyond, td_put_be32(f->data + 1536, 0x7fffffff))

static void overlapping(struct fault_file *f)
{
	td_put_be32(f->data + 1536, 100);
	td_put_be32(f->data + 1540, 150);
	f->data = realloc(f->data, MIB);
	memset(f->data + f->size, 0, MIB - f->size);
	f->size = MIB;
}

START_TEST(a_malformed_image_is_refused_with_a_reason)
{
	refuse("no footer", EINVAL, "not a VHD", no_cookie);
	refuse("a wrong checksum", EINVAL, "checksum", no_sum);
	refuse("an odd size", EINVAL, "512", odd_size);
	refuse("no size", EINVAL, "0 bytes", no_size);
	refuse("a huge size", EINVAL, "2040 GiB", huge_size);
	refuse("a strange type", EINVAL, "type 9", strange_type);
	refuse("a header beyond the end", EINVAL, "header", far_header);
	refuse("a header that wraps", EINVAL, "header", wrapping_header);
	refuse("blocks of nothing", EINVAL, "blocks of 0", block_of_nothing);
	refuse("odd blocks", EINVAL, "powers of two", odd_block);
	refuse("huge blocks", EINVAL, "powers of two", huge_block);
	refuse("too few entries", EINVAL, "block table", few_entries);
	refuse("too many entries", EINVAL, "block table", many_entries);
	refuse("a table far away", EINVAL, "block table", far_table);
	refuse("a table between sectors", EINVAL, "block table", odd_table);
	refuse("a table over the header", EINVAL, "overlap", table_on_header);
	refuse("a block in the header", EINVAL, "block 0", entry_in_header);
	refuse("a block beyond the end", EINVAL, "beyond the end", entry_beyond);
	refuse("two blocks in one place", EINVAL, "overlap", overlapping);
}
END_TEST

START_TEST(a_guest_cannot_make_its_fixed_disk_into_something_else)
{
	struct fault_file *fixed, *dyn;

	begin();
	fixed = vhd_make(
		&fio,
		&(struct vhd_make){.name = "/f.vhd", .size = SIZE, .type = VHD_FIXED, .uuid = 2});
	dyn = dynamic();
	memcpy(fixed->data, dyn->data, dyn->size); /* what the guest wrote */
	ck_assert_int_eq(open_how("vhd:/f.vhd", (struct td_how){.flags = TD_FILE_DIRECT}), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "fixed"));
	end();
}
END_TEST

START_TEST(a_batmap_is_not_believed_of_blocks_that_are_not_there)
{
	struct fault_file *f;
	uint8_t *map;

	begin();
	f = dynamic();
	map = f->data + 1536 + 512 + 512;
	map[0] = 0x80;
	td_put_be32(map - 512 + 24, ~0x80u);
	open_leaf("vhd:/a.vhd");
	ck_assert_uint_eq(map[0], 0); /* not in the file either: a cut must not bring it back */
	ok(TD_WRITE, mem, 512, 512, 0);
	ok(TD_READ, mem, 0, 512, 0);
	ck_assert_uint_eq(mem[0], 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_parent_is_the_one_that_the_child_remembers)
{
	struct vhd_make m = {.name = "/b.vhd",
			     .size = SIZE,
			     .block_size = BLOCK,
			     .type = VHD_DIFF,
			     .uuid = 2,
			     .parent = "./a.vhd",
			     .parent_uuid = 1};

	begin();
	dynamic();
	vhd_make(&fio, &m);
	m.name = "/c.vhd";
	m.parent_uuid = 9;
	vhd_make(&fio, &m);
	m.name = "/d.vhd";
	m.parent = "../../etc/a.vhd";
	vhd_make(&fio, &m);
	m.name = "/e.vhd";
	m.parent = "./e.vhd";
	vhd_make(&fio, &m);
	m.name = "/dir/f.vhd";
	m.parent = "../a.vhd";
	m.parent_uuid = 1;
	vhd_make(&fio, &m);
	open_leaf("vhd:/b.vhd");
	close_leaf();
	ck_assert_int_eq(open_how("vhd:/c.vhd", (struct td_how){0}), -ESTALE);
	ck_assert_ptr_nonnull(strstr(err.text, "uuid"));
	ck_assert_int_eq(open_how("vhd:/d.vhd", (struct td_how){0}), -ENOENT);
	ck_assert_int_eq(open_how("vhd:/e.vhd", (struct td_how){0}), -ELOOP);
	ck_assert_int_eq(open_how("vhd:/dir/f.vhd", (struct td_how){0}), -EACCES);
	ck_assert_ptr_nonnull(strstr(err.text, "parent-dirs"));
	ck_assert_int_eq(open_how("vhd:/dir/f.vhd", (struct td_how){.dirs = "/nowhere:/"}), 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_chain_that_bites_its_tail_is_refused)
{
	struct vhd_make m = {.name = "/x.vhd",
			     .size = SIZE,
			     .block_size = BLOCK,
			     .type = VHD_DIFF,
			     .uuid = 1,
			     .parent = "./y.vhd",
			     .parent_uuid = 2};

	begin();
	vhd_make(&fio, &m);
	m.name = "/y.vhd";
	m.uuid = 2;
	m.parent = "./x.vhd";
	m.parent_uuid = 1;
	vhd_make(&fio, &m);
	ck_assert_int_eq(open_how("vhd:/x.vhd", (struct td_how){.flags = TD_FILE_RDONLY}), -ELOOP);
	end();
}
END_TEST

/* IEEE 1619-2007, vectors 4 and 5: AES-128, data units 0 and 1, of 512 bytes 00 01 02 ... */
START_TEST(encryption_is_that_of_the_standard)
{
	static const uint8_t bytes[32] = {0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45,
					  0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
					  0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93,
					  0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95};
	static const uint8_t want[16] = {0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76,
					 0x48, 0x9f, 0x30, 0x8c, 0xd4, 0xcf, 0xa6, 0xe2};
	struct td_key key = {.len = 32};
	struct fault_file *f;
	uint8_t *data;

	memcpy(key.bytes, bytes, 32);
	begin();
	f = vhd_make(&fio, &(struct vhd_make){.name = "/k.vhd",
					      .size = SIZE,
					      .block_size = BLOCK,
					      .type = VHD_DYNAMIC,
					      .uuid = 1,
					      .key = (const char *)bytes,
					      .key_len = 32});
	ck_assert_int_eq(open_how("vhd:/k.vhd", (struct td_how){.key = &key}), 0);
	for (unsigned i = 0; i < 1024; i++)
		mem[i] = (uint8_t)i;
	ok(TD_WRITE, mem, 0, 1024, TD_FUA);
	data = f->data + (uint64_t)entry_in(f, 0) * 512 + 512;
	ck_assert_mem_eq(data, want, 16);
	ck_assert_uint_eq(mem[100], 100); /* the guest's memory is as it was */
	close_leaf();
	ck_assert_int_eq(open_how("vhd:/k.vhd", (struct td_how){0}), -ENOKEY);
	key.bytes[3]++;
	ck_assert_int_eq(open_how("vhd:/k.vhd", (struct td_how){.key = &key}), -ENOKEY);
	dynamic();
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.key = &key}), -EINVAL);
	end();
}
END_TEST

/* --- files that were cut off (V9) --- */

/* A disk with all of block 3, or its first 8 sectors; closed. */
static struct fault_file *with_block(bool whole)
{
	struct fault_file *f;

	begin();
	f = dynamic();
	open_leaf("vhd:/a.vhd");
	ok(TD_WRITE, mem, 3 * BLOCK, whole ? BLOCK : 4096, 0);
	close_leaf();
	return f;
}

/* Takes the last `len' bytes of the block away; footer: a good one stands behind what is left. */
static void cut(struct fault_file *f, uint64_t len, bool footer)
{
	f->size -= VHD_FOOTER + len;
	if (footer) {
		memcpy(f->data + f->size, f->data, VHD_FOOTER);
		f->size += VHD_FOOTER;
	}
}

START_TEST(what_was_cut_off_is_an_error_and_is_not_written)
{
	struct fault_file *f = with_block(true);
	bool footer = _i;
	struct td_map map;
	uint8_t *was;

	cut(f, BLOCK / 2, footer);
	was = malloc(f->size);
	memcpy(was, f->data, f->size);
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_DIRECT}), -EIO);
	ck_assert_msg(strstr(err.text, "64 sectors of block 3, from sector 448 of the disk on") !=
			      NULL,
		      "%s", err.text);
	ck_assert_mem_eq(f->data, was, f->size);
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_RDONLY}), 0);
	ok(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK / 2, 0);
	ck_assert_mem_eq(mem + BLOCK, mem, BLOCK / 2);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 3 * BLOCK + BLOCK / 2, 512, 0), -EIO);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0), -EIO);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 2 * BLOCK, 4 * BLOCK, 0), -EIO);
	ok(TD_READ, mem + BLOCK, 4 * BLOCK, BLOCK, 0);
	/* nor does another thread */
	ck_assert(!leaf->driver->map(leaf, 3 * BLOCK + BLOCK / 2, 512, &map));
	close_leaf();
	ck_assert_mem_eq(f->data, was, f->size);
	free(was);
	end();
}
END_TEST

START_TEST(a_short_block_of_which_nothing_is_lost_gets_its_length)
{
	struct fault_file *f = with_block(false);
	uint64_t whole = f->size, half = whole - VHD_FOOTER - BLOCK / 2;
	bool footer = _i;

	cut(f, BLOCK / 2, footer);
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_RDONLY}), 0);
	ok(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0);
	ck_assert_mem_eq(mem + BLOCK, mem, 4096);
	close_leaf();
	ck_assert_uint_eq(f->size, half + (footer ? VHD_FOOTER : 0));
	ck_assert_int_eq(open_how("vhd:/a.vhd", (struct td_how){.flags = TD_FILE_DIRECT}), 0);
	ck_assert_uint_eq(f->size, whole); /* before the first write, and durably */
	ck_assert_uint_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	for (unsigned i = 0; i < VHD_FOOTER; i++)
		ck_assert_uint_eq(f->data[half + i], 0); /* others read past the bitmap */
	ok(TD_WRITE, mem, 4 * BLOCK - 512, 512, 0);
	close_leaf();
	ck_assert_uint_eq(f->size, whole);
	ck_assert_mem_eq(f->data + whole - VHD_FOOTER, f->data, VHD_FOOTER);
	open_leaf("vhd:/a.vhd");
	ok(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0);
	ck_assert_mem_eq(mem + BLOCK, mem, 4096);
	ck_assert_mem_eq(mem + 2 * BLOCK - 512, mem, 512);
	ck_assert_uint_eq(mem[2 * BLOCK - 513], 0);
	close_leaf();
	end();
}
END_TEST

START_TEST(a_parent_that_was_cut_off_shows_an_error_through_its_child)
{
	struct fault_file *f = with_block(true);

	cut(f, BLOCK / 2, true);
	vhd_make(&fio, &(struct vhd_make){.name = "/b.vhd",
					  .size = SIZE,
					  .block_size = BLOCK,
					  .type = VHD_DIFF,
					  .uuid = 2,
					  .parent = "./a.vhd",
					  .parent_uuid = 1});
	open_leaf("vhd:/b.vhd");
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 4 * BLOCK - 512, 512, 0), -EIO);
	/* half a block of the child's own: what surrounds it there stays an error */
	ok(TD_WRITE, mem, 4 * BLOCK - 4096, 4096, 0);
	ok(TD_READ, mem + BLOCK, 4 * BLOCK - 4096, 4096, 0);
	ck_assert_int_eq(doing(TD_READ, mem + BLOCK, 3 * BLOCK, BLOCK, 0), -EIO);
	close_leaf();
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd-refused");

	SUITE_ADD(s, a_malformed_image_is_refused_with_a_reason);
	SUITE_ADD(s, a_guest_cannot_make_its_fixed_disk_into_something_else);
	SUITE_ADD(s, a_batmap_is_not_believed_of_blocks_that_are_not_there);
	SUITE_ADD(s, a_parent_is_the_one_that_the_child_remembers);
	SUITE_ADD(s, a_chain_that_bites_its_tail_is_refused);
	SUITE_ADD(s, encryption_is_that_of_the_standard);
	SUITE_ADD_LOOP(s, what_was_cut_off_is_an_error_and_is_not_written, 2);
	SUITE_ADD_LOOP(s, a_short_block_of_which_nothing_is_lost_gets_its_length, 2);
	SUITE_ADD(s, a_parent_that_was_cut_off_shows_an_error_through_its_child);
	return suite_run(s);
}
