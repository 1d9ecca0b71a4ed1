/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a tapdisk finds where its log is to be: of another version, damaged, missing, of another
 * boot (G5-G7 of lib/redo.h). */
#include "tests/support/redo-log.h"

/* It stays as it is, and its disk is not opened. */
static void is_refused(const char *why)
{
	struct td_redo *r = NULL;
	struct stat before, after;

	err = (struct td_err){0};
	ck_assert_int_eq(lstat(log_path, &before), 0);
	ck_assert_int_lt(td_redo_adopt(log_path, false, &r, &err), 0);
	ck_assert_ptr_null(r);
	ck_assert_msg(strstr(err.text, why) && strstr(err.text, "tap-ctl free -f"), "%s", err.text);
	ck_assert_int_lt(td_redo_waits(log_path), 0);
	ck_assert_int_eq(lstat(log_path, &after), 0);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	unlink(log_path);
}

START_TEST(what_makes_no_sense_is_refused_and_kept)
{
	/* offsets of magic, half, now, from, used of the halves: as the file has them */
	static const struct {
		off_t at;
		uint32_t value;
		const char *why;
	} bad[] = {{0, 0, "of another version"},
		   {0, 0x12345678, "of another version"},
		   {0, REDO_MAGIC_1, "of another version"},
		   {4, 0, "Bad message"},
		   {4, TD_REDO_BYTES - 1, "Bad message"},
		   {4, 0xffffffff, "Bad message"},
		   {8, 2, "Bad message"},
		   {8, 0xffffffff, "Bad message"},
		   {12, 1000, "Bad message"},
		   {16, TD_REDO_BYTES + 8, "Bad message"},
		   {16, 0xffffffff, "Bad message"},
		   {24, 0xfffffff8, "Bad message"}};

	begin();
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		log_of(1);
		poke(bad[i].at, bad[i].value);
		is_refused(bad[i].why);
	}
	for (unsigned i = 0; i < 4; i++) {
		log_of(1);
		ck_assert_int_eq(truncate(log_path, (off_t[]){0, 1, WHOLE - 1, WHOLE + 1}[i]), 0);
		is_refused("of another version");
	}
	/* never through a link */
	ck_assert_int_eq(symlink("/etc/passwd", log_path), 0);
	is_refused("symbolic links");
	end();
}
END_TEST

START_TEST(one_that_is_missing_is_an_error_where_there_has_to_be_one)
{
	struct td_redo *r = NULL;

	begin();
	ck_assert_int_eq(td_redo_waits(log_path), 0);
	ck_assert_int_eq(td_redo_adopt(log_path, true, &r, &err), -ENODATA);
	ck_assert_ptr_nonnull(strstr(err.text, "is missing"));
	ck_assert_int_eq(access(log_path, F_OK), -1);
	ck_assert_int_eq(td_redo_adopt(log_path, false, &r, &err), 0);
	ck_assert(put(r, TD_REDO_SECOND, 1, 7));
	td_redo_free(r);
	ck_assert_int_eq(td_redo_waits(log_path), 1);
	ck_assert_int_eq(adopt_and_apply(), 0);
	ck_assert_int_eq(td_redo_waits(log_path), 0);
	end();
}
END_TEST

/* G7, and an older version's that holds nothing. */
/* An open that does without a log, and then fails: the record of the disk as it was still says that
 * there is one. */
START_TEST(one_that_is_declined_is_there_for_the_next_who_must_have_one)
{
	struct td_redo *r = NULL;

	begin();
	log_of(1);
	ck_assert_int_eq(adopt_and_apply(), 0);
	ck_assert_int_eq(td_redo_adopt(log_path, true, &r, &err), 0);
	td_redo_decline(r);
	ck_assert(!td_redo_takes(r) && !put(r, TD_REDO_SECOND, 0, 2) && td_redo_missed(r));
	td_redo_free(r);
	ck_assert_int_eq(td_redo_waits(log_path), 0);
	ck_assert_int_eq(td_redo_adopt(log_path, true, &r, &err), 0);
	ck_assert(td_redo_takes(r) && !td_redo_pending(r));
	td_redo_free(r);
	end();
}
END_TEST

START_TEST(one_of_another_boot_or_an_empty_one_of_another_version_is_made_anew)
{
	struct td_redo *r = NULL;

	begin();
	log_of(1);
	poke(offsetof(struct redo_head, boot), 0x31323334);
	ck_assert_int_eq(td_redo_waits(log_path), 0);
	ck_assert_int_eq(td_redo_adopt(log_path, false, &r, &err), 0);
	ck_assert(!td_redo_pending(r));
	td_redo_free(r);
	poke(0, REDO_MAGIC_1);
	ck_assert_int_eq(td_redo_waits(log_path), 0);
	ck_assert_int_eq(td_redo_adopt(log_path, false, &r, &err), 0);
	ck_assert(td_redo_takes(r) && !td_redo_pending(r));
	td_redo_free(r);
	end();
}
END_TEST

/* A disk that has just got the number of another one: what that one left is not thrown away. */
START_TEST(a_new_one_moves_aside_what_may_hold_something)
{
	char command[400];

	begin();
	log_of(1);
	td_redo_free(td_redo_new(log_path));
	ck_assert_int_eq(td_redo_waits(log_path), 0);
	snprintf(command, sizeof command, "mv %s.* %s", log_path, log_path);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(td_redo_waits(log_path), 1);
	end();
}
END_TEST

/* No log for this disk then; and its successor, which need not have one, must not take the other's.
 */
START_TEST(what_is_in_the_way_is_moved_aside_where_no_new_one_can_be_made)
{
	char command[400], making[160];
	struct td_redo *r;

	begin();
	log_of(1);
	snprintf(making, sizeof making, "%s.new", log_path);
	ck_assert_int_eq(mkdir(making, 0700), 0); /* which unlink() does not take away */
	r = td_redo_new(log_path);
	ck_assert(!td_redo_takes(r));
	td_redo_free(r);
	ck_assert_int_eq(rmdir(making), 0);
	ck_assert_int_eq(access(log_path, F_OK), -1);
	snprintf(command, sizeof command, "mv %s.* %s", log_path, log_path);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(td_redo_waits(log_path), 1);
	end();
}
END_TEST

START_TEST(a_record_that_goes_beyond_its_half_is_refused)
{
	/* a record's length and wave, and how much of its half counts */
	static const struct {
		off_t at;
		uint32_t value;
	} bad[] = {{4096 + 8, 100},
		   {4096 + 8, 0xffffffff},
		   {4096 + 8, 0xfffffff8},
		   {4096 + 12, 2},
		   {16, 8},
		   {16, 17}};

	begin();
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		log_of(1);
		poke(bad[i].at, bad[i].value);
		memset(image->data, 0, SHARE);
		if (i < 5)
			ck_assert_int_eq(adopt_and_apply(), -EBADMSG);
		else
			ck_assert_int_eq(adopt_and_apply(),
					 0); /* without its padding it is whole */
		ck_assert_uint_eq(image->data[0], i == 5);
	}
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("redo, what is left");

	SUITE_ADD(s, what_makes_no_sense_is_refused_and_kept);
	SUITE_ADD(s, one_that_is_missing_is_an_error_where_there_has_to_be_one);
	SUITE_ADD(s, one_that_is_declined_is_there_for_the_next_who_must_have_one);
	SUITE_ADD(s, one_of_another_boot_or_an_empty_one_of_another_version_is_made_anew);
	SUITE_ADD(s, a_new_one_moves_aside_what_may_hold_something);
	SUITE_ADD(s, what_is_in_the_way_is_moved_aside_where_no_new_one_can_be_made);
	SUITE_ADD(s, a_record_that_goes_beyond_its_half_is_refused);
	return suite_run(s);
}
