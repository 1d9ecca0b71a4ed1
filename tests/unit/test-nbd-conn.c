/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NBD connections over a real socket, on an image that is completed by hand: how much is let in,
 * what a client is told, what it may do, and how it goes. */
#include "lib/fiber/fiber.h"
#include "tests/support/stacks.h"
#include "tests/support/test-nbd.h"

START_TEST(a_client_that_reads_nothing_is_not_read_either)
{
	uint8_t req[NBD_REQUEST_SIZE];
	unsigned sent = 0, most = 0, quiet = 0;

	begin(false);
	nbd_put32(nbd_put64(nbd_put64(nbd_put16(nbd_put16(nbd_put32(req, NBD_REQUEST_MAGIC), 0),
						NBD_CMD_READ),
				      1),
			    0),
		  65536);
	while (quiet < 50 && sent < 100000) {
		if (send(fd, req, sizeof req, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof req)
			sent++, quiet = 0;
		else
			quiet++;
		turns(1);
		most = t.npending > most ? t.npending : most;
		if (t.npending > 100)
			test_image_drain(&t);
	}
	test_image_drain(&t);
	turns(2);
	ck_assert_uint_lt(sent, 100000);
	ck_assert_uint_le(most, NBD_REQS);
	ck_assert_uint_le(t.nreads, NBD_REQS + 64); /* some replies stand in the socket */
	end();
}
END_TEST

static unsigned gone[8], ngone; /* how many requests there were each time that some went ahead */

static void on_ahead(struct td_io *io)
{
	ck_assert_uint_lt(ngone, 8);
	gone[ngone++] = t.nreads;
}

static void on_a_read(struct test_image *image, struct td_req *req)
{
	image->io.dirty = true; /* as an operation of an engine would make it */
}

START_TEST(the_first_of_a_clients_batch_goes_to_the_disk_at_once)
{
	static const struct td_io_ops ops = {.name = "ahead", .ahead = on_ahead};
	static const unsigned expected[] = {1, 2, 4, 8};
	uint8_t batch[10][NBD_REQUEST_SIZE];
	struct td_io own;

	begin(false);
	own = t.io;
	t.io = (struct td_io){.ops = &ops, .loop = loop};
	t.seen = on_a_read;
	for (unsigned round = 0; round < 2; round++) { /* each batch is one by itself */
		ngone = 0;
		for (unsigned i = 0; i < 10; i++)
			put_request(batch[i], NBD_CMD_READ, 0, i, 0, 512);
		say(batch, sizeof batch);
		turns(2);
		ck_assert_uint_eq(ngone, sizeof expected / sizeof *expected);
		for (unsigned i = 0; i < ngone; i++)
			ck_assert_uint_eq(gone[i], 10 * round + expected[i]);
	}
	t.io = own;
	test_image_drain(&t);
	end();
}
END_TEST

/* Its head was read alone, and its data in the next turn. */
START_TEST(a_long_write_that_has_come_is_begun_in_one_turn)
{
	static uint8_t all[NBD_REQUEST_SIZE + 32 * 1024];

	begin(false);
	for (unsigned i = 0; i < 3; i++) {
		put_request(all, NBD_CMD_WRITE, 0, i, 0, 32 * 1024);
		say(all, sizeof all);
		turns(i ? 1 : 4); /* the first tells that this client's writes are long */
		ck_assert_uint_eq(t.npending, 1);
		test_image_complete(&t, 0, 0);
		expect_simple(i, 0);
	}
	end();
}
END_TEST

START_TEST(block_status_waits_while_there_is_no_image)
{
	uint8_t b[64];
	uint16_t flags;
	uint32_t len;

	begin(true);
	nbd_hold(n);
	cache_quiesce(&cache);
	ask(NBD_CMD_BLOCK_STATUS, 0, 1, 0, 1 << 20);
	ck_assert(silent());
	cache_resume(&cache);
	nbd_run(n);
	ck_assert_uint_eq(chunk(1, &flags, &len), NBD_CHUNK_STATUS);
	ck_assert(flags == NBD_CHUNK_DONE && len == 12);
	hear(b, 12);
	ck_assert_uint_eq(nbd_get32(b), NBD_CONTEXT_ALLOCATION);
	ck_assert_uint_eq(nbd_get32(b + 4), 1 << 20);
	ck_assert_uint_eq(nbd_get32(b + 8), 0); /* this driver cannot tell: data */
	end();
}
END_TEST

/* A CD that is changed for a smaller one while a client waits. */
START_TEST(what_was_checked_before_a_pause_is_checked_again)
{
	static uint8_t b[1 << 20];

	begin(true);
	nbd_hold(n);
	cache_quiesce(&cache);
	ask(NBD_CMD_BLOCK_STATUS, 0, 1, 0, 1 << 20);
	turns(2);
	cache_resume(&cache);
	nbd_run(n);
	hear(b, NBD_CHUNK_SIZE + 12); /* taken after the pause: as it is */
	ask(NBD_CMD_READ, 0, 2, 0, 512);
	test_image_complete(&t, 0, 0);
	hear(b, NBD_CHUNK_SIZE + 8 + 512);
	cache_quiesce(&cache); /* taken before: the layer below is the first to pause */
	ask(NBD_CMD_BLOCK_STATUS, 0, 3, 0, 1 << 20);
	disk.size = 1 << 19;
	nbd_hold(n);
	cache_resume(&cache);
	nbd_run(n);
	expect_error_chunk(3, NBD_EINVAL);
	end();

	strcpy(dir + sizeof dir - 7, "XXXXXX");
	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, LONG);
	disk.size = 1 << 20;
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	hear(b, sizeof b);
	ck_assert(dropped());
	ck_assert_uint_eq(t.npending, 0);
	end();
}
END_TEST

START_TEST(a_request_without_magic_ends_the_connection)
{
	uint8_t b[NBD_REQUEST_SIZE] = {0};

	begin_with(false, true);
	ask(NBD_CMD_FLUSH, 0, 1, 0, 0);
	say(b, sizeof b);
	turns(2);
	test_image_complete(&t, 0, 0); /* what came before it is answered */
	expect_simple(1, 0);
	ck_assert(dropped());
	ck_assert_uint_eq(nbd_stats(n)->dropped, 1);
	end();
}
END_TEST

START_TEST(a_client_that_goes_is_gone_when_its_requests_are)
{
	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, 4096);
	ask(NBD_CMD_WRITE, 0, 2, 0, 4096); /* whose data never comes */
	say("half", 4);
	turns(1);
	close(fd);
	turns(3);
	ck_assert_uint_eq(nbd_clients(n), 1);
	test_image_complete(&t, 0, 0);
	turns(3);
	ck_assert_uint_eq(nbd_clients(n), 0);
	ck_assert(td_list_empty(&n->conns));
	fd = -1;
	end();
}
END_TEST

/* N6: it may be the client of one that was cut off, and send again what is still under way. */
START_TEST(a_connection_begins_after_those_that_ended_before_it)
{
	static uint8_t data[LONG];
	int first;

	begin(false);
	ask(NBD_CMD_WRITE, 0, 1, 0, 512);
	say(data, 512);
	turns(2);
	ck_assert_uint_eq(t.npending, 1);
	close(fd);
	join(&(struct nbd_manner){0});
	handshake(false);
	ask(NBD_CMD_READ, 0, 2, 0, 512);
	turns(3);
	ck_assert_uint_eq(t.npending, 1); /* the write alone */
	test_image_complete(&t, 0, 0);
	turns(3);
	ck_assert_uint_eq(t.npending, 1);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_READ);
	test_image_complete(&t, 0, 0);
	expect_simple(2, 0);
	hear(data, 512);
	/* and after what has not been read of it: a write behind a long read, which is alone */
	ask(NBD_CMD_READ, 0, 3, 0, LONG);
	ask(NBD_CMD_WRITE, 0, 4, 0, 512);
	say(data, 512);
	close(fd);
	join(&(struct nbd_manner){0});
	handshake(false);
	ask(NBD_CMD_READ, 0, 5, 1024, 512);
	ck_assert_uint_eq(t.npending, 1);
	while (test_image_at(&t, 0)->off != 1024) {
		ck_assert_uint_eq(t.npending, 1);
		test_image_complete(&t, 0, 0);
		turns(3);
	}
	ck_assert(test_image_at(&t, 0)->op == TD_READ && nbd_clients(n) == 1);
	/* one that is still there is not waited for */
	first = fd;
	join(&(struct nbd_manner){0});
	handshake(false);
	ask(NBD_CMD_READ, 0, 6, 2048, 512);
	ck_assert_uint_eq(t.npending, 2);
	test_image_complete(&t, 1, 0);
	expect_simple(6, 0);
	close(fd);
	fd = first;
	test_image_complete(&t, 0, 0);
	expect_simple(5, 0);
	end();
}
END_TEST

/* N7, on a disk that may be written. */
START_TEST(a_read_only_client_changes_nothing)
{
	static const uint16_t changes[] = {NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
	static uint8_t data[512];
	int first;

	begin(false);
	first = fd;
	join(&(struct nbd_manner){.read_only = true});
	handshake(false);
	for (unsigned i = 0; i < 3; i++) {
		ask(changes[i], 0, i, 0, 512);
		if (changes[i] == NBD_CMD_WRITE)
			say(data, 512);
		turns(2);
		ck_assert_uint_eq(t.npending, 0);
		expect_simple(i, NBD_EPERM);
	}
	ask(NBD_CMD_READ, 0, 9, 0, 512);
	test_image_complete(&t, 0, 0);
	expect_simple(9, 0);
	hear(data, 512);
	close(fd);
	fd = first; /* whose client is another's */
	ask(NBD_CMD_TRIM, 0, 1, 0, 512);
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	end();
}
END_TEST

static uint16_t flags_of(const struct nbd_manner *how)
{
	uint8_t b[152];
	int was = fd;
	uint16_t flags;
	struct nbd_manner old = *how;

	old.oldstyle = true;
	join(&old);
	hear(b, sizeof b);
	flags = nbd_get16(b + 26);
	close(fd);
	fd = was;
	turns(2);
	return flags;
}

START_TEST(what_a_client_is_told_of_itself)
{
	uint16_t all;

	begin(false);
	all = flags_of(&(struct nbd_manner){0});
	ck_assert(all & NBD_FLAG_CAN_MULTI_CONN && !(all & NBD_FLAG_READ_ONLY));
	ck_assert_uint_eq(flags_of(&(struct nbd_manner){.alone = true}),
			  all & ~NBD_FLAG_CAN_MULTI_CONN);
	all = flags_of(&(struct nbd_manner){.read_only = true});
	ck_assert_uint_eq(all, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH |
				       NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN);
	end();
}
END_TEST

enum { MANY = NBD_IN / NBD_REQUEST_SIZE, CLIENTS = 12 };

static void put_many(uint8_t batch[MANY][NBD_REQUEST_SIZE], uint16_t type, uint32_t len)
{
	for (unsigned i = 0; i < MANY; i++)
		put_request(batch[i], type, 0, i, 0, len);
}

/* Whose requests are answered at once, and would make one turn of all that was read. */
START_TEST(clients_have_a_bound_in_each_turn)
{
	static uint8_t batch[MANY][NBD_REQUEST_SIZE], answers[MANY][NBD_SIMPLE_SIZE];
	int fds[CLIENTS];
	uint64_t was;

	begin(false);
	put_many(batch, NBD_CMD_READ, 0);
	say(batch, sizeof batch);
	for (unsigned i = 1; (was = nbd_stats(n)->taken) < MANY; i++) {
		turns(1);
		ck_assert_uint_le(nbd_stats(n)->taken - was, NBD_TURN);
		ck_assert_uint_le(i, MANY / NBD_TURN + 2);
	}
	hear(answers, sizeof answers);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_uint_eq(nbd_get64(answers[i] + 8), i);
	put_many(batch, 99, 512);
	fds[0] = fd;
	for (unsigned i = 1; i < CLIENTS; i++) {
		join(&(struct nbd_manner){0});
		handshake(false);
		fds[i] = fd;
	}
	was = nbd_stats(n)->taken;
	for (unsigned i = 0; i < CLIENTS; i++)
		ck_assert_int_eq(send(fds[i], batch, sizeof batch, MSG_DONTWAIT), sizeof batch);
	while (nbd_stats(n)->taken < MANY + CLIENTS * MANY) {
		turns(1);
		ck_assert_uint_le(nbd_stats(n)->taken - was, NBD_TURN_ALL + CLIENTS * NBD_TURN_MIN);
		was = nbd_stats(n)->taken;
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		fd = fds[i];
		hear(answers, sizeof answers);
		if (i)
			close(fd);
	}
	fd = fds[0];
	end();
}
END_TEST

/* Each looks at as many places of the image as an answer can name. */
START_TEST(one_block_status_is_answered_in_a_turn)
{
	static uint8_t batch[MANY][NBD_REQUEST_SIZE];
	uint8_t b[NBD_CHUNK_SIZE + 12];
	uint64_t was;

	begin(true);
	put_many(batch, NBD_CMD_BLOCK_STATUS, 512);
	say(batch, sizeof batch);
	for (unsigned i = 0; (was = nbd_stats(n)->answered) < 300; i++) {
		turns(1);
		ck_assert_uint_le(nbd_stats(n)->answered - was, 1);
		ck_assert_uint_le(i, 302);
	}
	for (unsigned i = 0; i < MANY; i++) {
		hear(b, sizeof b);
		ck_assert_uint_eq(nbd_get64(b + 8), i);
	}
	end();
}
END_TEST

/* 20 s: a hang */
#define UNTIL(what)                                                                                \
	for (int tries = 0; !(what); tries++) {                                                    \
		ck_assert_int_lt(tries, 2000);                                                     \
		usleep(10000);                                                                     \
		turns(1);                                                                          \
	}

static struct nbd_conn *newest(void)
{
	return td_entry(n->conns.prev, struct nbd_conn, link);
}

START_TEST(a_handshake_has_a_bound_in_each_turn)
{
	static uint8_t options[500][NBD_OPTION_SIZE], answers[500 * NBD_ANSWER_SIZE];
	unsigned was;
	uint8_t b[18];
	int first;

	begin(false);
	first = fd;
	join(&(struct nbd_manner){0});
	hear(b, 18);
	nbd_put32(b, NBD_FIXED_NEWSTYLE);
	say(b, 4);
	turns(2);
	for (unsigned i = 0; i < 500; i++)
		nbd_put32(nbd_put32(nbd_put64(options[i], NBD_OPTION_MAGIC),
				    NBD_OPT_STRUCTURED_REPLY),
			  0);
	say(options, sizeof options);
	for (unsigned i = 0; (was = newest()->hs.options) < 500; i++) {
		turns(1);
		ck_assert_uint_le(newest()->hs.options - was, NBD_TURN);
		while (recv(fd, answers, sizeof answers, MSG_DONTWAIT) > 0)
			;
		ck_assert_uint_le(i, 8);
	}
	close(fd);
	fd = first;
	end();
}
END_TEST

/* It is never read as far as its end, and those who come later wait for that (N6). */
START_TEST(a_client_that_has_ended_and_takes_no_answers_goes)
{
	static uint8_t data[512];
	struct nbd_conn *deaf;
	unsigned quiet = 0;
	uint8_t req[NBD_REQUEST_SIZE];
	int first;

	begin(false);
	deaf = newest();
	deaf->patience.repeat = 0.01; /* s */
	put_request(req, NBD_CMD_READ, 0, 1, 0, 65536);
	while (quiet++ < 50) {
		if (send(fd, req, sizeof req, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof req)
			quiet = 0;
		turns(1);
		test_image_drain(&t);
	}
	shutdown(fd, SHUT_WR);
	first = fd;
	join(&(struct nbd_manner){0});
	handshake(false);
	ask(NBD_CMD_READ, 0, 2, 0, 512);
	UNTIL(t.npending == 1);
	ck_assert_uint_eq(nbd_clients(n), 1);
	test_image_complete(&t, 0, 0);
	expect_simple(2, 0);
	hear(data, 512);
	close(first);
	end();
}
END_TEST

static void wait_once(void *arg)
{
	*(struct td_fiber **)arg = td_fiber_self();
	td_fiber_wait();
}

static void use_fibers(void)
{
	struct td_fiber *waits[32];

	for (int i = 0; i < 32; i++)
		ck_assert_int_eq(td_fiber_start(loop, wait_once, &waits[i]), 0);
	for (int i = 0; i < 32; i++)
		td_fiber_wake(waits[i]);
	turns(1);
}

/* As a VHD that allocates for a client leaves them. */
START_TEST(at_rest_and_at_the_end_kept_stacks_are_given_back)
{
	uint8_t b[512];
	unsigned before;

	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, 512);
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	hear(b, sizeof b);
	td_fiber_trim();
	before = stacks();
	use_fibers();
#ifndef TD_SANITIZED
	ck_assert_uint_gt(stacks(), before + 16);
#endif
	n->trim.repeat = 0.01; /* s */
	ev_timer_again(loop, &n->trim);
	UNTIL(!ev_is_active(&n->trim));
	ck_assert_uint_le(stacks(), before);
	use_fibers();
	end();
	ck_assert_uint_le(stacks(), before);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-conn");

	SUITE_ADD(s, a_client_that_reads_nothing_is_not_read_either);
	SUITE_ADD(s, the_first_of_a_clients_batch_goes_to_the_disk_at_once);
	SUITE_ADD(s, a_long_write_that_has_come_is_begun_in_one_turn);
	SUITE_ADD(s, block_status_waits_while_there_is_no_image);
	SUITE_ADD(s, what_was_checked_before_a_pause_is_checked_again);
	SUITE_ADD(s, a_request_without_magic_ends_the_connection);
	SUITE_ADD(s, a_client_that_goes_is_gone_when_its_requests_are);
	SUITE_ADD(s, a_connection_begins_after_those_that_ended_before_it);
	SUITE_ADD(s, a_read_only_client_changes_nothing);
	SUITE_ADD(s, what_a_client_is_told_of_itself);
	SUITE_ADD(s, clients_have_a_bound_in_each_turn);
	SUITE_ADD(s, one_block_status_is_answered_in_a_turn);
	SUITE_ADD(s, a_handshake_has_a_bound_in_each_turn);
	SUITE_ADD(s, a_client_that_has_ended_and_takes_no_answers_goes);
	SUITE_ADD(s, at_rest_and_at_the_end_kept_stacks_are_given_back);
	return suite_run(s);
}
