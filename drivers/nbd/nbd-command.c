/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests as commands: cut into them, counted while they are under way, and ended with them; and
 * commands of our own. */
#include <errno.h>

#include "drivers/nbd/nbd.h"

#define RANGE_MAX (1u << 30)           /* bytes of a command that carries no data */
#define KEPT_MAX  (NBD_KEEP_BYTES / 4) /* bytes of a command whose data may be kept */

/* td_req.state[1]: what FUA still asks for, where the server has none */
enum { PLAIN, FLUSH_AFTER, FLUSHING };

/* The places of a command's data from `skip' on; their number, at most max. */
int nbdc_cmd_iov(const struct nbdc_cmd *cmd, uint32_t skip, struct iovec *iov, int max)
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

/* --- the ends of commands and requests --- */

void nbdc_req_put(struct nbdc_client *n, struct td_req *req, int err)
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
		nbdc_wire_schedule(n);
		return;
	}
	td_req_done(req, req->err);
}

/* It takes part in the counts of what is under way, or no more. */
static void count_cmd(struct nbdc_client *n, const struct nbdc_cmd *cmd, unsigned by)
{
	if (nbdc_is_change(cmd->type)) {
		n->changing += by;
		nbdc_spread_count(&n->more, cmd, by);
	}
	n->flushes += cmd->type == NBD_CMD_FLUSH ? by : 0;
	n->ours += cmd->req ? 0 : by;
}

void nbdc_cmd_free(struct nbdc_client *n, struct nbdc_cmd *cmd)
{
	struct nbdc_cmd **list = cmd - n->cmds < NBD_CMDS ? &n->free : &n->own_free;

	nbdc_cmd_detach(cmd);
	count_cmd(n, cmd, -1u);
	if (cmd->again) {
		n->behind--;
		n->behind_changes -= nbdc_is_change(cmd->type);
	}
	cmd->again = false;
	cmd->req = NULL;
	cmd->cookie = 0;
	if (cmd->ask)
		nbdc_ask_end(n, cmd->ask);
	cmd->ask = NULL;
	cmd->next = *list;
	*list = cmd;
}

void nbdc_cmd_end(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	struct td_req *req = cmd->req;

	nbdc_cmd_free(n, cmd);
	if (!td_list_empty(&n->waiting) || n->since || nbdc_keep_is_half(&n->keep))
		nbdc_wire_schedule(n);
	nbdc_req_put(n, req, err);
}

static uint16_t flags_of(const struct nbdc_client *n, const struct td_req *req, uint16_t type);

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
		int k = nbdc_cmd_iov(cmd, done, iov, 16);

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

	if (cmd->ask) {
		cmd->ask->ok = !err;
		nbdc_cmd_free(n, cmd);
		nbdc_wire_schedule(n);
		return;
	}
	if (flush) {
		nbdc_left_answered(n, cmd, false, err);
		if (!err)
			nbdc_keep_flushed(&n->keep, cmd->mark);
	}
	nbdc_cmd_free(n, cmd);
	nbdc_wire_schedule(n);
	if (err)
		nbdc_wire_lose(n, flush ? "the server could not flush what it had acknowledged"
					: "the server has come back, and does not take again what "
					  "it had acknowledged, and may have lost");
}

/* The server has replied to it. */
void nbdc_cmd_done(struct nbdc_client *n, struct nbdc_cmd *cmd, int err)
{
	uint16_t flags;

	if (!cmd->req) {
		own_done(n, cmd, err);
		return;
	}
	flags = flags_of(n, cmd->req, cmd->type);
	if (nbdc_is_change(cmd->type))
		keep(n, cmd, flags, err);
	nbdc_left_answered(n, cmd, flags & NBD_CMD_FUA, err);
	if (nbdc_is_change(cmd->type))
		nbdc_spread_done(n, cmd, flags & NBD_CMD_FUA, err);
	if (cmd->type == NBD_CMD_FLUSH && !err)
		nbdc_keep_flushed(&n->keep, cmd->mark);
	nbdc_cmd_end(n, cmd, err);
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

void nbdc_cmd_anew(struct nbdc_cmd *cmd)
{
	cmd->sent = false;
	cmd->got = cmd->next_at = 0;
	cmd->err = 0;
	cmd->errors = 0;
}

void nbdc_cmd_launch(struct nbdc_client *n, struct nbdc_cmd *cmd, uint16_t flags)
{
	cmd->cookie = ++n->cookies << 8 | (uint64_t)(cmd - n->cmds);
	cmd->mark = n->keep.end;
	nbdc_cmd_anew(cmd);
	put_head(cmd, flags);
	count_cmd(n, cmd, 1);
	nbdc_cmd_enqueue(cmd, nbdc_spread_to(n, cmd));
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
bool nbdc_overlaps(const struct nbdc_client *n, unsigned from, unsigned to, unsigned left,
		   uint64_t off, uint32_t len)
{
	for (unsigned i = from; left && i < to; i++) {
		const struct nbdc_cmd *cmd = &n->cmds[i];

		if (!cmd->cookie || !nbdc_is_change(cmd->type))
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
	if (!nbdc_is_change(next.type))
		return FITS;
	if (nbdc_overlaps(n, 0, NBD_CMDS, n->changing, next.off, next.len))
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
	nbdc_cmd_launch(n, cmd, flags_of(n, req, cmd->type));
	nbdc_left_sent(n, cmd);
	return cmd->type == NBD_CMD_FLUSH || req->state[0] == req->len;
}

/* What waits, in its order; a change that must wait holds the changes behind it, and nothing else.
 * True: one waits for room. */
bool nbdc_cut_waiting(struct nbdc_client *n)
{
	struct td_list *l = n->waiting.next;
	int held = FITS;

	while (n->free && l != &n->waiting) {
		struct td_req *req = td_entry(l, struct td_req, link);
		struct td_list *next = l->next;

		if (!req->err && nbdc_is_change(type_of(req)) && (held || (held = fits(n, req)))) {
			l = next;
			continue;
		}
		if (req->err || cut(n, req)) { /* after an error the rest is not worth while */
			td_list_del(&req->link);
			nbdc_req_put(n, req, 0);
			l = next;
		}
	}
	return held == NO_ROOM;
}

void nbdc_cmd_submit(struct nbdc_client *n, struct td_req *req)
{
	if (n->lost) {
		td_req_done(req, -EIO);
		return;
	}
	if (n->asking)
		nbdc_ask_spoil(n, req);
	req->pending = 1; /* until all of it is in commands */
	req->err = 0;
	req->state[0] = 0;
	req->state[1] = (req->flags & TD_FUA) && !(n->x.flags & NBD_FLAG_SEND_FUA) &&
					(n->x.flags & NBD_FLAG_SEND_FLUSH) && !n->nosync
				? FLUSH_AFTER
				: PLAIN;
	td_list_add(&n->waiting, &req->link);
	nbdc_wire_schedule(n);
}

/* --- our own --- */

struct nbdc_cmd *nbdc_own_cmd(struct nbdc_client *n)
{
	struct nbdc_cmd *cmd = n->own_free;

	n->own_free = cmd->next;
	cmd->req = NULL;
	return cmd;
}

/* K10: one at a time, and none where a guest's is under way. */
void nbdc_flush_early(struct nbdc_client *n, bool no_room)
{
	struct nbdc_cmd *cmd;

	if (n->keep.first == n->keep.end || n->flushes || !n->own_free ||
	    !(no_room || nbdc_keep_is_half(&n->keep)))
		return;
	cmd = nbdc_own_cmd(n);
	cmd->type = NBD_CMD_FLUSH;
	cmd->off = cmd->len = 0;
	nbdc_cmd_launch(n, cmd, 0);
	nbdc_left_sent(n, cmd);
}

bool nbdc_cmd_changes(const struct nbdc_client *n, uint64_t off, uint64_t len)
{
	for (const struct td_list *l = n->waiting.next; l != &n->waiting; l = l->next) {
		const struct td_req *req = td_entry(l, struct td_req, link);

		if (nbdc_is_change(type_of(req)) && off < req->off + req->len &&
		    req->off < off + len)
			return true;
	}
	return nbdc_overlaps(n, 0, NBD_CMDS, n->changing, off, (uint32_t)len);
}

void nbdc_cmd_ask(struct nbdc_client *n, struct nbdc_ask *a)
{
	struct nbdc_cmd *cmd = nbdc_own_cmd(n);

	cmd->type = NBD_CMD_BLOCK_STATUS;
	cmd->off = a->off;
	cmd->len = (uint32_t)(a->end - a->off);
	cmd->ask = a;
	nbdc_cmd_launch(n, cmd, a->max == 1 ? NBD_CMD_REQ_ONE : 0);
	nbdc_wire_schedule(n);
}
