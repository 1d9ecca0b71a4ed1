/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NBD requests over a real socket, on an image that is completed by hand: what goes down, and what
 * comes back. */
#include "tests/support/test-nbd.h"

START_TEST(replies_in_the_order_of_completion)
{
	uint8_t b[1024];

	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, 512);
	ask(NBD_CMD_READ, 0, 2, 512, 1024);
	ck_assert_uint_eq(t.npending, 2);
	ck_assert(silent());
	fill(test_image_at(&t, 1), 0x22);
	test_image_complete(&t, 1, 0);
	expect_simple(2, 0);
	hear(b, 1024);
	ck_assert(b[0] == 0x22 && b[1023] == 0x22);
	fill(test_image_at(&t, 0), 0x11);
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	hear(b, 512);
	ck_assert(b[511] == 0x11 && silent());
	end();
}
END_TEST

START_TEST(errors_have_nbd_numbers)
{
	static const struct {
		int err;
		uint32_t wire;
	} map[] = {
		{-EIO, NBD_EIO},     {-ENOMEM, NBD_ENOMEM},       {-EINVAL, NBD_EINVAL},
		{-EROFS, NBD_EPERM}, {-ESTALE, NBD_EIO},          {-EPERM, NBD_EPERM},
		{-EILSEQ, NBD_EIO},  {-ESHUTDOWN, NBD_ESHUTDOWN},
	};

	for (unsigned structured = 0; structured < 2; structured++) {
		begin(structured);
		for (unsigned i = 0; i < sizeof map / sizeof *map; i++) {
			ask(NBD_CMD_READ, 0, i, 0, 4096);
			test_image_complete(&t, 0, map[i].err);
			if (structured)
				expect_error_chunk(i, map[i].wire);
			else
				expect_simple(i, map[i].wire);
		}
		ck_assert_uint_eq(nbd_stats(n)->errors, sizeof map / sizeof *map);
		end();
		strcpy(dir + sizeof dir - 7, "XXXXXX");
	}
}
END_TEST

/* A disk that hosts share is changed in whole blocks of its store. */
START_TEST(what_changes_less_than_a_block_is_refused)
{
	static const uint16_t changes[] = {NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
	static uint8_t data[4096];

	begin(false);
	disk.block = 4096;
	for (unsigned i = 0; i < 9; i++) {
		uint64_t off = i / 3 == 1 ? 512 : 4096;
		uint32_t len = i / 3 == 2 ? 512 : 4096;

		ask(changes[i % 3], 0, i, off, len);
		if (changes[i % 3] == NBD_CMD_WRITE)
			say(data, len);
		turns(2);
		if (i / 3) {
			ck_assert_uint_eq(t.npending, 0);
			expect_simple(i, NBD_EINVAL);
		} else {
			ck_assert_uint_eq(t.npending, 1);
			test_image_complete(&t, 0, 0);
			expect_simple(i, 0);
		}
	}
	ask(NBD_CMD_READ, 0, 9, 512, 512);
	test_image_complete(&t, 0, 0);
	expect_simple(9, 0);
	hear(data, 512);
	end();
}
END_TEST

START_TEST(what_a_request_is_below)
{
	static const struct {
		uint16_t type, flags;
		enum td_op op;
		unsigned below;
		bool flush;
	} map[] = {
		{NBD_CMD_READ, NBD_CMD_FUA, TD_READ, 0, false},
		{NBD_CMD_FLUSH, NBD_CMD_FUA, TD_FLUSH, 0, false},
		{NBD_CMD_TRIM, 0, TD_DISCARD, 0, false},
		{NBD_CMD_TRIM, NBD_CMD_FUA, TD_DISCARD, 0, true},
		{NBD_CMD_WRITE_ZEROES, 0, TD_WRITE_ZEROES, TD_UNMAP, false},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_NO_HOLE, TD_WRITE_ZEROES, 0, false},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO | NBD_CMD_FUA, TD_WRITE_ZEROES, TD_UNMAP,
		 true},
	};

	begin(false);
	for (unsigned i = 0; i < sizeof map / sizeof *map; i++) {
		bool flush = map[i].type == NBD_CMD_FLUSH;
		const struct td_req *r;
		uint8_t b[512];

		ask(map[i].type, map[i].flags, i, 1024, 512);
		r = test_image_at(&t, 0);
		ck_assert_ptr_nonnull(r);
		ck_assert_int_eq(r->op, map[i].op);
		ck_assert_uint_eq(r->flags, map[i].below);
		ck_assert_uint_eq(r->off, flush ? 0 : 1024);
		ck_assert_uint_eq(r->len, flush ? 0 : 512);
		test_image_complete(&t, 0, 0);
		if (map[i].flush) {
			ck_assert_int_eq(test_image_at(&t, 0)->op, TD_FLUSH);
			test_image_complete(&t, 0, 0);
		}
		expect_simple(i, 0);
		if (map[i].type == NBD_CMD_READ)
			hear(b, 512);
	}
	end();
}
END_TEST

START_TEST(writes_come_in_any_pieces)
{
	static uint8_t data[70 * 1024];

	begin(false);
	for (unsigned i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i / 512);
	for (unsigned step = 1; step < sizeof data; step = step * 7 + 1) {
		const struct td_req *r;
		unsigned at = 0;

		ask(NBD_CMD_WRITE, NBD_CMD_FUA, step, 512, sizeof data);
		ck_assert_uint_eq(t.npending, 0);
		for (unsigned i = 0; i < sizeof data; i += step) {
			say(data + i, sizeof data - i < step ? sizeof data - i : step);
			if (step > 100 || i % 1000 < step)
				turns(1);
		}
		turns(2);
		r = test_image_at(&t, 0);
		ck_assert_ptr_nonnull(r);
		ck_assert_uint_eq(r->flags, TD_FUA);
		ck_assert_uint_eq(r->len, sizeof data);
		for (int i = 0; i < r->iovcnt; at += r->iov[i++].iov_len)
			ck_assert_mem_eq(r->iov[i].iov_base, data + at, r->iov[i].iov_len);
		test_image_complete(&t, 0, 0);
		expect_simple(step, 0);
	}
	end();
}
END_TEST

START_TEST(zeroes_are_written_where_the_image_knows_no_better)
{
	begin(false);
	ask(NBD_CMD_WRITE_ZEROES, NBD_CMD_FUA, 1, 512, 1536 * 1024);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_WRITE_ZEROES);
	test_image_complete(&t, 0, -EOPNOTSUPP);
	turns(1);
	ck_assert_uint_eq(t.npending, 1);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_WRITE);
	ck_assert_uint_eq(test_image_at(&t, 0)->flags, TD_FUA);
	ck_assert_uint_eq(test_image_at(&t, 0)->off, 512);
	ck_assert_uint_eq(test_image_at(&t, 0)->len, 1536 * 1024);
	for (int i = 0; i < test_image_at(&t, 0)->iovcnt; i++) {
		const struct iovec *v = &test_image_at(&t, 0)->iov[i];

		ck_assert(*(char *)v->iov_base == 0 &&
			  !memcmp(v->iov_base, (char *)v->iov_base + 1, v->iov_len - 1));
	}
	ck_assert(silent());
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	/* who wants it fast, or not at all, hears that; and a trim is a hint */
	ask(NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 2, 0, 512);
	test_image_complete(&t, 0, -EOPNOTSUPP);
	expect_simple(2, NBD_ENOTSUP);
	ask(NBD_CMD_TRIM, 0, 3, 0, 512);
	test_image_complete(&t, 0, -EOPNOTSUPP);
	expect_simple(3, 0);
	ck_assert_uint_eq(t.npending, 0);
	end();
}
END_TEST

START_TEST(a_long_read_in_chunks_or_in_one_piece)
{
	static uint8_t b[LONG];
	uint16_t flags;
	uint32_t len;

	begin(true);
	ask(NBD_CMD_READ, 0, 5, 512, LONG);
	ck_assert_uint_eq(t.npending, 2); /* both pieces at once */
	fill(test_image_at(&t, 1), 2);
	test_image_complete(&t, 1, 0);
	ck_assert_uint_eq(chunk(5, &flags, &len), NBD_CHUNK_DATA);
	ck_assert_uint_eq(flags, 0);
	ck_assert_uint_eq(len, 8 + 512 * 1024);
	hear(b, 8);
	ck_assert_uint_eq(nbd_get64(b), 512 + (1 << 20));
	hear(b, 512 * 1024);
	ck_assert(b[0] == 2 && b[512 * 1024 - 1] == 2);
	test_image_complete(&t, 0, -EIO); /* the other fails: the end says so */
	expect_error_chunk(5, NBD_EIO);
	end();

	strcpy(dir + sizeof dir - 7, "XXXXXX");
	begin(false);
	ask(NBD_CMD_READ, 0, 6, 512, LONG);
	/* waits: its reply must not stand within the other's data */
	ask(NBD_CMD_FLUSH, 0, 7, 0, 0);
	ck_assert_uint_eq(t.npending, 1);
	fill(test_image_at(&t, 0), 1);
	test_image_complete(&t, 0, 0);
	expect_simple(6, 0);
	hear(b, 1 << 20);
	ck_assert_uint_eq(t.npending, 1);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_READ);
	ck_assert(silent());
	fill(test_image_at(&t, 0), 2);
	test_image_complete(&t, 0, 0);
	hear(b, 512 * 1024);
	ck_assert(b[0] == 2 && b[512 * 1024 - 1] == 2);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_FLUSH);
	test_image_complete(&t, 0, 0);
	expect_simple(7, 0);
	end();
}
END_TEST

START_TEST(a_long_read_that_fails_without_chunks)
{
	static uint8_t b[1 << 20];

	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, LONG); /* before anything has gone: an error like any other */
	test_image_complete(&t, 0, -EIO);
	expect_simple(1, NBD_EIO);
	ck_assert_uint_eq(t.npending, 0);
	ask(NBD_CMD_READ, 0, 2, 0, LONG);
	test_image_complete(&t, 0, 0);
	expect_simple(2, 0);
	hear(b, sizeof b);
	/* after it: the end of the connection, and not a byte more */
	test_image_complete(&t, 0, -EIO);
	ck_assert(dropped());
	end();
}
END_TEST

START_TEST(a_long_write_is_done_when_all_of_it_is)
{
	static uint8_t data[LONG];

	begin(false);
	memset(data, 7, sizeof data);
	for (unsigned fails = 0; fails < 2; fails++) {
		ask(NBD_CMD_WRITE, 0, fails, 0, LONG);
		for (unsigned i = 0; i < LONG; i += 65536) {
			say(data + i, 65536);
			turns(1);
		}
		turns(2);
		ck_assert_uint_eq(t.npending, 2);
		test_image_complete(&t, 1, fails ? -EIO : 0);
		ck_assert(silent());
		test_image_complete(&t, 0, 0);
		expect_simple(fails, fails ? NBD_EIO : 0);
	}
	ask(NBD_CMD_FLUSH, 0, 9, 0, 0); /* the stream is where it should be */
	test_image_complete(&t, 0, 0);
	expect_simple(9, 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd");

	SUITE_ADD(s, replies_in_the_order_of_completion);
	SUITE_ADD(s, errors_have_nbd_numbers);
	SUITE_ADD(s, what_changes_less_than_a_block_is_refused);
	SUITE_ADD(s, what_a_request_is_below);
	SUITE_ADD(s, writes_come_in_any_pieces);
	SUITE_ADD(s, zeroes_are_written_where_the_image_knows_no_better);
	SUITE_ADD(s, a_long_read_in_chunks_or_in_one_piece);
	SUITE_ADD(s, a_long_read_that_fails_without_chunks);
	SUITE_ADD(s, a_long_write_is_done_when_all_of_it_is);
	return suite_run(s);
}
