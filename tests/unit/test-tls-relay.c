/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The relay between a plain socket and a peer (lib/tls/tls.h), here without TLS. */
#include <poll.h>
#include <pthread.h>

static unsigned polls;

static int counted_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	__atomic_fetch_add(&polls, 1, __ATOMIC_RELAXED);
	return poll(fds, n, timeout);
}
#define poll counted_poll
#include "lib/tls/tls-relay.c"
#undef poll

#include "tests/support/suite.h"

#define MUCH (4u << 20) /* bytes: more than all buffers take */

static int wire[2], plain[2]; /* [0] is the relay's end of each */
static struct td_tls tls;

static void *relay_main(void *arg)
{
	td_tls_relay(&tls, plain[0], NULL, 0);
	return NULL;
}

static pthread_t begin(bool serves)
{
	pthread_t t;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, wire), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, plain), 0);
	tls = (struct td_tls){.wire = wire[0], .cancel = -1, .serves = serves};
	ck_assert_int_eq(pthread_create(&t, NULL, relay_main, NULL), 0);
	return t;
}

/* Bytes that fd takes before it is full, and stays so. */
static size_t fill_all(int fd)
{
	static const uint8_t zeroes[65536];
	size_t all = 0;

	for (int quiet = 0; quiet < 10 && all < MUCH;) {
		ssize_t n = send(fd, zeroes, sizeof zeroes, MSG_DONTWAIT | MSG_NOSIGNAL);

		all += n > 0 ? (size_t)n : 0;
		quiet = n > 0 ? 0 : quiet + 1;
		if (n <= 0)
			usleep(10000);
	}
	return all;
}

static size_t take(int fd, size_t n)
{
	static uint8_t buf[65536];
	size_t all = 0;

	while (all < n) {
		ssize_t k = read(fd, buf, sizeof buf);

		ck_assert_int_gt(k, 0);
		all += (size_t)k;
	}
	return all;
}

/* _i: the plain end is a server's. */
START_TEST(a_peer_that_is_gone_is_not_asked_over_and_over)
{
	pthread_t t = begin(_i);
	size_t sent = fill_all(wire[1]);
	unsigned before;

	ck_assert_uint_lt(sent, MUCH);
	close(wire[1]);
	usleep(100000);
	before = __atomic_load_n(&polls, __ATOMIC_RELAXED);
	usleep(500000);
	/* round and round it would be hundreds of thousands; a slow thread may have some left */
	ck_assert_uint_lt(__atomic_load_n(&polls, __ATOMIC_RELAXED) - before, 1000);
	ck_assert_uint_eq(take(plain[1], sent), sent); /* what had come is passed on */
	close(plain[1]);
	pthread_join(t, NULL);
	close(plain[0]);
	close(wire[0]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tls-relay");

	SUITE_ADD_LOOP(s, a_peer_that_is_gone_is_not_asked_over_and_over, 2);
	return suite_run(s);
}
