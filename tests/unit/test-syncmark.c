/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's page of flushes, and what it says to a successor (F1-F4 of lib/syncmark.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/syncmark.h"
#include "td/io.h"
#include "tests/support/suite.h"

#define MINOR 3

static char dir[64], path[128];

static void begin(void)
{
	strcpy(dir, "/tmp/syncmark.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(setenv("TAPDISK_CONTROL_DIR", dir, 1), 0);
	snprintf(path, sizeof path, "%s/flush%d", dir, MINOR);
}

static void end(void)
{
	syncmark_unlink(MINOR);
	ck_assert_int_eq(rmdir(dir), 0); /* nothing else was left there */
}

static uint64_t seconds_ago(uint64_t s)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return ((uint64_t)t.tv_sec - s) * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What a process leaves that dies with this in its page. */
static int past_of(struct td_sync_mark of)
{
	struct td_sync_mark *m = syncmark_open(MINOR, false);

	ck_assert_ptr_nonnull(m);
	*m = of;
	syncmark_close(m);
	return syncmark_past(MINOR);
}

START_TEST(what_has_failed_is_known_after_a_death)
{
	begin();
	ck_assert_int_eq(syncmark_past(MINOR), 0); /* nothing is there */
	ck_assert_int_eq(past_of((struct td_sync_mark){.begun = 7, .ended = 7}), 0);
	ck_assert_int_eq(past_of((struct td_sync_mark){.begun = 7, .ended = 7, .failed = 1}), -EIO);
	/* F2: it stands there before it counts as ended */
	ck_assert_int_eq(past_of((struct td_sync_mark){
				 .begun = 7, .ended = 6, .failed = 1, .since = seconds_ago(0)}),
			 -EIO);
	end();
}
END_TEST

START_TEST(one_under_way_counts_as_failed_when_it_is_old)
{
	static const struct {
		unsigned begun, ended, ago;
		int past;
	} cases[] = {{1, 0, 0, 0},
		     {1, 0, SYNCMARK_UNKNOWN_S / 2, 0},
		     {1, 0, SYNCMARK_UNKNOWN_S + 1, -EIO},
		     {9, 7, SYNCMARK_UNKNOWN_S + 1, -EIO},
		     {9, 9, SYNCMARK_UNKNOWN_S + 1, 0}};

	begin();
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		ck_assert_int_eq(past_of((struct td_sync_mark){.begun = cases[i].begun,
							       .ended = cases[i].ended,
							       .since = seconds_ago(cases[i].ago)}),
				 cases[i].past);
	end();
}
END_TEST

/* F3: the next process may die before it has said anything of its own. */
START_TEST(whoever_takes_the_disk_over_has_the_failure_in_his_own_page)
{
	struct td_sync_mark *m;

	begin();
	ck_assert_int_eq(past_of((struct td_sync_mark){.begun = 1, .ended = 1, .failed = 1}), -EIO);
	for (unsigned i = 0; i < 3; i++) {
		m = syncmark_open(MINOR, syncmark_past(MINOR) < 0);
		ck_assert_ptr_nonnull(m);
		ck_assert_int_eq(syncmark_past(MINOR), -EIO);
		syncmark_close(m);
	}
	syncmark_close(syncmark_open(MINOR, false)); /* opened anew */
	ck_assert_int_eq(syncmark_past(MINOR), 0);
	end();
}
END_TEST

/* F3: his page takes the place of the other in one step; what cannot be made leaves what is there.
 */
START_TEST(a_page_that_cannot_be_made_leaves_the_one_that_is_there)
{
	char making[160];

	begin();
	ck_assert_int_eq(past_of((struct td_sync_mark){.failed = 1}), -EIO);
	snprintf(making, sizeof making, "%s.new", path);
	ck_assert_int_eq(mkdir(making, 0700), 0); /* in the way */
	ck_assert_ptr_null(syncmark_open(MINOR, true));
	ck_assert_int_eq(syncmark_past(MINOR), -EIO);
	ck_assert_int_eq(rmdir(making), 0);
	end();
}
END_TEST

static void spoil(off_t at, size_t len)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (len)
		ck_assert_int_eq(pwrite(fd, "\xff\xff\xff\xff", len, at), (ssize_t)len);
	else
		ck_assert_int_eq(ftruncate(fd, at), 0);
	close(fd);
}

/* F4 */
START_TEST(a_page_that_cannot_be_read_may_tell_of_a_failure)
{
	static const struct {
		off_t at;
		size_t len;
	} spoilt[] = {{0, 4}, {4, 4}, {16, 0}, {0, 0}}; /* magic; size; cut off */

	for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
		begin();
		ck_assert_int_eq(past_of((struct td_sync_mark){.begun = 2, .ended = 2}), 0);
		spoil(spoilt[i].at, spoilt[i].len);
		ck_assert_int_eq(syncmark_past(MINOR), -EIO);
		end();
	}
	begin();
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	ck_assert_int_eq(syncmark_past(MINOR), -EIO);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("syncmark");

	SUITE_ADD(s, what_has_failed_is_known_after_a_death);
	SUITE_ADD(s, one_under_way_counts_as_failed_when_it_is_old);
	SUITE_ADD(s, whoever_takes_the_disk_over_has_the_failure_in_his_own_page);
	SUITE_ADD(s, a_page_that_cannot_be_made_leaves_the_one_that_is_there);
	SUITE_ADD(s, a_page_that_cannot_be_read_may_tell_of_a_failure);
	return suite_run(s);
}
