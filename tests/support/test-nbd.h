/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An export of an image that is completed by hand, and a client of it over a real socket. */
#ifndef TESTS_TEST_NBD_H
#define TESTS_TEST_NBD_H

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tapdisk/nbd/nbd-conn.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/test-image.h"

#define LONG (1536u * 1024) /* bytes: more than a piece of the server's */

static struct ev_loop *loop;
static struct test_image t;
static struct cache cache;
static struct stats stats;
static struct nbd_disk disk;
static struct nbd *n;
static int fd; /* the client's end */
static char dir[] = "/tmp/td-nbd.XXXXXX";

static inline void idle(void *owner)
{
}

static inline void changed(struct cache *c)
{
}

static inline void turns(int k)
{
	while (k--)
		ev_run(loop, EVRUN_NOWAIT);
}

static inline void say(const void *p, size_t len)
{
	while (len) {
		ssize_t k = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k < 0)
			turns(1);
		else
			p = (const char *)p + k, len -= (size_t)k;
	}
}

static inline void hear(void *p, size_t len)
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

static inline bool silent(void)
{
	char c;

	turns(2);
	return recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

static inline bool dropped(void)
{
	char c;

	turns(3);
	return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static inline void handshake(bool structured)
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
static inline void join(const struct nbd_manner *how)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	fd = pair[0];
	nbd_conn_new(n, pair[1], how);
}

static inline void begin_with(bool structured, bool oldstyle)
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

static inline void begin(bool structured)
{
	begin_with(structured, false);
}

static inline void close_it(void *arg)
{
	nbd_close(n);
}

static inline void end(void)
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

static inline void put_request(uint8_t *p, uint16_t type, uint16_t flags, uint64_t cookie,
			       uint64_t off, uint32_t len)
{
	p = nbd_put32(p, NBD_REQUEST_MAGIC);
	p = nbd_put16(p, flags);
	p = nbd_put16(p, type);
	p = nbd_put64(p, cookie);
	p = nbd_put64(p, off);
	nbd_put32(p, len);
}

static inline void ask(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off, uint32_t len)
{
	uint8_t b[NBD_REQUEST_SIZE];

	put_request(b, type, flags, cookie, off, len);
	say(b, sizeof b);
	turns(2);
}

static inline void expect_simple(uint64_t cookie, uint32_t error)
{
	uint8_t b[NBD_SIMPLE_SIZE];

	hear(b, sizeof b);
	ck_assert_uint_eq(nbd_get32(b), NBD_SIMPLE_MAGIC);
	ck_assert_uint_eq(nbd_get32(b + 4), error);
	ck_assert_uint_eq(nbd_get64(b + 8), cookie);
}

/* A chunk's head; its type, *flags and *len. */
static inline uint16_t chunk(uint64_t cookie, uint16_t *flags, uint32_t *len)
{
	uint8_t b[NBD_CHUNK_SIZE];

	hear(b, sizeof b);
	ck_assert_uint_eq(nbd_get32(b), NBD_STRUCTURED_MAGIC);
	ck_assert_uint_eq(nbd_get64(b + 8), cookie);
	*flags = nbd_get16(b + 4);
	*len = nbd_get32(b + 16);
	return nbd_get16(b + 6);
}

static inline void expect_error_chunk(uint64_t cookie, uint32_t error)
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

static inline void fill(const struct td_req *r, uint8_t with)
{
	for (int i = 0; i < r->iovcnt; i++)
		memset(r->iov[i].iov_base, with, r->iov[i].iov_len);
}

#endif
