/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A server that goes away and comes back, having lost what was volatile: K8 to K13 in
 * drivers/nbd/nbd.h. */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/dial.h"
#include "tests/support/nbd-drive.h"
#include "tests/support/suite.h"

#define BIG (4u << 20)

static bool far; /* the server is one of TCP */

static void open_disk(int reconnect, unsigned flags)
{
	snprintf(spec, sizeof spec, "%s", flaky.path);
	open_spec(reconnect, flags);
	UNTIL(!client()->more.working);
	flaky_forget();
}

static void begin_with(int reconnect, unsigned flags)
{
	prepare(far);
	open_disk(reconnect, flags);
}

static void begin(void)
{
	begin_with(-1, 0);
}

static int do_read(uint64_t off)
{
	struct op *o = submit(2, TD_READ, 0, off, 512, 0xee);
	int result = finish(o);

	return result < 0 ? result : (uint8_t)o->mem[0];
}

static bool back(void)
{
	return client()->phase == NBD_RUNS && !client()->since && !client()->more.working;
}

static void restart(void)
{
	flaky_down();
	UNTIL(image->away || client()->lost);
	flaky_up();
}

static uint32_t failed(void)
{
	return client()->left->failed;
}

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

/* --- K12 --- */

static void comes_back_as_another(void (*change)(void), const char *text)
{
	begin();
	flaky.max = 1 << 20;
	on_fiber(loop, close_main, NULL);
	open_disk(-1, 0);
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	flaky_down();
	UNTIL(image->away);
	submit(10, TD_READ, 0, 0, 512, 0);
	change();
	flaky_forget();
	flaky_up();
	UNTIL(client()->lost);
	ck_assert_ptr_nonnull(image->fault);
	ck_assert_msg(strstr(image->fault, text), "%s", image->fault);
	ck_assert_ptr_null(image->away);
	ck_assert_int_eq(finish(&ops[10]), -EIO);
	ck_assert_int_eq(do_write(0, 512, 2), -EIO);
	ck_assert_int_eq(do_flush(), -EIO);
	ck_assert_int_eq(do_read(0), -EIO);
	ck_assert_uint_eq(flaky_count(), 0);
	ck_assert_uint_eq(failed() & NBD_LEFT_AWAY, NBD_LEFT_AWAY);
	end();
}

static void grow(void)
{
	flaky.size += 512;
}

static void protect(void)
{
	flaky.flags |= NBD_FLAG_READ_ONLY;
}

static void forget_flush(void)
{
	flaky.flags &= ~(unsigned)NBD_FLAG_SEND_FLUSH;
}

static void forget_fua(void)
{
	flaky.flags &= ~(unsigned)NBD_FLAG_SEND_FUA;
}

static void forget_zeroes(void)
{
	flaky.flags &= ~(unsigned)NBD_FLAG_SEND_WRITE_ZEROES;
}

static void take_less(void)
{
	flaky.max = 65536;
}

START_TEST(a_server_that_comes_back_as_another_is_refused)
{
	comes_back_as_another(grow, "another disk");
	comes_back_as_another(protect, "read-only");
	comes_back_as_another(forget_flush, "without flush");
	comes_back_as_another(forget_fua, "without FUA");
	comes_back_as_another(forget_zeroes, "without write-zeroes");
	comes_back_as_another(take_less, "it could not take");
}
END_TEST

START_TEST(a_server_that_does_not_take_it_again_is_refused)
{
	begin();
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	flaky_down();
	flaky.fail = NBD_ENOSPC;
	flaky_up();
	UNTIL(client()->lost);
	ck_assert_ptr_nonnull(strstr(image->fault, "does not take again"));
	ck_assert_int_eq(do_flush(), -EIO);
	end();
}
END_TEST

/* --- K13 --- */

START_TEST(a_successor_knows_what_the_dead_had_not_written_again)
{
	begin();
	flaky.flags |= NBD_FLAG_CAN_MULTI_CONN;
	on_fiber(loop, close_main, NULL);
	open_disk(-1, 0);
	restart();
	UNTIL(back());
	ck_assert_uint_eq(failed(), 0);
	flaky_down();
	UNTIL(image->away);
	ck_assert_uint_eq(failed(), 0); /* nothing was kept */
	flaky_up();
	UNTIL(back());
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	flaky_down();
	UNTIL(image->away);
	ck_assert_uint_eq(failed(), NBD_LEFT_AWAY);
	ck_assert(nbdc_left_doubt(client()->left, false, true));
	flaky_up();
	UNTIL(back());
	ck_assert_uint_eq(failed(), 0);
	ck_assert(!nbdc_left_doubt(client()->left, false, true));
	end();
}
END_TEST

/* --- its ends --- */

START_TEST(without_the_word_all_fails_at_once)
{
	begin_with(0, 0);
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	flaky_down();
	UNTIL(client()->lost);
	flaky_up();
	ck_assert_int_eq(do_read(0), -EIO);
	ck_assert_uint_eq(client()->keep.end, 0);
	end();
	begin_with(-1, TD_FILE_COPY); /* a mirror has its own rule */
	flaky_down();
	UNTIL(client()->lost);
	end();
}
END_TEST

START_TEST(the_limit_ends_in_errors)
{
	begin_with(1, 0);
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	restart();
	UNTIL(back());
	flaky_down();
	submit(10, TD_READ, 0, 0, 512, 0);
	ck_assert_int_eq(finish(&ops[10]), -EIO);
	ck_assert_ptr_nonnull(strstr(image->fault, "away for more than 1 s"));
	flaky_up();
	ck_assert_int_eq(do_flush(), -EIO);
	end();
}
END_TEST

START_TEST(the_limit_counts_until_all_is_done_again)
{
	begin_with(1, 0);
	flaky.mute = true;
	submit(10, TD_WRITE, 0, 0, 512, 1);
	UNTIL(flaky_count() == 1);
	restart(); /* it listens, and answers nothing */
	ck_assert_int_eq(finish(&ops[10]), -EIO);
	end();
}
END_TEST

START_TEST(an_image_is_given_up_and_closed_while_its_server_is_away)
{
	begin();
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	flaky_down();
	UNTIL(image->away);
	submit(10, TD_READ, 0, 0, 512, 0);
	td_driver_nbd.abandon(image, "given up");
	ck_assert(!ops[10].out && ops[10].result == -EIO);
	end();
	begin();
	flaky_down();
	UNTIL(image->away);
	end(); /* it had nothing to do: a close need not wait for the server */
	begin_with(-1, TD_FILE_RDONLY);
	restart();
	ck_assert_int_eq(do_read(0), 0);
	ck_assert_uint_eq(client()->keep.end, 0);
	end();
}
END_TEST

/* --- K15 --- */

static void put_link(bool up)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = up ? IFF_UP : 0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0);
	close(fd);
}

/* In a network of its own, whose one link can be cut; false: this host gives none. */
static bool begin_far(int reconnect)
{
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	put_link(true);
	far = true;
	td_dial_ask = 1;
	nbdc_silent_after = 3;
	begin_with(reconnect, 0);
	return true;
}

START_TEST(a_server_of_another_host_goes_and_comes)
{
	far = true;
	begin();
	ck_assert_int_eq(do_write(0, 4096, 1), 0);
	restart();
	UNTIL(back());
	ck_assert_int_eq(do_read(0), 1);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(flaky_safe(0), 1);
	end();
}
END_TEST

START_TEST(a_link_that_is_cut_is_a_pause_on_the_same_connection)
{
	struct op *o;

	if (!begin_far(-1))
		return;
	ck_assert_int_eq(do_write(0, 4096, 1), 0);
	put_link(false);
	o = submit(5, TD_WRITE, 0, 8192, 4096, 2);
	UNTIL(image->away);
	ck_assert_ptr_nonnull(strstr(image->away, "does not answer, and 1 changes are with it"));
	ck_assert(client()->silent && client()->phase == NBD_RUNS && o->out);
	put_link(true);
	ck_assert_int_eq(finish(o), 0);
	UNTIL(!image->away);
	ck_assert_uint_eq(image->reconnects, 1);
	ck_assert_int_eq(do_read(8192), 2);
	ck_assert_int_eq(flaky_command(flaky_count() - 1).conn, 1);
	ck_assert_int_eq(do_flush(), 0);
	end();
}
END_TEST

START_TEST(a_link_that_is_cut_with_nothing_unanswered_is_another_connection)
{
	if (!begin_far(-1))
		return;
	ck_assert_int_eq(do_write(0, 4096, 1), 0);
	put_link(false);
	UNTIL(image->away);
	ck_assert_int_eq(client()->phase, NBD_AWAY);
	put_link(true);
	UNTIL(back());
	ck_assert_int_eq(do_read(0), 1);
	ck_assert_int_eq(flaky_command(flaky_count() - 1).conn, 2);
	/* K8 */
	ck_assert(flaky_command(1).conn == 2 && flaky_command(1).type == NBD_CMD_WRITE);
	/* one that is there, and has nothing to say */
	for (double until = ev_time() + nbdc_silent_after + 2; ev_time() < until;)
		tick();
	ck_assert(!image->away && image->reconnects == 1);
	end();
}
END_TEST

START_TEST(a_link_that_stays_cut_ends_in_errors)
{
	struct op *o;

	if (!begin_far(_i ? 5 : 0))
		return;
	put_link(false);
	o = submit(5, TD_WRITE, 0, 0, 512, 2);
	ck_assert_int_eq(finish(o), -EIO);
	ck_assert(client()->lost && image->fault);
	ck_assert_ptr_nonnull(
		strstr(image->fault, _i ? "reconnect-limit" : "has not answered for"));
	end();
}
END_TEST

START_TEST(an_attempt_to_connect_is_given_up_at_once)
{
	if (!begin_far(-1))
		return;
	flaky_down();
	UNTIL(image->away);
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
	SUITE_ADD(s, a_server_that_comes_back_as_another_is_refused);
	SUITE_ADD(s, a_server_that_does_not_take_it_again_is_refused);
	SUITE_ADD(s, a_successor_knows_what_the_dead_had_not_written_again);
	SUITE_ADD(s, without_the_word_all_fails_at_once);
	SUITE_ADD(s, the_limit_ends_in_errors);
	SUITE_ADD(s, the_limit_counts_until_all_is_done_again);
	SUITE_ADD(s, an_image_is_given_up_and_closed_while_its_server_is_away);
	SUITE_ADD(s, a_server_of_another_host_goes_and_comes);
	SUITE_ADD(s, a_link_that_is_cut_is_a_pause_on_the_same_connection);
	SUITE_ADD(s, a_link_that_is_cut_with_nothing_unanswered_is_another_connection);
	SUITE_ADD_LOOP(s, a_link_that_stays_cut_ends_in_errors, 2);
	SUITE_ADD(s, an_attempt_to_connect_is_given_up_at_once);
	return suite_run(s);
}
