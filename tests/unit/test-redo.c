/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The log of a format's changes: what stays in it until when, and what is applied (E1-E4, G9 of
 * lib/redo.h). */
#include "tests/support/redo-log.h"

START_TEST(what_was_put_is_applied_and_then_gone)
{
	struct td_redo *r;

	begin();
	r = td_redo_new(log_path);
	ck_assert(td_redo_put(r, TD_REDO_SECOND, 500, "over a sector's end", 19));
	ck_assert(put(r, TD_REDO_SECOND, 3, 1));
	ck_assert(put(r, TD_REDO_SECOND, 3, 2));
	td_redo_free(r);
	ck_assert_int_eq(adopt_and_apply(), 0);
	ck_assert_mem_eq(image->data + 500, "over a sector's end", 19);
	ck_assert_uint_eq(image->data[3], 2);
	ck_assert_uint_eq(image->data[2] + image->data[4], 0);
	image->data[3] = 9;
	ck_assert_int_eq(adopt_and_apply(), 0);
	ck_assert_uint_eq(image->data[3], 9);
	end();
}
END_TEST

START_TEST(data_is_durable_before_the_first_wave_and_that_before_the_second)
{
	static const struct fault_record want[] = {
		{TD_IO_SYNC, 0, 0, 0}, {TD_IO_READ, 0, 1024, 512}, {TD_IO_WRITE, 0, 1024, 512},
		{TD_IO_SYNC, 0, 0, 0}, {TD_IO_READ, 0, 0, 512},    {TD_IO_WRITE, 0, 0, 512},
		{TD_IO_SYNC, 0, 0, 0}};
	struct td_redo *r;

	begin();
	r = td_redo_new(log_path);
	put(r, TD_REDO_SECOND, 0, 1);
	put(r, TD_REDO_FIRST, 1024, 1);
	td_redo_free(r);
	fault_io_clear(&fio);
	ck_assert_int_eq(adopt_and_apply(), 0);
	ck_assert_uint_eq(fio.nlog, sizeof want / sizeof *want);
	for (unsigned i = 0; i < fio.nlog; i++) {
		ck_assert_int_eq(fio.log[i].op, want[i].op);
		ck_assert_uint_eq(fio.log[i].off, want[i].off);
	}
	end();
}
END_TEST

START_TEST(a_record_stays_until_a_commit_that_began_after_it_has_succeeded)
{
	struct td_redo *r;

	begin();
	r = td_redo_new(log_path);
	put(r, TD_REDO_SECOND, 0, 1);
	td_redo_freeze(r);
	put(r, TD_REDO_SECOND, 1, 1); /* the next commit's */
	td_redo_done(r, -ENOSPC);
	td_redo_freeze(r); /* takes in both */
	put(r, TD_REDO_SECOND, 2, 1);
	td_redo_done(r, 0);
	ck_assert_int_eq(adopt_and_apply(), 0);
	ck_assert_mem_eq(image->data, "\0\0\1", 3);
	td_redo_free(r);
	end();
}
END_TEST

/* A half that is full, but for `left' bytes. */

START_TEST(what_finds_no_room_is_missed_until_a_commit_that_began_after_it_has_succeeded)
{
	struct td_redo *r;

	begin();
	r = td_redo_new(log_path);
	fill_up(r, 0);
	ck_assert(td_redo_crowded(r));
	ck_assert(!td_redo_missed(r));
	for (int i = 0; i < 30; i++)
		put(r, TD_REDO_FIRST, 0, 1);
	ck_assert(!put(r, TD_REDO_FIRST, 0, 2));
	ck_assert(td_redo_missed(r));
	td_redo_freeze(r);
	ck_assert(td_redo_missed(r));
	td_redo_done(r, -EIO);
	ck_assert(td_redo_missed(r));
	td_redo_freeze(r);
	td_redo_done(r, 0);
	ck_assert(!td_redo_missed(r));
	/* one that is missed during a commit is the next commit's */
	td_redo_freeze(r);
	fill_up(r, 0);
	while (put(r, TD_REDO_FIRST, 0, 1))
		;
	td_redo_done(r, 0);
	ck_assert(td_redo_missed(r));
	td_redo_freeze(r);
	ck_assert(td_redo_missed(r) && !td_redo_crowded(r));
	td_redo_done(r, 0);
	ck_assert(!td_redo_missed(r));
	td_redo_free(r);
	end();
}
END_TEST

/* A successor's I/O fails at each place: the log is as it was, and the next one succeeds. */
START_TEST(what_cannot_be_applied_is_kept)
{
	unsigned failed = 0;

	begin();
	for (uint64_t k = 1;; k++) {
		struct td_redo *r = td_redo_new(log_path);
		int rc;

		memset(image->data, 0, SHARE);
		put(r, TD_REDO_SECOND, 5, 1);
		put(r, TD_REDO_FIRST, 1030, 2);
		td_redo_freeze(r);
		put(r, TD_REDO_SECOND, 5, 3);
		td_redo_free(r);
		fault_io_clear(&fio);
		fault_io_rule(&fio, k, -EIO);
		rc = adopt_and_apply();
		if (!rc)
			break;
		failed++;
		ck_assert_int_eq(rc, -EIO);
		file->sync_err = 0; /* opened anew */
		if (k == 1) {       /* of the data: see below */
			ck_assert_ptr_nonnull(strstr(err.text, "a sync of it has failed"));
			unlink(log_path);
			continue;
		}
		ck_assert_ptr_nonnull(strstr(err.text, "/img: what the last tapdisk knew"));
		ck_assert_int_eq(adopt_and_apply(), 0);
		ck_assert_uint_eq(image->data[5], 3);
		ck_assert_uint_eq(image->data[1030], 2);
	}
	ck_assert_uint_eq(failed, 7);
	end();
}
END_TEST

/* G9: what a sync that failed was to make durable may be lost, and the next sync finds nothing. */
static uint8_t seen[2048];

static void read_it(void *arg)
{
	*(int *)arg = td_file_rw(file, TD_IO_READ, seen, 3, sizeof seen - 3, 0);
}

START_TEST(data_that_may_be_lost_get_no_metadata)
{
	struct td_redo *r;
	int none = 0, rc;

	begin();
	r = td_redo_new(log_path);
	put(r, TD_REDO_SECOND, 5, 1);
	put(r, TD_REDO_FIRST, 1030, 2);
	td_redo_free(r);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(adopt_and_apply(), -EIO);
	fault_io_clear(&fio);
	file->sync_err = 0; /* opened anew, by anybody */
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(adopt_and_apply(), -EIO);
	/* its successor reads through it */
	lost = &none;
	ck_assert_int_eq(adopt_and_apply(), 0);
	lost = NULL;
	ck_assert_int_eq(none, -EIO);
	on_fiber(loop, read_it, &rc);
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(seen[5 - 3], 1);
	ck_assert_uint_eq(seen[1030 - 3], 2);
	ck_assert_uint_eq(seen[1031 - 3], 0);
	ck_assert_uint_eq(image->data[5], 0);
	ck_assert_uint_eq(image->data[1030], 0);
	ck_assert_int_gt(td_redo_waits(log_path), 0);
	end();
}
END_TEST

START_TEST(without_a_place_for_it_every_change_is_missed)
{
	struct td_redo *r;

	begin();
	r = td_redo_new("/proc/nowhere/redo");
	ck_assert_ptr_nonnull(r);
	for (int i = 0; i < 2; i++) {
		ck_assert(!put(r, TD_REDO_SECOND, 0, 1));
		ck_assert(td_redo_missed(r));
		td_redo_freeze(r);
		td_redo_done(r, i ? 0 : -EIO);
		ck_assert(i ? !td_redo_missed(r) : td_redo_missed(r));
	}
	td_redo_free(r);
	ck_assert(put(NULL, TD_REDO_SECOND, 0, 1) && !td_redo_missed(NULL) &&
		  !td_redo_crowded(NULL));
	td_redo_freeze(NULL);
	td_redo_done(NULL, 0);
	td_redo_free(NULL);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("redo");

	SUITE_ADD(s, what_was_put_is_applied_and_then_gone);
	SUITE_ADD(s, data_is_durable_before_the_first_wave_and_that_before_the_second);
	SUITE_ADD(s, a_record_stays_until_a_commit_that_began_after_it_has_succeeded);
	SUITE_ADD(s, what_finds_no_room_is_missed_until_a_commit_that_began_after_it_has_succeeded);
	SUITE_ADD(s, what_cannot_be_applied_is_kept);
	SUITE_ADD(s, data_that_may_be_lost_get_no_metadata);
	SUITE_ADD(s, without_a_place_for_it_every_change_is_missed);
	return suite_run(s);
}
