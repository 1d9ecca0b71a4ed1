/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A mirror whose copy is a part of the disk: what it holds is read, or the leaf is full. */
#include "tests/support/test-mirror.h"

static unsigned nredirected, nlost;
static bool slowly;    /* the record is written when the test says so */
static int unrecorded; /* or cannot be */

static void on_lost(void *owner, int e)
{
	ck_assert(e == -EIO || e == -ENOSPC);
	nlost++;
}

static void on_full(void *owner)
{
	ck_assert_ptr_eq(owner, &m);
	nredirected++;
	if (!slowly)
		mirror_redirect(m, unrecorded);
}

static void begin_joined(enum mirror_part part, bool redirected)
{
	begin();
	nredirected = nlost = 0;
	slowly = false;
	unrecorded = 0;
	mirror_join(m, part, redirected, on_full, on_lost);
	ck_assert_int_eq(mirror_part(m), part);
}

static bool is_durable(const struct side *s)
{
	return td_entry(s->pending.next, struct td_req, link)->flags & TD_FUA;
}

START_TEST(a_copy_that_is_read_gets_what_the_leaf_has_and_is_durable)
{
	begin_joined(MIRROR_READ, false);
	ask(0, TD_WRITE, 4096, 8192);
	ck_assert(leaf.npending == 1 && !copy.npending && !is_durable(&leaf));
	complete(&leaf, 0, 0);
	ck_assert(copy.npending == 1 && is_durable(&copy) && !done[0]);
	complete(&copy, 0, 0);
	answered(0, 0);
	ck_assert_mem_eq(leaf.data, copy.data, SIZE);
	ask(1, TD_FLUSH, 0, 0);
	ck_assert(leaf.npending == 1 && copy.npending == 1);
	drain();
	answered(1, 0);
	ask(2, TD_DISCARD, 0, 65536); /* which need not do anything */
	answered(2, 0);
	ask(3, TD_WRITE_ZEROES, 0, 65536);
	answered(3, -EOPNOTSUPP);
	ck_assert(!leaf.npending && !copy.npending);
	end();
}
END_TEST

/* It holds what the leaf lacks: without it the disk would be another. */
START_TEST(a_copy_that_is_read_does_not_fail_alone)
{
	static const int errors[] = {-EIO, -ENOSPC};

	for (unsigned i = 0; i < 2; i++) {
		begin_joined(MIRROR_READ, false);
		ask(0, TD_WRITE, 0, 4096);
		complete(&leaf, 0, 0);
		complete(&copy, 0, errors[i]);
		answered(0, errors[i]);
		ck_assert_uint_eq(nlost, 1); /* it was to be durable */
		ask(1, TD_WRITE, 0, 4096);
		complete(&leaf, 0, -EIO);
		answered(1, -EIO);
		ck_assert(!copy.npending);
		ask(2, TD_FLUSH, 0, 0);
		complete(&leaf, 0, 0);
		complete(&copy, 0, -EIO);
		answered(2, -EIO);
		ck_assert_uint_eq(nlost, 1);
		mirror_fail(m, "a test");
		ck_assert(!nfailed && !mirror_why(m) && !nredirected);
		ask(3, TD_WRITE, 0, 4096);
		drain();
		answered(3, 0);
		ck_assert_mem_eq(leaf.data, copy.data, SIZE);
		end();
	}
}
END_TEST

START_TEST(a_full_leaf_is_left_out_where_the_copy_has_all)
{
	for (unsigned by_flush = 0; by_flush < 2; by_flush++) {
		begin_joined(MIRROR_READ, false);
		ask(0, TD_WRITE, 65536, 4096); /* under way meanwhile */
		if (by_flush) {
			ask(1, TD_FLUSH, 0, 0);
			complete(&copy, 0, 0);
		} else {
			ask(1, TD_WRITE, 0, 4096);
		}
		complete(&leaf, 1, -ENOSPC);
		ck_assert_uint_eq(nredirected, 1);
		if (!by_flush) {
			ck_assert(copy.npending == 1 && !done[1]);
			complete(&copy, 0, 0);
		}
		answered(1, 0);
		complete(&leaf, 0, -ENOSPC);
		ck_assert(copy.npending == 1 && !done[0]);
		complete(&copy, 0, 0);
		answered(0, 0);
		ask(2, TD_WRITE, 8192, 4096);
		ck_assert(!leaf.npending && copy.npending == 1 && is_durable(&copy));
		ask(3, TD_WRITE, 8192, 4096); /* overlaps */
		ck_assert_uint_eq(copy.npending, 1);
		drain();
		answered(2, 0);
		answered(3, 0);
		ask(4, TD_READ, 0, 4096);
		ck_assert(!leaf.npending && copy.npending == 1);
		drain();
		answered(4, 0);
		ask(5, TD_FLUSH, 0, 0);
		ck_assert(!leaf.npending && copy.npending == 1);
		drain();
		answered(5, 0);
		ask(6, TD_WRITE, 0, 4096);
		complete(&copy, 0, -ENOSPC); /* and now nothing is left */
		answered(6, -ENOSPC);
		ck_assert(nredirected == 1 && mirror_is_redirected(m));
		end();
	}
}
END_TEST

START_TEST(a_standby_takes_the_very_write_that_found_no_space)
{
	begin_joined(MIRROR_STANDBY, false);
	ck_assert_ptr_eq(copy.image->backing, leaf.image);
	ask(0, TD_WRITE, 0, 4096);
	ask(1, TD_WRITE, 65536, 4096);
	ask(2, TD_FLUSH, 0, 0);
	ck_assert(leaf.npending == 3 && !copy.npending);
	complete(&leaf, 0, -ENOSPC);
	ck_assert(nredirected == 1 && copy.npending == 1 && is_durable(&copy) && !done[0]);
	complete(&leaf, 0, 0); /* is in the leaf, beneath the copy */
	answered(1, 0);
	ck_assert_uint_eq(copy.npending, 1);
	complete(&copy, 0, 0);
	answered(0, 0);
	complete(&leaf, 0, -ENOSPC); /* metadata: nothing but space makes that durable */
	answered(2, -ENOSPC);
	ask(3, TD_FLUSH, 0, 0);
	ck_assert(leaf.npending == 1 && copy.npending == 1);
	complete(&copy, 0, 0);
	ck_assert(!done[3]);
	complete(&leaf, 0, 0);
	answered(3, 0);
	ask(4, TD_READ, 0, 4096);
	ask(5, TD_WRITE, 4096, 4096);
	ck_assert(!leaf.npending && copy.npending == 2);
	drain();
	answered(4, 0);
	answered(5, 0);
	end();
	ck_assert(!nfailed);
}
END_TEST

/* A death before the record says so leaves a disk whose leaf is read first. */
START_TEST(what_finds_no_space_waits_until_a_successor_would_know)
{
	for (enum mirror_part part = MIRROR_READ; part <= MIRROR_STANDBY; part++) {
		begin_joined(part, false);
		slowly = true;
		ask(0, TD_WRITE, 0, 4096);
		ask(1, TD_WRITE, 65536, 4096);
		ask(2, TD_WRITE, 0, 4096); /* overlaps the first */
		complete(&leaf, 0, -ENOSPC);
		complete(&leaf, 0, -EDQUOT);
		ck_assert(nredirected == 1 && !copy.npending && !done[0] && !done[1]);
		ask(3, TD_READ, 0, 4096);
		ask(4, TD_WRITE, 131072, 4096);
		ck_assert(leaf.npending == 2 && !copy.npending); /* as before, meanwhile */
		complete(&leaf, 0, 0);
		answered(3, 0);
		mirror_redirect(m, 0);
		ck_assert(copy.npending == 2 && is_durable(&copy) && !done[0] && !done[1]);
		complete(&copy, 0, 0);
		complete(&copy, 0, 0);
		answered(0, 0);
		answered(1, 0);
		ck_assert(copy.npending == 1); /* and what waited for them */
		complete(&leaf, 0, -ENOSPC);   /* that was under way there */
		ck_assert(nredirected == 1 && copy.npending == 2);
		drain();
		answered(2, 0);
		answered(4, 0);
		end();
	}
}
END_TEST

START_TEST(without_a_record_there_is_no_space)
{
	for (enum mirror_part part = MIRROR_READ; part <= MIRROR_STANDBY; part++) {
		begin_joined(part, false);
		slowly = true;
		ask(0, TD_WRITE, 0, 4096);
		ask(1, TD_WRITE, 65536, 4096);
		complete(&leaf, 0, -ENOSPC);
		complete(&leaf, 0, -ENOSPC);
		mirror_redirect(m, -EROFS);
		answered(0, -ENOSPC);
		answered(1, -ENOSPC);
		ck_assert(!copy.npending && !mirror_is_redirected(m) && !nlost);
		slowly = false;
		unrecorded = -EIO;
		ask(0, TD_WRITE, 0, 4096); /* once more */
		ck_assert(leaf.npending == 1);
		complete(&leaf, 0, -ENOSPC);
		answered(0, -ENOSPC);
		ck_assert(nredirected == 2 && !copy.npending);
		unrecorded = 0;
		ask(0, TD_WRITE, 0, 4096);
		complete(&leaf, 0, -ENOSPC);
		ck_assert(copy.npending == 1 && mirror_is_redirected(m));
		drain();
		answered(0, 0);
		end();
	}
}
END_TEST

START_TEST(a_successor_goes_on_with_a_full_leaf)
{
	for (enum mirror_part part = MIRROR_READ; part <= MIRROR_STANDBY; part++) {
		begin_joined(part, true);
		ask(0, TD_WRITE, 0, 4096);
		ask(1, TD_READ, 8192, 4096);
		ck_assert(!leaf.npending && copy.npending == 2);
		drain();
		answered(0, 0);
		answered(1, 0);
		ck_assert(!nredirected);
		end();
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mirror-part");

	SUITE_ADD(s, a_copy_that_is_read_gets_what_the_leaf_has_and_is_durable);
	SUITE_ADD(s, a_copy_that_is_read_does_not_fail_alone);
	SUITE_ADD(s, a_full_leaf_is_left_out_where_the_copy_has_all);
	SUITE_ADD(s, a_standby_takes_the_very_write_that_found_no_space);
	SUITE_ADD(s, what_finds_no_space_waits_until_a_successor_would_know);
	SUITE_ADD(s, without_a_record_there_is_no_space);
	SUITE_ADD(s, a_successor_goes_on_with_a_full_leaf);
	return suite_run(s);
}
