/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests as commands on the socket, and what comes back.  All that a turn of the loop brought
 * goes out together at its end. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"

#define SEND_IOV  256
#define RANGE_MAX (1u << 30) /* bytes of a command that carries no data */

/* td_req.state[1]: what FUA still asks for, where the server has none */
enum { PLAIN, FLUSH_AFTER, FLUSHING };

static void schedule(struct nbdc_client *n)
{
	if (!n->lost && !ev_is_active(&n->out) && !ev_is_pending(&n->send))
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

static void cmd_end(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	struct td_req *req = cmd->req;

	cmd->req = NULL;
	cmd->cookie = 0;
	cmd->next = n->free;
	n->free = cmd;
	if (!td_list_empty(&n->waiting))
		schedule(n);
	req_put(n, req, err);
}

static uint16_t flags_of(const struct nbdc_client *n, const struct td_req *req, uint16_t type);

/* The server has replied to it. */
static void cmd_done(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	nbdc_left_answered(n, cmd, flags_of(n, cmd->req, cmd->type) & NBD_CMD_FUA, err);
	cmd_end(n, cmd, err);
}

/* K3.  The connection has ended, or is ended because of what came through it. */
void nbdc_wire_lose(struct nbdc_client *n, const char *why)
{
	char text[160];
	struct td_list *l;

	if (n->lost)
		return;
	n->lost = true;
	ev_io_stop(n->loop, &n->in);
	ev_io_stop(n->loop, &n->out);
	ev_clear_pending(n->loop, &n->send);
	shutdown(n->fd, SHUT_RDWR);
	td_log(n->copy ? LOG_INFO : LOG_ERR,
	       "nbd:%s: %s: all requests fail until the disk is closed and opened again", n->name,
	       why);
	snprintf(text, sizeof text,
		 "%s: all requests fail until the disk is closed and opened again", why);
	td_image_fault(n->image, text); /* for those who look at the list */
	n->filling = NULL;
	n->unsent = NULL;
	for (unsigned i = 0; i < NBD_CMDS; i++)
		if (n->cmds[i].req)
			cmd_end(n, &n->cmds[i], -EIO); /* K4: the server may go on with it */
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

/* The next part of a request; true: it was the last. */
static bool cut(struct nbdc_client *n, struct td_req *req)
{
	struct nbdc_cmd *cmd = n->free;
	uint64_t left = req->len - req->state[0];
	uint32_t most;
	uint64_t off = req->off + req->state[0];

	n->free = cmd->next;
	cmd->req = req;
	cmd->next = NULL;
	cmd->type = type_of(req);
	cmd->from = req->state[0];
	cmd->sent = false;
	most = has_data(cmd) ? n->x.max / 512 * 512 : RANGE_MAX;
	cmd->len = left < most ? (uint32_t)left : most;
	if (cmd->type == NBD_CMD_FLUSH)
		left = off = cmd->len = 0;
	cmd->cookie = ++n->cookies << 8 | (uint64_t)(cmd - n->cmds);
	req->state[0] += cmd->len;
	req->pending++;
	nbd_put32(nbd_put64(nbd_put64(nbd_put16(nbd_put16(nbd_put32(cmd->head, NBD_REQUEST_MAGIC),
							  flags_of(n, req, cmd->type)),
						cmd->type),
				      cmd->cookie),
			    off),
		  cmd->len);
	nbdc_left_sent(n, cmd);
	*n->unsent_tail = cmd;
	n->unsent_tail = &cmd->next;
	return left == cmd->len;
}

static void cut_waiting(struct nbdc_client *n)
{
	while (n->free && !td_list_empty(&n->waiting)) {
		struct td_req *req = td_entry(n->waiting.next, struct td_req, link);

		if (req->err || cut(n, req)) { /* after an error the rest is not worth while */
			td_list_del(&req->link);
			req_put(n, req, 0);
		}
	}
}

/* The places of a command's data from `skip' on; their number, at most max. */
static int data_iov(const struct nbdc_cmd *cmd, uint32_t skip, struct iovec *iov, int max)
{
	uint64_t before = cmd->from + skip;
	uint32_t left = cmd->len - skip;
	int n = 0;

	for (int i = 0; left && n < max; i++) {
		const struct iovec *v = &cmd->req->iov[i];
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

		cut_waiting(n);
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
			nbdc_wire_lose(n, strerror(errno));
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
	struct nbdc_cmd *cmd = &n->cmds[(cookie & 0xff) % NBD_CMDS];

	return cmd->req && cmd->cookie == cookie && cmd->sent ? cmd : NULL;
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
		nbdc_wire_lose(n, got ? strerror(errno) : "the server has closed the connection");
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
	_Static_assert(NBD_CMDS <= 256, "a cookie has one byte for a command's place");
	td_list_init(&n->waiting);
	n->unsent_tail = &n->unsent;
	for (unsigned i = NBD_CMDS; i-- > 0;) {
		n->cmds[i].next = n->free;
		n->free = &n->cmds[i];
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
	assert(td_list_empty(&n->waiting) && !n->unsent && !n->filling);
	ev_io_stop(n->loop, &n->in);
	ev_io_stop(n->loop, &n->out);
	ev_clear_pending(n->loop, &n->send);
	return !n->lost && n->in_at == n->in_len;
}
