/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of changed blocks (CB1 to CB6 of tapdisk/changed.h): its file is on a simulated store,
 * and the image's requests come to the test, which looks into the file when they do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/changed-log.h"
#include "tapdisk/changed.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define SIZE   (TEST_IMAGE_SECTORS * 512u) /* 32 blocks of 64 KiB, 4 bytes of bits */
#define BLOCKS (SIZE / CHANGED_BLOCK)
#define NREQ   64

static struct ev_loop *loop;
static struct fault_io fio;
static struct test_image img;
static struct fault_file *file;
static struct changed *log_of;
static struct td_err err;
static struct td_req reqs[NREQ];
static int done[NREQ], errs[NREQ];
static unsigned char buf[SIZE];
static struct iovec iov[NREQ];

static bool bit(uint64_t block)
{
	return file->data[CHANGED_HEADER + block / 8] >> block % 8 & 1;
}

/* CB1, at the moment at which a request comes to the image. */
static void seen(struct test_image *t, struct td_req *r)
{
	if (r->op == TD_READ || r->op == TD_FLUSH)
		return;
	for (uint64_t b = r->off / CHANGED_BLOCK; b <= (r->off + r->len - 1) / CHANGED_BLOCK; b++)
		ck_assert_msg(b >= BLOCKS || bit(b), "block %d is changed without its bit", (int)b);
}

static bool left; /* it is opened after the death of a process */

static void open_main(void *arg)
{
	int *rc = arg;

	err.code = 0;
	*rc = changed_open("/log", img.image, fio.io, left, &log_of, &err);
}

static int open_log(void)
{
	int rc;

	on_fiber(loop, open_main, &rc);
	return rc;
}

static void sync_main(void *arg)
{
	int *rc = arg;

	*rc = changed_sync(log_of, &err);
}

static int sync_log(void)
{
	int rc;

	on_fiber(loop, sync_main, &rc);
	return rc;
}

static void close_main(void *arg)
{
	changed_close(log_of);
}

static void close_log(void)
{
	on_fiber(loop, close_main, NULL);
	img.image->gate = NULL;
	log_of = NULL;
}

static void begin_with(uint64_t bytes)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	test_image_open(&img, 0);
	img.seen = seen;
	img.at_once = true;
	file = fault_io_file(&fio, "/log", bytes);
	memset(file->data, 0xcc, bytes);
	if (bytes >= CHANGED_HEADER + changed_bytes(SIZE)) {
		td_put_le64(file->data + CHANGED_SIZE, SIZE);
		memset(file->data + CHANGED_HEADER, 0, changed_bytes(SIZE));
	}
	memset(done, 0, sizeof done);
	left = false;
}

static void begin(void)
{
	begin_with(CHANGED_HEADER + changed_bytes(SIZE) + 16);
	ck_assert_msg(open_log() == 0, "%s", err.text);
	fault_io_clear(&fio);
}

static void end(void)
{
	if (log_of) {
		ck_assert_int_eq(sync_log(), 0);
		close_log();
	}
	test_image_close(&img);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
}

static void on_done(struct td_req *r, int e)
{
	done[r - reqs]++;
	errs[r - reqs] = e;
}

static void ask(unsigned i, enum td_op op, uint64_t off, uint64_t len)
{
	iov[i] = (struct iovec){buf, len};
	reqs[i] = (struct td_req){.op = op,
				  .off = off,
				  .len = len,
				  .iov = &iov[i],
				  .iovcnt = 1,
				  .done = on_done,
				  .io = &img.io};
	done[i] = 0;
	td_submit(img.image, &reqs[i]);
}

static void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

static void finished(unsigned i, int e)
{
	for (int k = 0; k < 1000 && !done[i]; k++)
		turns(1);
	ck_assert_int_eq(done[i], 1);
	ck_assert_int_eq(errs[i], e);
}

static unsigned nwrites(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < fio.nlog; i++)
		n += fio.log[i].op == TD_IO_WRITE;
	return n;
}

/* CB2: all but the bits of these blocks is as it was. */
static void only(uint32_t set)
{
	uint64_t bytes = changed_bytes(SIZE);

	for (unsigned b = 0; b < BLOCKS; b++)
		ck_assert_msg(bit(b) == (set >> b & 1), "block %u", b);
	for (uint64_t i = 0; i < file->size; i++)
		if (i < CHANGED_SIZE || i >= CHANGED_HEADER + bytes)
			ck_assert_msg(file->data[i] == 0xcc, "byte %d", (int)i);
}

START_TEST(what_changes_has_its_bit_before_it_changes)
{
	static const enum td_op ops[] = {TD_WRITE, TD_DISCARD, TD_WRITE_ZEROES};

	begin();
	for (unsigned i = 0; i < 3; i++) {
		ask(i, ops[i], (3 * i + 1) * CHANGED_BLOCK, 512);
		ck_assert_int_eq(done[i], 0);
		finished(i, 0);
	}
	only(1u << 1 | 1u << 4 | 1u << 7);
	ask(3, TD_WRITE, 10 * CHANGED_BLOCK - 512, 3 * CHANGED_BLOCK);
	finished(3, 0);
	only(1u << 1 | 1u << 4 | 1u << 7 | 0xfu << 9);
	ck_assert_uint_eq(changed_count(log_of), 7);
	ask(4, TD_WRITE, 0, SIZE);
	finished(4, 0);
	only(UINT32_MAX);
	end();
}
END_TEST

START_TEST(reads_and_flushes_leave_no_bit_and_what_has_one_waits_for_nothing)
{
	begin();
	ask(0, TD_READ, 0, 4096);
	reqs[1] = (struct td_req){.op = TD_FLUSH, .done = on_done, .io = &img.io};
	td_submit(img.image, &reqs[1]);
	ck_assert(done[0] == 1 && done[1] == 1);
	only(0);
	ask(2, TD_WRITE, 0, 4096);
	finished(2, 0);
	ck_assert_uint_eq(nwrites(), 1);
	ask(3, TD_WRITE, CHANGED_BLOCK - 4096, 4096);
	ck_assert_int_eq(done[3], 1);
	ck_assert_uint_eq(nwrites(), 1);
	end();
}
END_TEST

START_TEST(what_comes_together_goes_in_one_round)
{
	begin();
	fio.manual = true;
	for (unsigned i = 0; i < 20; i++)
		ask(i, TD_WRITE, i * CHANGED_BLOCK, 512);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 1);  /* that of them all */
	for (unsigned i = 20; i < 30; i++) { /* those who come meanwhile are the next one's */
		ask(i, TD_WRITE, i * CHANGED_BLOCK, 512);
		turns(1);
	}
	ck_assert_uint_eq(fio.nrunning, 1);
	ck_assert(fault_io_complete(&fio, 0));
	turns(3);
	for (unsigned i = 0; i < 30; i++)
		ck_assert_int_eq(done[i], i < 20);
	ck_assert_uint_eq(fio.nrunning, 1);
	ck_assert(fault_io_complete(&fio, 0));
	for (unsigned i = 0; i < 30; i++)
		finished(i, 0);
	ck_assert_uint_eq(nwrites(), 2);
	only((1u << 30) - 1);
	fio.manual = false;
	end();
}
END_TEST

START_TEST(a_log_that_cannot_be_written_fails_what_needs_it_and_is_tried_again)
{
	static const int errnos[] = {-EIO, -ENOSPC};

	for (unsigned e = 0; e < 2; e++) {
		begin();
		img.nwrites = 0;
		ask(0, TD_WRITE, 0, 512);
		fault_io_rule(&fio, 1, errnos[e]);
		ask(1, TD_WRITE, 5 * CHANGED_BLOCK, 512);
		finished(0, errnos[e]);
		ck_assert_uint_eq(img.nwrites, done[1] && !errs[1]);
		for (int k = 0; k < 100 && !done[1]; k++)
			turns(1);
		ask(2, TD_WRITE, 0, 512);
		finished(2, 0);
		ck_assert(bit(0));
		ask(3, TD_WRITE, 5 * CHANGED_BLOCK, 512);
		finished(3, 0);
		only(1u | 1u << 5);
		end();
	}
}
END_TEST

START_TEST(a_round_of_one_write_is_made_near)
{
	begin();
	ask(0, TD_WRITE, 0, 512);
	ask(1, TD_WRITE, 9 * CHANGED_BLOCK, 512);
	finished(0, 0);
	finished(1, 0);
	ck_assert_uint_eq(nwrites(), 1);
	ck_assert(fio.log[0].op == TD_IO_WRITE && fio.log[0].flags == TD_IO_NEAR);
	end();
}
END_TEST

START_TEST(a_log_is_made_durable_by_one_sync)
{
	begin();
	ask(0, TD_WRITE, 0, 512);
	finished(0, 0);
	fault_io_clear(&fio);
	ck_assert_int_eq(sync_log(), 0);
	ck_assert_uint_eq(fio.nlog, 1);
	ck_assert_int_eq(fio.log[0].op, TD_IO_SYNC);
	end();
}
END_TEST

/* The last operations on the file: all that has bits is written, and then made durable. */
static void written_and_synced(void)
{
	ck_assert_uint_eq(fio.nlog, 2);
	ck_assert_int_eq(fio.log[0].op, TD_IO_WRITE);
	ck_assert_uint_eq(fio.log[0].off, CHANGED_HEADER);
	ck_assert_uint_eq(fio.log[0].len, changed_bytes(SIZE));
	ck_assert_int_eq(fio.log[1].op, TD_IO_SYNC);
}

START_TEST(what_a_failed_sync_left_in_doubt_is_written_again)
{
	begin();
	ask(0, TD_WRITE, 0, 512);
	finished(0, 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(sync_log(), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "/log"));
	fault_io_clear(&fio);
	fault_io_rule(&fio, 2, -EIO); /* and so it is as often as it fails */
	ck_assert_int_eq(sync_log(), -EIO);
	written_and_synced();
	fault_io_clear(&fio);
	ck_assert_int_eq(sync_log(), 0);
	written_and_synced();
	only(1);
	fault_io_clear(&fio);
	ck_assert_int_eq(sync_log(), 0);
	ck_assert_uint_eq(fio.nlog, 1);
	end();
}
END_TEST

START_TEST(what_a_dead_process_left_is_written_again)
{
	begin();
	ask(0, TD_WRITE, 7 * CHANGED_BLOCK, 512);
	finished(0, 0);
	close_log();
	left = true;
	ck_assert_int_eq(open_log(), 0);
	fault_io_clear(&fio);
	ck_assert_int_eq(sync_log(), 0);
	written_and_synced();
	only(1u << 7);
	end();
}
END_TEST

START_TEST(bits_that_are_there_stay)
{
	begin_with(CHANGED_HEADER + changed_bytes(SIZE));
	file->data[CHANGED_HEADER + 1] = 0x81;
	ck_assert_int_eq(open_log(), 0);
	ask(0, TD_WRITE, 9 * CHANGED_BLOCK, 512);
	finished(0, 0);
	ck_assert_uint_eq(file->data[CHANGED_HEADER + 1], 0x83);
	fault_io_clear(&fio);
	ask(1, TD_WRITE, 8 * CHANGED_BLOCK, 512);
	ck_assert_int_eq(done[1], 1);
	end();
}
END_TEST

START_TEST(a_log_that_is_missing_or_too_short_is_refused)
{
	begin_with(CHANGED_HEADER + changed_bytes(SIZE) - 1);
	ck_assert_int_eq(open_log(), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "cbt-util"));
	ck_assert_ptr_null(img.image->gate);
	strcpy(file->name, "/elsewhere");
	ck_assert_int_eq(open_log(), -ENOENT);
	end();
}
END_TEST

START_TEST(what_a_disk_has_grown_by_is_not_logged)
{
	begin();
	img.image->info.size = SIZE + 4 * CHANGED_BLOCK;
	ask(0, TD_WRITE, SIZE + CHANGED_BLOCK, 512);
	ck_assert_int_eq(done[0], 1);
	ask(1, TD_WRITE, SIZE - 512, 1024);
	finished(1, 0);
	only(1u << 31);
	end();
}
END_TEST

/* Other threads are told no until the bits are in the file, and yes from then on. */
START_TEST(a_lane_is_let_pass_when_the_bits_are_in_the_file)
{
	const struct td_gate *g;

	begin();
	g = img.image->gate;
	fio.manual = true;
	ck_assert(!g->lets(g, 0, 512));
	ask(0, TD_WRITE, 0, 512);
	turns(3);
	ck_assert(!g->lets(g, 0, 512));
	ck_assert(fault_io_complete(&fio, 0));
	turns(3);
	ck_assert_int_eq(done[0], 1);
	ck_assert(g->lets(g, 0, 512));
	ck_assert(g->lets(g, CHANGED_BLOCK - 512, 512));
	ck_assert(!g->lets(g, CHANGED_BLOCK - 512, 1024));
	fio.manual = false;
	end();
}
END_TEST

/* At random: operations of the log complete, fail and wait in any order; seen() judges. */
START_TEST(nothing_changes_without_its_bit)
{
	srand((unsigned)_i + 1);
	begin();
	fio.manual = true;
	for (int step = 0; step < 3000; step++) {
		unsigned i = (unsigned)rand() % NREQ;
		uint64_t off = (uint64_t)rand() % TEST_IMAGE_SECTORS * 512,
			 len = (uint64_t)(rand() % 400 + 1) * 512;

		if (rand() % 3 && (!reqs[i].done || done[i])) {
			len = len > SIZE - off ? SIZE - off : len;
			ask(i, rand() % 5 ? TD_WRITE : TD_DISCARD, off, len);
		}
		if (rand() % 30 == 0)
			fault_io_rule(&fio, fio.k + 1, -EIO);
		if (fio.nrunning && rand() % 2)
			fault_io_complete(&fio, (unsigned)rand() % fio.nrunning);
		turns(1);
		if (fio.nrules > 50)
			fault_io_clear(&fio);
		if (rand() % 500 ==
		    0) { /* all is answered, and another starts with what is there */
			while (fio.nrunning) {
				fault_io_complete(&fio, 0);
				turns(2);
			}
			fio.manual = false;
			fault_io_clear(&fio);
			ck_assert_int_eq(sync_log(), 0);
			close_log();
			ck_assert_int_eq(open_log(), 0);
			fio.manual = true;
		}
	}
	while (fio.nrunning) {
		fault_io_complete(&fio, 0);
		turns(2);
	}
	for (unsigned i = 0; i < NREQ; i++)
		ck_assert(!reqs[i].done || done[i] == 1);
	fio.manual = false;
	fault_io_clear(&fio);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("changed");

	SUITE_ADD(s, what_changes_has_its_bit_before_it_changes);
	SUITE_ADD(s, reads_and_flushes_leave_no_bit_and_what_has_one_waits_for_nothing);
	SUITE_ADD(s, what_comes_together_goes_in_one_round);
	SUITE_ADD(s, a_log_that_cannot_be_written_fails_what_needs_it_and_is_tried_again);
	SUITE_ADD(s, a_round_of_one_write_is_made_near);
	SUITE_ADD(s, a_log_is_made_durable_by_one_sync);
	SUITE_ADD(s, what_a_failed_sync_left_in_doubt_is_written_again);
	SUITE_ADD(s, what_a_dead_process_left_is_written_again);
	SUITE_ADD(s, bits_that_are_there_stay);
	SUITE_ADD(s, a_log_that_is_missing_or_too_short_is_refused);
	SUITE_ADD(s, what_a_disk_has_grown_by_is_not_logged);
	SUITE_ADD(s, a_lane_is_let_pass_when_the_bits_are_in_the_file);
	SUITE_ADD_LOOP(s, nothing_changes_without_its_bit, 20);
	return suite_run(s);
}
