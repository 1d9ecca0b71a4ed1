/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose a log is: its image, its mark, and the state that it builds on (G2, G3, G5 of lib/redo.h).
 */
#include "tests/support/redo-log.h"

struct looking {
	struct td_redo *own, *out;
	uint32_t mark;
	int rc;
};

static void look_it(void *arg)
{
	struct looking *l = arg;

	err = (struct td_err){0};
	l->rc = td_redo_look(l->own, file, l->mark, &l->out, &err);
}

static struct looking looked(struct td_redo *own, uint32_t mark)
{
	struct looking l = {.own = own, .mark = mark};

	on_fiber(loop, look_it, &l);
	return l;
}

START_TEST(a_log_is_of_one_image_and_one_mark)
{
	struct td_redo *r;
	struct looking l;

	begin();
	r = td_redo_new(log_path);
	l = looked(r, 5);
	ck_assert(!l.rc && !l.out); /* there is nothing to apply */
	td_redo_begin(r, file, 7, 0, 0);
	put(r, TD_REDO_SECOND, 0, 1);
	td_redo_free(r);
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(td_redo_adopt(log_path, true, &r, &err), 0);
		if (i == 3)
			r->head->id.ino++;
		l = looked(r, (uint32_t[]){0, 8, 7, 7}[i]);
		ck_assert_int_eq(l.rc, i == 2 ? 0 : -ESTALE);
		ck_assert_ptr_eq(l.out, i == 2 ? r : NULL);
		if (i != 2)
			ck_assert_ptr_nonnull(
				strstr(err.text, "/img is not as the last tapdisk left it"));
		ck_assert(td_redo_pending(r));
		td_redo_free(r);
	}
	end();
}
END_TEST

/* G5 */
START_TEST(whoever_opens_the_image_finds_the_log_of_another_number)
{
	struct td_redo *r, *mine;
	struct looking l;
	char path[160];

	begin();
	setenv("TAPDISK_CONTROL_DIR", dir, 1);
	snprintf(path, sizeof path, "%s/redo3", dir);
	r = td_redo_new(path);
	looked(r, 0);
	td_redo_begin(r, file, 7, 0, 0);
	put(r, TD_REDO_SECOND, 0, 1);
	mine = td_redo_new(log_path);
	l = looked(mine, 8);
	ck_assert(!l.rc && !l.out);
	l = looked(mine, 7);
	ck_assert(!l.rc && l.out && l.out != mine && td_redo_pending(l.out));
	td_redo_leave(mine, l.out);
	l = looked(NULL, 7);
	ck_assert(!l.rc && l.out);
	td_redo_leave(NULL, l.out);
	file->flags = TD_FILE_RDONLY;
	l = looked(NULL, 7);
	ck_assert(l.rc == -EBUSY && !l.out);
	ck_assert_msg(strstr(err.text, "tap-ctl settle -m 3") != NULL, "%s", err.text);
	file->flags = 0;
	td_redo_freeze(r);
	td_redo_done(r, 0);
	l = looked(mine, 7);
	ck_assert(!l.rc && !l.out);
	td_redo_free(r);
	td_redo_free(mine);
	unlink(path);
	unsetenv("TAPDISK_CONTROL_DIR");
	end();
}
END_TEST

/* G3: others may add bits to what no record names, and to nothing else. */
START_TEST(a_bit_that_the_log_does_not_know_is_another_writers)
{
	begin();
	for (int i = 0; i < 4; i++) {
		struct td_redo *r = td_redo_new(log_path);
		struct looking l = looked(r, 0);
		uint8_t bits = 0xf0;

		ck_assert(!l.rc);
		td_redo_begin(r, file, 7, 0, 0);
		memset(image->data, 0, SHARE);
		td_redo_put(r, TD_REDO_SECOND | TD_REDO_BITS, 9, &bits, 1);
		put(r, TD_REDO_SECOND, 10, 0);
		td_redo_free(r);
		image->data[8] = image->data[10] = 0xff;
		image->data[9] = (uint8_t[]){0, 0x30, 0xf0, 0x08}[i];
		ck_assert_int_eq(adopt_and_apply(), i == 3 ? -ESTALE : 0);
		ck_assert_uint_eq(image->data[9], i == 3 ? 8 : 0xf0);
		ck_assert_uint_eq(image->data[8], 0xff);
		ck_assert_int_eq(td_redo_waits(log_path), i == 3 ? 2 : 0);
		unlink(log_path);
	}
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("redo, whose it is");

	SUITE_ADD(s, a_log_is_of_one_image_and_one_mark);
	SUITE_ADD(s, whoever_opens_the_image_finds_the_log_of_another_number);
	SUITE_ADD(s, a_bit_that_the_log_does_not_know_is_another_writers);
	return suite_run(s);
}
