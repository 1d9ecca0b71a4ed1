/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guests of a disk come and go. */
#include "tests/support/test-vbd.h"

START_TEST(one_guest_at_a_time_and_only_it_lets_go)
{
	begin_connected();
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3), -EBUSY);
	ck_assert_uint_eq(g.closed, 1); /* taken over also on failure */
	ck_assert_int_eq(DO(.what = DISCONNECT, .domid = 3), -ENOENT);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(g.closed, 2);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	memset(&g.ring, 0, sizeof g.ring);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	g.prod = g.cons = 0;
	ck_assert_int_eq(DO(.what = CONNECT), 0); /* a guest may come while it is paused */
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 1);
	end();
}
END_TEST

START_TEST(a_further_queue_comes_once)
{
	setenv("TAPDISK_THREADS", "1", 1);
	begin_connected();
	me++;
	ck_assert_int_eq(DO(.what = CONNECT, .ring = 1, .beside = true), 0);
	me--;
	ck_assert_int_eq(DO(.what = CONNECT, .ring = 1, .beside = true), -EBUSY);
	ck_assert(strstr(err.text, "has queue 1 of device 0 already"));
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	me++;
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	me--;
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	end();
}
END_TEST

START_TEST(a_guest_and_its_stub_domain_use_one_disk)
{
	begin_connected();
	me = gs + 1;
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3, .beside = true), 0);
	for (me = gs; me < gs + 2; me++) {
		put(BLKIF_WRITE, 0, 1);
		ck_assert_uint_eq(answers(), 1);
		ck_assert_int_eq(g.last, BLKIF_OKAY);
	}
	/* held and run together */
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	for (me = gs; me < gs + 2; me++) {
		put(BLKIF_READ, 0, 1);
		ck_assert_uint_eq(answers(), 1);
	}
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	for (me = gs; me < gs + 2; me++)
		ck_assert_uint_eq(answers(), 2);
	/* one goes, the disk is still in use */
	me = gs;
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(gs[0].closed, 1);
	ck_assert_uint_eq(gs[1].closed, 0);
	ck_assert_int_eq(DO(.what = CLOSE, .timeout = 1), -EBUSY);
	me = gs + 1;
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3, .beside = true), -EBUSY); /* not twice */
	ck_assert_int_eq(DO(.what = FORCE), 0);
	ck_assert_uint_eq(gs[1].closed, 2);
	end();
}
END_TEST

START_TEST(a_guest_that_leaves_a_paused_disk_takes_nothing_of_the_others)
{
	struct call pause = {.what = PAUSE};

	begin_connected();
	me = gs + 1;
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3, .beside = true), 0);
	fio.manual = true;
	for (me = gs; me < gs + 2; me++)
		put(BLKIF_WRITE_BARRIER, 8, 1); /* one is under way, the other held behind it */
	turns(3);
	begin_call(&pause);
	turns(3);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_int_eq(end_call(&pause), 0);
	me = gs;
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 1);
	me = gs + 1;
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(a_read_only_disk_has_as_many_guests_as_want_it)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .read_only = true), 0);
	for (me = gs; me < gs + 2; me++) {
		ck_assert_int_eq(DO(.what = CONNECT, .domid = (unsigned)(me - gs) + 7), 0);
		put(BLKIF_READ, 0, 1);
		ck_assert_uint_eq(answers(), 1);
	}
	me = gs;
	end();
}
END_TEST

START_TEST(a_medium_is_taken_out_and_another_put_in)
{
	struct call pause = {.what = PAUSE};

	begin();
	fault_io_file(&fio, "small", SECTORS * 256);
	ck_assert_int_eq(DO(.what = OPEN, .read_only = true), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	/* one is under way, another is asked for meanwhile: it may not reach what is not there any
	 * more */
	fio.manual = true;
	put(BLKIF_READ, SECTORS - 8, 1);
	turns(3);
	begin_call(&pause);
	turns(3);
	put(BLKIF_READ, SECTORS - 8, 1);
	fio.manual = false;
	fault_io_complete(&fio, 0);
	ck_assert_int_eq(end_call(&pause), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "empty:drive"), 0);
	ck_assert_uint_eq(v->disk.sectors, 0);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), 0);
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 5);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(a_close_waits_a_moment_for_the_guest_and_then_refuses)
{
	struct call close = {.what = CLOSE, .timeout = 100}, leave = {.what = DISCONNECT};

	begin_connected();
	ck_assert_int_eq(DO(.what = CLOSE, .timeout = 1), -EBUSY);
	ck_assert_uint_eq(vbd_state(v), 0);
	begin_call(&close);
	turns(2);
	ck_assert(!close.order && vbd_busy(v));
	begin_call(&leave);
	ck_assert_int_eq(end_call(&close), 0);
	ck_assert_uint_eq(leave.order, 1 + 3);
	end();
}
END_TEST

START_TEST(force_closes_under_a_guest_when_the_image_is_done)
{
	struct call close = {.what = FORCE};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_WRITE_BARRIER, 8, 1);
	put(BLKIF_READ, 16, 1);
	turns(3);
	begin_call(&close);
	turns(3);
	ck_assert_uint_eq(close.order, 0);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_int_eq(end_call(&close), 0);
	ck_assert_uint_eq(answers(), 3); /* each has an answer, if an error */
	ck_assert_int_eq(g.closed, 1);
	end();
}
END_TEST

/* Linux's blkfront closes with requests in the ring, and sends those that wait behind them when the
 * answers come. */
START_TEST(a_guest_that_leaves_in_the_middle_of_work_gets_every_answer)
{
	struct call leave = {.what = DISCONNECT};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	turns(3);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_READ, 16, 1); /* pushed, and not seen yet */
	begin_call(&leave);
	turns(3);
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_uint_eq(answers(), 3);
	put(BLKIF_WRITE, 24, 1);
	turns(3);
	while (fault_io_complete(&fio, 0))
		;
	fio.manual = false;
	ck_assert_int_eq(end_call(&leave), 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

/* the same of a disk that cannot serve it: errors, but answers */
START_TEST(a_guest_that_leaves_a_paused_disk_gets_every_answer)
{
	begin_connected();
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_READ, 8, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	end();
}
END_TEST

START_TEST(a_guest_leaves_a_paused_disk)
{
	struct call pause = {.what = PAUSE};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_WRITE_BARRIER, 8, 1);
	put(BLKIF_READ, 16, 1);
	turns(3);
	begin_call(&pause);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_int_eq(end_call(&pause), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	end();
}
END_TEST

START_TEST(a_guest_leaves_a_disk_without_space)
{
	begin_connected();
	fault_io_clear(&fio);
	for (unsigned k = 1; k < 50; k++)
		fault_io_rule(&fio, k, -ENOSPC);
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_WRITE_BARRIER, 16, 1);
	put(BLKIF_WRITE, 24, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_uint_eq(vbd_state(v), TD_STATE_NO_SPACE);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "no space"));
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_uint_eq(vbd_state(v) & ~(unsigned)TD_STATE_FAILED, 0);
	end();
}
END_TEST

START_TEST(a_guest_that_breaks_the_ring_shows_and_can_be_removed)
{
	begin_connected();
	nchanged = 0;
	g.ring.sring.req_prod = 1000;
	eventfd_write(g.kick, 1);
	turns(3);
	ck_assert_uint_eq(nchanged, 1);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "more requests"));
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_ptr_null(vbd_reason(v));
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd, guests");

	SUITE_ADD(s, one_guest_at_a_time_and_only_it_lets_go);
	SUITE_ADD(s, a_further_queue_comes_once);
	SUITE_ADD(s, a_guest_and_its_stub_domain_use_one_disk);
	SUITE_ADD(s, a_guest_that_leaves_a_paused_disk_takes_nothing_of_the_others);
	SUITE_ADD(s, a_read_only_disk_has_as_many_guests_as_want_it);
	SUITE_ADD(s, a_medium_is_taken_out_and_another_put_in);
	SUITE_ADD(s, a_close_waits_a_moment_for_the_guest_and_then_refuses);
	SUITE_ADD(s, force_closes_under_a_guest_when_the_image_is_done);
	SUITE_ADD(s, a_guest_that_leaves_in_the_middle_of_work_gets_every_answer);
	SUITE_ADD(s, a_guest_that_leaves_a_paused_disk_gets_every_answer);
	SUITE_ADD(s, a_guest_leaves_a_paused_disk);
	SUITE_ADD(s, a_guest_leaves_a_disk_without_space);
	SUITE_ADD(s, a_guest_that_breaks_the_ring_shows_and_can_be_removed);
	return suite_run(s);
}
