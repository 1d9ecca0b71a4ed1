/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/nbd/nbd.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "tapdisk/nbd/nbd-conn.h"

#define TRIM_AFTER  5.0 /* s without a request, after which buffers are given back */
#define ACCEPTS     16  /* clients let in in one turn */
#define RETRY_AFTER 1.0 /* s, when a client could not be let in */
#define LAST_WORDS  2.0 /* s that clients have, at a close, to read what they have been answered */

static const struct nbd_manner newstyle = {0}, reading = {.read_only = true},
			       oldstyle = {.oldstyle = true};

static void got_new(void *owner, int fd, const char *name)
{
	nbd_conn_new(owner, fd, &newstyle);
}

static void got_old(void *owner, int fd, const char *name)
{
	nbd_conn_new(owner, fd, &oldstyle);
}

static bool word_is(const char *at, size_t len, const char *word)
{
	return len == strlen(word) && !memcmp(at, word, len);
}

/* What `tap-ctl export' has promised of a client.  A word that is not known is a promise that is
 * not kept here: there is no such client. */
static void got_export(void *owner, int fd, const char *words)
{
	struct nbd_manner how = {0};
	struct nbd *n = owner;
	size_t len;

	for (; *words; words += len + strspn(words + len, " ")) {
		len = strcspn(words, " ");
		if (word_is(words, len, "read-only")) {
			how.read_only = true;
		} else if (word_is(words, len, "alone")) {
			how.alone = true;
		} else if (len) {
			td_log_limited(&n->limit, LOG_WARNING,
				       "minor %d: an exported client is turned away: this tapdisk "
				       "does not know `%.*s'",
				       n->minor, (int)len, words);
			close(fd);
			return;
		}
	}
	nbd_conn_new(n, fd, &how);
}

static const struct {
	const char *prefix;
	const struct nbd_manner *how;                       /* it takes clients, */
	void (*got)(void *owner, int fd, const char *name); /* or those who bring them */
} kinds[] = {
	/* while it has the name of the second: see nbd_listen() */
	{"nbd-ro", &reading, NULL},       {"nbd", &newstyle, NULL},
	{"nbd-old", &oldstyle, NULL},     {"nbdserver", NULL, got_old},
	{"nbdserver-new", NULL, got_new}, {"nbdexport", NULL, got_export},
};
#define KINDS (sizeof kinds / sizeof *kinds)
_Static_assert(KINDS == sizeof(((struct nbd *)0)->listen) / sizeof(ev_io),
	       "a listener for each kind");

static void socket_name(const struct nbd *n, unsigned i, char *out, size_t len)
{
	snprintf(out, len, "%s%d.%d", kinds[i].prefix, (int)getpid(), n->minor);
}

static void listeners(struct nbd *n, bool on)
{
	for (unsigned i = 0; i < n->listening; i++)
		if (on)
			ev_io_start(n->loop, &n->listen[i]);
		else
			ev_io_stop(n->loop, &n->listen[i]);
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct nbd *n = w->data;

	ev_timer_stop(loop, w);
	listeners(n, !n->held);
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbd *n = w->data;
	size_t i = (size_t)(w - n->listen);
	int fd = -1;

	errno = EAGAIN;
	for (unsigned k = 0;
	     k < ACCEPTS && (fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;
	     k++)
		if (kinds[i].got)
			nbd_receive(loop, &n->receivers, fd, kinds[i].got, n);
		else
			nbd_conn_new(n, fd, kinds[i].how);
	/* the client waits on; nor are we to spin */
	if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
		td_log_limited(&n->limit, LOG_WARNING, "minor %d: cannot let an NBD client in: %s",
			       n->minor, strerror(errno));
		listeners(n, false);
		ev_timer_again(loop, &n->retry);
	}
}

static void on_trim(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct nbd *n = w->data;

	if (n->inflight || n->trim_seen != n->n.taken) {
		n->trim_seen = n->n.taken;
		return;
	}
	ev_timer_stop(loop, w);
	td_list_each (l, &n->conns)
		td_pool_trim(td_entry(l, struct nbd_conn, link)->pool);
	td_fiber_trim();
}

struct nbd *nbd_new(struct ev_loop *loop, const struct nbd_disk *disk, int minor)
{
	struct nbd *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->loop = loop;
	n->disk = disk;
	n->minor = minor;
	n->held = true;
	td_list_init(&n->conns);
	td_list_init(&n->receivers);
	ev_init(&n->retry, on_retry);
	n->retry.repeat = RETRY_AFTER;
	n->retry.data = n;
	ev_init(&n->trim, on_trim);
	n->trim.repeat = TRIM_AFTER;
	n->trim.data = n;
	return n;
}

void nbd_free(struct nbd *n)
{
	if (!n)
		return;
	assert(!n->listening && td_list_empty(&n->conns) && td_list_empty(&n->receivers));
	ev_timer_stop(n->loop, &n->retry);
	ev_timer_stop(n->loop, &n->trim);
	td_fiber_trim();
	free(n);
}

static void remove_sockets(struct nbd *n)
{
	char name[64];

	while (n->listening) {
		ev_io *w = &n->listen[--n->listening];

		ev_io_stop(n->loop, w);
		close(w->fd);
		socket_name(n, n->listening, name, sizeof name);
		nbd_socket_remove(name);
	}
}

int nbd_listen(struct nbd *n, struct td_err *err)
{
	char name[64], shown[64];

	assert(n->held && !n->listening);
	stats_source_open(&n->stats, n->disk->stats, NULL);
	for (unsigned i = 0; i < KINDS; i++) {
		int fd;

		socket_name(n, i, name, sizeof name);
		/* Storage managers look in /proc/net/unix for connections to nbd<pid>.<minor>, and
		 * close the disk when there are none: one that stands on it has to be seen. */
		if (kinds[i].how == &reading)
			socket_name(n, i + 1, shown, sizeof shown);
		fd = nbd_socket(name, kinds[i].how == &reading ? shown : NULL, err);
		if (fd < 0) {
			remove_sockets(n);
			stats_source_close(&n->stats);
			return fd;
		}
		ev_io_init(&n->listen[i], on_accept, fd, EV_READ);
		n->listen[i].data = n;
		n->listening++;
	}
	return 0;
}

void nbd_hold(struct nbd *n)
{
	if (!n)
		return;
	n->held = true;
	listeners(n, false);
	td_list_each (l, &n->conns)
		ev_io_stop(n->loop, &td_entry(l, struct nbd_conn, link)->in);
}

void nbd_run(struct nbd *n)
{
	if (!n)
		return;
	n->held = false;
	listeners(n, true);
	td_list_each (l, &n->conns)
		nbd_conn_kick(td_entry(l, struct nbd_conn, link));
}

void nbd_cancel(struct nbd *n)
{
	if (!n)
		return;
	td_list_each (l, &n->conns)
		nbd_status_cancel(td_entry(l, struct nbd_conn, link), -ESHUTDOWN);
}

void nbd_close(struct nbd *n)
{
	if (!n)
		return;
	assert(n->held && !n->inflight);
	if (!n->listening) /* nbd_listen failed: nobody has come */
		return;
	remove_sockets(n);
	nbd_receive_none(&n->receivers);
	td_list_each (l, &n->conns)
		nbd_conn_end(td_entry(l, struct nbd_conn, link));
	for (double until = td_clock_s() + LAST_WORDS;
	     !td_list_empty(&n->conns) && td_clock_s() < until;)
		td_fiber_wait_for(0.01);
	td_list_each_safe (l, tmp, &n->conns)
		nbd_conn_free(td_entry(l, struct nbd_conn, link));
	stats_source_close(&n->stats);
}

unsigned nbd_inflight(const struct nbd *n)
{
	return n ? n->inflight : 0;
}

unsigned nbd_clients(const struct nbd *n)
{
	return n ? n->clients : 0;
}

const struct nbd_stats *nbd_stats(const struct nbd *n)
{
	return &n->n;
}
