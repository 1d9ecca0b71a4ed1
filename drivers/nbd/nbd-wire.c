/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests as commands on the socket, and what comes back.  All that a turn of the loop brought
 * goes out together at its end.  After a connection has ended, nbd-again.c brings another, and
 * what was under way is sent there in the order of K8.
 *
 * One thing: a connection that ends here begins attempts there, an attempt connects as an open does
 * (nbd.c), and what it has connected goes on here. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"

#define SEND_IOV  256
#define RANGE_MAX (1u << 30)           /* bytes of a command that carries no data */
#define KEPT_MAX  (NBD_KEEP_BYTES / 4) /* bytes of a command whose data may be kept */

/* td_req.state[1]: what FUA still asks for, where the server has none */
enum { PLAIN, FLUSH_AFTER, FLUSHING };

static void schedule(struct nbdc_client *n)
{
	if (!n->lost && n->phase != NBD_AWAY && !n->leaving && !ev_is_active(&n->out) &&
	    !ev_is_pending(&n->send))
		ev_feed_event(n->loop, &n->send, EV_CUSTOM);
}

/* --- the ends of commands and requests --- */

static void req_put(struct nbdc_client *n, struct td_req *req, int err)
{
	if (err && !req->err)
		req->err = err;
	if (--req->pending)
		return;
	if (req->state[1] == FLUSH_AFTER && !req->err) {
		req->state[0] = 0;
		req->state[1] = FLUSHING;
		req->pending = 1;
		td_list_add_front(&n->waiting, &req->link);
		schedule(n);
		return;
	}
	td_req_done(req, req->err);
}

static bool is_change(uint16_t type)
{
	return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

/* It takes part in the counts of what is under way, or no more. */
static void count_cmd(struct nbdc_client *n, const struct nbdc_cmd *cmd, unsigned by)
{
	n->changing += is_change(cmd->type) ? by : 0;
	n->flushes += cmd->type == NBD_CMD_FLUSH ? by : 0;
	n->ours += cmd->req ? 0 : by;
}

static void cmd_free(struct nbdc_client *n, struct nbdc_cmd *cmd)
{
	struct nbdc_cmd **list = cmd - n->cmds < NBD_CMDS ? &n->free : &n->own_free;

	count_cmd(n, cmd, -1u);
	if (cmd->again) {
		n->behind--;
		n->behind_changes -= is_change(cmd->type);
	}
	cmd->again = false;
	cmd->req = NULL;
	cmd->cookie = 0;
	cmd->next = *list;
	*list = cmd;
}

static void cmd_end(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	struct td_req *req = cmd->req;

	cmd_free(n, cmd);
	if (!td_list_empty(&n->waiting) || n->since || nbdc_keep_is_half(&n->keep))
		schedule(n);
	req_put(n, req, err);
}

static uint16_t flags_of(const struct nbdc_client *n, const struct td_req *req, uint16_t type);
static int data_iov(const struct nbdc_cmd *cmd, uint32_t skip, struct iovec *iov, int max);

/* K8; the data are still there. */
static void keep(struct nbdc_client *n, const struct nbdc_cmd *cmd, uint16_t flags, int err)
{
	struct iovec iov[16];

	if (err) {
		nbdc_keep_forget(&n->keep, cmd);
		return;
	}
	if (!nbdc_keep_add(&n->keep, cmd, flags, flags & NBD_CMD_FUA))
		return;
	for (uint32_t done = 0; done < cmd->len;) {
		int k = data_iov(cmd, done, iov, 16);

		for (int i = 0; i < k; i++) {
			nbdc_keep_data(&n->keep, &iov[i]);
			done += (uint32_t)iov[i].iov_len;
		}
	}
}

/* A reply to a command of our own. */
static void own_done(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	bool flush = cmd->type == NBD_CMD_FLUSH;

	if (flush) {
		nbdc_left_answered(n, cmd, false, err);
		if (!err)
			nbdc_keep_flushed(&n->keep, cmd->mark);
	}
	cmd_free(n, cmd);
	schedule(n);
	if (err)
		nbdc_wire_lose(n, flush ? "the server could not flush what it had acknowledged"
					: "the server has come back, and does not take again what "
					  "it had acknowledged, and may have lost");
}

/* The server has replied to it. */
static void cmd_done(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	uint16_t flags;

	if (!cmd->req) {
		own_done(n, cmd, err);
		return;
	}
	flags = flags_of(n, cmd->req, cmd->type);
	if (is_change(cmd->type))
		keep(n, cmd, flags, err);
	nbdc_left_answered(n, cmd, flags & NBD_CMD_FUA, err);
	if (cmd->type == NBD_CMD_FLUSH && !err)
		nbdc_keep_flushed(&n->keep, cmd->mark);
	cmd_end(n, cmd, err);
}

static void stop_socket(struct nbdc_client *n)
{
	ev_io_stop(n->loop, &n->in);
	ev_io_stop(n->loop, &n->out);
	ev_clear_pending(n->loop, &n->send);
	n->filling = NULL;
	n->unsent = NULL;
	n->unsent_tail = &n->unsent;
	n->sent = 0;
	n->in_at = n->in_len = 0;
}

/* K3.  The connection has ended, or is ended because of what came through it. */
void nbdc_wire_lose(struct nbdc_client *n, const char *why)
{
	char text[400];
	struct td_list *l;

	if (n->lost)
		return;
	n->lost = true;
	stop_socket(n);
	if (n->fd >= 0)
		shutdown(n->fd, SHUT_RDWR);
	td_log(n->copy ? LOG_INFO : LOG_ERR,
	       "nbd:%s: %s: all requests fail until the disk is closed and opened again", n->name,
	       why);
	snprintf(text, sizeof text,
		 "%s: all requests fail until the disk is closed and opened again", why);
	nbdc_again_over(n);
	td_image_fault(n->image, text); /* for those who look at the list */
	for (unsigned i = 0; i < NBD_CMDS + NBD_OWN; i++)
		if (n->cmds[i].req)
			cmd_end(n, &n->cmds[i], -EIO); /* K4: the server may go on with it */
		else if (n->cmds[i].cookie)
			cmd_free(n, &n->cmds[i]);
	while ((l = td_list_pop(&n->waiting)))
		req_put(n, td_entry(l, struct td_req, link), -EIO);
}

/* --- requests cut into commands --- */

static bool has_data(const struct nbdc_cmd *cmd)
{
	return cmd->type == NBD_CMD_READ || cmd->type == NBD_CMD_WRITE;
}

static uint16_t type_of(const struct td_req *req)
{
	static const uint16_t types[] = {
		[TD_READ] = NBD_CMD_READ,
		[TD_WRITE] = NBD_CMD_WRITE,
		[TD_FLUSH] = NBD_CMD_FLUSH,
		[TD_DISCARD] = NBD_CMD_TRIM,
		[TD_WRITE_ZEROES] = NBD_CMD_WRITE_ZEROES,
	};

	return req->state[1] == FLUSHING ? NBD_CMD_FLUSH : types[req->op];
}

static uint16_t flags_of(const struct nbdc_client *n, const struct td_req *req, uint16_t type)
{
	uint16_t flags = 0;

	if (type != NBD_CMD_FLUSH && (req->flags & TD_FUA) && (n->x.flags & NBD_FLAG_SEND_FUA) &&
	    !n->nosync)
		flags |= NBD_CMD_FUA;
	if (type == NBD_CMD_WRITE_ZEROES && !(req->flags & TD_UNMAP))
		flags |= NBD_CMD_NO_HOLE;
	return flags;
}

static void put_head(struct nbdc_cmd *cmd, uint16_t flags)
{
	uint64_t off = cmd->type == NBD_CMD_FLUSH ? 0 : cmd->off;

	nbd_put32(nbd_put64(nbd_put64(nbd_put16(nbd_put16(nbd_put32(cmd->head, NBD_REQUEST_MAGIC),
							  flags),
						cmd->type),
				      cmd->cookie),
			    off),
		  cmd->len);
}

static void enqueue(struct nbdc_client *n, struct nbdc_cmd *cmd)
{
	cmd->next = NULL;
	cmd->sent = false;
	*n->unsent_tail = cmd;
	n->unsent_tail = &cmd->next;
}

static void launch(struct nbdc_client *n, struct nbdc_cmd *cmd, uint16_t flags)
{
	cmd->cookie = ++n->cookies << 8 | (uint64_t)(cmd - n->cmds);
	cmd->mark = n->keep.end;
	put_head(cmd, flags);
	count_cmd(n, cmd, 1);
	enqueue(n, cmd);
}

/* What the next part of a request is, as a command. */
static void part(const struct nbdc_client *n, const struct td_req *req, struct nbdc_cmd *cmd)
{
	uint64_t left = req->len - req->state[0];
	uint32_t most;

	cmd->type = type_of(req);
	cmd->from = req->state[0];
	cmd->off = req->off + req->state[0];
	most = has_data(cmd) ? n->x.max / 512 * 512 : RANGE_MAX;
	if (n->keep.data && has_data(cmd) && most > KEPT_MAX)
		most = KEPT_MAX;
	cmd->len = left < most ? (uint32_t)left : most;
	if (cmd->type == NBD_CMD_FLUSH)
		cmd->off = cmd->len = 0;
}

/* One of cmds [from, to), of which at most `left' are changes? */
static bool overlaps(const struct nbdc_client *n, unsigned from, unsigned to, unsigned left,
		     uint64_t off, uint32_t len)
{
	for (unsigned i = from; left && i < to; i++) {
		const struct nbdc_cmd *cmd = &n->cmds[i];

		if (!cmd->cookie || !is_change(cmd->type))
			continue;
		left--;
		if (off < cmd->off + cmd->len && cmd->off < off + len)
			return true;
	}
	return false;
}

enum { FITS, OVERLAPS, NO_ROOM };

/* May the next part of a request be sent: K9, K10?  There is room for it then. */
static int fits(struct nbdc_client *n, const struct td_req *req)
{
	struct nbdc_cmd next;

	if (!n->keep.data)
		return FITS;
	part(n, req, &next);
	if (!is_change(next.type))
		return FITS;
	if (overlaps(n, 0, NBD_CMDS, n->changing, next.off, next.len))
		return OVERLAPS;
	return nbdc_keep_reserve(&n->keep, next.type, next.len) ? FITS : NO_ROOM;
}

/* The next part of a request; true: it was the last. */
static bool cut(struct nbdc_client *n, struct td_req *req)
{
	struct nbdc_cmd *cmd = n->free;

	n->free = cmd->next;
	cmd->req = req;
	part(n, req, cmd);
	req->state[0] += cmd->len;
	req->pending++;
	launch(n, cmd, flags_of(n, req, cmd->type));
	nbdc_left_sent(n, cmd);
	return cmd->type == NBD_CMD_FLUSH || req->state[0] == req->len;
}

/* What waits, in its order; a change that must wait holds the changes behind it, and nothing else.
 * True: one waits for room. */
static bool cut_waiting(struct nbdc_client *n)
{
	struct td_list *l = n->waiting.next;
	int held = FITS;

	while (n->free && l != &n->waiting) {
		struct td_req *req = td_entry(l, struct td_req, link);
		struct td_list *next = l->next;

		if (!req->err && is_change(type_of(req)) && (held || (held = fits(n, req)))) {
			l = next;
			continue;
		}
		if (req->err || cut(n, req)) { /* after an error the rest is not worth while */
			td_list_del(&req->link);
			req_put(n, req, 0);
			l = next;
		}
	}
	return held == NO_ROOM;
}

/* --- what is sent again, and what is ours --- */

static struct nbdc_cmd *own_cmd(struct nbdc_client *n)
{
	struct nbdc_cmd *cmd = n->own_free;

	n->own_free = cmd->next;
	cmd->req = NULL;
	return cmd;
}

/* K10: one at a time, and none where a guest's is under way. */
static void flush_early(struct nbdc_client *n, bool no_room)
{
	struct nbdc_cmd *cmd;

	if (n->keep.first == n->keep.end || n->flushes || !n->own_free ||
	    !(no_room || nbdc_keep_is_half(&n->keep)))
		return;
	cmd = own_cmd(n);
	cmd->type = NBD_CMD_FLUSH;
	cmd->off = cmd->len = 0;
	launch(n, cmd, 0);
	nbdc_left_sent(n, cmd);
}

/* True: all that was kept is written. */
static bool rewrite(struct nbdc_client *n)
{
	const struct nbdc_kept *e;
	struct iovec iov[2];

	while (n->own_free && (e = nbdc_keep_next(&n->keep, iov)) &&
	       !overlaps(n, NBD_CMDS, NBD_CMDS + NBD_OWN, n->ours, e->off, e->len)) {
		struct nbdc_cmd *cmd = own_cmd(n);

		cmd->type = e->type;
		cmd->off = e->off;
		cmd->len = e->len;
		cmd->from = 0;
		memcpy(cmd->kept, iov, sizeof iov);
		launch(n, cmd, e->flags);
		n->keep.next++;
	}
	return n->keep.next == n->keep.end && !n->ours;
}

static int by_age(const void *a, const void *b)
{
	const struct nbdc_cmd *x = *(struct nbdc_cmd *const *)a, *y = *(struct nbdc_cmd *const *)b;

	return x->cookie >> 8 < y->cookie >> 8 ? -1 : 1;
}

/* Commands that were under way when the connection ended: the changes, or the others. */
static void resend(struct nbdc_client *n, bool changes)
{
	struct nbdc_cmd *list[NBD_CMDS];
	size_t k = 0;

	for (unsigned i = 0; i < NBD_CMDS; i++)
		if (n->cmds[i].again && is_change(n->cmds[i].type) == changes)
			list[k++] = &n->cmds[i];
	qsort(list, k, sizeof *list, by_age);
	for (size_t i = 0; i < k; i++)
		enqueue(n, list[i]);
}

/* K8, step by step; once a turn, and after each reply that may end a step. */
static void go_on(struct nbdc_client *n)
{
	if (n->phase == NBD_REWRITES && rewrite(n)) {
		n->phase = NBD_RESENDS;
		nbdc_left_away(n, false); /* K13 */
		resend(n, true);
	}
	if (n->phase == NBD_RESENDS && !n->behind_changes) {
		n->phase = NBD_RUNS;
		resend(n, false);
	}
	if (n->phase == NBD_RUNS) {
		flush_early(n, cut_waiting(n));
		if (n->since && !n->behind)
			nbdc_again_over(n);
	}
}

void nbdc_wire_hold(struct nbdc_client *n)
{
	stop_socket(n);
	n->phase = NBD_AWAY;
	n->leaving = false;
	n->behind = n->behind_changes = 0;
	for (unsigned i = 0; i < NBD_CMDS + NBD_OWN; i++) {
		struct nbdc_cmd *cmd = &n->cmds[i];

		cmd->again = cmd->cookie && cmd->req;
		cmd->sent = false;
		n->behind += cmd->again;
		n->behind_changes += cmd->again && is_change(cmd->type);
		if (cmd->cookie && !cmd->req)
			cmd_free(n, cmd);
	}
}

void nbdc_wire_resume(struct nbdc_client *n, int fd)
{
	n->fd = fd;
	ev_io_set(&n->in, fd, EV_READ);
	ev_io_set(&n->out, fd, EV_WRITE);
	ev_io_start(n->loop, &n->in);
	n->keep.next = n->keep.first;
	n->phase = NBD_REWRITES;
	schedule(n);
}

/* The places of a command's data from `skip' on; their number, at most max. */
static int data_iov(const struct nbdc_cmd *cmd, uint32_t skip, struct iovec *iov, int max)
{
	uint64_t before = cmd->from + skip;
	uint32_t left = cmd->len - skip;
	int n = 0;

	for (int i = 0; left && n < max; i++) {
		const struct iovec *v = cmd->req ? &cmd->req->iov[i] : &cmd->kept[i];
		size_t len;

		if (before >= v->iov_len) {
			before -= v->iov_len;
			continue;
		}
		len = v->iov_len - before < left ? v->iov_len - before : left;
		iov[n++] = (struct iovec){(char *)v->iov_base + before, len};
		left -= (uint32_t)len;
		before = 0;
	}
	return n;
}

/* --- sending --- */

static size_t wire_len(const struct nbdc_cmd *cmd)
{
	return NBD_REQUEST_SIZE + (cmd->type == NBD_CMD_WRITE ? cmd->len : 0);
}

static int gather_requests(struct nbdc_client *n, struct iovec *iov)
{
	size_t skip = n->sent;
	int k = 0;

	for (struct nbdc_cmd *cmd = n->unsent; cmd && k < SEND_IOV; cmd = cmd->next, skip = 0) {
		size_t in_head = skip < NBD_REQUEST_SIZE ? skip : NBD_REQUEST_SIZE;

		if (in_head < NBD_REQUEST_SIZE)
			iov[k++] = (struct iovec){cmd->head + in_head, NBD_REQUEST_SIZE - in_head};
		if (cmd->type == NBD_CMD_WRITE) {
			int more = data_iov(cmd, (uint32_t)(skip - in_head), iov + k, SEND_IOV - k);

			k += more;
			if (k == SEND_IOV)
				break; /* perhaps not all of it: nothing may follow */
		}
	}
	return k;
}

static void advance(struct nbdc_client *n, size_t moved)
{
	n->sent += moved;
	while (n->unsent && n->sent >= wire_len(n->unsent)) {
		struct nbdc_cmd *cmd = n->unsent;

		n->sent -= wire_len(cmd);
		cmd->sent = true;
		n->unsent = cmd->next;
		cmd->next = NULL;
	}
	if (!n->unsent)
		n->unsent_tail = &n->unsent;
}

static void on_send(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct nbdc_client *n = w->data;
	struct iovec iov[SEND_IOV];
	struct msghdr m = {.msg_iov = iov};

	for (;;) {
		ssize_t k;

		go_on(n);
		m.msg_iovlen = (size_t)gather_requests(n, iov);
		if (!m.msg_iovlen)
			return;
		k = sendmsg(n->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (k >= 0) {
			advance(n, (size_t)k);
		} else if (errno == EAGAIN) {
			ev_io_start(loop, &n->out);
			return;
		} else if (errno != EINTR) {
			nbdc_again(n, strerror(errno), errno == EPIPE || errno == ECONNRESET);
			return;
		}
	}
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	ev_io_stop(loop, w);
	schedule(w->data);
}

/* --- replies --- */

/* A server's errors have numbers of their own.  What is neither space nor ability is a failure,
 * whatever it calls it. */
static int error_of(const struct nbdc_cmd *cmd, uint32_t error)
{
	switch (error) {
	case 0:
		return 0;
	case NBD_ENOSPC:
		return -ENOSPC;
	case NBD_ENOTSUP:
		if (cmd->type == NBD_CMD_TRIM)
			return 0; /* a hint */
		return cmd->type == NBD_CMD_WRITE_ZEROES && !cmd->from ? -EOPNOTSUPP : -EIO;
	default:
		return -EIO;
	}
}

/* The command that a reply names, or NULL: K2. */
static struct nbdc_cmd *named(struct nbdc_client *n, uint64_t cookie)
{
	struct nbdc_cmd *cmd = &n->cmds[(cookie & 0xff) % (NBD_CMDS + NBD_OWN)];

	return cookie && cmd->cookie == cookie && cmd->sent ? cmd : NULL;
}

/* A reply's head.  False when the connection ended over it. */
static bool take_reply(struct nbdc_client *n, const uint8_t *p)
{
	struct nbdc_cmd *cmd = named(n, nbd_get64(p + 8));
	uint32_t error = nbd_get32(p + 4);

	if (nbd_get32(p) != NBD_SIMPLE_MAGIC || !cmd) {
		nbdc_wire_lose(
			n, "the server breaks the protocol: a reply to nothing that it was asked");
		return false;
	}
	if (error == NBD_ESHUTDOWN && n->reconnect) {
		/* it has not been done, and the server takes no more; it closes its end when it is
		 * done with all that it has */
		n->leaving = true;
		shutdown(n->fd, SHUT_WR);
		return true;
	}
	if (cmd->type == NBD_CMD_READ && !error) {
		n->filling = cmd;
		n->filled = 0;
	} else {
		cmd_done(n, cmd, error_of(cmd, error));
	}
	return true;
}

/* What has been read ahead of a read's data goes to its place. */
static void receive_more(struct nbdc_client *n)
{
	struct iovec iov[16];

	while (n->in_at < n->in_len && n->filled < n->filling->len) {
		int k = data_iov(n->filling, n->filled, iov, 16);

		for (int i = 0; i < k && n->in_at < n->in_len; i++) {
			size_t len = n->in_len - n->in_at < iov[i].iov_len ? n->in_len - n->in_at
									   : iov[i].iov_len;

			memcpy(iov[i].iov_base, n->input + n->in_at, len);
			n->in_at += (unsigned)len;
			n->filled += (uint32_t)len;
		}
	}
}

static void work(struct nbdc_client *n)
{
	while (!n->lost) {
		if (n->filling) {
			struct nbdc_cmd *cmd = n->filling;

			receive_more(n);
			if (n->filled < cmd->len)
				break;
			n->filling = NULL;
			cmd_done(n, cmd, 0);
		} else if (n->in_len - n->in_at >= NBD_SIMPLE_SIZE) {
			n->in_at += NBD_SIMPLE_SIZE;
			if (!take_reply(n, n->input + n->in_at - NBD_SIMPLE_SIZE))
				break;
		} else {
			break;
		}
	}
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbdc_client *n = w->data;
	struct iovec iov[SEND_IOV + 1];
	struct msghdr m = {.msg_iov = iov};
	size_t wanted = 0;
	ssize_t got;
	int k = 0;

	memmove(n->input, n->input + n->in_at, n->in_len - n->in_at);
	n->in_len -= n->in_at;
	n->in_at = 0;
	if (n->filling)
		k = data_iov(n->filling, n->filled, iov, SEND_IOV);
	for (int i = 0; i < k; i++)
		wanted += iov[i].iov_len;
	if (!n->filling || wanted == n->filling->len - n->filled)
		iov[k++] = (struct iovec){n->input + n->in_len, sizeof n->input - n->in_len};
	m.msg_iovlen = (size_t)k;
	got = recvmsg(w->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		nbdc_again(n, got ? strerror(errno) : "the server has closed the connection",
			   !got || errno == ECONNRESET);
		return;
	}
	n->filled += (uint32_t)((size_t)got < wanted ? (size_t)got : wanted);
	n->in_len += (size_t)got > wanted ? (unsigned)((size_t)got - wanted) : 0;
	work(n);
}

/* --- from outside --- */

void nbdc_wire_submit(struct nbdc_client *n, struct td_req *req)
{
	if (n->lost) {
		td_req_done(req, -EIO);
		return;
	}
	req->pending = 1; /* until all of it is in commands */
	req->err = 0;
	req->state[0] = 0;
	req->state[1] = (req->flags & TD_FUA) && !(n->x.flags & NBD_FLAG_SEND_FUA) &&
					(n->x.flags & NBD_FLAG_SEND_FLUSH) && !n->nosync
				? FLUSH_AFTER
				: PLAIN;
	td_list_add(&n->waiting, &req->link);
	schedule(n);
}

void nbdc_wire_start(struct nbdc_client *n)
{
	_Static_assert(NBD_CMDS + NBD_OWN <= 256, "a cookie has one byte for a command's place");
	td_list_init(&n->waiting);
	n->unsent_tail = &n->unsent;
	for (unsigned i = NBD_CMDS + NBD_OWN; i-- > 0;) {
		struct nbdc_cmd **list = i < NBD_CMDS ? &n->free : &n->own_free;

		n->cmds[i].next = *list;
		*list = &n->cmds[i];
	}
	ev_io_init(&n->in, on_readable, n->fd, EV_READ);
	ev_io_init(&n->out, on_writable, n->fd, EV_WRITE);
	ev_init(&n->send, on_send);
	ev_set_priority(&n->send, TD_PRI_COMMIT);
	n->in.data = n->out.data = n->send.data = n;
	ev_io_start(n->loop, &n->in);
}

bool nbdc_wire_stop(struct nbdc_client *n)
{
	bool whole = !n->lost && n->phase == NBD_RUNS && !n->leaving && !n->ours &&
		     n->in_at == n->in_len;

	assert(td_list_empty(&n->waiting) && !n->filling);
	stop_socket(n);
	return whole;
}
