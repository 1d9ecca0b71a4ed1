/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The socket: all commands that a turn of the loop brought go out together at its end.  After a
 * connection has ended, nbd-again.c brings another, and what was under way is sent there in the
 * order of K8.  nbd-command.c makes the commands, and ends them; nbd-reply.c reads what comes back.
 *
 * One thing: a connection that ends here begins attempts there, an attempt connects as an open does
 * (nbd.c), and what it has connected goes on here. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"

/* While the first one's socket is full, nothing is sent: but on others, where these are. */
void nbdc_wire_schedule(struct nbdc_client *n)
{
	if (!n->lost && n->phase != NBD_AWAY && !n->first.leaving &&
	    (n->more.up || !ev_is_active(&n->first.out)) && !ev_is_pending(&n->send))
		ev_feed_event(n->loop, &n->send, EV_CUSTOM);
}

static void stop_conn(struct nbdc_conn *c)
{
	ev_io_stop(c->n->loop, &c->in);
	ev_io_stop(c->n->loop, &c->out);
	c->filling = c->telling = NULL;
	c->skip = 0;
	c->unsent = NULL;
	c->unsent_tail = &c->unsent;
	c->sent = 0;
	c->in_at = c->in_len = 0;
}

static void stop_all(struct nbdc_client *n)
{
	ev_clear_pending(n->loop, &n->send);
	stop_conn(&n->first);
	for (unsigned i = 0; i < n->more.wanted; i++)
		stop_conn(&n->more.conns[i]);
}

/* K3.  The connection has ended, or is ended because of what came through it. */
void nbdc_wire_lose(struct nbdc_client *n, const char *why)
{
	char text[400];
	struct td_list *l;

	if (n->lost)
		return;
	n->lost = true;
	stop_all(n);
	if (n->first.fd >= 0)
		shutdown(n->first.fd, SHUT_RDWR);
	nbdc_under_leave(n);
	nbdc_more_drop(n);
	td_log(n->copy ? LOG_INFO : LOG_ERR,
	       "%s: %s: all requests fail until the disk is closed and opened again", n->name, why);
	snprintf(text, sizeof text,
		 "%s: all requests fail until the disk is closed and opened again", why);
	nbdc_again_over(n);
	td_image_fault(n->image, text); /* for those who look at the list */
	for (unsigned i = 0; i < NBD_CMDS + NBD_OWN; i++)
		if (n->cmds[i].req)
			nbdc_cmd_end(n, &n->cmds[i], -EIO); /* K4: the server may go on with it */
		else if (n->cmds[i].cookie)
			nbdc_cmd_free(n, &n->cmds[i]);
	while ((l = td_list_pop(&n->waiting)))
		nbdc_req_put(n, td_entry(l, struct td_req, link), -EIO);
}

/* --- what is sent again (K8) --- */

/* True: all that was kept is written. */
static bool rewrite(struct nbdc_client *n)
{
	const struct nbdc_kept *e;
	struct iovec iov[2];

	while (n->own_free && (e = nbdc_keep_next(&n->keep, iov)) &&
	       !nbdc_overlaps(n, NBD_CMDS, NBD_CMDS + NBD_OWN, n->ours, e->off, e->len)) {
		struct nbdc_cmd *cmd = nbdc_own_cmd(n);

		cmd->type = e->type;
		cmd->off = e->off;
		cmd->len = e->len;
		cmd->from = 0;
		memcpy(cmd->kept, iov, sizeof iov);
		nbdc_cmd_launch(n, cmd, e->flags);
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
		if (n->cmds[i].again && nbdc_is_change(n->cmds[i].type) == changes)
			list[k++] = &n->cmds[i];
	qsort(list, k, sizeof *list, by_age);
	for (size_t i = 0; i < k; i++)
		nbdc_cmd_enqueue(list[i], &n->first);
}

/* K8, step by step; once a turn, and after each reply that may end a step. */
static void go_on(struct nbdc_client *n)
{
	if (n->phase == NBD_REWRITES && rewrite(n)) {
		n->phase = NBD_RESENDS;
		nbdc_left_server(n);      /* K14: it has all of it */
		nbdc_left_away(n, false); /* K13 */
		resend(n, true);
	}
	if (n->phase == NBD_RESENDS && !n->behind_changes) {
		n->phase = NBD_RUNS;
		resend(n, false);
	}
	if (n->phase == NBD_RUNS) {
		nbdc_flush_early(n, nbdc_cut_waiting(n));
		if (n->since && !n->behind && !n->silent)
			nbdc_again_over(n);
	}
}

void nbdc_wire_hold(struct nbdc_client *n)
{
	stop_all(n);
	n->phase = NBD_AWAY;
	n->first.leaving = false;
	n->behind = n->behind_changes = 0;
	for (unsigned i = 0; i < NBD_CMDS + NBD_OWN; i++) {
		struct nbdc_cmd *cmd = &n->cmds[i];

		nbdc_cmd_detach(cmd);
		cmd->again = cmd->cookie && cmd->req;
		nbdc_cmd_anew(cmd);
		n->behind += cmd->again;
		n->behind_changes += cmd->again && nbdc_is_change(cmd->type);
		if (cmd->cookie && !cmd->req)
			nbdc_cmd_free(n, cmd);
	}
	nbdc_more_drop(n); /* KC1 */
}

void nbdc_wire_set(struct nbdc_conn *c, int fd, int under)
{
	c->fd = fd;
	c->under = under;
	ev_io_set(&c->in, fd, EV_READ);
	ev_io_set(&c->out, fd, EV_WRITE);
	ev_io_start(c->n->loop, &c->in);
}

void nbdc_wire_unset(struct nbdc_conn *c)
{
	stop_conn(c);
	c->fd = c->under = -1;
}

void nbdc_wire_resume(struct nbdc_client *n, int fd, int under)
{
	nbdc_wire_set(&n->first, fd, under);
	n->keep.next = n->keep.first;
	n->phase = NBD_REWRITES;
	nbdc_wire_schedule(n);
}

/* --- sending --- */

static uint32_t load_of(const struct nbdc_cmd *cmd)
{
	return NBD_REQUEST_SIZE +
	       (cmd->type == NBD_CMD_READ || cmd->type == NBD_CMD_WRITE ? cmd->len : 0);
}

void nbdc_cmd_detach(struct nbdc_cmd *cmd)
{
	if (cmd->conn)
		cmd->conn->load -= load_of(cmd);
	cmd->conn = NULL;
}

void nbdc_cmd_enqueue(struct nbdc_cmd *cmd, struct nbdc_conn *c)
{
	cmd->conn = c;
	c->load += load_of(cmd);
	cmd->next = NULL;
	cmd->sent = false;
	*c->unsent_tail = cmd;
	c->unsent_tail = &cmd->next;
}

static size_t wire_len(const struct nbdc_cmd *cmd)
{
	return NBD_REQUEST_SIZE + (cmd->type == NBD_CMD_WRITE ? cmd->len : 0);
}

static int gather_requests(struct nbdc_conn *c, struct iovec *iov)
{
	size_t skip = c->sent;
	int k = 0;

	for (struct nbdc_cmd *cmd = c->unsent; cmd && k < NBD_IOV; cmd = cmd->next, skip = 0) {
		size_t in_head = skip < NBD_REQUEST_SIZE ? skip : NBD_REQUEST_SIZE;

		if (in_head < NBD_REQUEST_SIZE)
			iov[k++] = (struct iovec){cmd->head + in_head, NBD_REQUEST_SIZE - in_head};
		if (cmd->type == NBD_CMD_WRITE) {
			int more =
				nbdc_cmd_iov(cmd, (uint32_t)(skip - in_head), iov + k, NBD_IOV - k);

			k += more;
			if (k == NBD_IOV)
				break; /* perhaps not all of it: nothing may follow */
		}
	}
	return k;
}

static void advance(struct nbdc_conn *c, size_t moved)
{
	c->sent += moved;
	while (c->unsent && c->sent >= wire_len(c->unsent)) {
		struct nbdc_cmd *cmd = c->unsent;

		c->sent -= wire_len(cmd);
		cmd->sent = true;
		c->unsent = cmd->next;
		cmd->next = NULL;
	}
	if (!c->unsent)
		c->unsent_tail = &c->unsent;
}

void nbdc_conn_ended(struct nbdc_conn *c, const char *why, bool clear)
{
	if (c == &c->n->first)
		nbdc_again(c->n, why, clear);
	else
		nbdc_more_end(c, why);
}

/* Something of what is unsent goes out.  False: there is nothing, or no room, or it has ended. */
static bool push(struct nbdc_conn *c)
{
	struct iovec iov[NBD_IOV];
	struct msghdr m = {.msg_iov = iov};
	ssize_t k;

	if (!c->unsent || ev_is_active(&c->out))
		return false;
	m.msg_iovlen = (size_t)gather_requests(c, iov);
	k = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (k >= 0)
		advance(c, (size_t)k);
	else if (errno == EAGAIN)
		ev_io_start(c->n->loop, &c->out);
	else if (errno != EINTR)
		nbdc_conn_ended(c, strerror(errno), errno == EPIPE || errno == ECONNRESET);
	return k >= 0 || errno == EINTR;
}

/* What a further one that ends leaves unsent goes out on the first, which comes last. */
static void on_send(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct nbdc_client *n = w->data;

	if (n->first.leaving) /* since this was scheduled; our EPIPE would look like the server's
				 end */
		return;
	do {
		go_on(n);
		for (unsigned i = 0; i < n->more.wanted; i++)
			while (push(&n->more.conns[i]))
				;
	} while (push(&n->first));
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbdc_conn *c = w->data;

	ev_io_stop(loop, w);
	nbdc_wire_schedule(c->n);
}

/* --- begin and end --- */

void nbdc_wire_init(struct nbdc_conn *c, struct nbdc_client *n)
{
	c->n = n;
	c->fd = c->under = -1;
	c->unsent_tail = &c->unsent;
	ev_init(&c->in, nbdc_on_readable);
	ev_init(&c->out, on_writable);
	c->in.data = c->out.data = c;
}

void nbdc_wire_start(struct nbdc_client *n)
{
	int fd = n->first.fd, under = n->first.under;

	_Static_assert(NBD_CMDS + NBD_OWN <= 256, "a cookie has one byte for a command's place");
	td_list_init(&n->waiting);
	for (unsigned i = NBD_CMDS + NBD_OWN; i-- > 0;) {
		struct nbdc_cmd **list = i < NBD_CMDS ? &n->free : &n->own_free;

		n->cmds[i].next = *list;
		*list = &n->cmds[i];
	}
	ev_init(&n->send, on_send);
	ev_set_priority(&n->send, TD_PRI_COMMIT);
	n->send.data = n;
	nbdc_wire_init(&n->first, n);
	nbdc_wire_set(&n->first, fd, under);
}

bool nbdc_wire_stop(struct nbdc_client *n)
{
	bool whole = !n->lost && n->phase == NBD_RUNS && !n->first.leaving && !n->ours &&
		     n->first.in_at == n->first.in_len;

	assert(td_list_empty(&n->waiting) && !n->first.filling);
	stop_all(n);
	return whole;
}
