/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image whose requests the test completes by hand, in any order and with any result. */
#ifndef TESTS_TEST_IMAGE_H
#define TESTS_TEST_IMAGE_H

#include "td/block.h"

#define TEST_IMAGE_SECTORS 4096

struct test_image {
	struct td_image *image;
	struct td_io io;        /* names a queue's engine; nothing is ever queued on it */
	struct td_list pending; /* td_req.link, in order of arrival */
	unsigned npending, nflushes, nwrites, nreads, nfua; /* submitted so far (npending: now) */
	bool at_once; /* complete everything inside submit, with `at_once_err' */
	int at_once_err;
	void (*seen)(struct test_image *t, struct td_req *req); /* optional: called in submit */
	void *owner;
};

/* file_flags: TD_FILE_*.  t is filled; test_image_close() when nothing is pending. */
void test_image_open(struct test_image *t, unsigned file_flags);
void test_image_close(struct test_image *t);

/* The i-th of those that are pending (0: the oldest); NULL beyond the last. */
struct td_req *test_image_at(struct test_image *t, unsigned i);
/* Completes the i-th; fails the test when there is none. */
void test_image_complete(struct test_image *t, unsigned i, int err);
/* Completes all, and what comes of it, with 0. */
void test_image_drain(struct test_image *t);

#endif
