/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/request.c: splitting, counting, and that a request ends once; the null driver; finding
 * drivers by name. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

static struct test_image img;
static int ndone, last;

static void done(struct td_req *req, int err)
{
	ndone++;
	last = err;
}

static struct td_req make(enum td_op op, uint64_t off, uint64_t len)
{
	static char buf[65536];
	static struct iovec iov;

	iov = (struct iovec){buf, len};
	ndone = 0;
	return (struct td_req){.op = op,
			       .off = off,
			       .len = len,
			       .iov = &iov,
			       .iovcnt = 1,
			       .done = done,
			       .io = &img.io};
}

START_TEST(a_request_that_is_done_is_counted)
{
	struct td_req r;

	test_image_open(&img, 0);
	r = make(TD_WRITE, 512, 2048);
	td_submit(img.image, &r);
	ck_assert(img.image->inflight == 1 && ndone == 0);
	test_image_complete(&img, 0, 0);
	ck_assert(img.image->inflight == 0 && ndone == 1 && last == 0);
	r = make(TD_READ, 0, 512);
	td_submit(img.image, &r);
	test_image_complete(&img, 0, -EIO);
	r = make(TD_FLUSH, 0, 0);
	td_submit(img.image, &r);
	test_image_complete(&img, 0, -EIO);
	ck_assert(img.image->n.hits[1] == 4 && img.image->n.hits[0] == 0);
	ck_assert(img.image->n.fail[0] == 1 && img.image->n.fail[1] == 0);
	test_image_close(&img);
}
END_TEST

START_TEST(a_split_request_ends_with_its_last_child_and_the_first_error)
{
	for (int order = 0; order < 2; order++) {
		struct td_req r, child[3];

		test_image_open(&img, 0);
		r = make(TD_READ, 0, 1536);
		td_submit(img.image, &r);
		td_list_del(&r.link); /* we are the driver now */
		img.npending = 0;
		td_req_split(&r);
		for (int i = 0; i < 3; i++) {
			td_req_child(&r, &child[i]);
			ck_assert_ptr_eq(child[i].io, r.io);
			child[i].op = TD_READ;
			child[i].off = (uint64_t)i * 512;
			child[i].len = 512;
			child[i].iov = &child[i].one;
			child[i].iovcnt = 1;
			child[i].one = (struct iovec){(char *)r.iov->iov_base + i * 512, 512};
			td_submit(img.image, &child[i]);
		}
		test_image_complete(&img, 1, order ? -ENOSPC : 0);
		if (order)
			/* the splitter may let go before its children or after */
			td_req_put(&r, 0);
		test_image_complete(&img, 0, order ? -EIO : 0);
		ck_assert_int_eq(ndone, 0);
		test_image_complete(&img, 0, 0);
		if (!order) {
			ck_assert_int_eq(ndone, 0);
			td_req_put(&r, -EPERM);
		}
		ck_assert_int_eq(ndone, 1);
		ck_assert_int_eq(last, order ? -ENOSPC : -EPERM);
		ck_assert_uint_eq(img.image->inflight, 0);
		test_image_close(&img);
	}
}
END_TEST

static void twice(void)
{
	struct td_req r;

	test_image_open(&img, 0);
	r = make(TD_READ, 0, 512);
	td_submit(img.image, &r);
	test_image_complete(&img, 0, 0);
	td_req_done(&r, 0);
}

static void beyond(void)
{
	struct td_req r = make(TD_READ, TEST_IMAGE_SECTORS * 512, 512);

	test_image_open(&img, 0);
	r.io = &img.io;
	td_submit(img.image, &r);
}

static void write_read_only(void)
{
	struct td_req r = make(TD_WRITE, 0, 512);

	test_image_open(&img, TD_FILE_RDONLY);
	td_submit(img.image, &r);
}

static void unknown_flag(void)
{
	struct td_req r = make(TD_WRITE, 0, 512);

	test_image_open(&img, 0);
	r.flags = TD_BARRIER;
	td_submit(img.image, &r);
}

START_TEST(breaches_of_the_contract_stop_the_program)
{
	void (*const f[])(void) = {twice, beyond, write_read_only, unknown_flag};

	f[_i]();
}
END_TEST

START_TEST(null_is_a_size_and_zeroes)
{
	static const struct {
		const char *path;
		uint64_t size;
	} t[] = {{"512", 512},
		 {"1K", 1024},
		 {"3M", 3 << 20},
		 {"2G", UINT64_C(2) << 30},
		 {"1T", UINT64_C(1) << 40},
		 {"", 0},
		 {"0", 0},
		 {"x", 0},
		 {"513", 0},
		 {"1Q", 0},
		 {"1Mx", 0},
		 {"-1", 0},
		 {"99999999999T", 0},
		 {"-512", 0}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		struct td_err err = {0};
		struct td_image *image;
		int rc = td_image_open_how(&td_driver_null, t[i].path, &(struct td_how){.flags = 0},
					   NULL, &image, &err);

		if (!t[i].size) {
			ck_assert_int_eq(rc, -EINVAL);
			ck_assert_ptr_nonnull(strstr(err.text, "null:"));
			continue;
		}
		ck_assert_int_eq(rc, 0);
		ck_assert_uint_eq(image->info.size, t[i].size);
		struct td_req r = make(TD_READ, 0, 512);
		memset(r.iov->iov_base, 5, 512);
		td_submit(image, &r);
		ck_assert(ndone == 1 && last == 0 && *(char *)r.iov->iov_base == 0);
		td_image_close(image);
	}
	td_image_close(NULL);
}
END_TEST

START_TEST(drivers_are_found_by_type)
{
	static const struct {
		const char *spec;
		int err;
		const char *word;
	} bad[] = {
		{"aio", EINVAL, "type:path"},
		{":x", EINVAL, "type:path"},
		{"aio:", EINVAL, "type:path"},
		{"", EINVAL, "type:path"},
		{"bogus:/x", ENOENT, "aio, raw, vhd, null"},
		{"AIO:/x", ENOENT, "unknown"},
		{"vdi:/x", ENOSYS, "no driver"},
		{"vdi:/x", ENOSYS, "no driver"},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:/x", ENOENT, "unknown"}};
	struct td_err err = {0};
	const char *path;
	char spec[5000];

	ck_assert_ptr_eq(td_driver_parse("aio:/a:b c", &path, &err), &td_driver_raw);
	ck_assert_str_eq(path, "/a:b c");
	ck_assert_ptr_eq(td_driver_parse("raw:x", &path, &err), &td_driver_raw);
	ck_assert_ptr_eq(td_driver_parse("null:1G", &path, &err), &td_driver_null);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		err.code = 0;
		ck_assert_ptr_null(td_driver_parse(bad[i].spec, &path, &err));
		ck_assert_int_eq(err.code, bad[i].err);
		ck_assert_msg(strstr(err.text, bad[i].word) != NULL, "%s", err.text);
	}
	memset(spec, 'a', sizeof spec);
	memcpy(spec, "aio:", 4);
	spec[4 + 4095] = 0;
	err.code = 0;
	ck_assert_ptr_nonnull(td_driver_parse(spec, &path, &err));
	spec[4 + 4095] = 'a';
	spec[4 + 4096] = 0;
	ck_assert_ptr_null(td_driver_parse(spec, &path, &err));
	ck_assert_int_eq(err.code, ENAMETOOLONG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("request");
	TCase *tc = tcase_create("breaches");

	SUITE_ADD(s, a_request_that_is_done_is_counted);
	SUITE_ADD(s, a_split_request_ends_with_its_last_child_and_the_first_error);
	SUITE_ADD(s, null_is_a_size_and_zeroes);
	SUITE_ADD(s, drivers_are_found_by_type);
	tcase_add_loop_test_raise_signal(tc, breaches_of_the_contract_stop_the_program, SIGABRT, 0,
					 4);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
