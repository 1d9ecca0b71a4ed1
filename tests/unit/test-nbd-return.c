/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A server that comes back as another, to a successor, late, or not at all: K12 to K15 in
 * drivers/nbd/nbd.h. */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/dial.h"
#include "tests/support/nbd-away.h"

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
	Suite *s = suite_create("nbd-return");

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
