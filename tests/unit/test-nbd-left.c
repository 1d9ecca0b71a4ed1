/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a connection to an NBD server leaves to the next, and how the server's ends of dead ones are
 * seen (K5 and K6 in drivers/nbd/nbd.h). */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/wall-clock.h"

static char dir[] = "/tmp/td-left.XXXXXX", file[64];
static struct td_image image;
static struct nbdc_client n;
static struct nbdc_left was;
static struct td_err err;

static void begin(void)
{
	strcpy(dir + sizeof dir - 7, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/left0", dir);
	memset(&n, 0, sizeof n);
	image = (struct td_image){.path = (char *)"/run/a.sock", .left = file};
}

static void end(void)
{
	nbdc_left_close(&n);
	unlink(file);
	ck_assert_int_eq(rmdir(dir), 0);
}

static int open_left(bool again)
{
	err = (struct td_err){0};
	return nbdc_left_open(&n, &image, again, &was, &err);
}

/* The process dies, and another opens the disk. */
static void die(void)
{
	nbdc_left_close(&n);
	ck_assert_int_eq(open_left(true), 0);
}

static void command(uint16_t type, bool durable, int error)
{
	struct nbdc_cmd cmd = {.type = type};

	nbdc_left_sent(&n, &cmd);
	nbdc_left_answered(&n, &cmd, durable, error);
}

/* --- K6 --- */

START_TEST(what_was_acknowledged_and_not_flushed_is_known_to_the_next)
{
	static const uint16_t changes[] = {NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};

	for (unsigned i = 0; i < 3; i++) {
		begin();
		ck_assert_int_eq(open_left(false), 0);
		command(NBD_CMD_READ, false, 0);
		die();
		ck_assert(!nbdc_left_doubt(&was, false, false) &&
			  !nbdc_left_doubt(&was, true, false));
		command(changes[i], true, 0); /* with FUA */
		command(changes[i], false, -EIO);
		die();
		was.failed = 0;
		ck_assert(!nbdc_left_doubt(&was, true, false));
		command(changes[i], false, 0);
		die();
		ck_assert(nbdc_left_doubt(&was, false, false));
		ck_assert(!nbdc_left_doubt(&was, false, true)); /* a flush here covers it */
		command(NBD_CMD_FLUSH, false, 0);
		die();
		ck_assert(!nbdc_left_doubt(&was, true, false));
		end();
	}
}
END_TEST

START_TEST(a_flush_covers_what_was_acknowledged_before_it_was_sent)
{
	struct nbdc_cmd flush = {.type = NBD_CMD_FLUSH};

	begin();
	ck_assert_int_eq(open_left(false), 0);
	command(NBD_CMD_WRITE, false, 0);
	nbdc_left_sent(&n, &flush);
	command(NBD_CMD_WRITE, false, 0);
	nbdc_left_answered(&n, &flush, false, 0);
	die();
	ck_assert(was.changed == 2 && was.covered == 1);
	ck_assert(nbdc_left_doubt(&was, false, false));
	end();
}
END_TEST

START_TEST(a_flush_that_failed_is_known_to_the_next)
{
	for (unsigned i = 0; i < 2; i++) {
		begin();
		ck_assert_int_eq(open_left(false), 0);
		command(i ? NBD_CMD_WRITE : NBD_CMD_FLUSH, i, -EIO);
		die();
		ck_assert(nbdc_left_doubt(&was, false, true));
		nbdc_left_settled(&n, true); /* it has been said */
		die();
		ck_assert(!nbdc_left_doubt(&was, false, false));
		command(NBD_CMD_WRITE, true, -ENOSPC); /* which loses nothing */
		die();
		ck_assert(!nbdc_left_doubt(&was, true, false));
		end();
	}
}
END_TEST

/* --- K5 --- */

START_TEST(what_was_not_answered_counts_where_the_servers_end_is_not_seen)
{
	struct nbdc_cmd write = {.type = NBD_CMD_WRITE};

	begin();
	ck_assert_int_eq(open_left(false), 0);
	nbdc_left_sent(&n, &write);
	die();
	ck_assert(nbdc_left_doubt(&was, true, true));
	ck_assert(!nbdc_left_doubt(&was, false, false));
	die(); /* in the middle of its open */
	ck_assert(nbdc_left_doubt(&was, true, true));
	nbdc_left_settled(&n, false);
	die();
	ck_assert(!nbdc_left_doubt(&was, true, true));
	end();
}
END_TEST

START_TEST(counts_belong_to_one_server_and_must_be_there)
{
	begin();
	ck_assert_int_eq(open_left(false), 0);
	command(NBD_CMD_WRITE, false, 0);
	nbdc_left_close(&n);
	image.path = (char *)"/run/b.sock";
	ck_assert_int_eq(open_left(true), 0); /* unpaused with another */
	ck_assert(!nbdc_left_doubt(&was, true, false));
	command(NBD_CMD_WRITE, false, 0);
	nbdc_left_close(&n);
	ck_assert_int_eq(open_left(false), 0); /* a disk that is opened anew */
	ck_assert(!nbdc_left_doubt(&was, true, false));
	nbdc_left_close(&n);
	unlink(file);
	image.died = true;
	ck_assert_int_eq(open_left(true), 0); /* a dead process's is gone: nobody knows */
	ck_assert(nbdc_left_doubt(&was, false, false) && nbdc_left_doubt(&was, true, true));
	image.died = false;
	image.file_flags = TD_FILE_RDONLY;
	nbdc_left_close(&n);
	unlink(file);
	ck_assert_int_eq(open_left(false), 0);
	ck_assert_int_lt(access(file, F_OK), 0);
	image.file_flags = 0;
	image.left = "/nonexistent/left0";
	ck_assert_int_eq(open_left(false), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/left0"));
	end();
}
END_TEST

struct fencing {
	struct td_io *io;
	int fd, rc;
};

static void fence_it(void *arg)
{
	struct fencing *f = arg;

	f->rc = nbdc_fence(f->io, f->fd, 0.05);
}

static int fence(struct ev_loop *loop, struct td_io *io, int fd)
{
	struct fencing f = {io, fd, 99};

	on_fiber(loop, fence_it, &f);
	return f.rc;
}

static int connect_to(const struct sockaddr_un *to, int listener, int *server)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (const struct sockaddr *)to, sizeof *to), 0);
	*server = accept(listener, NULL, NULL);
	ck_assert_int_ge(*server, 0);
	return fd;
}

START_TEST(the_servers_end_of_a_dead_connection_is_seen)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct sockaddr_un at = {.sun_family = AF_UNIX}, other = at;
	int l[2], ours, live, dead, elsewhere, pair[2], s[4];
	struct td_io *io;

	begin();
	ck_assert_int_eq(td_io_new(loop, "threads", false, &io, NULL), 0);
	snprintf(at.sun_path, sizeof at.sun_path, "%s/s", dir);
	snprintf(other.sun_path, sizeof other.sun_path, "%s/t", dir);
	for (int i = 0; i < 2; i++) {
		l[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		ck_assert_int_eq(bind(l[i], (struct sockaddr *)(i ? &other : &at), sizeof at), 0);
		ck_assert_int_eq(listen(l[i], 5), 0);
	}
	ours = connect_to(&at, l[0], &s[0]);
	live = connect_to(&at, l[0], &s[1]);
	dead = connect_to(&at, l[0], &s[2]);
	elsewhere = connect_to(&other, l[1], &s[3]);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	/* a kernel without sock_diag shows nothing */
	if (fence(loop, io, ours) != NBD_FENCE_BLIND) {
		ck_assert_int_eq(fence(loop, io, ours), NBD_FENCE_CLEAR);
		close(elsewhere); /* another server's */
		ck_assert_int_eq(fence(loop, io, ours), NBD_FENCE_CLEAR);
		close(dead);
		ck_assert_int_eq(fence(loop, io, ours), NBD_FENCE_BUSY);
		close(s[2]);
		ck_assert_int_eq(fence(loop, io, ours), NBD_FENCE_CLEAR);
		close(live);
		ck_assert_int_eq(fence(loop, io, ours), NBD_FENCE_BUSY);
	}
	close(s[1]);
	close(s[0]);
	ck_assert_int_eq(fence(loop, io, ours), NBD_FENCE_BLIND); /* the server is gone */
	for (int i = 0; i < 2; i++) {
		close(l[i]);
		close(pair[i]);
	}
	close(ours);
	close(s[3]);
	unlink(at.sun_path);
	unlink(other.sun_path);
	td_io_free(io);
	ev_loop_destroy(loop);
	end();
}
END_TEST

/* --- K14 --- */

struct asking {
	struct td_io *io;
	int fd;
	struct nbdc_server is;
};

static void ask_it(void *arg)
{
	struct asking *a = arg;

	a->is = nbdc_server_of(a->io, a->fd);
}

static struct nbdc_server who(struct ev_loop *loop, struct td_io *io, int fd)
{
	struct asking a = {io, fd, {99, 99}};

	on_fiber(loop, ask_it, &a);
	return a.is;
}

/* A process that listens there, until it is killed. */
static pid_t serve_at(const struct sockaddr_un *at)
{
	int ready[2];
	pid_t pid;
	char c;

	unlink(at->sun_path);
	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		int l = socket(AF_UNIX, SOCK_STREAM, 0);

		if (bind(l, (const struct sockaddr *)at, sizeof *at) || listen(l, 5) ||
		    write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static int reach(const struct sockaddr_un *to)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (const struct sockaddr *)to, sizeof *to), 0);
	return fd;
}

static void end_server(pid_t pid)
{
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(a_server_that_was_started_anew_is_another)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct nbdc_server first, again, later, nobody = {0}, reused;
	struct td_io *io;
	int fd[3];
	pid_t pid;

	begin();
	ck_assert_int_eq(td_io_new(loop, "threads", false, &io, NULL), 0);
	snprintf(at.sun_path, sizeof at.sun_path, "%s/s", dir);
	pid = serve_at(&at);
	fd[0] = reach(&at);
	fd[1] = reach(&at);
	first = who(loop, io, fd[0]);
	again = who(loop, io, fd[1]);
	ck_assert_uint_eq(first.pid, (uint64_t)pid);
	ck_assert_uint_ne(first.start, 0);
	ck_assert(nbdc_server_same(&first, &again));
	end_server(pid);
	pid = serve_at(&at);
	fd[2] = reach(&at);
	later = who(loop, io, fd[2]);
	ck_assert(!nbdc_server_same(&first, &later));
	reused = later; /* its number may come again, its start does not */
	reused.start++;
	ck_assert(!nbdc_server_same(&later, &reused));
	ck_assert(!nbdc_server_same(&nobody, &nobody));
	n.server = later;
	ck_assert_int_eq(open_left(false), 0);
	nbdc_left_server(&n);
	die();
	ck_assert(nbdc_server_same(&was.server, &later));
	end_server(pid);
	again = who(loop, io, fd[2]); /* too late to ask for its start */
	ck_assert(!nbdc_server_same(&again, &again));
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	unlink(at.sun_path);
	td_io_free(io);
	ev_loop_destroy(loop);
	end();
}
END_TEST

START_TEST(who_is_at_the_end_of_a_tcp_connection_is_not_known)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	struct nbdc_server is;
	struct td_io *io;
	int l, fd;

	ck_assert_int_eq(td_io_new(loop, "threads", false, &io, NULL), 0);
	l = socket(AF_INET, SOCK_STREAM, 0);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(l, (struct sockaddr *)&at, sizeof at), 0);
	ck_assert_int_eq(listen(l, 1), 0);
	ck_assert_int_eq(getsockname(l, (struct sockaddr *)&at, &len), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	is = who(loop, io, fd);
	ck_assert(!is.pid && !nbdc_server_same(&is, &is));
	close(fd);
	close(l);
	td_io_free(io);
	ev_loop_destroy(loop);
}
END_TEST

/* --- a clock that is set --- */

struct greeting {
	struct nbdc_client n;
	int fd, rc;
	struct nbdc_offer x;
	bool done;
};

static void greet_it(void *arg)
{
	struct greeting *gr = arg;

	gr->rc = nbdc_greet(&gr->n, gr->fd, NBD_PATIENCE, &gr->x, &err);
	gr->done = true;
}

/* In three parts, of which the clock is set before the second and the third: no time limit is over
 * for that. */
START_TEST(a_clock_that_is_set_ends_no_greeting)
{
	static struct greeting gr;
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	uint8_t hello[152] = {0};
	int pair[2];

	err = (struct td_err){0};
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	nbd_put64(nbd_put64(hello, NBD_MAGIC), NBD_OLD_MAGIC);
	nbd_put64(hello + 16, 1 << 20);
	gr = (struct greeting){.n = {.loop = loop, .name = "nbd:test"}, .fd = pair[0], .rc = 99};
	ck_assert_int_eq(td_fiber_start(loop, greet_it, &gr), 0);
	for (size_t at = 0; at < sizeof hello; at += 76) {
		ev_run(loop, EVRUN_NOWAIT);
		ck_assert_int_eq(gr.done, 0);
		jump = at ? -3600 : 3600;
		ck_assert_int_eq(write(pair[1], hello + at, 76), 76);
	}
	while (!gr.done)
		ev_run(loop, EVRUN_ONCE);
	jump = 0;
	ck_assert_msg(gr.rc == 0, "%d %s", gr.rc, err.text);
	ck_assert_uint_eq(gr.x.size, 1 << 20);
	close(pair[0]);
	close(pair[1]);
	ev_loop_destroy(loop);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-left");

	SUITE_ADD(s, what_was_acknowledged_and_not_flushed_is_known_to_the_next);
	SUITE_ADD(s, a_flush_covers_what_was_acknowledged_before_it_was_sent);
	SUITE_ADD(s, a_flush_that_failed_is_known_to_the_next);
	SUITE_ADD(s, what_was_not_answered_counts_where_the_servers_end_is_not_seen);
	SUITE_ADD(s, counts_belong_to_one_server_and_must_be_there);
	SUITE_ADD(s, the_servers_end_of_a_dead_connection_is_seen);
	SUITE_ADD(s, a_server_that_was_started_anew_is_another);
	SUITE_ADD(s, a_clock_that_is_set_ends_no_greeting);
	SUITE_ADD(s, who_is_at_the_end_of_a_tcp_connection_is_not_known);
	return suite_run(s);
}
