/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What comes back from the server: replies, simple and structured (K16), whose numbers are an
 * attacker's (K1, K2). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"

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
static struct nbdc_cmd *named(struct nbdc_conn *c, uint64_t cookie)
{
	struct nbdc_cmd *cmd = &c->n->cmds[(cookie & 0xff) % (NBD_CMDS + NBD_OWN)];

	return cookie && cmd->cookie == cookie && cmd->conn == c && cmd->sent ? cmd : NULL;
}

static bool breaks(struct nbdc_conn *c, const char *what)
{
	char why[120];

	snprintf(why, sizeof why, "the server breaks the protocol: %s", what);
	nbdc_wire_lose(c->n, why);
	return false;
}

/* It takes no more, and has not done this; it closes its end when it is done with all that it
 * has. */
static bool is_ending(struct nbdc_conn *c, uint32_t error)
{
	if (error == NBD_ESHUTDOWN && c != &c->n->first) {
		nbdc_more_end(c, "the server ends");
		return true;
	}
	if (error != NBD_ESHUTDOWN || !c->n->reconnect)
		return false;
	c->leaving = true;
	shutdown(c->fd, SHUT_WR);
	return true;
}

static void fill(struct nbdc_conn *c, struct nbdc_cmd *cmd, uint32_t at, uint32_t len, bool last)
{
	c->filling = cmd;
	c->filled = at;
	c->fill_end = at + len;
	c->fill_last = last;
}

/* A simple reply's head.  False when the connection ended over it. */
static bool take_reply(struct nbdc_conn *c, const uint8_t *p)
{
	struct nbdc_cmd *cmd = named(c, nbd_get64(p + 8));
	uint32_t error = nbd_get32(p + 4);

	if (nbd_get32(p) != NBD_SIMPLE_MAGIC || !cmd || cmd->got || cmd->err ||
	    (cmd->type == NBD_CMD_BLOCK_STATUS && !error))
		return breaks(c, "a reply to nothing that it was asked");
	if (is_ending(c, error))
		return true;
	if (cmd->type == NBD_CMD_READ && !error)
		fill(c, cmd, 0, cmd->len, true);
	else
		nbdc_cmd_done(c->n, cmd, error_of(cmd, error));
	return true;
}

/* --- structured ones (K16) --- */

static void zero_data(const struct nbdc_cmd *cmd, uint32_t from, uint32_t to)
{
	struct iovec iov[16];

	while (from < to) {
		int k = nbdc_cmd_iov(cmd, from, iov, 16);

		for (int i = 0; i < k && from < to; i++) {
			uint32_t len =
				iov[i].iov_len < to - from ? (uint32_t)iov[i].iov_len : to - from;

			memset(iov[i].iov_base, 0, len);
			from += len;
		}
	}
}

/* The last chunk of a reply has come. */
static bool end_reply(struct nbdc_conn *c, struct nbdc_cmd *cmd)
{
	if (!cmd->err && cmd->type == NBD_CMD_READ && cmd->got < cmd->len)
		return breaks(c, "a read without all of its data");
	if (!cmd->err && cmd->type == NBD_CMD_BLOCK_STATUS && cmd->ask->heard == cmd->ask->off)
		cmd->err = -EIO; /* of another context, or empty */
	nbdc_cmd_done(c->n, cmd, cmd->err);
	return true;
}

/* Data or a hole: out of their order they could leave a gap that is covered twice elsewhere, so
 * that nothing of the memory's past must be in the gap. */
static bool take_part(struct nbdc_conn *c, struct nbdc_cmd *cmd, const struct nbdc_chunk *ch)
{
	uint32_t at = (uint32_t)(ch->off - cmd->off), len = ch->body;
	bool last = ch->flags & NBD_CHUNK_DONE;

	if (ch->type == NBD_CHUNK_HOLE)
		len = ch->n;
	if (at != cmd->next_at && cmd->next_at < cmd->len) {
		zero_data(cmd, cmd->next_at, cmd->len);
		cmd->next_at = UINT32_MAX;
	} else if (at == cmd->next_at) {
		cmd->next_at += len;
	}
	cmd->got += len;
	if (ch->type == NBD_CHUNK_DATA) {
		fill(c, cmd, at, len, last);
		return true;
	}
	zero_data(cmd, at, at + len);
	return !last || end_reply(c, cmd);
}

static bool take_error(struct nbdc_conn *c, struct nbdc_cmd *cmd, const struct nbdc_chunk *ch)
{
	if (++cmd->errors > 64)
		return breaks(c, "errors without an end");
	c->skip = ch->body;
	if (is_ending(c, ch->n))
		return true;
	cmd->err = error_of(cmd, ch->n);
	return !(ch->flags & NBD_CHUNK_DONE) || end_reply(c, cmd);
}

/* A chunk's head.  False when the connection ended over it. */
static bool take_chunk(struct nbdc_conn *c, const struct nbdc_chunk *ch)
{
	struct nbdc_cmd *cmd = named(c, ch->cookie);

	if (!cmd || !c->n->x.structured)
		return breaks(c, "a reply to nothing that it was asked");
	if (ch->type & NBD_CHUNK_IS_ERROR)
		return take_error(c, cmd, ch);
	if (ch->type == NBD_CHUNK_NONE)
		return end_reply(c, cmd);
	if (ch->type == NBD_CHUNK_STATUS) {
		if (cmd->type != NBD_CMD_BLOCK_STATUS || cmd->ask->heard != cmd->ask->off)
			return breaks(c, "a block status that was not asked for");
		c->telling = cmd;
		c->tells = ch->body / 8;
		c->tells_last = ch->flags & NBD_CHUNK_DONE;
		if (ch->n + UINT64_C(1) != c->n->x.context)
			return breaks(c, "a block status of another context");
		return true;
	}
	if (!nbdc_chunk_fits(ch, cmd))
		return breaks(c, "data that was not asked for");
	return take_part(c, cmd, ch);
}

/* What has been read ahead of a read's data goes to its place. */
static void receive_more(struct nbdc_conn *c)
{
	struct iovec iov[16];

	while (c->in_at < c->in_len && c->filled < c->fill_end) {
		int k = nbdc_cmd_iov(c->filling, c->filled, iov, 16);

		for (int i = 0; i < k && c->in_at < c->in_len && c->filled < c->fill_end; i++) {
			size_t len = c->in_len - c->in_at, left = c->fill_end - c->filled;

			len = len < iov[i].iov_len ? len : iov[i].iov_len;
			len = len < left ? len : left;
			memcpy(iov[i].iov_base, c->input + c->in_at, len);
			c->in_at += (unsigned)len;
			c->filled += (uint32_t)len;
		}
	}
}

/* Each false: there is not enough of it yet, or the connection has ended. */

static bool go_on_filling(struct nbdc_conn *c)
{
	struct nbdc_cmd *cmd = c->filling;

	receive_more(c);
	if (c->filled < c->fill_end)
		return false;
	c->filling = NULL;
	if (!c->fill_last)
		return true;
	if (cmd->got) /* in chunks */
		return end_reply(c, cmd);
	nbdc_cmd_done(c->n, cmd, 0);
	return true;
}

static bool go_on_telling(struct nbdc_conn *c)
{
	struct nbdc_cmd *cmd = c->telling;

	for (; c->tells && c->in_len - c->in_at >= 8; c->tells--, c->in_at += 8) {
		const uint8_t *p = c->input + c->in_at;

		if (!nbd_get32(p))
			return breaks(c, "an extent of no length");
		nbdc_ask_take(cmd->ask, nbd_get32(p), nbd_get32(p + 4));
	}
	if (c->tells)
		return false;
	c->telling = NULL;
	return !c->tells_last || end_reply(c, cmd);
}

static bool go_on_skipping(struct nbdc_conn *c)
{
	uint32_t have = c->in_len - c->in_at, len = have < c->skip ? have : c->skip;

	c->in_at += len;
	c->skip -= len;
	return !c->skip;
}

static bool next_reply(struct nbdc_conn *c)
{
	unsigned have = c->in_len - c->in_at;
	const uint8_t *p = c->input + c->in_at;
	struct nbdc_chunk ch;
	int len;

	if (have < NBD_SIMPLE_SIZE)
		return false;
	if (nbd_get32(p) != NBD_STRUCTURED_MAGIC) {
		c->in_at += NBD_SIMPLE_SIZE;
		return take_reply(c, p);
	}
	len = nbdc_chunk_parse(p, have, &ch);
	if (len < 0)
		return breaks(c, "a chunk that makes no sense");
	c->in_at += (unsigned)len;
	return len && take_chunk(c, &ch);
}

static void work(struct nbdc_conn *c)
{
	bool more = true;

	while (more && !c->n->lost)
		more = c->skip      ? go_on_skipping(c)
		       : c->filling ? go_on_filling(c)
		       : c->telling ? go_on_telling(c)
				    : next_reply(c);
}

void nbdc_on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbdc_conn *c = w->data;
	struct iovec iov[NBD_IOV + 1];
	struct msghdr m = {.msg_iov = iov};
	size_t wanted = 0;
	ssize_t got;
	int k = 0;

	memmove(c->input, c->input + c->in_at, c->in_len - c->in_at);
	c->in_len -= c->in_at;
	c->in_at = 0;
	if (c->filling && !c->skip)
		k = nbdc_cmd_iov(c->filling, c->filled, iov, NBD_IOV);
	for (int i = 0; i < k; i++) {
		size_t left = c->fill_end - c->filled - wanted;

		if (iov[i].iov_len >= left) {
			iov[i].iov_len = left;
			k = i + 1;
		}
		wanted += iov[i].iov_len;
	}
	if (!k || wanted == c->fill_end - c->filled)
		iov[k++] = (struct iovec){c->input + c->in_len, sizeof c->input - c->in_len};
	m.msg_iovlen = (size_t)k;
	got = recvmsg(w->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		nbdc_conn_ended(c, got ? strerror(errno) : "the server has closed the connection",
				!got || errno == ECONNRESET);
		return;
	}
	c->filled += (uint32_t)((size_t)got < wanted ? (size_t)got : wanted);
	c->in_len += (size_t)got > wanted ? (unsigned)((size_t)got - wanted) : 0;
	work(c);
}
