/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk comes to rest: pauses, and what fails then. */
#include "tests/support/test-vbd.h"

START_TEST(a_pause_waits_for_the_image_and_loses_nothing)
{
	struct call pause = {.what = PAUSE};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 1);
	begin_call(&pause);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	turns(5);
	ck_assert_uint_eq(pause.order, 0);
	fault_io_complete(&fio, 0);
	turns(5);
	/* what was written is durable before the image is closed */
	ck_assert_uint_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	ck_assert_uint_eq(pause.order, 0);
	fault_io_complete(&fio, 0);
	ck_assert_int_eq(end_call(&pause), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	fio.manual = false;
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(a_pause_that_takes_too_long_is_called_off)
{
	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	turns(3);
	ck_assert_int_eq(DO(.what = PAUSE, .timeout = 1), -ETIMEDOUT);
	ck_assert_uint_eq(vbd_state(v), 0);
	put(BLKIF_READ, 8, 1);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 2); /* the ring goes on */
	fault_io_complete(&fio, 1);
	fault_io_complete(&fio, 0);
	ck_assert_uint_eq(answers(), 2);
	end();
}
END_TEST

/* Its flush too is waited for no longer than that. */
START_TEST(a_pause_whose_flush_takes_too_long_is_called_off)
{
	begin_connected();
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	fio.manual = true;
	ck_assert_int_eq(DO(.what = PAUSE, .timeout = 1), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(err.text, "flush"));
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_uint_eq(fio.nrunning, 1);
	put(BLKIF_READ, 8, 1);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 2); /* the ring goes on */
	fio.manual = false;
	fault_io_complete(&fio, 1);
	ck_assert_uint_eq(answers(), 2);
	fault_io_complete(&fio, 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	end();
}
END_TEST

START_TEST(paused_the_disk_may_change_its_image_but_not_shrink_under_a_guest)
{
	begin_connected();
	fault_io_file(&fio, "small", SECTORS * 256);
	fault_io_file(&fio, "large", SECTORS * 1024);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "cannot shrink"));
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:large"), 0);
	ck_assert_uint_eq(v->disk.sectors, SECTORS * 2);
	ck_assert_str_eq(v->spec, "aio:large");
	put(BLKIF_READ, SECTORS * 2 - 8, 1);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), 0); /* nobody knows it larger */
	end();
}
END_TEST

static unsigned syncs(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < fio.nlog; i++)
		n += fio.log[i].op == TD_IO_SYNC;
	return n;
}

static void write_and_flush(void)
{
	unsigned n = answers();

	put(BLKIF_WRITE, 8, 1);
	ck_assert_uint_eq(answers(), n + 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	ck_assert_uint_eq(answers(), n + 2);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
}

/* C10: what was written under a mode that drops flushes is durable before the next mode's first
 * answer; so is an image put in its place. */
START_TEST(a_mode_that_dropped_flushes_is_left_with_a_sync)
{
	static const char *const modes[] = {"none", "directsync", "writethrough", "writeback"};

	for (unsigned i = 0; i < 4; i++)
		for (unsigned other = 0; other < 2; other++) {
			begin();
			queue.direct = fio.io;
			fault_io_file(&fio, "other", SECTORS * 512);
			ck_assert_int_eq(DO(.what = OPEN, .mode = "unsafe"), 0);
			ck_assert_int_eq(DO(.what = CONNECT), 0);
			write_and_flush();
			ck_assert_int_eq(DO(.what = PAUSE), 0);
			ck_assert_uint_eq(syncs(), 0);
			ck_assert_int_eq(DO(.what = UNPAUSE, .mode = modes[i],
					    .spec = other ? "aio:other" : NULL),
					 0);
			ck_assert_uint_eq(syncs(), 1);
			/* with nothing new: those of before are not covered */
			put(BLKIF_FLUSH_DISKCACHE, 0, 0);
			ck_assert_uint_eq(answers(), 3);
			ck_assert_uint_eq(syncs(), 2);
			queue.direct = NULL;
			end();
		}
}
END_TEST

START_TEST(a_disk_that_cannot_be_made_durable_after_a_pause_has_failed)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .mode = "unsafe"), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	write_and_flush();
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	/* its guest is there, and is to hear of it */
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writeback"), 0);
	ck_assert_uint_eq(vbd_state(v), TD_STATE_FAILED);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_READ, 8, 1);
	ck_assert_uint_eq(answers(), 5);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
	begin(); /* nobody has been promised anything: it is not opened */
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = OPEN), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "could not be made durable"));
	end();
}
END_TEST

/* The kernel tells of it once: the next unpause's sync does well. */
START_TEST(a_sync_that_fails_in_an_unpause_that_fails_is_not_forgotten)
{
	begin_connected();
	fault_io_file(&fio, "small", SECTORS * 256);
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), -EINVAL);
	ck_assert_uint_eq(vbd_state(v), 0x22a | TD_STATE_FAILED);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), TD_STATE_FAILED);
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	end();
}
END_TEST

START_TEST(an_unpause_keeps_a_disk_read_only)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .read_only = true), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writethrough"), 0);
	ck_assert(v->disk.read_only && v->opt.read_only);
	ck_assert_str_eq(v->cache.mode->name, "writethrough");
	end();
}
END_TEST

/* Whoever pauses it would take the image for sound. */
START_TEST(a_disk_whose_flush_has_failed_is_not_paused_and_lasts_until_it_is_closed)
{
	begin_connected();
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	ck_assert_uint_eq(vbd_state(v), TD_STATE_FAILED);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "flush"));
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(DO(.what = PAUSE), -EIO);
		ck_assert_ptr_nonnull(strstr(err.text, "is not paused"));
		ck_assert_uint_eq(vbd_state(v), TD_STATE_FAILED);
	}
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = CLOSE), -EIO);
	ck_assert_uint_eq(vbd_state(v), 0x2);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_ptr_null(vbd_reason(v));
	end();
}
END_TEST

/* A close that succeeds says that everything is in the image: it is not to be believed of a disk
 * that a flush has failed of, whoever heard of that before, and even with nothing left to flush. */
START_TEST(closing_a_disk_that_has_failed_says_so)
{
	for (unsigned paused = 0; paused < 2; paused++) {
		begin_connected();
		put(BLKIF_WRITE, 0, 1);
		ck_assert_uint_eq(answers(), 1);
		fault_io_clear(&fio);
		fault_io_rule(&fio, 1, -EIO);
		put(BLKIF_FLUSH_DISKCACHE, 0, 0);
		ck_assert_uint_eq(answers(), 2);
		ck_assert_int_eq(DO(.what = DISCONNECT), 0);
		if (paused)
			ck_assert_int_eq(DO(.what = PAUSE), -EIO);
		ck_assert_int_eq(DO(.what = CLOSE), -EIO);
		ck_assert_ptr_nonnull(strstr(err.text, "had failed"));
		ck_assert_ptr_nonnull(strstr(err.text, "check"));
		ck_assert_uint_eq(vbd_state(v), 0x2); /* closed all the same */
		ck_assert_int_eq(DO(.what = CLOSE), -ENODEV);
		end();
	}
}
END_TEST

START_TEST(a_last_flush_that_fails_is_told_to_who_closes)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = CLOSE), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "flush"));
	ck_assert_uint_eq(vbd_state(v), 0x2); /* closed all the same */
	ck_assert_int_eq(DO(.what = OPEN), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = PAUSE), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "last flush"));
	ck_assert_uint_eq(vbd_state(v), TD_STATE_FAILED);
	end();
}
END_TEST

/* Whoever is told that a disk is paused marks its log of changed blocks as consistent. */
START_TEST(a_log_of_changed_blocks_that_is_not_durable_undoes_a_pause_and_is_told_by_a_close)
{
	struct fault_file *log;

	begin();
	log = fault_io_file(&fio, "log", 52);
	memset(log->data, 0, 52);
	log->data[42] = 16; /* 1 MiB */
	ck_assert_int_eq(DO(.what = OPEN, .mode = "unsafe", .changed = "log"), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	for (int i = 0; i < 3; i++) {
		put(BLKIF_WRITE, 128 * (unsigned)i, 1);
		ck_assert_uint_eq(answers(), (unsigned)i + 1);
		ck_assert_int_eq(g.last, BLKIF_OKAY);
		fault_io_clear(&fio);
		if (i == 1)
			break;
		fault_io_rule(&fio, 1, -EIO); /* in this mode the only sync is the log's */
		ck_assert_int_eq(DO(.what = PAUSE), -EIO);
		ck_assert_ptr_nonnull(strstr(err.text, "changed blocks"));
		ck_assert_uint_eq(vbd_state(v), 0);
	}
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(fio.log[fio.nlog - 2].op, TD_IO_WRITE);
	ck_assert_uint_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC);
	ck_assert_uint_eq(log->data[48], 3);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "unsafe", .changed = "log"), 0);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = FORCE), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "changed blocks"));
	ck_assert_uint_eq(vbd_state(v), TD_STATE_CLOSED);
	end();
}
END_TEST

START_TEST(a_guest_that_was_told_of_no_cache_is_not_given_one)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .mode = "writethrough"), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writeback"), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "no cache"));
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_str_eq(v->opt.mode->name, "writethrough");
	/* the other way is a stronger promise */
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writeback"), 0);
	memset(&g.ring, 0, sizeof g.ring);
	g.prod = g.cons = 0;
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writethrough"), 0);
	end();
}
END_TEST

START_TEST(a_store_that_does_not_answer_is_told_of)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .request_timeout = 3600), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert_ptr_null(vbd_reason(v)); /* at rest */
	fio.manual = true;
	put(BLKIF_READ, 0, 1);
	turns(3);
	nchanged = 0;
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert(!v->stall.stalled);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert(v->stall.stalled && nchanged == 1);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "does not answer"));
	ck_assert_uint_eq(answers(), 0); /* told, and nothing given up */
	/* one comes back, and another is under way: slow is not stalled */
	put(BLKIF_READ, 8, 1);
	turns(3);
	fault_io_complete(&fio, 0);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert(!v->stall.stalled && nchanged == 2);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert(!ev_is_active(&v->stall.timer)); /* nothing wakes a paused disk */
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert(ev_is_active(&v->stall.timer));
	end();
}
END_TEST

START_TEST(a_pause_without_space_holds_the_writes_and_goes_on)
{
	begin_connected();
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -ENOSPC);
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a | TD_STATE_NO_SPACE);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_uint_eq(vbd_state(v), 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd, pauses");

	SUITE_ADD(s, a_pause_waits_for_the_image_and_loses_nothing);
	SUITE_ADD(s, a_pause_that_takes_too_long_is_called_off);
	SUITE_ADD(s, a_pause_whose_flush_takes_too_long_is_called_off);
	SUITE_ADD(s, paused_the_disk_may_change_its_image_but_not_shrink_under_a_guest);
	SUITE_ADD(s, a_mode_that_dropped_flushes_is_left_with_a_sync);
	SUITE_ADD(s, a_disk_that_cannot_be_made_durable_after_a_pause_has_failed);
	SUITE_ADD(s, a_sync_that_fails_in_an_unpause_that_fails_is_not_forgotten);
	SUITE_ADD(s, an_unpause_keeps_a_disk_read_only);
	SUITE_ADD(s, a_disk_whose_flush_has_failed_is_not_paused_and_lasts_until_it_is_closed);
	SUITE_ADD(s, closing_a_disk_that_has_failed_says_so);
	SUITE_ADD(s, a_last_flush_that_fails_is_told_to_who_closes);
	SUITE_ADD(
		s,
		a_log_of_changed_blocks_that_is_not_durable_undoes_a_pause_and_is_told_by_a_close);
	SUITE_ADD(s, a_guest_that_was_told_of_no_cache_is_not_given_one);
	SUITE_ADD(s, a_store_that_does_not_answer_is_told_of);
	SUITE_ADD(s, a_pause_without_space_holds_the_writes_and_goes_on);
	return suite_run(s);
}
