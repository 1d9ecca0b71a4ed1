/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NBD requests over a real socket, on an image that is completed by hand: what goes down, what
 * comes back, and how much is let in. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tapdisk/nbd/nbd-conn.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

static struct ev_loop *loop;
static struct test_image t;
static struct cache cache;
static struct stats stats;
static struct nbd_disk disk;
static struct nbd *n;
static int fd; /* the client's end */
static char dir[] = "/tmp/td-nbd.XXXXXX";

static void idle(void *owner)
{
}

static void changed(struct cache *c)
{
}

static void turns(int k)
{
	while (k--)
		ev_run(loop, EVRUN_NOWAIT);
}

static void say(const void *p, size_t len)
{
	while (len) {
		ssize_t k = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k < 0)
			turns(1);
		else
			p = (const char *)p + k, len -= (size_t)k;
	}
}

static void hear(void *p, size_t len)
{
	turns(2);
	while (len) {
		ssize_t k = recv(fd, p, len, MSG_DONTWAIT);

		ck_assert_int_ne(k, 0);
		if (k < 0)
			turns(1);
		else
			p = (char *)p + k, len -= (size_t)k;
	}
}

static bool silent(void)
{
	char c;

	turns(2);
	return recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

static bool dropped(void)
{
	char c;

	turns(3);
	return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static void handshake(bool structured)
{
	static const uint8_t go[] = {0, 0, 0, 0, 0, 0};
	static uint8_t context[27] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15};
	uint8_t b[64];

	hear(b, 18);
	nbd_put32(b, NBD_FIXED_NEWSTYLE);
	say(b, 4);
	if (structured) {
		nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_STRUCTURED_REPLY), 0);
		say(b, 16);
		hear(b, 20);
		memcpy(context + 12, "base:allocation", 15);
		nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_SET_META_CONTEXT),
			  sizeof context);
		say(b, 16);
		say(context, sizeof context);
		hear(b, 39 + 20);
	}
	nbd_put32(nbd_put32(nbd_put64(b, NBD_OPTION_MAGIC), NBD_OPT_GO), sizeof go);
	say(b, 16);
	say(go, sizeof go);
	hear(b, 32);
	hear(b, 34);
	hear(b, 20);
	ck_assert_uint_eq(nbd_get32(b + 12), NBD_REP_ACK);
}

/* Another client, whose end is fd from now on. */
static void join(const struct nbd_manner *how)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	fd = pair[0];
	nbd_conn_new(n, pair[1], how);
}

static void begin_with(bool structured, bool oldstyle)
{
	struct td_err err = {0};

	ck_assert_ptr_nonnull(mkdtemp(dir));
	setenv("TAPDISK_CONTROL_DIR", dir, 1);
	loop = ev_loop_new(EVFLAG_AUTO);
	test_image_open(&t, 0);
	cache_init(&cache, loop, NULL);
	cache.changed = changed;
	cache_attach(&cache, td_cache_modes, t.image, &t.io, true);
	cache_resume(&cache);
	td_list_init(&stats.sources);
	disk = (struct nbd_disk){.cache = &cache,
				 .stats = &stats,
				 .name = "by hand",
				 .size = TEST_IMAGE_SECTORS * 512,
				 .trim = true,
				 .idle = idle};
	n = nbd_new(loop, &disk, 7);
	ck_assert_int_eq(nbd_listen(n, &err), 0);
	nbd_run(n);
	join(&(struct nbd_manner){.oldstyle = oldstyle});
	if (oldstyle) {
		uint8_t b[152];

		hear(b, sizeof b);
	} else {
		handshake(structured);
	}
}

static void begin(bool structured)
{
	begin_with(structured, false);
}

static void close_it(void *arg)
{
	nbd_close(n);
}

static void end(void)
{
	close(fd);
	turns(2);
	test_image_drain(&t);
	turns(2);
	nbd_hold(n);
	cache_quiesce(&cache);
	ck_assert_uint_eq(nbd_inflight(n), 0);
	on_fiber(loop, close_it, NULL);
	nbd_free(n);
	cache_detach(&cache);
	test_image_close(&t);
	cache_fini(&cache);
	for (unsigned i = 0; i < STATS_KINDS; i++)
		ck_assert_uint_eq(stats.gone[i].under_way, 0);
	ev_loop_destroy(loop);
	ck_assert_int_eq(rmdir(dir), 0); /* no socket is left in it */
}

static void ask(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off, uint32_t len)
{
	uint8_t b[NBD_REQUEST_SIZE], *p = nbd_put32(b, NBD_REQUEST_MAGIC);

	p = nbd_put16(p, flags);
	p = nbd_put16(p, type);
	p = nbd_put64(p, cookie);
	p = nbd_put64(p, off);
	nbd_put32(p, len);
	say(b, sizeof b);
	turns(2);
}

static void expect_simple(uint64_t cookie, uint32_t error)
{
	uint8_t b[NBD_SIMPLE_SIZE];

	hear(b, sizeof b);
	ck_assert_uint_eq(nbd_get32(b), NBD_SIMPLE_MAGIC);
	ck_assert_uint_eq(nbd_get32(b + 4), error);
	ck_assert_uint_eq(nbd_get64(b + 8), cookie);
}

/* A chunk's head; its type, *flags and *len. */
static uint16_t chunk(uint64_t cookie, uint16_t *flags, uint32_t *len)
{
	uint8_t b[NBD_CHUNK_SIZE];

	hear(b, sizeof b);
	ck_assert_uint_eq(nbd_get32(b), NBD_STRUCTURED_MAGIC);
	ck_assert_uint_eq(nbd_get64(b + 8), cookie);
	*flags = nbd_get16(b + 4);
	*len = nbd_get32(b + 16);
	return nbd_get16(b + 6);
}

static void expect_error_chunk(uint64_t cookie, uint32_t error)
{
	uint8_t b[256];
	uint16_t flags;
	uint32_t len;

	ck_assert_uint_eq(chunk(cookie, &flags, &len), NBD_CHUNK_ERROR);
	ck_assert_uint_eq(flags, NBD_CHUNK_DONE);
	ck_assert(len >= 6 && len <= sizeof b);
	hear(b, len);
	ck_assert_uint_eq(nbd_get32(b), error);
	ck_assert_uint_eq(nbd_get16(b + 4), len - 6);
}

static void fill(const struct td_req *r, uint8_t with)
{
	for (int i = 0; i < r->iovcnt; i++)
		memset(r->iov[i].iov_base, with, r->iov[i].iov_len);
}

START_TEST(replies_in_the_order_of_completion)
{
	uint8_t b[1024];

	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, 512);
	ask(NBD_CMD_READ, 0, 2, 512, 1024);
	ck_assert_uint_eq(t.npending, 2);
	ck_assert(silent());
	fill(test_image_at(&t, 1), 0x22);
	test_image_complete(&t, 1, 0);
	expect_simple(2, 0);
	hear(b, 1024);
	ck_assert(b[0] == 0x22 && b[1023] == 0x22);
	fill(test_image_at(&t, 0), 0x11);
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	hear(b, 512);
	ck_assert(b[511] == 0x11 && silent());
	end();
}
END_TEST

START_TEST(errors_have_nbd_numbers)
{
	static const struct {
		int err;
		uint32_t wire;
	} map[] = {
		{-EIO, NBD_EIO},     {-ENOMEM, NBD_ENOMEM},       {-EINVAL, NBD_EINVAL},
		{-EROFS, NBD_EPERM}, {-ESTALE, NBD_EIO},          {-EPERM, NBD_EPERM},
		{-EILSEQ, NBD_EIO},  {-ESHUTDOWN, NBD_ESHUTDOWN},
	};

	for (unsigned structured = 0; structured < 2; structured++) {
		begin(structured);
		for (unsigned i = 0; i < sizeof map / sizeof *map; i++) {
			ask(NBD_CMD_READ, 0, i, 0, 4096);
			test_image_complete(&t, 0, map[i].err);
			if (structured)
				expect_error_chunk(i, map[i].wire);
			else
				expect_simple(i, map[i].wire);
		}
		ck_assert_uint_eq(nbd_stats(n)->errors, sizeof map / sizeof *map);
		end();
		strcpy(dir + sizeof dir - 7, "XXXXXX");
	}
}
END_TEST

/* A disk that hosts share is changed in whole blocks of its store. */
START_TEST(what_changes_less_than_a_block_is_refused)
{
	static const uint16_t changes[] = {NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
	static uint8_t data[4096];

	begin(false);
	disk.block = 4096;
	for (unsigned i = 0; i < 9; i++) {
		uint64_t off = i / 3 == 1 ? 512 : 4096;
		uint32_t len = i / 3 == 2 ? 512 : 4096;

		ask(changes[i % 3], 0, i, off, len);
		if (changes[i % 3] == NBD_CMD_WRITE)
			say(data, len);
		turns(2);
		if (i / 3) {
			ck_assert_uint_eq(t.npending, 0);
			expect_simple(i, NBD_EINVAL);
		} else {
			ck_assert_uint_eq(t.npending, 1);
			test_image_complete(&t, 0, 0);
			expect_simple(i, 0);
		}
	}
	ask(NBD_CMD_READ, 0, 9, 512, 512);
	test_image_complete(&t, 0, 0);
	expect_simple(9, 0);
	hear(data, 512);
	end();
}
END_TEST

START_TEST(what_a_request_is_below)
{
	static const struct {
		uint16_t type, flags;
		enum td_op op;
		unsigned below;
		bool flush;
	} map[] = {
		{NBD_CMD_READ, NBD_CMD_FUA, TD_READ, 0, false},
		{NBD_CMD_FLUSH, NBD_CMD_FUA, TD_FLUSH, 0, false},
		{NBD_CMD_TRIM, 0, TD_DISCARD, 0, false},
		{NBD_CMD_TRIM, NBD_CMD_FUA, TD_DISCARD, 0, true},
		{NBD_CMD_WRITE_ZEROES, 0, TD_WRITE_ZEROES, TD_UNMAP, false},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_NO_HOLE, TD_WRITE_ZEROES, 0, false},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO | NBD_CMD_FUA, TD_WRITE_ZEROES, TD_UNMAP,
		 true},
	};

	begin(false);
	for (unsigned i = 0; i < sizeof map / sizeof *map; i++) {
		bool flush = map[i].type == NBD_CMD_FLUSH;
		const struct td_req *r;
		uint8_t b[512];

		ask(map[i].type, map[i].flags, i, 1024, 512);
		r = test_image_at(&t, 0);
		ck_assert_ptr_nonnull(r);
		ck_assert_int_eq(r->op, map[i].op);
		ck_assert_uint_eq(r->flags, map[i].below);
		ck_assert_uint_eq(r->off, flush ? 0 : 1024);
		ck_assert_uint_eq(r->len, flush ? 0 : 512);
		test_image_complete(&t, 0, 0);
		if (map[i].flush) {
			ck_assert_int_eq(test_image_at(&t, 0)->op, TD_FLUSH);
			test_image_complete(&t, 0, 0);
		}
		expect_simple(i, 0);
		if (map[i].type == NBD_CMD_READ)
			hear(b, 512);
	}
	end();
}
END_TEST

START_TEST(writes_come_in_any_pieces)
{
	static uint8_t data[70 * 1024];

	begin(false);
	for (unsigned i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i / 512);
	for (unsigned step = 1; step < sizeof data; step = step * 7 + 1) {
		const struct td_req *r;
		unsigned at = 0;

		ask(NBD_CMD_WRITE, NBD_CMD_FUA, step, 512, sizeof data);
		ck_assert_uint_eq(t.npending, 0);
		for (unsigned i = 0; i < sizeof data; i += step) {
			say(data + i, sizeof data - i < step ? sizeof data - i : step);
			if (step > 100 || i % 1000 < step)
				turns(1);
		}
		turns(2);
		r = test_image_at(&t, 0);
		ck_assert_ptr_nonnull(r);
		ck_assert_uint_eq(r->flags, TD_FUA);
		ck_assert_uint_eq(r->len, sizeof data);
		for (int i = 0; i < r->iovcnt; at += r->iov[i++].iov_len)
			ck_assert_mem_eq(r->iov[i].iov_base, data + at, r->iov[i].iov_len);
		test_image_complete(&t, 0, 0);
		expect_simple(step, 0);
	}
	end();
}
END_TEST

START_TEST(zeroes_are_written_where_the_image_knows_no_better)
{
	begin(false);
	ask(NBD_CMD_WRITE_ZEROES, NBD_CMD_FUA, 1, 512, 1536 * 1024);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_WRITE_ZEROES);
	test_image_complete(&t, 0, -EOPNOTSUPP);
	turns(1);
	ck_assert_uint_eq(t.npending, 1);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_WRITE);
	ck_assert_uint_eq(test_image_at(&t, 0)->flags, TD_FUA);
	ck_assert_uint_eq(test_image_at(&t, 0)->off, 512);
	ck_assert_uint_eq(test_image_at(&t, 0)->len, 1536 * 1024);
	for (int i = 0; i < test_image_at(&t, 0)->iovcnt; i++) {
		const struct iovec *v = &test_image_at(&t, 0)->iov[i];

		ck_assert(*(char *)v->iov_base == 0 &&
			  !memcmp(v->iov_base, (char *)v->iov_base + 1, v->iov_len - 1));
	}
	ck_assert(silent());
	test_image_complete(&t, 0, 0);
	expect_simple(1, 0);
	/* who wants it fast, or not at all, hears that; and a trim is a hint */
	ask(NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 2, 0, 512);
	test_image_complete(&t, 0, -EOPNOTSUPP);
	expect_simple(2, NBD_ENOTSUP);
	ask(NBD_CMD_TRIM, 0, 3, 0, 512);
	test_image_complete(&t, 0, -EOPNOTSUPP);
	expect_simple(3, 0);
	ck_assert_uint_eq(t.npending, 0);
	end();
}
END_TEST

#define LONG (1536u * 1024)

START_TEST(a_long_read_in_chunks_or_in_one_piece)
{
	static uint8_t b[LONG];
	uint16_t flags;
	uint32_t len;

	begin(true);
	ask(NBD_CMD_READ, 0, 5, 512, LONG);
	ck_assert_uint_eq(t.npending, 2); /* both pieces at once */
	fill(test_image_at(&t, 1), 2);
	test_image_complete(&t, 1, 0);
	ck_assert_uint_eq(chunk(5, &flags, &len), NBD_CHUNK_DATA);
	ck_assert_uint_eq(flags, 0);
	ck_assert_uint_eq(len, 8 + 512 * 1024);
	hear(b, 8);
	ck_assert_uint_eq(nbd_get64(b), 512 + (1 << 20));
	hear(b, 512 * 1024);
	ck_assert(b[0] == 2 && b[512 * 1024 - 1] == 2);
	test_image_complete(&t, 0, -EIO); /* the other fails: the end says so */
	expect_error_chunk(5, NBD_EIO);
	end();

	strcpy(dir + sizeof dir - 7, "XXXXXX");
	begin(false);
	ask(NBD_CMD_READ, 0, 6, 512, LONG);
	/* waits: its reply must not stand within the other's data */
	ask(NBD_CMD_FLUSH, 0, 7, 0, 0);
	ck_assert_uint_eq(t.npending, 1);
	fill(test_image_at(&t, 0), 1);
	test_image_complete(&t, 0, 0);
	expect_simple(6, 0);
	hear(b, 1 << 20);
	ck_assert_uint_eq(t.npending, 1);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_READ);
	ck_assert(silent());
	fill(test_image_at(&t, 0), 2);
	test_image_complete(&t, 0, 0);
	hear(b, 512 * 1024);
	ck_assert(b[0] == 2 && b[512 * 1024 - 1] == 2);
	ck_assert_int_eq(test_image_at(&t, 0)->op, TD_FLUSH);
	test_image_complete(&t, 0, 0);
	expect_simple(7, 0);
	end();
}
END_TEST

START_TEST(a_long_read_that_fails_without_chunks)
{
	static uint8_t b[1 << 20];

	begin(false);
	ask(NBD_CMD_READ, 0, 1, 0, LONG); /* before anything has gone: an error like any other */
	test_image_complete(&t, 0, -EIO);
	expect_simple(1, NBD_EIO);
	ck_assert_uint_eq(t.npending, 0);
	ask(NBD_CMD_READ, 0, 2, 0, LONG);
	test_image_complete(&t, 0, 0);
	expect_simple(2, 0);
	hear(b, sizeof b);
	/* after it: the end of the connection, and not a byte more */
	test_image_complete(&t, 0, -EIO);
	ck_assert(dropped());
	end();
}
END_TEST

START_TEST(a_long_write_is_done_when_all_of_it_is)
{
	static uint8_t data[LONG];

	begin(false);
	memset(data, 7, sizeof data);
	for (unsigned fails = 0; fails < 2; fails++) {
		ask(NBD_CMD_WRITE, 0, fails, 0, LONG);
		for (unsigned i = 0; i < LONG; i += 65536) {
			say(data + i, 65536);
			turns(1);
		}
		turns(2);
		ck_assert_uint_eq(t.npending, 2);
		test_image_complete(&t, 1, fails ? -EIO : 0);
		ck_assert(silent());
		test_image_complete(&t, 0, 0);
		expect_simple(fails, fails ? NBD_EIO : 0);
	}
	ask(NBD_CMD_FLUSH, 0, 9, 0, 0); /* the stream is where it should be */
	test_image_complete(&t, 0, 0);
	expect_simple(9, 0);
	end();
}
END_TEST

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

int main(void)
{
	Suite *s = suite_create("nbd");

	SUITE_ADD(s, replies_in_the_order_of_completion);
	SUITE_ADD(s, errors_have_nbd_numbers);
	SUITE_ADD(s, what_changes_less_than_a_block_is_refused);
	SUITE_ADD(s, what_a_request_is_below);
	SUITE_ADD(s, writes_come_in_any_pieces);
	SUITE_ADD(s, zeroes_are_written_where_the_image_knows_no_better);
	SUITE_ADD(s, a_long_read_in_chunks_or_in_one_piece);
	SUITE_ADD(s, a_long_read_that_fails_without_chunks);
	SUITE_ADD(s, a_long_write_is_done_when_all_of_it_is);
	SUITE_ADD(s, a_client_that_reads_nothing_is_not_read_either);
	SUITE_ADD(s, block_status_waits_while_there_is_no_image);
	SUITE_ADD(s, what_was_checked_before_a_pause_is_checked_again);
	SUITE_ADD(s, a_request_without_magic_ends_the_connection);
	SUITE_ADD(s, a_client_that_goes_is_gone_when_its_requests_are);
	SUITE_ADD(s, a_connection_begins_after_those_that_ended_before_it);
	SUITE_ADD(s, a_read_only_client_changes_nothing);
	SUITE_ADD(s, what_a_client_is_told_of_itself);
	return suite_run(s);
}
