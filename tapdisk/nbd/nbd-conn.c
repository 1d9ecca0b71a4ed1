/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of an NBD client: read, cut into requests, and replies sent.
 *
 * One thing: bytes become requests, requests become replies, and a reply that was sent lets more
 * bytes in (nbd-cmd.c, nbd-reply.c, nbd-status.c); a connection that is freed lets another begin
 * (nbd-after.c).
 */
#include "tapdisk/nbd/nbd-conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* s that a handshake, or the last replies to a client that leaves, may take */
#define PATIENCE 30.0
#define SEND_IOV 256 /* pieces of one sendmsg */

static unsigned process_clients; /* connections of all disks */

unsigned nbd_share(void)
{
	unsigned share = NBD_BUFS_ALL / (process_clients ? process_clients : 1);

	return share > NBD_BUFS_MAX ? NBD_BUFS_MAX : share < NBD_BUFS_MIN ? NBD_BUFS_MIN : share;
}

void nbd_conn_kick(struct nbd_conn *c)
{
	if (!ev_is_pending(&c->respond))
		ev_feed_event(c->n->loop, &c->respond, EV_CUSTOM);
}

static void on_more(struct ev_loop *loop, ev_idle *w, int revents)
{
	ev_idle_stop(loop, w);
	nbd_conn_kick(w->data);
}

/* --- leaving --- */

void nbd_conn_end(struct nbd_conn *c)
{
	if (c->ending)
		return;
	c->ending = true;
	ev_io_stop(c->n->loop, &c->in);
	if (c->filling)
		nbd_req_put(c->filling);
	c->filling = NULL;
	ev_timer_again(c->n->loop, &c->patience);
	nbd_conn_kick(c);
}

static void conn_gone(struct nbd_conn *c)
{
	nbd_conn_end(c);
	ev_io_stop(c->n->loop, &c->out);
	c->gone = true;
}

void nbd_conn_drop(struct nbd_conn *c, const char *why)
{
	if (c->ending)
		return;
	c->n->n.dropped++;
	td_log_limited(&c->n->limit, LOG_WARNING,
		       "minor %d: an NBD client breaks the protocol and is dropped: %s",
		       c->n->minor, why);
	nbd_conn_end(c);
}

void nbd_conn_free(struct nbd_conn *c)
{
	assert(c->magic == NBD_CONN_MAGIC && !c->inflight && !c->status_running);
	ev_io_stop(c->n->loop, &c->in);
	ev_io_stop(c->n->loop, &c->out);
	ev_idle_stop(c->n->loop, &c->more);
	ev_timer_stop(c->n->loop, &c->patience);
	ev_timer_stop(c->n->loop, &c->pace);
	ev_clear_pending(c->n->loop, &c->respond);
	if (c->whole)
		nbd_req_put(c->whole);
	if (c->transmission)
		c->n->clients--;
	td_list_del(&c->link);
	process_clients--;
	close(c->fd);
	td_pool_free(c->pool);
	free(c->reqs);
	free(c->answer);
	nbd_begin_others(c->n);
	c->magic = 0;
	free(c);
}

static void on_patience(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct nbd_conn *c = w->data;

	if (c->n->held && !c->ending)
		return; /* it is we who are slow: the timer comes again */
	ev_timer_stop(loop, w);
	if (!c->ending && !c->transmission)
		nbd_conn_drop(c, "its handshake takes too long");
	else
		conn_gone(c);
	nbd_conn_kick(c);
}

/* --- sending --- */

/* The bytes of a reply from `skip' on; the number of pieces, at most max. */
static int reply_iov(struct nbd_req *r, size_t skip, struct iovec *iov, int max)
{
	uint32_t left = r->data;
	int n = 0;

	if (skip < r->head_len)
		iov[n++] = (struct iovec){r->head + skip, r->head_len - skip};
	skip = skip > r->head_len ? skip - r->head_len : 0;
	for (int i = 0; left && n < max; i++) {
		size_t len = r->iov[i].iov_len < left ? r->iov[i].iov_len : left;

		left -= (uint32_t)len;
		if (skip >= len) {
			skip -= len;
			continue;
		}
		iov[n++] = (struct iovec){(char *)r->iov[i].iov_base + skip, len - skip};
		skip = 0;
	}
	return n;
}

static int gather_replies(struct nbd_conn *c, struct iovec *iov)
{
	size_t skip = c->sent;
	int n = 0;

	if (c->answer && c->answered < c->answer->len)
		iov[n++] = (struct iovec){c->answer->bytes + c->answered,
					  c->answer->len - c->answered};
	for (struct nbd_req *r = c->replies; r && n < SEND_IOV; r = r->next, skip = 0)
		n += reply_iov(r, skip, iov + n, SEND_IOV - n);
	return n;
}

static void reply_sent(struct nbd_conn *c)
{
	struct nbd_req *r = c->replies;

	c->replies = r->next;
	if (!c->replies)
		c->replies_tail = &c->replies;
	c->sent = 0;
	nbd_req_put(r);
}

static void advance(struct nbd_conn *c, size_t n)
{
	if (c->answer && c->answered < c->answer->len) {
		size_t k = c->answer->len - c->answered < n ? c->answer->len - c->answered : n;

		c->answered += k;
		n -= k;
	}
	while (n) {
		size_t left = c->replies->head_len + c->replies->data - c->sent;

		if (n < left) {
			c->sent += n;
			return;
		}
		n -= left;
		reply_sent(c);
	}
}

static void send_all(struct nbd_conn *c)
{
	struct iovec iov[SEND_IOV];
	struct msghdr m = {.msg_iov = iov};
	ssize_t n;

	while ((m.msg_iovlen = (size_t)gather_replies(c, iov))) {
		n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			advance(c, (size_t)n);
		} else if (errno == EAGAIN) {
			ev_io_start(c->n->loop, &c->out);
			return;
		} else if (errno != EINTR) {
			conn_gone(c);
			return;
		}
	}
}

/* --- reading --- */

static void export_of(const struct nbd_conn *c, struct nbd_export *x)
{
	const struct nbd_disk *d = c->n->disk;

	*x = (struct nbd_export){.size = d->size,
				 .flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH |
					  NBD_FLAG_SEND_FUA |
					  (c->alone ? 0 : NBD_FLAG_CAN_MULTI_CONN),
				 .block = d->block ? d->block : 512,
				 .preferred = d->preferred < 4096 ? 4096 : d->preferred,
				 .max = NBD_LENGTH_MAX,
				 .description = d->name};
	if (d->read_only || c->read_only)
		x->flags |= NBD_FLAG_READ_ONLY;
	else
		x->flags |= NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO |
			    (d->trim ? NBD_FLAG_SEND_TRIM : 0);
}

static void begin_transmission(struct nbd_conn *c)
{
	c->transmission = true;
	c->n->clients++;
	ev_timer_stop(c->n->loop, &c->patience);
}

/* As much of the handshake as there is; true: more bytes are wanted. */
static bool handshake(struct nbd_conn *c)
{
	struct nbd_export x;
	long used;

	export_of(c, &x);
	/* one answer at a time: a client that does not read it gets no other */
	while (c->answered == c->answer->len && nbd_turn_lets(c)) {
		nbd_turn_spend(c, 1);
		c->answered = c->answer->len = 0;
		used = nbd_handshake_step(&c->hs, &x, c->input + c->in_at, c->in_len - c->in_at,
					  c->answer);
		if (used < 0) {
			nbd_conn_drop(c, "its handshake is malformed");
			return false;
		}
		if (!used)
			return true;
		c->in_at += (unsigned)used;
		nbd_conn_kick(c);
		if (c->hs.phase == NBD_HS_GO) {
			begin_transmission(c);
			return false;
		}
		if (c->hs.phase == NBD_HS_END) {
			nbd_conn_end(c);
			return false;
		}
	}
	return false;
}

/* What has been read ahead of a write's data goes to its place. */
static void fill_buffer(struct nbd_conn *c)
{
	struct nbd_req *r = c->filling;
	uint32_t at = c->filled;

	for (unsigned i = 0; i < r->bufs && c->in_at < c->in_len; i++) {
		size_t room = r->iov[i].iov_len, n = c->in_len - c->in_at;

		if (at >= room) {
			at -= (uint32_t)room;
			continue;
		}
		n = n < room - at ? n : room - at;
		memcpy((char *)r->iov[i].iov_base + at, c->input + c->in_at, n);
		c->in_at += (unsigned)n;
		c->filled += (uint32_t)n;
		at = 0;
	}
}

static void skip(struct nbd_conn *c)
{
	uint32_t n = c->in_len - c->in_at;

	n = n < c->skip ? n : c->skip;
	c->in_at += n;
	c->skip -= n;
	if (!c->skip && c->refused) {
		nbd_reply(c->refused, c->refused->err);
		c->refused = NULL;
	}
}

/* One step with what has been read.  False: no further now; *more: because bytes are wanted. */
static bool step(struct nbd_conn *c, bool *more)
{
	if (c->skip) {
		skip(c);
		*more = c->skip;
		return !c->skip;
	}
	if (c->filling) {
		fill_buffer(c);
		*more = c->filled < c->filling->len;
		if (!*more)
			nbd_filled(c);
		return !*more;
	}
	*more = !c->whole && c->in_len - c->in_at < NBD_REQUEST_SIZE;
	if (*more || !nbd_turn_lets(c))
		return false;
	if (c->whole)
		return nbd_cut(c);
	if (!nbd_take(c, c->input + c->in_at))
		return false;
	c->in_at += NBD_REQUEST_SIZE;
	return true;
}

/* All that can be done with what has been read; reads on when that is what is wanted. */
static void work(struct nbd_conn *c)
{
	bool more = false;

	c->batch = 0;
	if (!c->ending && !c->n->held && !c->transmission)
		more = handshake(c);
	if (!c->ending && !c->n->held && c->transmission && nbd_may_begin(c))
		while (!c->ending && step(c, &more))
			;
	if (c->n->stats.begun)
		stats_taken(&c->n->stats);
	if (more && !c->ending)
		ev_io_start(c->n->loop, &c->in);
	else
		ev_io_stop(c->n->loop, &c->in);
}

/* Where the next bytes go: a write's data to its place, what follows to the input. */
static int read_iov(struct nbd_conn *c, struct iovec *iov)
{
	size_t ahead;
	int n = 0;

	if (c->filling) {
		uint32_t at = c->filled;

		for (unsigned i = 0; i < c->filling->bufs; i++) {
			struct iovec *v = &c->filling->iov[i];

			if (at < v->iov_len)
				iov[n++] =
					(struct iovec){(char *)v->iov_base + at, v->iov_len - at};
			at = at > v->iov_len ? at - (uint32_t)v->iov_len : 0;
		}
	}
	memmove(c->input, c->input + c->in_at, c->in_len - c->in_at);
	c->in_len -= c->in_at;
	c->in_at = 0;
	ahead = c->big && !c->skip && c->in_len < NBD_REQUEST_SIZE ? NBD_REQUEST_SIZE - c->in_len
								   : NBD_IN - c->in_len;
	iov[n++] = (struct iovec){c->input + c->in_len, ahead};
	return n;
}

/* False: there is no more for now. */
static bool read_once(struct nbd_conn *c)
{
	struct iovec iov[NBD_PIECE + 1];
	struct msghdr m = {.msg_iov = iov};
	uint32_t wanted = c->filling ? c->filling->len - c->filled : 0;
	ssize_t n;

	m.msg_iovlen = (size_t)read_iov(c, iov);
	n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		if (n < 0)
			conn_gone(c);
		nbd_conn_end(c);
		return false;
	}
	if ((size_t)n < wanted) {
		c->filled += (uint32_t)n;
		return false;
	}
	c->filled += wanted;
	c->in_len += (unsigned)n - wanted;
	work(c);
	return true;
}

/* The head of a long write comes alone, so that its data is read to its place: at once. */
static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbd_conn *c = w->data;
	bool head = !c->filling;

	if (read_once(c) && head && c->filling && ev_is_active(&c->in))
		read_once(c);
}

/* --- coming and going --- */

static bool all_said(const struct nbd_conn *c)
{
	return !c->inflight && !c->status_running &&
	       (c->gone || (!c->replies && !(c->answer && c->answered < c->answer->len)));
}

/* The end of a turn in which something was done: replies out, then what they made room for. */
static void on_respond(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct nbd_conn *c = w->data;

	if (!c->gone && !ev_is_active(&c->out))
		send_all(c);
	if (c->transmission && c->answer && c->answered == c->answer->len) {
		free(c->answer);
		c->answer = NULL;
	}
	if (!c->n->held)
		nbd_status_run(c);
	work(c);
	if (c->transmission)
		stats_publish(&c->n->stats);
	if (c->ending && all_said(c))
		nbd_conn_free(c);
}

static void on_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
	nbd_conn_kick(w->data);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbd_conn *c = w->data;

	ev_io_stop(loop, w);
	nbd_conn_kick(c);
}

static bool alloc_parts(struct nbd_conn *c)
{
	c->reqs = calloc(NBD_REQS, sizeof *c->reqs);
	c->pool = td_pool_new(NBD_BUF, NBD_BUFS_MAX, NULL);
	c->answer = malloc(sizeof *c->answer);
	if (!c->reqs || !c->pool || !c->answer)
		return false;
	for (unsigned i = NBD_REQS; i-- > 0;) {
		c->reqs[i].conn = c;
		c->reqs[i].next = c->free;
		c->free = &c->reqs[i];
	}
	return true;
}

void nbd_conn_new(struct nbd *n, int fd, const struct nbd_manner *how)
{
	struct nbd_conn *c = process_clients < NBD_CLIENTS ? calloc(1, sizeof *c) : NULL;
	struct nbd_export x;

	if (!c || !alloc_parts(c)) {
		td_log_limited(&n->limit, LOG_WARNING, "minor %d: an NBD client is turned away: %s",
			       n->minor,
			       c ? "out of memory" : "there are too many, or out of memory");
		if (c) {
			td_pool_free(c->pool);
			free(c->reqs);
			free(c->answer);
			free(c);
		}
		close(fd);
		return;
	}
	c->magic = NBD_CONN_MAGIC;
	c->n = n;
	c->fd = fd;
	c->read_only = how->read_only;
	c->alone = how->alone;
	c->replies_tail = &c->replies;
	c->status_tail = &c->status;
	ev_io_init(&c->in, on_readable, fd, EV_READ);
	ev_io_init(&c->out, on_writable, fd, EV_WRITE);
	ev_init(&c->respond, on_respond);
	ev_set_priority(&c->respond, TD_PRI_RING);
	ev_idle_init(&c->more, on_more);
	ev_set_priority(&c->more, EV_MAXPRI); /* or the activity of others would starve it */
	ev_init(&c->patience, on_patience);
	c->patience.repeat = PATIENCE;
	ev_timer_init(&c->pace, on_limit, 0, 0);
	c->in.data = c->out.data = c->respond.data = c->more.data = c->patience.data =
		c->pace.data = c;
	td_list_add(&n->conns, &c->link);
	process_clients++;
	n->n.clients++;
	ev_timer_again(n->loop, &c->patience);
	export_of(c, &x);
	c->answer->len = 0;
	nbd_handshake_begin(&c->hs, &x, how->oldstyle, c->answer);
	if (c->hs.phase == NBD_HS_GO)
		begin_transmission(c);
	nbd_conn_kick(c);
}
