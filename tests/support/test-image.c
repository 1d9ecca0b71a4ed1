/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/test-image.h"

#include <check.h>
#include <string.h>

/* The driver's vtable carries no argument: one such image at a time. */
static struct test_image *current;

static int image_open(struct td_image *image, struct td_err *err)
{
	image->info.size = TEST_IMAGE_SECTORS * 512;
	image->info.physical = 512;
	return 0;
}

static void image_close(struct td_image *image)
{
}

static void image_submit(struct td_image *image, struct td_req *req)
{
	struct test_image *t = current;

	t->nflushes += req->op == TD_FLUSH;
	t->nwrites += req->op == TD_WRITE;
	t->nreads += req->op == TD_READ;
	t->nfua += (req->flags & TD_FUA) != 0;
	if (t->seen)
		t->seen(t, req);
	if (t->at_once) {
		td_req_done(req, t->at_once_err);
		return;
	}
	td_list_add(&t->pending, &req->link);
	t->npending++;
}

static const struct td_driver driver = {
	.name = "test",
	.type = 101,
	.open = image_open,
	.close = image_close,
	.submit = image_submit,
};

void test_image_open(struct test_image *t, unsigned file_flags)
{
	struct td_err err = {0};

	memset(t, 0, sizeof *t);
	td_list_init(&t->pending);
	current = t;
	ck_assert_int_eq(td_image_open_how(&driver, "by hand",
					   &(struct td_how){.flags = file_flags}, &t->io, &t->image,
					   &err),
			 0);
}

void test_image_close(struct test_image *t)
{
	ck_assert_uint_eq(t->npending, 0);
	td_image_close(t->image);
	t->image = NULL;
}

struct td_req *test_image_at(struct test_image *t, unsigned i)
{
	td_list_each (l, &t->pending)
		if (i-- == 0)
			return td_entry(l, struct td_req, link);
	return NULL;
}

void test_image_complete(struct test_image *t, unsigned i, int err)
{
	struct td_req *req = test_image_at(t, i);

	ck_assert_ptr_nonnull(req);
	td_list_del(&req->link);
	t->npending--;
	td_req_done(req, err);
}

void test_image_drain(struct test_image *t)
{
	while (t->npending)
		test_image_complete(t, 0, 0);
}
