/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's record that cannot be written: nothing is promised that a successor would not keep, and
 * what is not true any more does not stay. */
#include <sys/mount.h>
#include <sys/stat.h>

#include "lib/syncmark.h"
#include "tapdisk/vbd/record.h"
#include "tests/support/test-vbd.h"

static char record[128], beside[136];

static void begin_recorded(void)
{
	begin_marked();
	snprintf(record, sizeof record, "%s/disk%d", control_dir, MINOR);
	snprintf(beside, sizeof beside, "%s.new", record);
	fault_io_file(&fio, "other", SECTORS * 512);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_int_eq(access(record, F_OK), 0);
}

/* Nothing is written beside it, or (stays) renamed to it and removed. */
static void spoil(bool stays)
{
	ck_assert_int_eq(mkdir(beside, 0700), 0);
	if (!stays)
		return;
	ck_assert_int_eq(unlink(record), 0);
	ck_assert_int_eq(mkdir(record, 0700), 0);
}

static void mend(void)
{
	ck_assert_int_eq(rmdir(beside), 0);
}

static bool says(const char *key)
{
	json_t *o = json_load_file(record, 0, NULL);
	bool is = json_is_true(json_object_get(o, key));

	ck_assert_ptr_nonnull(o);
	json_decref(o);
	return is;
}

/* Who pauses a disk works on its image, which a successor would open.  A full control directory
 * keeps nobody from that. */
START_TEST(a_pause_leaves_no_record_that_says_that_the_disk_is_open)
{
	begin_recorded();
	spoil(false);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(access(record, F_OK), -1);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	mend();
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert(says("paused"));
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert(!says("paused"));
	end_marked();
}
END_TEST

/* A root may do as it likes where modes forbid it: the directory is one that takes no changes. */
START_TEST(a_pause_that_cannot_be_recorded_fails_and_the_disk_goes_on)
{
	begin_recorded();
	if (mount(control_dir, control_dir, NULL, MS_BIND, NULL)) {
		end_marked();
		return; /* not root */
	}
	ck_assert_int_eq(mount(NULL, control_dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	ck_assert_int_lt(DO(.what = PAUSE), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "not paused"));
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_ptr_nonnull(v->leaf);
	ck_assert(!says("paused"));
	ck_assert_int_eq(umount(control_dir), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert(says("paused"));
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	end_marked();
}
END_TEST

/* JSON cannot name it: it has no successor, and serves like any other. */
START_TEST(a_disk_whose_name_is_no_text_has_no_record)
{
	begin_recorded();
	fault_io_file(&fio, "gr\xfcn", SECTORS * 512);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:gr\xfcn"), 0);
	ck_assert_int_eq(access(record, F_OK), -1);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	end_marked();
}
END_TEST

/* Else it would go on with the image of before. */
START_TEST(a_disk_that_goes_on_leaves_no_record_of_before)
{
	begin_recorded();
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	spoil(false);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:other"), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_int_eq(access(record, F_OK), -1);
	mend();
	end_marked();
}
END_TEST

START_TEST(where_the_record_of_before_stays_the_disk_does_not_go_on)
{
	begin_recorded();
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	spoil(true);
	ck_assert_int_lt(DO(.what = UNPAUSE, .spec = "aio:other"), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "neither be written nor removed"));
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert(!v->leaf);
	mend();
	ck_assert_int_eq(rmdir(record), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:other"), 0);
	ck_assert(!says("paused"));
	end_marked();
}
END_TEST

static void set_limit(void *arg)
{
	struct limit_rates r = {0};

	err.code = 0;
	ck_assert_int_eq(limit_set_word(&r, "limit-iops", strlen("limit-iops"), "100", &err), 0);
	*(int *)arg = vbd_limit(v, &r, &err);
}

START_TEST(a_limit_that_is_not_recorded_is_refused)
{
	struct limit_rates was;
	int rc;

	begin_recorded();
	was = v->opt.limit;
	spoil(false);
	on_fiber(loop, set_limit, &rc);
	ck_assert_int_lt(rc, 0);
	ck_assert_mem_eq(&v->opt.limit, &was, sizeof was);
	mend();
	on_fiber(loop, set_limit, &rc);
	ck_assert_int_eq(rc, 0);
	end_marked();
}
END_TEST

/* Before anybody hears of it; the record comes a moment later. */
START_TEST(a_failure_is_left_for_a_successor_before_the_record)
{
	begin_recorded();
	cache_fail_sticky(&v->cache, -EIO);
	ck_assert_int_eq(syncmark_past(MINOR), -EIO);
	turns(8);
	ck_assert(v->sticky_recorded);
	ck_assert_int_eq(DO(.what = CLOSE), -EIO);
	ck_assert_int_eq(access(record, F_OK), -1);
	end_marked();
}
END_TEST

/* What is begun is over before the disk is closed: no record comes after it. */
START_TEST(a_disk_that_is_closed_has_no_record)
{
	begin_recorded();
	for (int i = 0; i < 3; i++)
		record_soon(v);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	turns(8);
	ck_assert_int_eq(access(record, F_OK), -1);
	ck_assert(!vbd_busy(v));
	end_marked();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd-record");

	SUITE_ADD(s, a_pause_leaves_no_record_that_says_that_the_disk_is_open);
	SUITE_ADD(s, a_pause_that_cannot_be_recorded_fails_and_the_disk_goes_on);
	SUITE_ADD(s, a_disk_whose_name_is_no_text_has_no_record);
	SUITE_ADD(s, a_disk_that_goes_on_leaves_no_record_of_before);
	SUITE_ADD(s, where_the_record_of_before_stays_the_disk_does_not_go_on);
	SUITE_ADD(s, a_limit_that_is_not_recorded_is_refused);
	SUITE_ADD(s, a_failure_is_left_for_a_successor_before_the_record);
	SUITE_ADD(s, a_disk_that_is_closed_has_no_record);
	return suite_run(s);
}
