/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Further connections for reads: KC1 to KC4 in drivers/nbd/nbd-more.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/dial.h"
#include "tests/support/nbd-drive.h"
#include "tests/support/suite.h"

#define MIB  (1u << 20)
#define PART (128u << 10) /* bytes of a read that is large */

static unsigned up(void)
{
	return client()->more.up;
}

static bool at_rest(void)
{
	return !client()->more.working;
}

/* connections: 0: nobody says */
static void open_disk(unsigned connections, int reconnect, unsigned flags)
{
	if (flaky.tcp)
		snprintf(spec, sizeof spec, "%s?connections=%u", flaky.path, connections);
	else if (connections)
		snprintf(spec, sizeof spec, "nbd+unix:///?socket=%s&connections=%u", flaky.path,
			 connections);
	else
		snprintf(spec, sizeof spec, "%s", flaky.path);
	open_spec(reconnect, flags);
}

static void prepare_many(bool tcp)
{
	prepare(tcp);
	flaky.flags |= NBD_FLAG_CAN_MULTI_CONN;
	flaky.apart = true;
	nbdc_further_patience = 0.5;
}

static void begin_with(unsigned connections, int reconnect, unsigned flags)
{
	prepare_many(false);
	open_disk(connections, reconnect, flags);
	UNTIL(up() == connections - 1 && at_rest());
	flaky_forget();
}

static void begin(void)
{
	begin_with(4, -1, 0);
}

/* Sixteen large reads at once from off on, all of which bring c; by how many connections. */
static unsigned read_many(uint64_t off, int c)
{
	bool by[64] = {false};
	unsigned n = 0, before = flaky_count();

	for (unsigned i = 0; i < 16; i++)
		submit(16 + i, TD_READ, 0, off, PART, 0xee);
	for (unsigned i = 0; i < 16; i++) {
		ck_assert_int_eq(finish(&ops[16 + i]), 0);
		ck_assert_int_eq((uint8_t)ops[16 + i].mem[0], c);
		ck_assert_int_eq((uint8_t)ops[16 + i].mem[PART - 1], c);
	}
	for (unsigned i = before; i < flaky_count(); i++) {
		int k = flaky_command(i).conn;

		if (flaky_command(i).type != NBD_CMD_READ)
			continue; /* a flush of the client's own (K10) */
		n += !by[k];
		by[k] = true;
	}
	return n;
}

static unsigned under_way(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 64; i++)
		n += ops[i].out;
	return n;
}

static unsigned commands_of(int conn)
{
	unsigned n = 0;

	for (unsigned i = 0; i < flaky_count(); i++)
		n += flaky_command(i).conn == conn;
	return n;
}

/* --- KC1 --- */

START_TEST(reads_are_spread_and_nothing_else_is)
{
	begin();
	ck_assert_uint_eq(flaky_conns(), 4);
	ck_assert_uint_eq(read_many(0, 0), 4);
	flaky_forget();
	for (unsigned i = 0; i < 16; i++)
		submit(16 + i, i % 2 ? TD_WRITE : TD_WRITE_ZEROES, i % 4 == 3 ? TD_FUA : 0, i * MIB,
		       MIB, 1);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(finish(&ops[16 + i]), 0);
	ck_assert_int_eq(finish(submit(2, TD_DISCARD, 0, 0, MIB, 0)), 0);
	ck_assert_int_eq(do_flush(), 0);
	for (unsigned i = 0; i < flaky_count(); i++)
		ck_assert_int_eq(flaky_command(i).conn, 1);
	end();
}
END_TEST

START_TEST(there_are_as_many_as_are_wanted_where_they_are_offered)
{
	begin_with(1, -1, 0);
	ck_assert_uint_eq(read_many(0, 0), 1);
	end();
	begin_with(16, -1, 0);
	ck_assert_uint_eq(read_many(0, 0), 16);
	ck_assert_uint_eq(flaky_conns(), 16);
	end();
	prepare_many(false);
	flaky.flags &= ~(unsigned)NBD_FLAG_CAN_MULTI_CONN;
	open_disk(8, -1, 0);
	ck_assert_uint_eq(read_many(0, 0), 1);
	ck_assert_uint_eq(flaky_conns(), 1);
	end();
}
END_TEST

START_TEST(a_few_small_reads_stay_on_one)
{
	begin();
	for (unsigned i = 0; i < 16; i++)
		submit(16 + i, TD_READ, 0, i * 4096, 512, 0);
	for (unsigned i = 0; i < 16; i++)
		finish(&ops[16 + i]);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(flaky_command(i).conn, 1);
	end();
}
END_TEST

START_TEST(a_first_one_that_is_slow_holds_up_no_read_elsewhere)
{
	begin();
	flaky.deaf_conn = 1;
	for (unsigned i = 0; i < 8; i++) /* more than its socket takes */
		submit(2 + i, TD_WRITE, 0, 32 * MIB + i * 2 * MIB, 2 * MIB, 1);
	UNTIL(ev_is_active(&client()->first.out));
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(finish(submit(16 + i, TD_READ, 0, i * MIB, MIB, 1)), 0);
	ck_assert(ops[2].out);
	flaky.deaf_conn = 0;
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(finish(&ops[2 + i]), 0);
	end();
}
END_TEST

/* --- KC2: the server shows no more than it must --- */

START_TEST(a_read_after_a_write_sees_it)
{
	begin();
	ck_assert_int_eq(do_write(0, MIB, 1), 0);
	ck_assert_uint_eq(read_many(0, 1), 1);
	ck_assert_uint_eq(read_many(MIB, 0), 4); /* what was not written */
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(read_many(0, 1), 4);
	ck_assert_int_eq(finish(submit(2, TD_WRITE_ZEROES, TD_UNMAP, 0, MIB, 0)), 0);
	ck_assert_uint_eq(read_many(0, 0), 1);
	end();
}
END_TEST

START_TEST(a_durable_write_is_seen_everywhere)
{
	begin();
	ck_assert_int_eq(finish(submit(2, TD_WRITE, TD_FUA, 0, MIB, 1)), 0);
	ck_assert_uint_eq(read_many(0, 1), 4);
	ck_assert_int_eq(do_write(0, 512, 1), 0);
	ck_assert_int_eq(finish(submit(2, TD_WRITE, TD_FUA, 0, MIB, 2)), 0);
	ck_assert_uint_eq(read_many(0, 2), 1); /* there is an older one, that is not */
	end();
}
END_TEST

START_TEST(a_flush_covers_what_was_acknowledged_before_it_was_sent)
{
	begin();
	flaky.mute_flush = true;
	submit(1, TD_FLUSH, 0, 0, 0, 0);
	UNTIL(flaky_count() == 1);
	ck_assert_int_eq(do_write(0, MIB, 1), 0);
	flaky.mute_flush = false;
	ck_assert_uint_eq(read_many(0, 1), 1);
	flaky_down(); /* the flush is sent again, after what was kept */
	flaky_up();
	ck_assert_int_eq(finish(&ops[1]), 0);
	UNTIL(up() == 3);
	ck_assert_uint_eq(read_many(0, 1), 1);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(read_many(0, 1), 4);
	end();
}
END_TEST

START_TEST(what_is_being_written_or_has_failed_is_read_through_the_first)
{
	begin();
	flaky.fail = NBD_EIO;
	ck_assert_int_eq(do_write(0, MIB, 1), -EIO);
	flaky.fail = 0;
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(read_many(0, 0), 1);
	ck_assert_int_eq(do_write(8 * MIB, 512, 1), 0);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(read_many(0, 0), 4);
	flaky.mute_conn = 1;
	submit(2, TD_WRITE, 0, 0, 512, 1);
	UNTIL(ops[2].out && flaky_count());
	submit(3, TD_READ, 0, 0, MIB, 0);
	for (int i = 0; i < 50; i++)
		tick();
	ck_assert_int_eq(flaky_command(flaky_count() - 1).type, NBD_CMD_READ);
	ck_assert_int_eq(flaky_command(flaky_count() - 1).conn, 1);
	flaky.mute_conn = 0;
	flaky_down();
	flaky_up();
	ck_assert_int_eq(finish(&ops[2]), 0);
	ck_assert_int_eq(finish(&ops[3]), 0);
	end();
}
END_TEST

/* The table has fewer places than this writes, and a change of its own for large ones. */
START_TEST(whatever_was_written_is_seen)
{
	unsigned seed = 1;
	uint8_t is[64] = {0};

	begin();
	for (int i = 0; i < 120; i++) {
		unsigned at = (unsigned)rand_r(&seed) % 64, k = (unsigned)rand_r(&seed) % 100;

		if (k < 30) {
			ck_assert_int_eq(do_write(at * MIB, MIB, i & 0x7f), 0);
			is[at] = i & 0x7f;
		} else if (k < 33) {
			ck_assert_int_eq(finish(submit(2, TD_WRITE_ZEROES, 0, 0, 40 * MIB, 0)), 0);
			memset(is, 0, 40);
		} else if (k < 36) {
			ck_assert_int_eq(do_flush(), 0);
		} else if (k < 38) {
			UNTIL(at_rest()); /* the server waits for whoever it greets */
			flaky_cut(flaky_last());
		} else {
			read_many(at * MIB, is[at]);
		}
	}
	end();
}
END_TEST

START_TEST(without_flushes_what_was_written_stays_with_the_first)
{
	begin_with(4, -1, TD_FILE_NOSYNC);
	ck_assert_int_eq(do_write(0, MIB, 1), 0);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(read_many(0, 1), 1);
	ck_assert_uint_eq(read_many(MIB, 0), 4);
	end();
}
END_TEST

/* --- their ends --- */

START_TEST(one_that_is_cut_is_no_pause_and_comes_back)
{
	for (int reconnect = -1; reconnect < 1; reconnect++) {
		begin_with(4, reconnect, 0);
		flaky.mute_conn = 3;
		for (unsigned i = 0; i < 16; i++)
			submit(16 + i, TD_READ, 0, i * MIB, PART, 1);
		UNTIL(flaky_count() == 16);
		UNTIL(under_way() == commands_of(3)); /* the server does not wait for us */
		flaky_cut(3);
		flaky.mute_conn = 0;
		for (unsigned i = 0; i < 16; i++) {
			ck_assert_int_eq(finish(&ops[16 + i]), 0);
			ck_assert_int_eq(ops[16 + i].mem[PART - 1], 0);
			ck_assert_ptr_null(image->away);
		}
		UNTIL(up() == 3);
		ck_assert_uint_eq(read_many(0, 0), 4);
		ck_assert_uint_eq(image->reconnects, 0);
		ck_assert_ptr_null(image->fault);
		end();
	}
}
END_TEST

START_TEST(one_that_ends_now_and_then_is_not_made_at_once_each_time)
{
	begin();
	for (int i = 0; i < 5; i++) {
		flaky_cut(flaky_last());
		UNTIL(up() < 3);
		UNTIL(up() == 3);
	}
	ck_assert(client()->more.delay >= 0.1);
	ck_assert_uint_eq(image->reconnects, 0);
	UNTIL(up() == 3);
	end();
}
END_TEST

START_TEST(a_server_that_ends_says_so_on_each)
{
	begin();
	flaky.fail_read = NBD_ESHUTDOWN;
	for (unsigned i = 0; i < 16; i++)
		submit(16 + i, TD_READ, 0, i * MIB, MIB, 1);
	UNTIL(client()->first.leaving || image->away);
	flaky.fail_read = 0;
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(finish(&ops[16 + i]), 0);
	UNTIL(up() == 3);
	end();
}
END_TEST

START_TEST(with_the_first_all_end_and_come_back)
{
	begin();
	ck_assert_int_eq(do_write(0, MIB, 1), 0);
	flaky.mute = true;
	for (unsigned i = 0; i < 16; i++)
		submit(16 + i, TD_READ, 0, 8 * MIB + i * MIB, MIB, 1);
	submit(2, TD_READ, 0, 0, 512, 0);
	UNTIL(flaky_count() == 18);
	flaky_cut(1); /* the others are there */
	UNTIL(image->away);
	ck_assert_uint_eq(up(), 0);
	flaky_down(); /* the write is lost */
	flaky_forget();
	flaky.mute = false;
	flaky_up();
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(finish(&ops[16 + i]), 0);
	ck_assert_int_eq(finish(&ops[2]), 0);
	ck_assert_int_eq(ops[2].mem[0], 1);
	ck_assert_int_eq(flaky_command(0).type, NBD_CMD_WRITE); /* K8 */
	UNTIL(up() == 3);
	ck_assert_uint_eq(read_many(0, 1), 1);
	ck_assert_int_eq(do_flush(), 0);
	ck_assert_uint_eq(read_many(0, 1), 4);
	end();
}
END_TEST

START_TEST(an_image_that_is_lost_has_none)
{
	begin();
	flaky.mute = true;
	for (unsigned i = 0; i < 16; i++)
		submit(16 + i, TD_READ, 0, i * MIB, MIB, 1);
	UNTIL(flaky_count() == 16);
	td_driver_nbd.abandon(image, "given up");
	for (unsigned i = 0; i < 16; i++)
		ck_assert(!ops[16 + i].out && ops[16 + i].result == -EIO);
	ck_assert_uint_eq(up(), 0);
	end();
}
END_TEST

/* --- KC3, KC4 --- */

START_TEST(one_that_leads_elsewhere_is_not_used)
{
	prepare_many(false);
	flaky.differs = 512;
	open_disk(4, -1, 0);
	UNTIL(at_rest());
	ck_assert(client()->more.refused);
	ck_assert_uint_eq(up(), 0);
	ck_assert_uint_eq(read_many(0, 0), 1);
	for (int i = 0; i < 1000; i++)
		tick();
	ck_assert_uint_eq(flaky_conns(), 1);
	flaky.differs = 0;
	flaky_cut(1);
	UNTIL(up() == 3);
	ck_assert_uint_eq(read_many(0, 0), 4);
	end();
}
END_TEST

/* The first one's server lives, and another listens where it did. */
START_TEST(a_server_that_took_the_place_is_another)
{
	char aside[120];

	prepare_many(false);
	open_disk(1, -1, 0);
	end();
	prepare_many(false);
	open_disk(2, -1, 0);
	UNTIL(up() == 1);
	snprintf(aside, sizeof aside, "%s.old", flaky.path);
	ck_assert_int_eq(rename(flaky.path, aside), 0);
	ck_assert_int_eq(link(aside, flaky.path), 0); /* the same socket: it is the same */
	flaky_cut(2);
	UNTIL(up() == 1);
	unlink(flaky.path);
	fclose(fopen(flaky.path, "w"));
	flaky_cut(3);
	UNTIL(client()->more.refused);
	ck_assert_uint_eq(up(), 0);
	ck_assert_uint_eq(read_many(0, 0), 1);
	unlink(aside);
	end();
}
END_TEST

START_TEST(there_is_one_unless_more_are_asked_for)
{
	prepare_many(false);
	open_disk(0, -1, 0);
	ck_assert_ptr_null(client()->more.conns);
	ck_assert_uint_eq(read_many(0, 0), 1);
	ck_assert_uint_eq(flaky_conns(), 1);
	end();
}
END_TEST

START_TEST(a_server_may_take_fewer)
{
	prepare_many(false);
	flaky.most = 3;
	open_disk(4, -1, 0);
	UNTIL(up() == 2);
	ck_assert_uint_eq(read_many(0, 0), 3);
	flaky_cut(1); /* no pause for the one that waits to be let in */
	UNTIL(image->reconnects == 1 && !image->away);
	UNTIL(up() == 2);
	ck_assert_uint_eq(read_many(0, 0), 3);
	end(); /* nor at the end */
}
END_TEST

/* --- on another host --- */

START_TEST(one_that_is_silent_alone_is_made_anew)
{
	prepare_many(true);
	td_dial_ask = 1;
	nbdc_silent_after = 0.5; /* half of it: less than the kernel is silent at rest */
	open_disk(3, -1, 0);
	UNTIL(up() == 2);
	ck_assert_uint_eq(read_many(0, 0), 3);
	UNTIL(up() < 2);
	nbdc_silent_after = 25;
	UNTIL(up() == 2);
	ck_assert_uint_eq(read_many(0, 0), 3);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-more");

	SUITE_ADD(s, reads_are_spread_and_nothing_else_is);
	SUITE_ADD(s, there_are_as_many_as_are_wanted_where_they_are_offered);
	SUITE_ADD(s, a_few_small_reads_stay_on_one);
	SUITE_ADD(s, a_first_one_that_is_slow_holds_up_no_read_elsewhere);
	SUITE_ADD(s, a_read_after_a_write_sees_it);
	SUITE_ADD(s, a_durable_write_is_seen_everywhere);
	SUITE_ADD(s, a_flush_covers_what_was_acknowledged_before_it_was_sent);
	SUITE_ADD(s, what_is_being_written_or_has_failed_is_read_through_the_first);
	SUITE_ADD(s, whatever_was_written_is_seen);
	SUITE_ADD(s, without_flushes_what_was_written_stays_with_the_first);
	SUITE_ADD(s, one_that_is_cut_is_no_pause_and_comes_back);
	SUITE_ADD(s, one_that_ends_now_and_then_is_not_made_at_once_each_time);
	SUITE_ADD(s, a_server_that_ends_says_so_on_each);
	SUITE_ADD(s, with_the_first_all_end_and_come_back);
	SUITE_ADD(s, an_image_that_is_lost_has_none);
	SUITE_ADD(s, one_that_leads_elsewhere_is_not_used);
	SUITE_ADD(s, a_server_that_took_the_place_is_another);
	SUITE_ADD(s, there_is_one_unless_more_are_asked_for);
	SUITE_ADD(s, a_server_may_take_fewer);
	SUITE_ADD(s, one_that_is_silent_alone_is_made_anew);
	return suite_run(s);
}
