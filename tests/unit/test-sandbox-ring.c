/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* By an io_uring of its own: what is asked for by it passes no filter. */
#include <ev.h>

#include "tests/support/test-sandbox.h"

#ifdef HAVE_URING
#include <liburing.h>

#include "td/io.h"

enum { DEPTH = 128 }; /* of the engine's rings (lib/io/io-uring.c) */
static struct io_uring_params layout;
static struct td_io *engine;
static int status_of_child;

/* The ring that the engine has made. */
static int ring_descriptor(void)
{
	char path[64], is[64] = "";

	for (int fd = 3; fd < 200; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, is, sizeof is - 1) > 0 && strstr(is, "io_uring"))
			return fd;
	}
	return -1;
}

static int ask(struct io_uring *ring, void (*prepare)(struct io_uring_sqe *))
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;

	prepare(sqe);
	if (io_uring_submit(ring) < 0 || io_uring_wait_cqe(ring, &cqe))
		return -EIO;
	return cqe->res;
}

static void ask_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0);
}

static void ask_open(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/dev/null", O_RDWR, 0);
}

static void ask_sync(struct io_uring_sqe *sqe)
{
	io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
}

static int by_ring(void (*prepare)(struct io_uring_sqe *))
{
	struct io_uring ring;
	int fd = ring_descriptor();

	if (fd < 0 || io_uring_queue_mmap(fd, &layout, &ring))
		_exit(1); /* neither DONE nor REFUSED */
	return ask(&ring, prepare) == -EACCES ? -1 : 0;
}

static int socket_by_ring(void)
{
	return by_ring(ask_socket);
}

static int open_by_ring(void)
{
	return by_ring(ask_open);
}

static int sync_by_ring(void)
{
	return by_ring(ask_sync);
}

START_TEST(a_ring_takes_reads_writes_and_syncs_alone)
{
	struct io_uring ring;
	struct td_err err = {0};

	if (io_uring_queue_init_params(DEPTH, &ring, &layout))
		return; /* this host has none */
	/* a ring that is not restricted does it, so that it is the restriction that refuses */
	ck_assert_int_ge(ask(&ring, ask_open), 0);
	io_uring_queue_exit(&ring);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(socket_by_ring), REFUSED);
	ck_assert_int_eq(inside(open_by_ring), REFUSED);
	ck_assert_int_eq(inside(sync_by_ring), DONE);
	/* and outside, too */
	conf("sandbox = no\n");
	ck_assert_int_eq(sandbox_enter(1, &err), 0);
	if (!fork())
		_exit(td_io_new(ev_default_loop(0), "io_uring", true, &engine, &err) ||
				      by_ring(ask_open) == 0
			      ? 1
			      : 0);
	ck_assert(wait(&status_of_child) > 0 && status_of_child == 0);
}
END_TEST

/* An engine finds a ring as often as one is let go, and another engine when there is none. */
static int engines(void)
{
	struct ev_loop *loop = ev_default_loop(0);
	struct td_io *io, *other;

	for (int i = 0; i < 3; i++) {
		if (td_io_new(loop, "io_uring", true, &io, NULL) ||
		    strcmp(io->ops->name, "io_uring") ||
		    td_io_new(loop, "io_uring", false, &other, NULL) ||
		    strcmp(other->ops->name, "threads"))
			return -1;
		td_io_free(io);
		td_io_free(other);
	}
	return 0;
}

START_TEST(rings_made_before_are_used_again)
{
	struct io_uring ring;

	if (io_uring_queue_init(DEPTH, &ring, 0))
		return;
	io_uring_queue_exit(&ring);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(engines), DONE);
}
END_TEST

static void add(Suite *s)
{
	SUITE_ADD(s, a_ring_takes_reads_writes_and_syncs_alone);
	SUITE_ADD(s, rings_made_before_are_used_again);
}

int main(void)
{
	return sandbox_main("sandbox-ring", true, add);
}
#else
int main(void)
{
	puts("a build without io_uring");
	return 77;
}
#endif
