/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a server that goes away has lost is written again: K8 to K11 in drivers/nbd/nbd.h. */
#include <errno.h>

#include "tests/support/nbd-away.h"

/* --- K8 --- */

START_TEST(what_was_acknowledged_and_lost_is_written_again)
{
	begin();
	ck_assert_int_eq(do_write(0, 4096, 1), 0);
	ck_assert_int_eq(do_write(8192, 4096, 2), 0);
	flaky_down();
	ck_assert_uint_eq(flaky_now(0), 0);
	UNTIL(image->away);
	ck_assert_ptr_nonnull(strstr(image->away, "reconnecting since"));
	flaky_up();
	UNTIL(back());
	ck_assert_ptr_null(image->away);
	ck_assert_uint_eq(image->reconnects, 1);
	ck_assert_int_eq(do_read(0), 1);
	ck_assert_int_eq(do_read(8192), 2);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert(flaky_safe(0) == 1 && flaky_safe(8192) == 2);
	end();
}
END_TEST

START_TEST(it_is_written_again_in_the_order_of_its_acknowledgements)
{
	begin();
	for (int i = 1; i <= 100; i++)
		ck_assert_int_eq(do_write((uint64_t)(i % 7) * 512, 4096, i), 0);
	ck_assert_int_eq(finish(submit(3, TD_WRITE_ZEROES, TD_UNMAP, 65536, 4096, 0)), 0);
	ck_assert_int_eq(do_write(65536, 512, 77), 0);
	ck_assert_int_eq(do_write(131072, 512, 78), 0);
	ck_assert_int_eq(finish(submit(3, TD_WRITE_ZEROES, 0, 131072, 512, 0)), 0);
	ck_assert_int_eq(do_write(196608, 512, 79), 0);
	ck_assert_int_eq(finish(submit(3, TD_DISCARD, 0, 196608, 512, 0)), 0);
	flaky_forget();
	restart();
	UNTIL(back());
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq(flaky_command(i).first, i + 1);
	ck_assert_uint_eq(flaky_count(), 106);
	ck_assert_uint_eq(flaky_command(100).flags, 0);
	ck_assert_uint_eq(flaky_command(103).flags, NBD_CMD_NO_HOLE);
	ck_assert_uint_eq(flaky_now(65536), 77);
	ck_assert_uint_eq(flaky_now(65536 + 512), 0);
	ck_assert_uint_eq(flaky_now(131072), 0);
	ck_assert_uint_eq(flaky_now(196608), 0);
	ck_assert_uint_eq(flaky_now((100 % 7) * 512), 100);
	end();
}
END_TEST

START_TEST(what_overlaps_is_not_under_way_at_once_when_it_is_written_again)
{
	begin();
	ck_assert_int_eq(do_write(0, 1024, 1), 0);
	ck_assert_int_eq(do_write(512, 1024, 2), 0);
	flaky_down();
	flaky_forget();
	flaky.mute = true;
	flaky_up();
	UNTIL(flaky_count() == 1);
	for (int i = 0; i < 50; i++)
		tick();
	ck_assert_uint_eq(flaky_count(), 1);
	flaky_down();
	flaky.mute = false;
	flaky_up();
	UNTIL(back());
	ck_assert(flaky_now(0) == 1 && flaky_now(512) == 2);
	end();
}
END_TEST

START_TEST(what_a_flush_has_covered_is_not_written_again)
{
	begin();
	ck_assert_int_eq(do_write(0, 4096, 1), 0);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_int_eq(do_write(4096, 4096, 2), 0);
	flaky_forget();
	restart();
	UNTIL(back());
	ck_assert_uint_eq(flaky_count(), 1);
	ck_assert_uint_eq(flaky_command(0).first, 2);
	ck_assert_int_eq(do_read(0), 1);
	end();
}
END_TEST

START_TEST(a_flush_covers_what_was_acknowledged_before_it_was_sent_and_no_more)
{
	begin();
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	flaky.mute_flush = true;
	submit(1, TD_FLUSH, 0, 0, 0, 0);
	UNTIL(flaky_count() == 2);
	ck_assert_int_eq(do_write(512, 512, 2), 0);
	flaky_forget();
	flaky_down();
	flaky.mute_flush = false;
	flaky_up();
	ck_assert_int_eq(finish(&ops[1]), 0);
	ck_assert(flaky_safe(0) == 1 && flaky_safe(512) == 2);
	ck_assert_uint_eq(flaky_command(2).type, NBD_CMD_FLUSH);
	/* the second was acknowledged after it: it is still kept */
	ck_assert_uint_eq(client()->keep.end - client()->keep.first, 1);
	end();
}
END_TEST

START_TEST(what_was_not_answered_is_sent_again_after_what_was_kept)
{
	begin();
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	ck_assert_int_eq(do_write(512, 512, 2), 0);
	flaky.mute = true;
	submit(10, TD_READ, 0, 0, 512, 0);
	submit(11, TD_WRITE, 0, 512, 512, 3);
	submit(12, TD_WRITE, TD_FUA, 1024, 512, 4);
	submit(1, TD_FLUSH, 0, 0, 0, 0);
	UNTIL(flaky_count() == 6);
	flaky_forget();
	flaky_down();
	flaky.mute = false;
	UNTIL(image->away);
	submit(13, TD_WRITE, 0, 1536, 512, 5); /* it comes while the server is away */
	flaky_up();
	for (unsigned i = 10; i < 14; i++)
		ck_assert_int_eq(finish(&ops[i]), 0);
	ck_assert_int_eq(finish(&ops[1]), 0);
	ck_assert_uint_eq(flaky_count(), 7);
	ck_assert(flaky_command(0).first == 1 && flaky_command(1).first == 2);
	ck_assert(flaky_command(2).first == 3 && flaky_command(3).first == 4);
	ck_assert_uint_eq(flaky_command(3).flags, NBD_CMD_FUA);
	ck_assert_uint_eq(flaky_command(4).type, NBD_CMD_READ);
	ck_assert_uint_eq(flaky_command(5).type, NBD_CMD_FLUSH);
	ck_assert_uint_eq(flaky_command(6).first, 5);
	ck_assert_int_eq(ops[10].mem[0], 1);
	ck_assert(flaky_safe(0) == 1 && flaky_safe(512) == 3 && flaky_safe(1024) == 4);
	end();
}
END_TEST

START_TEST(a_durable_write_is_not_overwritten_by_an_older_one)
{
	begin();
	ck_assert_int_eq(do_write(0, 4096, 1), 0);
	ck_assert_int_eq(finish(submit(3, TD_WRITE, TD_FUA, 0, 4096, 2)), 0);
	ck_assert_uint_eq(flaky_safe(0), 2);
	restart();
	UNTIL(back());
	ck_assert_int_eq(do_read(0), 2);
	ck_assert_uint_eq(flaky_safe(0), 2);
	end();
}
END_TEST

START_TEST(a_durable_write_alone_is_not_kept)
{
	begin();
	for (int i = 1; i < 10; i++)
		ck_assert_int_eq(finish(submit(3, TD_WRITE, TD_FUA, 0, 4096, i)), 0);
	ck_assert_uint_eq(client()->keep.end, 0);
	ck_assert_uint_eq(client()->keep.reserved_bytes, 0);
	flaky.fail = NBD_EIO;
	ck_assert_int_eq(do_write(0, 4096, 1), -EIO);
	flaky.fail = 0;
	ck_assert_uint_eq(client()->keep.reserved + client()->keep.end, 0);
	end();
}
END_TEST

START_TEST(a_server_that_goes_while_it_is_written_again_loses_nothing)
{
	begin();
	for (int i = 1; i <= 40; i++)
		ck_assert_int_eq(do_write((uint64_t)i * 512, 512, i), 0);
	submit(10, TD_WRITE, 0, 0, 512, 99);
	flaky_down();
	flaky.last = 10; /* of each connection */
	flaky_up();
	UNTIL(image->away);
	for (int i = 0; i < 3000 && image->away; i++)
		tick();
	ck_assert_ptr_nonnull(image->away); /* it never gets through */
	flaky.last = 0;
	ck_assert_int_eq(finish(&ops[10]), 0);
	UNTIL(back());
	for (int i = 1; i <= 40; i++)
		ck_assert_int_eq(flaky_now((uint64_t)i * 512), i);
	ck_assert_int_eq(flaky_now(0), 99);
	end();
}
END_TEST

START_TEST(a_server_that_says_that_it_ends_has_not_done_it)
{
	begin();
	flaky.fail = NBD_ESHUTDOWN;
	submit(10, TD_WRITE, 0, 0, 512, 1);
	UNTIL(client()->first.leaving || image->away);
	flaky.fail = 0;
	ck_assert_int_eq(finish(&ops[10]), 0);
	ck_assert_int_eq(do_read(0), 1);
	end();
}
END_TEST

START_TEST(nothing_is_sent_to_a_server_that_says_that_it_ends)
{
	begin();
	flaky.fail = NBD_ESHUTDOWN;
	submit(10, TD_WRITE, 0, 0, 512, 1);
	UNTIL(client()->first.leaving || image->away);
	flaky.fail = 0;
	submit(11, TD_WRITE, 0, 4096, 512, 2);
	if (client()->first.leaving) {
		ev_feed_event(loop, &client()->send, EV_CUSTOM); /* an answer of this turn had */
		ev_run(loop, EVRUN_NOWAIT);
		ck_assert_uint_eq(client()->left->sent, 1);
	}
	ck_assert_int_eq(finish(&ops[10]), 0);
	ck_assert_int_eq(finish(&ops[11]), 0);
	end();
}
END_TEST

START_TEST(a_disk_that_drops_flushes_is_kept_as_well)
{
	begin_with(-1, TD_FILE_NOSYNC);
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	ck_assert_int_eq(do_flush(), 0);
	restart();
	UNTIL(back());
	ck_assert_int_eq(do_read(0), 1);
	end();
}
END_TEST

/* --- K9 --- */

START_TEST(changes_that_overlap_are_never_under_way_at_once)
{
	begin();
	flaky.mute = true;
	submit(10, TD_WRITE, 0, 0, 1024, 1);
	submit(11, TD_WRITE, 0, 512, 1024, 2);
	submit(12, TD_WRITE, 0, 4096, 512, 3); /* stands behind it */
	submit(13, TD_READ, 0, 512, 512, 0);   /* does not */
	UNTIL(flaky_count() == 2);
	for (int i = 0; i < 50; i++)
		tick();
	ck_assert_uint_eq(flaky_count(), 2);
	ck_assert_uint_eq(flaky_command(1).type, NBD_CMD_READ);
	flaky_down();
	flaky.mute = false;
	flaky_up();
	for (unsigned i = 10; i < 14; i++)
		ck_assert_int_eq(finish(&ops[i]), 0);
	ck_assert(flaky_now(0) == 1 && flaky_now(512) == 2 && flaky_now(1024) == 2);
	end();
}
END_TEST

/* --- K10 --- */

START_TEST(what_is_kept_is_bounded_by_flushes_of_the_clients_own)
{
	unsigned flushes = 0, acknowledged = 0;

	begin();
	flaky.mute_flush = true;
	for (unsigned i = 0; i < 10; i++)
		submit(10 + i, TD_WRITE, 0, (uint64_t)i * BIG, BIG, (int)i + 1);
	for (int i = 0; i < 2000; i++) {
		tick();
		ck_assert_uint_le(client()->keep.data_end - client()->keep.data_first +
					  client()->keep.reserved_bytes,
				  NBD_KEEP_BYTES);
	}
	UNTIL(flaky_count() == NBD_KEEP_BYTES / BIG + 1);
	for (unsigned i = 0; i < 10; i++)
		acknowledged += !ops[10 + i].out;
	for (unsigned i = 0; i < flaky_count(); i++)
		flushes += flaky_command(i).type == NBD_CMD_FLUSH;
	ck_assert_uint_eq(flushes, 1);
	ck_assert_uint_eq(acknowledged, NBD_KEEP_BYTES / BIG);
	ck_assert_int_eq(do_read(0), 1); /* a read goes on */
	flaky_down();
	flaky.mute_flush = false;
	flaky_up();
	for (unsigned i = 0; i < 10; i++)
		ck_assert_int_eq(finish(&ops[10 + i]), 0);
	ck_assert_int_eq(do_flush(), 0);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(flaky_safe((uint64_t)(i + 1) * BIG - 1), i + 1);
	ck_assert_uint_eq(client()->keep.end - client()->keep.first, 0);
	end();
}
END_TEST

START_TEST(many_small_ones_are_bounded_too)
{
	begin();
	for (unsigned i = 0; i < NBD_KEEP_ENTRIES + 100; i++) {
		finish(&ops[10 + i % 50]);
		submit(10 + i % 50, TD_DISCARD, 0, (i % 100) * 512, 512, 0);
		ck_assert_uint_le(client()->keep.end - client()->keep.first, NBD_KEEP_ENTRIES);
	}
	for (unsigned i = 0; i < 50; i++)
		ck_assert_int_eq(finish(&ops[10 + i]), 0);
	UNTIL(client()->keep.end - client()->keep.first < NBD_KEEP_ENTRIES / 2);
	end();
}
END_TEST

START_TEST(a_flush_of_the_clients_own_that_fails_ends_the_image)
{
	begin();
	flaky.fail_flush = NBD_EIO;
	for (unsigned i = 0; i < 5; i++)
		submit(10 + i, TD_WRITE, 0, (uint64_t)i * BIG, BIG, 1);
	UNTIL(client()->lost);
	ck_assert_ptr_nonnull(strstr(image->fault, "could not flush"));
	ck_assert_int_eq(do_flush(), -EIO);
	ck_assert_uint_eq(failed() & NBD_LEFT_FLUSH, NBD_LEFT_FLUSH);
	for (unsigned i = 0; i < 5; i++)
		finish(&ops[10 + i]);
	end();
}
END_TEST

/* --- K11 --- */

START_TEST(an_old_connections_write_does_not_land_over_a_newer_one)
{
	begin();
	flaky.mute = flaky.lingers = true;
	submit(10, TD_WRITE, 0, 0, 512, 1);
	UNTIL(flaky_count() == 1);
	flaky_down();
	flaky.mute = false;
	UNTIL(image->away);
	flaky_up();
	UNTIL(strstr(client()->why, "still executes"));
	ck_assert_uint_eq(flaky_count(), 1);
	ck_assert(ops[10].out);
	flaky_let_linger_end();
	ck_assert_int_eq(finish(&ops[10]), 0);
	ck_assert_int_eq(do_write(0, 512, 2), 0);
	ck_assert_int_eq(do_read(0), 2);
	end();
}
END_TEST

START_TEST(a_connection_that_our_side_gave_up_is_not_made_again_with_writes_unanswered)
{
	begin();
	nbdc_again(client(), "timed out", false); /* nothing was under way */
	UNTIL(back());
	flaky.mute = true;
	submit(10, TD_WRITE, 0, 0, 512, 1);
	UNTIL(flaky_count() == 1);
	nbdc_again(client(), "timed out", false);
	ck_assert(client()->lost);
	ck_assert_int_eq(finish(&ops[10]), -EIO);
	ck_assert_ptr_nonnull(strstr(image->fault, "over newer ones"));
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-again");

	SUITE_ADD(s, what_was_acknowledged_and_lost_is_written_again);
	SUITE_ADD(s, it_is_written_again_in_the_order_of_its_acknowledgements);
	SUITE_ADD(s, what_overlaps_is_not_under_way_at_once_when_it_is_written_again);
	SUITE_ADD(s, what_a_flush_has_covered_is_not_written_again);
	SUITE_ADD(s, a_flush_covers_what_was_acknowledged_before_it_was_sent_and_no_more);
	SUITE_ADD(s, what_was_not_answered_is_sent_again_after_what_was_kept);
	SUITE_ADD(s, a_durable_write_is_not_overwritten_by_an_older_one);
	SUITE_ADD(s, a_durable_write_alone_is_not_kept);
	SUITE_ADD(s, a_server_that_goes_while_it_is_written_again_loses_nothing);
	SUITE_ADD(s, a_server_that_says_that_it_ends_has_not_done_it);
	SUITE_ADD(s, nothing_is_sent_to_a_server_that_says_that_it_ends);
	SUITE_ADD(s, a_disk_that_drops_flushes_is_kept_as_well);
	SUITE_ADD(s, changes_that_overlap_are_never_under_way_at_once);
	SUITE_ADD(s, what_is_kept_is_bounded_by_flushes_of_the_clients_own);
	SUITE_ADD(s, many_small_ones_are_bounded_too);
	SUITE_ADD(s, a_flush_of_the_clients_own_that_fails_ends_the_image);
	SUITE_ADD(s, an_old_connections_write_does_not_land_over_a_newer_one);
	SUITE_ADD(s, a_connection_that_our_side_gave_up_is_not_made_again_with_writes_unanswered);
	return suite_run(s);
}
