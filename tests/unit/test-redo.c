/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of a format's changes (E1-E3 of lib/redo.h).  The image is 8 bytes, each a version number
 * of itself, so that a judge knows of each whether what was answered is there.  SEED=n in the
 * environment repeats a run; it is printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What counts of a log changes by atomic stores alone: before and after each a process may have
 * died. */
static void (*at_store)(void);

static void stored(void)
{
	if (at_store)
		at_store();
}
#define __atomic_store_n(p, v, order) (stored(), *(p) = (v), stored())
#include "lib/redo.c"
#include "lib/redo-apply.c"
#undef __atomic_store_n

#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define BYTES 8
#define SHARE 8192 /* of the image */
#define WHOLE REDO_WHOLE
#define FILL  4096 /* where what fills a half stands */

struct world {
	uint8_t memory[BYTES];   /* what the process knows */
	uint8_t promised[BYTES]; /* what it has answered */
	uint8_t image[BYTES];    /* what the file has */
};

static char dir[64], log_path[128];
static struct ev_loop *loop;
static struct fault_io fio;
static struct fault_file *image;
static struct td_file *file;
static struct td_err err;

static void open_it(void *arg)
{
	ck_assert_int_eq(td_file_open(fio.io, "/img", 0, &file, &err), 0);
}

static void begin(void)
{
	strcpy(dir, "test-redo.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(log_path, sizeof log_path, "%s/redo", dir);
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	image = fault_io_file(&fio, "/img", SHARE);
	on_fiber(loop, open_it, NULL);
}

static void close_it(void *arg)
{
	td_file_close(file);
}

static void end(void)
{
	on_fiber(loop, close_it, NULL);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	unlink(log_path);
	ck_assert_int_eq(rmdir(dir), 0);
}

static int *lost; /* of the successor; NULL: it is none */

struct applying {
	struct td_redo *r;
	int rc;
};

static void apply_it(void *arg)
{
	struct applying *a = arg;

	err = (struct td_err){0};
	a->rc = td_redo_apply(a->r, file, &(struct td_image){.lost = lost}, &err);
}

/* As a successor does. */
static int adopt_and_apply(void)
{
	struct applying a = {NULL, 0};

	err = (struct td_err){0};
	a.rc = td_redo_adopt(log_path, false, &a.r, &err);
	if (a.rc < 0)
		return a.rc;
	on_fiber(loop, apply_it, &a);
	td_redo_free(a.r);
	return a.rc;
}

static bool put(struct td_redo *r, enum td_redo_wave wave, unsigned at, uint8_t value)
{
	return td_redo_put(r, wave, at, &value, 1);
}

/* --- by hand
 * -----------------------------------------------------------------------------------------------------------
 */

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
static void fill_up(struct td_redo *r, unsigned left)
{
	static const uint8_t zeroes[488]; /* with what a record begins with: 504 bytes */
	unsigned n = (TD_REDO_BYTES - left) / 504;

	for (unsigned i = 0; i < n; i++)
		td_redo_put(r, TD_REDO_SECOND, FILL, zeroes, sizeof zeroes);
}

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

/* --- what is not a log
 * -------------------------------------------------------------------------------------------------
 */

static void poke(off_t at, uint32_t value)
{
	int fd = open(log_path, O_RDWR);

	ck_assert_int_eq(pwrite(fd, &value, sizeof value, at), sizeof value);
	close(fd);
}

static void log_of(uint8_t value)
{
	struct td_redo *r = td_redo_new(log_path);

	put(r, TD_REDO_SECOND, 0, value);
	td_redo_free(r);
}

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

/* --- whose it is
 * --------------------------------------------------------------------------------------------------------
 */

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

/* --- a death at any store
 * -----------------------------------------------------------------------------------------------
 */

static struct world world;
static struct td_redo *alive;
static unsigned seed, deaths;
static bool in_order; /* each byte refers to those before it: what is there of the later is there of
			 the earlier */

/* What a process that is not killed would go on to do. */
struct life {
	uint8_t waiting[BYTES]; /* versions that are answered after a commit */
	uint8_t picture[BYTES];
	bool committing;
};

/* What a death leaves: the log, and the image as it is then. */
struct remains {
	uint8_t log[WHOLE], image[BYTES];
};

static void remains(struct remains *to, const uint8_t *of)
{
	memcpy(to->log, alive->head, WHOLE);
	memcpy(to->image, of, BYTES);
}

/* What a successor makes of it. */
static void judge(const struct remains *of)
{
	int fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	deaths++;
	ck_assert_int_eq(write(fd, of->log, WHOLE), WHOLE);
	close(fd);
	memcpy(image->data, of->image, BYTES);
	ck_assert_int_eq(adopt_and_apply(), 0);
	for (unsigned i = 0; i < BYTES; i++)
		ck_assert_msg(
			image->data[i] >= world.promised[i] && image->data[i] <= world.memory[i],
			"seed %u: byte %u is version %u after a death; %u was answered, %u written",
			seed, i, image->data[i], world.promised[i], world.memory[i]);
	for (unsigned i = 1; in_order && i < BYTES; i++)
		ck_assert_msg(image->data[i] <= image->data[i - 1],
			      "byte %u is there without the one before it", i);
}

static void die_here(void)
{
	static struct remains r;

	at_store = NULL;
	remains(&r, world.image);
	judge(&r);
	at_store = die_here;
}

/* Of a successor, which is on a fiber: judged later. */
static struct remains *later[16];
static unsigned nlater;

static void die_later(void)
{
	ck_assert_uint_lt(nlater, 16);
	later[nlater] = malloc(sizeof **later);
	remains(later[nlater++], image->data);
}

static void write_one(struct life *l)
{
	unsigned i = (unsigned)rand() % BYTES;
	uint8_t version = (uint8_t)(world.memory[i] + 1);

	if (version == 255)
		return;
	world.memory[i] = version;
	if (put(alive, i % 2 ? TD_REDO_FIRST : TD_REDO_SECOND, i, version) &&
	    !td_redo_missed(alive))
		world.promised[i] = version;
	else
		l->waiting[i] = version;
}

static void commit_or_not(struct life *l)
{
	int rc = rand() % 2 ? 0 : -EIO;

	if (!l->committing) {
		memcpy(l->picture, world.memory, BYTES);
		td_redo_freeze(alive);
		l->committing = true;
		return;
	}
	l->committing = false;
	if (!rc)
		memcpy(world.image, l->picture, BYTES);
	td_redo_done(alive, rc);
	for (unsigned i = 0; !rc && i < BYTES; i++)
		if (l->waiting[i] && l->waiting[i] <= l->picture[i]) {
			if (l->waiting[i] > world.promised[i])
				world.promised[i] = l->waiting[i];
			l->waiting[i] = 0;
		}
}

static void live(void)
{
	struct life l = {.committing = false};

	for (int round = 0; round < 6; round++) {
		at_store = NULL;
		if (round % 3 == 1)
			fill_up(alive, 600); /* room for some changes more */
		at_store = die_here;
		for (int i = 0; i < 24; i++) {
			if (rand() % 3)
				write_one(&l);
			else
				commit_or_not(&l);
		}
	}
	at_store = NULL;
	put(alive, TD_REDO_FIRST, 0,
	    world.memory[0]); /* so that there is something for a successor */
}

/* A successor may be killed as well. */
static void succeed(void)
{
	struct applying a = {alive, 0};

	memcpy(image->data, world.image, BYTES);
	at_store = die_later;
	on_fiber(loop, apply_it, &a);
	at_store = NULL;
	ck_assert_int_eq(a.rc, 0);
	ck_assert_uint_ge(nlater, 4);
	for (unsigned i = 0; i < nlater; i++) {
		judge(later[i]);
		free(later[i]);
	}
	nlater = 0;
}

START_TEST(a_death_at_any_store_takes_nothing_that_was_answered)
{
	const char *given = getenv("SEED");
	char dead_log[140];

	seed = given ? (unsigned)atoi(given) : (unsigned)time(NULL) ^ (unsigned)getpid();
	printf("SEED=%u\n", seed);
	srand(seed);
	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	for (int i = 0; i < 3; i++) {
		memset(&world, 0, sizeof world);
		alive = td_redo_new(dead_log);
		live();
		succeed();
		td_redo_free(alive);
	}
	ck_assert_uint_gt(deaths, 300);
	unlink(dead_log);
	end();
}
END_TEST

/* What was in the file before a half was frozen may be newer there than its record, if the newer
 * one found no room. */
START_TEST(what_a_half_has_behind_it_does_not_come_back_while_it_is_emptied)
{
	char dead_log[140];

	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	alive = td_redo_new(dead_log);
	put(alive, TD_REDO_SECOND, 1, 0);
	td_redo_freeze(alive);
	td_redo_done(alive, -EIO);
	put(alive, TD_REDO_SECOND, 0, 1);
	fill_up(alive, 0);
	while (put(alive, TD_REDO_SECOND, 2, 0))
		;
	ck_assert(!put(alive, TD_REDO_SECOND, 0, 2));
	td_redo_freeze(alive);
	world = (struct world){.memory = {2}, .image = {2}};
	td_redo_done(alive, 0);
	world.promised[0] = 2; /* answered by the commit */
	at_store = die_here;
	td_redo_freeze(alive);
	td_redo_done(alive, 0);
	at_store = NULL;
	ck_assert_uint_ge(deaths, 6);
	td_redo_free(alive);
	unlink(dead_log);
	end();
}
END_TEST

/* A commit's steps by hand: what it takes in stands in the image when it is over, or in part before
 * that. */
static void commit_all(int rc, unsigned upto)
{
	td_redo_freeze(alive);
	for (unsigned i = 0; i < upto && !rc; i++) {
		world.image[i] = 1;
		die_here();
	}
	if (upto < BYTES && world.memory[upto] == 0) { /* one more, made during it */
		world.memory[upto] = 1;
		put(alive, TD_REDO_FIRST, upto, 1);
		die_here();
	}
	td_redo_done(alive, rc);
	die_here();
}

START_TEST(what_comes_after_a_change_that_was_missed_counts_only_with_it)
{
	char dead_log[140];

	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	in_order = true;
	for (unsigned fails = 0; fails < 3; fails++) {
		memset(&world, 0, sizeof world);
		alive = td_redo_new(dead_log);
		world.memory[0] = world.memory[1] = 1;
		fill_up(alive, 64);
		ck_assert(!td_redo_put(alive, TD_REDO_SECOND, 0, (uint8_t[600]){1}, 600));
		ck_assert(!put(alive, TD_REDO_SECOND, 1, 1)); /* for which there would be room */
		at_store = die_here;
		for (unsigned i = 0; i < fails; i++)
			commit_all(-EIO, 2 + i);
		commit_all(0, 2 + fails);
		memset(world.promised, 1,
		       3 + fails); /* it is missed no more, and so all is answered */
		ck_assert(!td_redo_missed(alive));
		die_here();
		at_store = NULL;
		td_redo_free(alive);
	}
	ck_assert_uint_ge(deaths, 30);
	in_order = false;
	unlink(dead_log);
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
	SUITE_ADD(s, what_makes_no_sense_is_refused_and_kept);
	SUITE_ADD(s, one_that_is_missing_is_an_error_where_there_has_to_be_one);
	SUITE_ADD(s, one_that_is_declined_is_there_for_the_next_who_must_have_one);
	SUITE_ADD(s, one_of_another_boot_or_an_empty_one_of_another_version_is_made_anew);
	SUITE_ADD(s, a_new_one_moves_aside_what_may_hold_something);
	SUITE_ADD(s, what_is_in_the_way_is_moved_aside_where_no_new_one_can_be_made);
	SUITE_ADD(s, a_log_is_of_one_image_and_one_mark);
	SUITE_ADD(s, whoever_opens_the_image_finds_the_log_of_another_number);
	SUITE_ADD(s, a_bit_that_the_log_does_not_know_is_another_writers);
	SUITE_ADD(s, a_record_that_goes_beyond_its_half_is_refused);
	SUITE_ADD(s, without_a_place_for_it_every_change_is_missed);
	SUITE_ADD(s, what_a_half_has_behind_it_does_not_come_back_while_it_is_emptied);
	SUITE_ADD(s, a_death_at_any_store_takes_nothing_that_was_answered);
	SUITE_ADD(s, what_comes_after_a_change_that_was_missed_counts_only_with_it);
	return suite_run(s);
}
