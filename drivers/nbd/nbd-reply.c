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
static struct nbdc_cmd *named(struct nbdc_client *n, uint64_t cookie)
{
	struct nbdc_cmd *cmd = &n->cmds[(cookie & 0xff) % (NBD_CMDS + NBD_OWN)];

	return cookie && cmd->cookie == cookie && cmd->sent ? cmd : NULL;
}

static bool breaks(struct nbdc_client *n, const char *what)
{
	char why[120];

	snprintf(why, sizeof why, "the server breaks the protocol: %s", what);
	nbdc_wire_lose(n, why);
	return false;
}

/* It takes no more, and has not done this; it closes its end when it is done with all that it
 * has. */
static bool is_ending(struct nbdc_client *n, uint32_t error)
{
	if (error != NBD_ESHUTDOWN || !n->reconnect)
		return false;
	n->leaving = true;
	shutdown(n->fd, SHUT_WR);
	return true;
}

static void fill(struct nbdc_client *n, struct nbdc_cmd *cmd, uint32_t at, uint32_t len, bool last)
{
	n->filling = cmd;
	n->filled = at;
	n->fill_end = at + len;
	n->fill_last = last;
}

/* A simple reply's head.  False when the connection ended over it. */
static bool take_reply(struct nbdc_client *n, const uint8_t *p)
{
	struct nbdc_cmd *cmd = named(n, nbd_get64(p + 8));
	uint32_t error = nbd_get32(p + 4);

	if (nbd_get32(p) != NBD_SIMPLE_MAGIC || !cmd || cmd->got || cmd->err ||
	    (cmd->type == NBD_CMD_BLOCK_STATUS && !error))
		return breaks(n, "a reply to nothing that it was asked");
	if (is_ending(n, error))
		return true;
	if (cmd->type == NBD_CMD_READ && !error)
		fill(n, cmd, 0, cmd->len, true);
	else
		nbdc_cmd_done(n, cmd, error_of(cmd, error));
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
static bool end_reply(struct nbdc_client *n, struct nbdc_cmd *cmd)
{
	if (!cmd->err && cmd->type == NBD_CMD_READ && cmd->got < cmd->len)
		return breaks(n, "a read without all of its data");
	if (!cmd->err && cmd->type == NBD_CMD_BLOCK_STATUS && cmd->ask->heard == cmd->ask->off)
		cmd->err = -EIO; /* of another context, or empty */
	nbdc_cmd_done(n, cmd, cmd->err);
	return true;
}

/* Data or a hole: out of their order they could leave a gap that is covered twice elsewhere, so
 * that nothing of the memory's past must be in the gap. */
static bool take_part(struct nbdc_client *n, struct nbdc_cmd *cmd, const struct nbdc_chunk *c)
{
	uint32_t at = (uint32_t)(c->off - cmd->off), len = c->body;
	bool last = c->flags & NBD_CHUNK_DONE;

	if (c->type == NBD_CHUNK_HOLE)
		len = c->n;
	if (at != cmd->next_at && cmd->next_at < cmd->len) {
		zero_data(cmd, cmd->next_at, cmd->len);
		cmd->next_at = UINT32_MAX;
	} else if (at == cmd->next_at) {
		cmd->next_at += len;
	}
	cmd->got += len;
	if (c->type == NBD_CHUNK_DATA) {
		fill(n, cmd, at, len, last);
		return true;
	}
	zero_data(cmd, at, at + len);
	return !last || end_reply(n, cmd);
}

static bool take_error(struct nbdc_client *n, struct nbdc_cmd *cmd, const struct nbdc_chunk *c)
{
	if (++cmd->errors > 64)
		return breaks(n, "errors without an end");
	n->skip = c->body;
	if (is_ending(n, c->n))
		return true;
	cmd->err = error_of(cmd, c->n);
	return !(c->flags & NBD_CHUNK_DONE) || end_reply(n, cmd);
}

/* A chunk's head.  False when the connection ended over it. */
static bool take_chunk(struct nbdc_client *n, const struct nbdc_chunk *c)
{
	struct nbdc_cmd *cmd = named(n, c->cookie);

	if (!cmd || !n->x.structured)
		return breaks(n, "a reply to nothing that it was asked");
	if (c->type & NBD_CHUNK_IS_ERROR)
		return take_error(n, cmd, c);
	if (c->type == NBD_CHUNK_NONE)
		return end_reply(n, cmd);
	if (c->type == NBD_CHUNK_STATUS) {
		if (cmd->type != NBD_CMD_BLOCK_STATUS || cmd->ask->heard != cmd->ask->off)
			return breaks(n, "a block status that was not asked for");
		n->telling = cmd;
		n->tells = c->body / 8;
		n->tells_last = c->flags & NBD_CHUNK_DONE;
		if (c->n + UINT64_C(1) != n->x.context)
			return breaks(n, "a block status of another context");
		return true;
	}
	if (!nbdc_chunk_fits(c, cmd))
		return breaks(n, "data that was not asked for");
	return take_part(n, cmd, c);
}

/* What has been read ahead of a read's data goes to its place. */
static void receive_more(struct nbdc_client *n)
{
	struct iovec iov[16];

	while (n->in_at < n->in_len && n->filled < n->fill_end) {
		int k = nbdc_cmd_iov(n->filling, n->filled, iov, 16);

		for (int i = 0; i < k && n->in_at < n->in_len && n->filled < n->fill_end; i++) {
			size_t len = n->in_len - n->in_at, left = n->fill_end - n->filled;

			len = len < iov[i].iov_len ? len : iov[i].iov_len;
			len = len < left ? len : left;
			memcpy(iov[i].iov_base, n->input + n->in_at, len);
			n->in_at += (unsigned)len;
			n->filled += (uint32_t)len;
		}
	}
}

/* Each false: there is not enough of it yet, or the connection has ended. */

static bool go_on_filling(struct nbdc_client *n)
{
	struct nbdc_cmd *cmd = n->filling;

	receive_more(n);
	if (n->filled < n->fill_end)
		return false;
	n->filling = NULL;
	if (!n->fill_last)
		return true;
	if (cmd->got) /* in chunks */
		return end_reply(n, cmd);
	nbdc_cmd_done(n, cmd, 0);
	return true;
}

static bool go_on_telling(struct nbdc_client *n)
{
	struct nbdc_cmd *cmd = n->telling;

	for (; n->tells && n->in_len - n->in_at >= 8; n->tells--, n->in_at += 8) {
		const uint8_t *p = n->input + n->in_at;

		if (!nbd_get32(p))
			return breaks(n, "an extent of no length");
		nbdc_ask_take(cmd->ask, nbd_get32(p), nbd_get32(p + 4));
	}
	if (n->tells)
		return false;
	n->telling = NULL;
	return !n->tells_last || end_reply(n, cmd);
}

static bool go_on_skipping(struct nbdc_client *n)
{
	uint32_t have = n->in_len - n->in_at, len = have < n->skip ? have : n->skip;

	n->in_at += len;
	n->skip -= len;
	return !n->skip;
}

static bool next_reply(struct nbdc_client *n)
{
	unsigned have = n->in_len - n->in_at;
	const uint8_t *p = n->input + n->in_at;
	struct nbdc_chunk c;
	int len;

	if (have < NBD_SIMPLE_SIZE)
		return false;
	if (nbd_get32(p) != NBD_STRUCTURED_MAGIC) {
		n->in_at += NBD_SIMPLE_SIZE;
		return take_reply(n, p);
	}
	len = nbdc_chunk_parse(p, have, &c);
	if (len < 0)
		return breaks(n, "a chunk that makes no sense");
	n->in_at += (unsigned)len;
	return len && take_chunk(n, &c);
}

static void work(struct nbdc_client *n)
{
	bool more = true;

	while (more && !n->lost)
		more = n->skip      ? go_on_skipping(n)
		       : n->filling ? go_on_filling(n)
		       : n->telling ? go_on_telling(n)
				    : next_reply(n);
}

void nbdc_on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct nbdc_client *n = w->data;
	struct iovec iov[NBD_IOV + 1];
	struct msghdr m = {.msg_iov = iov};
	size_t wanted = 0;
	ssize_t got;
	int k = 0;

	memmove(n->input, n->input + n->in_at, n->in_len - n->in_at);
	n->in_len -= n->in_at;
	n->in_at = 0;
	if (n->filling && !n->skip)
		k = nbdc_cmd_iov(n->filling, n->filled, iov, NBD_IOV);
	for (int i = 0; i < k; i++) {
		size_t left = n->fill_end - n->filled - wanted;

		if (iov[i].iov_len >= left) {
			iov[i].iov_len = left;
			k = i + 1;
		}
		wanted += iov[i].iov_len;
	}
	if (!k || wanted == n->fill_end - n->filled)
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
