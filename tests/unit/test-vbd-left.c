/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a successor leaves to the next one when it dies, or fails, before it has written a record:
 * its page of flushes alone tells then that one had failed (F3 of lib/syncmark.h). */
#include "tapdisk/ctl/ctl-ops.h"
#include "tests/support/test-vbd.h"

#include "lib/syncmark.h"

static void begin_left(bool failed)
{
	begin_marked();
	syncmark_close(syncmark_open(MINOR, failed));
}

struct reopen {
	const char *spec;
	struct vbd_past past;
	int rc;
	bool done;
};

static void run_reopen(void *arg)
{
	const struct vbd_options o = {.mode = td_cache_mode_find("writeback")};
	struct reopen *r = arg;

	err.code = 0;
	r->rc = vbd_reopen(v, r->spec, &o, &r->past, &err);
	r->done = true;
}

static int reopen(const char *spec, struct vbd_past past)
{
	struct reopen r = {.spec = spec, .past = past};

	ck_assert_int_eq(td_fiber_start(loop, run_reopen, &r), 0);
	while (!r.done)
		turns(1);
	return r.rc;
}

/* The record does not tell of the failure, only the page: its process died between the two.  The
 * first successor ends before its image is open, the second finds what the first had found. */
START_TEST(a_failure_is_left_by_a_successor_that_opens_nothing)
{
	begin_left(true);
	ck_assert_int_eq(reopen("aio:gone", (struct vbd_past){0}), -ENOENT);
	ck_assert_int_eq(syncmark_past(MINOR), -EIO);
	ck_assert_int_eq(reopen("aio:disk", (struct vbd_past){0}), 0);
	ck_assert(vbd_state(v) & TD_STATE_FAILED);
	ck_assert_int_eq(DO(.what = CLOSE), -EIO);
	end_marked();
}
END_TEST

/* Its image is not opened before the unpause. */
START_TEST(a_failure_is_left_by_a_successor_that_is_paused)
{
	const struct vbd_past past = {.paused = true, .sectors = SECTORS};

	begin_left(true);
	ck_assert_int_eq(reopen("aio:disk", past), 0);
	ck_assert_int_eq(syncmark_past(MINOR), -EIO);
	ck_assert(vbd_state(v) & TD_STATE_FAILED);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_int_eq(syncmark_past(MINOR), -EIO);
	ck_assert(vbd_state(v) & TD_STATE_FAILED);
	end_marked();
}
END_TEST

START_TEST(where_none_had_failed_none_is_left)
{
	begin_left(false);
	ck_assert_int_eq(reopen("aio:gone", (struct vbd_past){0}), -ENOENT);
	ck_assert_int_eq(syncmark_past(MINOR), 0);
	ck_assert_int_eq(reopen("aio:disk", (struct vbd_past){0}), 0);
	ck_assert(!(vbd_state(v) & TD_STATE_FAILED));
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	end_marked();
}
END_TEST

/* It comes in a message: what is computed from it must not overflow. */
START_TEST(numbers_of_a_record_are_bounded)
{
	static const json_int_t wrong[] = {INT64_MAX, INT64_MAX / 512 + 1, -1, INT64_MIN};
	struct vbd_past p;
	json_t *past;

	for (int i = 0; i < 4; i++) {
		past = json_pack("{s:I, s:I}", "sectors", wrong[i], "sticky", wrong[i]);
		p = ctl_get_past(past);
		ck_assert_uint_eq(p.sectors, 0);
		ck_assert_int_eq(p.sticky, -EIO);
		json_decref(past);
	}
	past = json_pack("{s:I, s:I}", "sectors", (json_int_t)(INT64_MAX / 512), "sticky",
			 (json_int_t)EIO);
	p = ctl_get_past(past);
	ck_assert_uint_eq(p.sectors, INT64_MAX / 512);
	ck_assert_int_eq(p.sticky, -EIO);
	json_decref(past);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd-left");

	SUITE_ADD(s, a_failure_is_left_by_a_successor_that_opens_nothing);
	SUITE_ADD(s, a_failure_is_left_by_a_successor_that_is_paused);
	SUITE_ADD(s, where_none_had_failed_none_is_left);
	SUITE_ADD(s, numbers_of_a_record_are_bounded);
	return suite_run(s);
}
