/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/nbd-flaky.h"

#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/nbd-proto.h"

#define CONNS 64
#define SIZE  (64u << 20)

struct conn {
	int fd, number, answered;
	bool lingers;
	unsigned held[256]; /* commands that were not carried out */
	unsigned nheld;
};

struct flaky flaky;

/* Of the disk, the commands and the wishes; the connections are the thread's. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread;
static uint8_t *now, *safe, *buf;
static struct flaky_command *commands;
static uint8_t **datas; /* of held writes */
static unsigned ncommands;
static struct conn conns[CONNS];
static unsigned nconns;
static int listener = -1, numbers, writer; /* writer: whose change was the last */
static in_port_t port;                     /* 0: any */
static bool want_up, is_up, over, end_linger;
static int cut; /* a connection that is to be closed, or 0 */

static bool move_all(int fd, void *p, size_t len, bool out)
{
	while (len) {
		ssize_t n = out ? send(fd, p, len, MSG_NOSIGNAL) : recv(fd, p, len, 0);

		if (n <= 0)
			return false;
		p = (char *)p + n;
		len -= (size_t)n;
	}
	return true;
}

static bool answer_to(int fd, uint32_t option, uint32_t type, const void *p, uint32_t len)
{
	uint8_t b[NBD_ANSWER_SIZE];

	nbd_put32(nbd_put32(nbd_put32(nbd_put64(b, NBD_REPLY_MAGIC), option), type), len);
	return move_all(fd, b, sizeof b, true) && move_all(fd, (void *)(uintptr_t)p, len, true);
}

static bool answer(int fd, uint32_t type, const void *p, uint32_t len)
{
	return answer_to(fd, NBD_OPT_GO, type, p, len);
}

/* Structured replies; then the export is asked for, with 8 bytes. */
static bool refuse_more(int fd)
{
	uint8_t b[NBD_OPTION_SIZE];

	return move_all(fd, b, sizeof b, false) && nbd_get32(b + 8) == NBD_OPT_STRUCTURED_REPLY &&
	       answer_to(fd, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, NULL, 0) &&
	       move_all(fd, b, sizeof b, false) && move_all(fd, b, 8, false);
}

static bool greet(int fd)
{
	uint8_t b[64], export[12], blocks[14];

	nbd_put16(nbd_put64(nbd_put64(b, NBD_MAGIC), NBD_OPTION_MAGIC), 3);
	if (!move_all(fd, b, 18, true) || !move_all(fd, b, 4, false) || !refuse_more(fd))
		return false;
	nbd_put16(nbd_put64(nbd_put16(export, NBD_INFO_EXPORT),
			    flaky.size + (nconns ? flaky.differs : 0)),
		  (uint16_t)flaky.flags);
	nbd_put32(nbd_put32(nbd_put32(nbd_put16(blocks, NBD_INFO_BLOCK_SIZE), 1), 4096), flaky.max);
	return answer(fd, NBD_REP_INFO, export, sizeof export) &&
	       (!flaky.max || answer(fd, NBD_REP_INFO, blocks, sizeof blocks)) &&
	       answer(fd, NBD_REP_ACK, NULL, 0);
}

static void carry_out(struct flaky_command *c, const uint8_t *data)
{
	c->done = true;
	if (c->type == NBD_CMD_WRITE)
		memcpy(now + c->off, data, c->len);
	else if (c->type == NBD_CMD_WRITE_ZEROES || c->type == NBD_CMD_TRIM)
		memset(now + c->off, 0, c->len);
	else if (c->type == NBD_CMD_FLUSH)
		memcpy(safe, now, SIZE);
	if (c->flags & NBD_CMD_FUA)
		memcpy(safe + c->off, now + c->off, c->len);
}

static uint32_t error_for(const struct flaky_command *c)
{
	return c->type == NBD_CMD_READ    ? (uint32_t)flaky.fail_read
	       : c->type == NBD_CMD_FLUSH ? (uint32_t)flaky.fail_flush
					  : (uint32_t)flaky.fail;
}

/* False: the connection is over. */
static bool command(struct conn *k)
{
	uint8_t head[NBD_REQUEST_SIZE], reply[NBD_SIMPLE_SIZE];
	struct flaky_command is, *c = &is;
	bool held;
	uint32_t error;

	if (!move_all(k->fd, head, sizeof head, false) || nbd_get16(head + 6) == NBD_CMD_DISC)
		return false;
	*c = (struct flaky_command){.conn = k->number,
				    .flags = nbd_get16(head + 4),
				    .type = nbd_get16(head + 6),
				    .off = nbd_get64(head + 16),
				    .len = nbd_get32(head + 24)};
	if (c->type == NBD_CMD_WRITE && !move_all(k->fd, buf, c->len, false))
		return false;
	c->first = c->type == NBD_CMD_WRITE ? buf[0] : 0;
	held = flaky.mute || flaky.mute_conn == k->number ||
	       (flaky.mute_flush && c->type == NBD_CMD_FLUSH);
	error = error_for(c);
	pthread_mutex_lock(&lock);
	if (!held && !error)
		carry_out(c, buf);
	if (c->type != NBD_CMD_READ && c->type != NBD_CMD_FLUSH)
		writer = k->number;
	commands[ncommands++] = *c;
	if (held) {
		if (c->type == NBD_CMD_WRITE) {
			datas[ncommands - 1] = malloc(c->len);
			memcpy(datas[ncommands - 1], buf, c->len);
		}
		if (k->nheld < 256)
			k->held[k->nheld++] = ncommands - 1;
	}
	pthread_mutex_unlock(&lock);
	if (held)
		return true;
	nbd_put64(nbd_put32(nbd_put32(reply, NBD_SIMPLE_MAGIC), error), nbd_get64(head + 8));
	if (!move_all(k->fd, reply, sizeof reply, true) ||
	    (c->type == NBD_CMD_READ && !error &&
	     !move_all(k->fd, (flaky.apart && k->number != writer ? safe : now) + c->off, c->len,
		       true)))
		return false;
	return !flaky.last || ++k->answered < flaky.last;
}

static void listen_tcp(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
	socklen_t len = sizeof in;
	int one = 1;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&in, sizeof in) || listen(listener, 5) ||
	    getsockname(listener, (struct sockaddr *)&in, &len))
		abort();
	port = in.sin_port;
	snprintf(flaky.path, sizeof flaky.path, "//127.0.0.1:%u", ntohs(port));
}

static void come_up(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	if (flaky.tcp) {
		listen_tcp();
		is_up = true;
		return;
	}
	strcpy(at.sun_path, flaky.path);
	unlink(flaky.path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 5))
		abort();
	is_up = true;
}

static void drop(struct conn *k)
{
	close(k->fd);
	*k = conns[--nconns];
}

static void go_down(void)
{
	for (unsigned i = nconns; i-- > 0;)
		if (flaky.lingers && !conns[i].lingers) {
			conns[i].lingers = true;
			shutdown(conns[i].fd, SHUT_WR);
		} else if (!conns[i].lingers) {
			drop(&conns[i]);
		}
	close(listener);
	if (!flaky.tcp)
		unlink(flaky.path);
	memcpy(now, safe, SIZE);
	is_up = false;
}

static void cut_one(void)
{
	for (unsigned i = nconns; i-- > 0;)
		if (conns[i].number == cut)
			drop(&conns[i]);
	cut = 0;
}

static void finish_lingering(void)
{
	for (unsigned i = nconns; i-- > 0;) {
		struct conn *k = &conns[i];

		if (!k->lingers)
			continue;
		for (unsigned j = 0; j < k->nheld; j++)
			carry_out(&commands[k->held[j]], datas[k->held[j]]);
		drop(k);
	}
	end_linger = false;
}

static void look(const struct pollfd *p, unsigned polled)
{
	for (unsigned i = polled; i-- > 0;)
		if (p[i + 1].revents && !conns[i].lingers && !command(&conns[i]))
			drop(&conns[i]);
	if (p[0].revents && nconns < CONNS) { /* without the lock: the client waits for it, too */
		struct conn *k = &conns[nconns];

		*k = (struct conn){.fd = accept(listener, NULL, NULL), .number = ++numbers};
		if (greet(k->fd))
			nconns++;
		else
			close(k->fd);
	}
}

static void *serve(void *arg)
{
	for (;;) {
		struct pollfd p[CONNS + 1];
		unsigned polled;

		pthread_mutex_lock(&lock);
		if (want_up != is_up) {
			if (want_up)
				come_up();
			else
				go_down();
		}
		if (end_linger)
			finish_lingering();
		if (cut)
			cut_one();
		polled = nconns;
		p[0] = (struct pollfd){
			.fd = is_up && (!flaky.most || nconns < flaky.most) ? listener : -1,
			.events = POLLIN};
		for (unsigned i = 0; i < polled; i++)
			p[i + 1] = (struct pollfd){.fd = conns[i].lingers || conns[i].number ==
										     flaky.deaf_conn
								 ? -1
								 : conns[i].fd,
						   .events = POLLIN};
		pthread_mutex_unlock(&lock);
		if (over)
			return NULL;
		if (poll(p, polled + 1, 1) <= 0)
			continue;
		if (want_up == is_up && polled == nconns)
			look(p, polled);
	}
}

static void switch_to(bool up)
{
	bool there = false;

	pthread_mutex_lock(&lock);
	want_up = up;
	pthread_mutex_unlock(&lock);
	while (!there) {
		usleep(200);
		pthread_mutex_lock(&lock);
		there = is_up == up;
		pthread_mutex_unlock(&lock);
	}
}

static void start(void)
{
	now = calloc(1, SIZE);
	safe = calloc(1, SIZE);
	buf = malloc(SIZE);
	commands = calloc(FLAKY_LOG, sizeof *commands);
	datas = calloc(FLAKY_LOG, sizeof *datas);
	ncommands = nconns = 0;
	numbers = writer = cut = 0;
	over = end_linger = is_up = false;
	want_up = true;
	ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
	switch_to(true);
}

void flaky_start(const char *dir)
{
	flaky = (struct flaky){.size = SIZE, .flags = FLAKY_ALL};
	snprintf(flaky.path, sizeof flaky.path, "%s/flaky", dir);
	start();
}

void flaky_start_tcp(void)
{
	flaky = (struct flaky){.size = SIZE, .flags = FLAKY_ALL, .tcp = true};
	port = 0;
	start();
}

void flaky_down(void)
{
	switch_to(false);
}

void flaky_up(void)
{
	switch_to(true);
}

void flaky_let_linger_end(void)
{
	bool ended = false;

	pthread_mutex_lock(&lock);
	end_linger = true;
	pthread_mutex_unlock(&lock);
	while (!ended) {
		usleep(200);
		pthread_mutex_lock(&lock);
		ended = !end_linger;
		pthread_mutex_unlock(&lock);
	}
}

void flaky_cut(int conn)
{
	bool done = false;

	pthread_mutex_lock(&lock);
	cut = conn;
	pthread_mutex_unlock(&lock);
	while (!done) {
		usleep(200);
		pthread_mutex_lock(&lock);
		done = !cut;
		pthread_mutex_unlock(&lock);
	}
}

int flaky_last(void)
{
	int last = 0;

	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < nconns; i++)
		last = conns[i].number > last ? conns[i].number : last;
	pthread_mutex_unlock(&lock);
	return last;
}

unsigned flaky_conns(void)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = nconns;
	pthread_mutex_unlock(&lock);
	return n;
}

void flaky_stop(void)
{
	flaky.lingers = false;
	flaky_let_linger_end();
	flaky_down();
	over = true;
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < FLAKY_LOG; i++)
		free(datas[i]);
	free(datas);
	free(commands);
	free(buf);
	free(now);
	free(safe);
}

unsigned flaky_count(void)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = ncommands;
	pthread_mutex_unlock(&lock);
	return n;
}

struct flaky_command flaky_command(unsigned i)
{
	struct flaky_command c;

	pthread_mutex_lock(&lock);
	c = commands[i];
	pthread_mutex_unlock(&lock);
	return c;
}

void flaky_forget(void)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < nconns; i++)
		conns[i].nheld = 0;
	ncommands = 0;
	pthread_mutex_unlock(&lock);
}

uint8_t flaky_now(uint64_t off)
{
	uint8_t b;

	pthread_mutex_lock(&lock);
	b = now[off];
	pthread_mutex_unlock(&lock);
	return b;
}

uint8_t flaky_safe(uint64_t off)
{
	uint8_t b;

	pthread_mutex_lock(&lock);
	b = safe[off];
	pthread_mutex_unlock(&lock);
	return b;
}
