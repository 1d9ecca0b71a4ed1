/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The record of what is in flight, and a ring that is taken over by it: one death, two in a row,
 * and records that are not to be believed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tapdisk/blkif/inflight.h"
#include "tests/support/test-ring.h"

static char path[PATH_MAX];
static struct blkif_keep first = {.path = path}, successor = {.path = path, .take_over = true};

static void make_path(void)
{
	const char *tmp = getenv("TMPDIR");

	ck_assert_int_lt(snprintf(path, sizeof path, "%s/test-inflight.%d", tmp ? tmp : "/tmp",
				  (int)getpid()),
			 (int)sizeof path);
}

/* --- what is owed --- */

START_TEST(an_entry_is_owed_from_its_taking_until_its_answer_is_pushed)
{
	struct inflight_ring id = {.slots = 32};
	struct inflight t;
	/* around the place where indices wrap, too */
	const uint32_t pushed[] = {0, 5, UINT32_MAX, UINT32_MAX - 3};

	ck_assert_int_eq(inflight_new(&t, NULL, &id), 0);
	t.head->next = 10;
	for (unsigned i = 0; i < sizeof pushed / sizeof pushed[0]; i++) {
		struct inflight_entry *e = &t.entry[3];

		*e = (struct inflight_entry){.seq = 9, .state = INFLIGHT_FREE};
		ck_assert(!inflight_owed(&t, e, pushed[i]));
		e->state = INFLIGHT_TAKEN;
		ck_assert(inflight_owed(&t, e, pushed[i]));
		e->state = INFLIGHT_ANSWERING;
		e->rsp = pushed[i]; /* the next one to be pushed */
		ck_assert(inflight_owed(&t, e, pushed[i]));
		e->rsp = pushed[i] + 1;
		ck_assert(inflight_owed(&t, e, pushed[i]));
		e->rsp = pushed[i] - 1;
		ck_assert(!inflight_owed(&t, e, pushed[i]));
		e->state = INFLIGHT_TAKEN;
		e->seq = 10; /* T2 has not come: it is still in the ring */
		ck_assert(!inflight_owed(&t, e, pushed[i]));
	}
	inflight_close(&t, false);
}
END_TEST

/* --- deaths --- */

static struct {
	char ring[sizeof g.ring];
	char file[1 << 16];
	size_t bytes;
} left;

static void read_record(void)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, left.file, sizeof left.file);

	ck_assert(n > 0 && n < (ssize_t)sizeof left.file);
	left.bytes = (size_t)n;
	close(fd);
}

static void write_record(void)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_eq(write(fd, left.file, left.bytes), (ssize_t)left.bytes);
	close(fd);
}

static struct inflight_entry *entry_of(uint64_t id)
{
	struct inflight_head *h = (struct inflight_head *)(void *)left.file;
	struct inflight_entry *e = (struct inflight_entry *)(h + 1);

	for (unsigned i = 0; i < h->ring.slots; i++)
		if (e[i].desc.id == id)
			return &e[i];
	ck_abort_msg("request %d is not in the record", (int)id);
	return NULL;
}

/* The process ends here: the ring and the record are as they are now, whatever its ring does on its
 * way out of this test. */
static void die(void)
{
	memcpy(left.ring, g.ring.bytes, sizeof left.ring);
	read_record();
	blkif_hold(ring);
	test_image_drain(&img);
	turns(3);
	ck_assert_uint_eq(blkif_inflight(ring), 0);
	blkif_disconnect(ring);
	memcpy(g.ring.bytes, left.ring, sizeof left.ring);
	g.closed = 0;
	write_record();
}

static int take_over(void)
{
	struct td_err err = {0};

	keep = &successor;
	return try_connect(BLKIF_NATIVE, 1, &err);
}

static void begin_kept(void)
{
	make_path();
	keep = &first;
	begin(BLKIF_NATIVE, 1);
	img.at_once = false;
}

static void end_kept(void)
{
	end();
	ck_assert_int_eq(access(path, F_OK), -1);
	keep = NULL;
}

static uint64_t next_id(void)
{
	uint64_t id;
	uint8_t op;

	ck_assert_int_eq(response(&id, &op), BLKIF_OKAY);
	return id;
}

static uint64_t sector_at(unsigned i)
{
	return test_image_at(&img, i)->off / 512;
}

START_TEST(what_was_not_answered_is_done_again_in_the_guests_order)
{
	begin_kept();
	for (unsigned i = 0; i < 4; i++)
		put(desc(BLKIF_READ, 100 + i, 8 * i, 1));
	kick();
	turns(1);
	ck_assert_uint_eq(img.npending, 4);
	test_image_complete(&img, 1, 0);
	turns(1);
	ck_assert_uint_eq(next_id(), 101);
	put(desc(BLKIF_READ, 104, 32, 1)); /* for whoever comes */
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
	die();
	ck_assert_int_eq(take_over(), 0);
	ck_assert_uint_eq(blkif_inflight(ring), 3);
	ck_assert_uint_eq(img.npending, 0); /* before it runs */
	g.notified = 0;
	blkif_run(ring);
	ck_assert_uint_ge(g.notified, 1); /* a notification may have died with the other */
	ck_assert_uint_eq(img.npending, 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(sector_at(i), ((uint64_t[]){0, 16, 24, 32})[i]);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(next_id(), ((uint64_t[]){100, 102, 103, 104})[i]);
	end_kept();
}
END_TEST

START_TEST(an_answer_that_was_marked_and_not_pushed_is_owed_whatever_the_successor_answers_first)
{
	begin_kept();
	put(desc(BLKIF_READ, 1, 0, 1));
	put(desc(BLKIF_READ, 2, 8, 1));
	kick();
	turns(1);
	die();
	entry_of(1)->state = INFLIGHT_ANSWERING; /* it died between T3 and the push */
	entry_of(1)->rsp = 0;
	write_record();
	ck_assert_int_eq(take_over(), 0);
	ck_assert_uint_eq(blkif_inflight(ring), 2);
	blkif_run(ring);
	ck_assert_uint_eq(sector_at(1), 8);
	test_image_complete(&img, 1, 0); /* index 0 is the other's now */
	turns(1);
	ck_assert_uint_eq(next_id(), 2);
	die();
	ck_assert_int_eq(take_over(), 0);
	ck_assert_uint_eq(blkif_inflight(ring), 1);
	blkif_run(ring);
	ck_assert_uint_eq(img.npending, 1);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 1);
	ck_assert_uint_eq(next_id(), 1);
	end_kept();
}
END_TEST

START_TEST(an_answer_that_was_pushed_is_never_given_again)
{
	begin_kept();
	put(desc(BLKIF_READ, 1, 0, 1));
	put(desc(BLKIF_READ, 2, 8, 1));
	kick();
	turns(1);
	test_image_complete(&img, 0, 0);
	turns(1);
	ck_assert_uint_eq(next_id(), 1);
	/* it died between the push and T4 */
	die();
	ck_assert_int_eq(entry_of(1)->state, INFLIGHT_FREE);
	entry_of(1)->state = INFLIGHT_ANSWERING;
	ck_assert_uint_eq(entry_of(1)->rsp, 0);
	write_record();
	ck_assert_int_eq(take_over(), 0);
	ck_assert_uint_eq(blkif_inflight(ring), 1);
	blkif_run(ring);
	ck_assert_uint_eq(img.npending, 1);
	ck_assert_uint_eq(sector_at(0), 8);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 1);
	ck_assert_uint_eq(next_id(), 2);
	end_kept();
}
END_TEST

/* --- what is not to be believed --- */

/* Refused, with the record left for who tries again. */
static void refused(int rc)
{
	struct stat st;

	ck_assert_int_eq(take_over(), rc);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(g.bound, 0);
	ck_assert_uint_eq(g.mapped, 0);
}

START_TEST(a_record_of_another_kind_ring_or_length_is_refused)
{
	struct inflight_head *h = (struct inflight_head *)(void *)left.file;

	begin_kept();
	put(desc(BLKIF_READ, 1, 0, 1));
	kick();
	turns(1);
	die();
	h->magic ^= 1;
	write_record();
	refused(-EPROTO);
	h->magic ^= 1;
	h->entry_size++;
	write_record();
	refused(-EPROTO);
	h->entry_size--;
	h->ring.refs[0]++;
	write_record();
	refused(-EPROTO);
	h->ring.refs[0]--;
	left.bytes--;
	write_record();
	refused(-EPROTO);
	left.bytes++;
	write_record();
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(take_over(), -ENOENT);
	write_record();
	ck_assert_int_eq(take_over(), 0); /* as it was, it is believed */
	blkif_run(ring);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(next_id(), 1);
	end_kept();
}
END_TEST

START_TEST(a_guest_that_changes_rsp_prod_is_not_taken_over)
{
	const uint32_t lies[] = {1, 2, 3, 33, 0x80000000u, UINT32_MAX};

	begin_kept();
	put(desc(BLKIF_READ, 1, 0, 1));
	put(desc(BLKIF_READ, 2, 8, 1));
	kick();
	turns(1);
	die();
	for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		g.ring.sring.rsp_prod = lies[i];
		refused(-EPROTO);
		write_record(); /* as it was: sorting it has freed what the lie said was answered */
	}
	g.ring.sring.rsp_prod = 0;
	ck_assert_int_eq(take_over(), 0);
	blkif_run(ring);
	test_image_drain(&img);
	turns(2);
	ck_assert_uint_eq(nresponses(), 2);
	g.cons += 2;
	end_kept();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("inflight");

	SUITE_ADD(s, an_entry_is_owed_from_its_taking_until_its_answer_is_pushed);
	SUITE_ADD(s, what_was_not_answered_is_done_again_in_the_guests_order);
	SUITE_ADD(
		s,
		an_answer_that_was_marked_and_not_pushed_is_owed_whatever_the_successor_answers_first);
	SUITE_ADD(s, an_answer_that_was_pushed_is_never_given_again);
	SUITE_ADD(s, a_record_of_another_kind_ring_or_length_is_refused);
	SUITE_ADD(s, a_guest_that_changes_rsp_prod_is_not_taken_over);
	return suite_run(s);
}
