/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A mirror (MI1 to MI7 of tapdisk/mirror/mirror.h), between two images whose requests the test
 * carries out and completes by hand, in any order. */
#include "tests/support/test-mirror.h"

START_TEST(a_change_is_answered_when_both_have_it)
{
	static const enum td_op ops[] = {TD_WRITE, TD_FLUSH};

	for (unsigned first = 0; first < 2; first++)
		for (unsigned k = 0; k < 2; k++) {
			bool range = ops[k] != TD_FLUSH;

			begin();
			ask(0, ops[k], range ? 4096 : 0, range ? 8192 : 0);
			ck_assert(leaf.npending == 1 && copy.npending == 1);
			complete(first ? &leaf : &copy, 0, 0);
			ck_assert_int_eq(done[0], 0);
			complete(first ? &copy : &leaf, 0, 0);
			answered(0, 0);
			ck_assert_mem_eq(leaf.data, copy.data, SIZE);
			end();
		}
}
END_TEST

START_TEST(reads_are_the_leafs_alone)
{
	begin();
	ask(0, TD_READ, 0, 4096);
	ck_assert(leaf.npending == 1 && !copy.npending);
	complete(&leaf, 0, -EIO);
	answered(0, -EIO);
	ck_assert_uint_eq(nfailed, 0);
	end();
}
END_TEST

START_TEST(a_durable_write_is_durable_at_both)
{
	begin();
	ask(0, TD_WRITE, 0, 512);
	drain();
	ck_assert(!leaf.fua && !copy.fua);
	reqs[1] = reqs[0];
	reqs[1].flags = TD_FUA;
	td_submit(mirror_image(m), &reqs[1]);
	drain();
	ck_assert(leaf.fua == 1 && copy.fua == 1);
	end();
}
END_TEST

START_TEST(the_copys_failure_is_told_and_the_guest_hears_nothing)
{
	static const int errnos[] = {-EIO, -ENOSPC, -ECONNRESET};

	for (unsigned e = 0; e < 3; e++)
		for (unsigned leaf_first = 0; leaf_first < 2; leaf_first++) {
			begin();
			ask(0, TD_WRITE, 0, 4096);
			ask(1, TD_WRITE, 65536, 4096);
			ask(2, TD_FLUSH, 0, 0);
			ask(3, TD_WRITE, 0, 4096); /* behind the first */
			ck_assert_uint_eq(copy.npending, 3);
			if (leaf_first)
				complete(&leaf, 0, 0);
			complete(&copy, 0, errnos[e]);
			ck_assert_uint_eq(nfailed, 1);
			ck_assert_ptr_nonnull(strstr(mirror_why(m), strerror(-errnos[e])));
			ck_assert(copy.abandoned && !copy.npending);
			while (leaf.npending)
				complete(&leaf, 0, 0);
			for (unsigned i = 0; i < 4; i++)
				answered(i, 0);
			/* from then on, it is as if there were none */
			ask(5, TD_DISCARD, 0, 65536);
			ask(6, TD_FLUSH, 0, 0);
			while (leaf.npending)
				complete(&leaf, 0, 0);
			answered(5, 0);
			answered(6, 0);
			ck_assert_uint_eq(nfailed, 1);
			end();
		}
}
END_TEST

START_TEST(the_leafs_failure_is_the_guests)
{
	begin();
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, -EIO);
	ck_assert_int_eq(done[0], 0);
	complete(&copy, 0, 0);
	answered(0, -EIO);
	mirror_fail(m, "as the cache layer says");
	mirror_fail(m, "again");
	ck_assert_uint_eq(nfailed, 1);
	ck_assert_str_eq(mirror_why(m), "as the cache layer says");
	end();
}
END_TEST

START_TEST(what_overlaps_goes_one_after_the_other_and_in_order)
{
	begin();
	ask(0, TD_WRITE, 4096, 4096);
	ask(1, TD_WRITE, 4096, 512);
	ask(2, TD_DISCARD, 0, SIZE); /* behind both */
	ask(3, TD_WRITE, 1 << 20, 4096);
	ask(4, TD_FLUSH, 0, 0);
	ask(5, TD_READ, 4096, 512);
	/* the last write waits too: the discard before it has not begun */
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 1);
	ck_assert_uint_eq(copy.seen[TD_WRITE], 1);
	ck_assert_uint_eq(leaf.seen[TD_FLUSH] + leaf.seen[TD_READ], 2);
	ck_assert_uint_eq(mirror_stats(m).waited, 3);
	complete(&leaf, 0, 0);
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 1);
	complete(&copy, 0, 0);
	answered(0, 0);
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 2);
	drain();
	for (unsigned i = 0; i < 6; i++)
		answered(i, 0);
	ck_assert_mem_eq(leaf.data, copy.data, SIZE);
	end();
}
END_TEST

START_TEST(a_change_beside_another_waits_for_nothing)
{
	begin();
	ask(0, TD_WRITE, 4096, 4096);
	ask(1, TD_WRITE, 8192, 4096);
	ask(2, TD_WRITE, 0, 4096);
	ck_assert_uint_eq(leaf.seen[TD_WRITE], 3);
	ck_assert_uint_eq(mirror_stats(m).waited, 0);
	drain();
	end();
}
END_TEST

START_TEST(zeroes_and_discards_go_to_the_leaf_first)
{
	static const enum td_op ops[] = {TD_WRITE_ZEROES, TD_DISCARD};

	for (unsigned k = 0; k < 2; k++) {
		begin();
		ask(0, ops[k], 0, 65536);
		ck_assert(leaf.npending == 1 && !copy.npending);
		complete(&leaf, 0, 0);
		ck_assert_int_eq(done[0], 0);
		ck_assert_uint_eq(copy.seen[ops[k]], 1);
		complete(&copy, 0, 0);
		answered(0, 0);
		/* what the leaf cannot do has changed nothing on either */
		ask(1, ops[k], 0, 65536);
		complete(&leaf, 0, -EOPNOTSUPP);
		answered(1, -EOPNOTSUPP);
		ck_assert_uint_eq(copy.seen[ops[k]], 1);
		ck_assert_uint_eq(nfailed, 0);
		end();
	}
}
END_TEST

START_TEST(a_copy_that_cannot_zero_gets_zeroes_written)
{
	static const uint64_t lens[] = {512, 65536, 1 << 20, (3 << 20) + 512};
	static const enum td_op ops[] = {TD_WRITE_ZEROES, TD_DISCARD};

	for (unsigned k = 0; k < 8; k++) {
		begin();
		memset(leaf.data, 0xee, SIZE);
		memset(copy.data, 0xee, SIZE);
		copy.zeroes_err = -EOPNOTSUPP;
		copy.image->info.discard = false;
		ask(0, ops[k % 2], 1024, lens[k / 2]);
		ask(1, TD_WRITE, 1024, 512); /* behind all of it */
		while (!done[0]) {
			ck_assert_int_eq(done[1], 0);
			complete(leaf.npending ? &leaf : &copy, 0, 0);
		}
		answered(0, 0);
		drain();
		answered(1, 0);
		ck_assert_uint_eq(copy.seen[TD_WRITE],
				  (lens[k / 2] + (1 << 20) - 1) / (1 << 20) + 1);
		ck_assert_mem_eq(leaf.data, copy.data, SIZE);
		ck_assert_uint_eq(nfailed, 0);
		end();
	}
}
END_TEST

START_TEST(a_copy_that_does_not_answer_has_failed_after_a_while)
{
	begin_with(&by_hand, 1);
	for (int k = 0; k < 3; k++) { /* idle for longer: it was asked for nothing */
		usleep(400000);
		ev_run(loop, EVRUN_NOWAIT);
	}
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, 0);
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert(!nfailed && !done[0]);
	while (!nfailed)
		ev_run(loop, EVRUN_ONCE);
	answered(0, 0);
	ck_assert_ptr_nonnull(strstr(mirror_why(m), "not answered for 1 s"));
	end();
}
END_TEST

static double since(const struct timespec *start)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)(t.tv_sec - start->tv_sec) + (double)(t.tv_nsec - start->tv_nsec) / 1e9;
}

/* Of `patience' s, in which the mirror looks four times; false: the machine was held up for as
 * long. */
static bool outlives_a_jump(int patience)
{
	double was = ev_time();
	struct timespec start;
	unsigned bad;

	clock_gettime(CLOCK_MONOTONIC, &start);
	begin_with(&by_hand, patience);
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, 0);
	jump = 3600; /* which libev notices twice a second */
	while (ev_now(loop) < was + 3000 || since(&start) < patience * 0.6) {
		usleep(50000);
		ev_run(loop, EVRUN_NOWAIT);
	}
	bad = nfailed;
	if (!bad)
		complete(&copy, 0, 0);
	answered(0, 0);
	jump = 0;
	end();
	ck_assert(!bad || since(&start) >= patience);
	return !bad;
}

START_TEST(a_clock_that_is_set_fails_no_mirror_and_keeps_none)
{
	int tries = 5;

	while (!outlives_a_jump(2))
		ck_assert_int_gt(--tries, 0);

	begin_with(&by_hand, 1);
	ask(0, TD_WRITE, 0, 4096);
	complete(&leaf, 0, 0);
	jump = -3600;
	for (int k = 0; k < 200 && !nfailed; k++) {
		usleep(100000);
		ev_run(loop, EVRUN_NOWAIT);
	}
	ck_assert_uint_eq(nfailed, 1);
	jump = 0;
	answered(0, 0);
	end();
}
END_TEST

/* A connection that ends between two requests: what its server had taken may be lost with it. */
START_TEST(a_copy_that_is_found_bad_has_failed)
{
	begin();
	ask(0, TD_WRITE, 0, 4096);
	td_image_fault(copy.image, "the server has closed the connection");
	ck_assert_uint_eq(nfailed, 1);
	ck_assert_str_eq(mirror_why(m), "the server has closed the connection");
	while (leaf.npending)
		complete(&leaf, 0, 0);
	answered(0, 0);
	end();
	/* while it is closed nobody is there to hear of it */
	begin();
	mirror_close(m);
	td_image_fault(copy.image, "too late");
	ck_assert_uint_eq(nfailed, 0);
	td_image_close(leaf.image);
	td_image_close(copy.image);
	ev_loop_destroy(loop);
}
END_TEST

START_TEST(a_copy_in_the_kernel_keeps_the_memory_that_it_has)
{
	begin_with(&in_kernel, 0);
	ask(0, TD_WRITE, 0, 4096);
	ask(1, TD_WRITE, 0, 4096); /* behind it */
	ask(2, TD_WRITE, 65536, 4096);
	complete(&copy, 1, -EIO);
	ck_assert_uint_eq(nfailed, 1);
	while (leaf.npending)
		complete(&leaf, 0, 0);
	answered(1, 0);
	answered(2, 0);
	ck_assert_int_eq(done[0], 0);
	complete(&copy, 0, 0);
	answered(0, 0);
	end();
}
END_TEST

START_TEST(a_disk_that_grows_leaves_its_mirror_behind)
{
	begin();
	leaf.image->info.size = SIZE / 2;
	copy.image->info.size = SIZE / 2;
	mirror_resized(m);
	ck_assert_uint_eq(nfailed, 0);
	leaf.image->info.size = SIZE;
	mirror_resized(m);
	ck_assert_uint_eq(nfailed, 1);
	ask(0, TD_WRITE, SIZE - 512, 512);
	complete(&leaf, 0, 0);
	answered(0, 0);
	end();
}
END_TEST

START_TEST(other_threads_write_past_it_only_when_it_has_failed)
{
	const struct td_gate *g;

	begin();
	g = mirror_image(m)->gate;
	ck_assert(!g->lets(g, 0, 4096));
	mirror_fail(m, "so");
	ck_assert(g->lets(g, 0, 4096));
	end();
}
END_TEST

/* Requests at random, many of which overlap, completed in any order: when all is answered, both
 * ends hold the same; and what was answered was at both before. */
START_TEST(both_hold_the_same)
{
	srand((unsigned)_i + 1);
	begin();
	copy.zeroes_err = _i % 2 ? -EOPNOTSUPP : 0;
	copy.image->info.discard = _i % 3;
	for (int step = 0; step < 20000; step++) {
		unsigned i = (unsigned)rand() % NREQ;
		uint64_t off = (uint64_t)rand() % (_i % 4 ? 64 : SIZE / 512) * 512,
			 len = (uint64_t)(rand() % 64 + 1) * 512;
		struct side *s = rand() % 2 ? &leaf : &copy;
		int op = rand() % 20;

		len = len > SIZE - off ? SIZE - off : len;
		if (rand() % 3 && (!reqs[i].done || done[i])) {
			if (op < 17)
				ask(i, TD_WRITE, off, len);
			else if (op == 17)
				ask(i, TD_FLUSH, 0, 0);
			else
				ask(i, op == 18 ? TD_DISCARD : TD_WRITE_ZEROES, off,
				    rand() % 8 ? len : SIZE - off);
		}
		if (s->npending)
			complete(s, (unsigned)rand() % s->npending, 0);
		if (step % 1000 == 999) {
			drain();
			ck_assert_mem_eq(leaf.data, copy.data, SIZE);
		}
	}
	drain();
	for (unsigned i = 0; i < NREQ; i++)
		ck_assert(!reqs[i].done || (done[i] == 1 && !errs[i]));
	ck_assert_uint_eq(nfailed, 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mirror");

	SUITE_ADD(s, a_change_is_answered_when_both_have_it);
	SUITE_ADD(s, reads_are_the_leafs_alone);
	SUITE_ADD(s, a_durable_write_is_durable_at_both);
	SUITE_ADD(s, the_copys_failure_is_told_and_the_guest_hears_nothing);
	SUITE_ADD(s, the_leafs_failure_is_the_guests);
	SUITE_ADD(s, what_overlaps_goes_one_after_the_other_and_in_order);
	SUITE_ADD(s, a_change_beside_another_waits_for_nothing);
	SUITE_ADD(s, zeroes_and_discards_go_to_the_leaf_first);
	SUITE_ADD(s, a_copy_that_cannot_zero_gets_zeroes_written);
	SUITE_ADD(s, a_copy_that_does_not_answer_has_failed_after_a_while);
	SUITE_ADD(s, a_clock_that_is_set_fails_no_mirror_and_keeps_none);
	SUITE_ADD(s, a_copy_that_is_found_bad_has_failed);
	SUITE_ADD(s, a_copy_in_the_kernel_keeps_the_memory_that_it_has);
	SUITE_ADD(s, a_disk_that_grows_leaves_its_mirror_behind);
	SUITE_ADD(s, other_threads_write_past_it_only_when_it_has_failed);
	SUITE_ADD_LOOP(s, both_hold_the_same, 6);
	return suite_run(s);
}
