/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * NBD requests: checked, handed to the cache layer, answered.  What a client may ask is bounded
 * here:
 *
 * N1 every number of a request is checked before anything is done with it, and what breaks a rule
 *    is answered with an error; only a request without its magic ends the connection, for nothing
 *    that follows can be understood
 * N2 the data of a refused write is read and thrown away, so that the next request is found; the
 *    answer comes after it, since clients look for none while they send
 * N3 a request is answered once.  A long read is answered in chunks where the client understands
 *    them; where it does not, alone and in order, and when it fails after its head has gone, the
 *    connection ends: there is no other way to say so
 * N4 only bytes that were read go out
 * N5 a read-only disk, such as a CD, may come back smaller from a pause: what was checked before
 *    it and goes down after it is checked again
 * N6 a connection's first request is taken when those of the connections that ended before it are
 *    done: its client may have been one of theirs, and sends again what may still be under way
 *    (K4 of drivers/nbd/nbd.h).  If a relay between them has died, the client was told of an end
 *    that this server had not come to
 * N7 a client that was passed as read-only changes nothing, whatever the disk is
 */
#include "tapdisk/nbd/nbd-conn.h"

#include <errno.h>

#include "lib/io/clock.h"
#include "lib/zeroes.h"

static const char cut_off[] = "a long read failed in its middle (a client without structured "
			      "replies cannot be told otherwise)";

static void req_done(struct td_req *req, int err);

/* --- down to the image and back --- */

static void submit(struct nbd_req *r, enum td_op op, unsigned flags)
{
	struct nbd_conn *c = r->conn;

	r->req.op = op;
	r->req.flags =
		flags | (op != TD_READ && op != TD_FLUSH && (r->flags & NBD_CMD_FUA) ? TD_FUA : 0);
	r->req.off = op == TD_FLUSH ? 0 : r->off;
	r->req.len = op == TD_FLUSH ? 0 : r->len;
	r->req.iov = r->iov;
	r->req.iovcnt = (int)r->bufs;
	r->req.done = req_done;
	c->inflight++;
	c->n->inflight++;
	cache_submit(c->n->disk->cache, &r->req);
	/* a write is done soon: the first of a batch gains less by a call of its own than that
	 * costs */
	if (++c->batch % 4 == 0 || op == TD_READ)
		td_io_ahead(c->n->disk->cache->io, c->batch);
}

/* Where the image knows no shorter way: zeroes as data, one stretch after the other (r->cut: how
 * far). */
static void write_zeroes(struct nbd_req *r)
{
	uint64_t left = r->len - r->cut;
	int n = 0;

	r->req.len = 0;
	for (; left && n < (int)NBD_PIECE; n++) {
		r->iov[n] = td_zeroes_iov(left);
		left -= r->iov[n].iov_len;
		r->req.len += r->iov[n].iov_len;
	}
	r->req.op = TD_WRITE;
	r->req.flags &= TD_FUA;
	r->req.off = r->off + r->cut;
	r->req.iov = r->iov;
	r->req.iovcnt = n;
	r->cut += (uint32_t)r->req.len;
	r->conn->inflight++;
	r->conn->n->inflight++;
	cache_submit(r->conn->n->disk->cache, &r->req);
}

static void zeroes_done(struct nbd_req *r, int err)
{
	bool unable = r->req.op == TD_WRITE_ZEROES && err == -EOPNOTSUPP;

	if ((unable && !(r->flags & NBD_CMD_FAST_ZERO)) ||
	    (!err && r->req.op == TD_WRITE && r->cut < r->len))
		write_zeroes(r);
	else
		nbd_reply(r, err);
}

static void whole_check(struct nbd_req *w)
{
	struct nbd_conn *c = w->conn;

	if (w->pieces || w->cut < w->len || c->whole == w)
		return;
	/* its pieces have said it all */
	if (w->type == NBD_CMD_READ && !c->hs.structured && !w->err) {
		nbd_count_answer(w, 0);
		nbd_req_put(w);
	} else {
		nbd_reply(w, w->err);
	}
}

static void piece_done(struct nbd_req *r, int err)
{
	struct nbd_req *w = r->whole;
	struct nbd_conn *c = r->conn;

	w->pieces--;
	if (err && !w->err)
		w->err = err;
	if (err || r->type == NBD_CMD_WRITE) {
		if (err && r->type == NBD_CMD_READ && !c->hs.structured && r->off != w->off)
			nbd_conn_drop(c, cut_off);
		nbd_req_put(r);
	} else if (c->hs.structured) {
		nbd_data_chunk(r, 0);
		nbd_queue(r);
	} else {
		if (r->off == w->off)
			nbd_simple_head(r, 0);
		r->data = r->len;
		nbd_queue(r);
	}
	whole_check(w);
	nbd_conn_kick(c);
}

static void req_done(struct td_req *req, int err)
{
	struct nbd_req *r = td_entry(req, struct nbd_req, req);
	struct nbd *n = r->conn->n;

	r->conn->inflight--;
	n->inflight--;
	if (r->whole)
		piece_done(r, err);
	else if (r->type == NBD_CMD_WRITE_ZEROES)
		zeroes_done(r, err);
	else
		nbd_reply(r, r->type == NBD_CMD_TRIM && err == -EOPNOTSUPP ? 0 : err); /* a hint */
	if (!n->inflight)
		n->disk->idle(n->disk->owner);
}

bool nbd_owns(const struct nbd *n, const struct td_req *req)
{
	return n && req->done == req_done && td_entry(req, const struct nbd_req, req)->conn->n == n;
}

bool nbd_beyond(const struct nbd *n, uint64_t off, uint64_t len)
{
	return off > n->disk->size || len > n->disk->size - off;
}

/* --- taking --- */

static int check_flags(const struct nbd_conn *c, const struct nbd_req *r)
{
	static const uint16_t allowed[] = {
		[NBD_CMD_READ] = NBD_CMD_FUA | NBD_CMD_DF,
		[NBD_CMD_WRITE] = NBD_CMD_FUA,
		[NBD_CMD_FLUSH] = NBD_CMD_FUA,
		[NBD_CMD_TRIM] = NBD_CMD_FUA,
		[NBD_CMD_WRITE_ZEROES] = NBD_CMD_FUA | NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO,
		[NBD_CMD_BLOCK_STATUS] = NBD_CMD_FUA | NBD_CMD_REQ_ONE,
	};

	if (r->type > NBD_CMD_BLOCK_STATUS || !allowed[r->type] || (r->flags & ~allowed[r->type]))
		return -EINVAL;
	if ((r->flags & NBD_CMD_DF) && !c->hs.structured)
		return -EINVAL;
	return r->type == NBD_CMD_BLOCK_STATUS && !c->hs.allocation ? -EINVAL : 0;
}

/* N1.  0, or the error to answer with. */
static int check_request(const struct nbd_conn *c, const struct nbd_req *r)
{
	const struct nbd_disk *d = c->n->disk;
	bool data = r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE;
	int err = check_flags(c, r);

	if (err || r->type == NBD_CMD_FLUSH) /* its offset and length mean nothing */
		return err;
	if ((d->read_only || c->read_only) && r->type != NBD_CMD_READ &&
	    r->type != NBD_CMD_BLOCK_STATUS)
		return -EPERM;
	if (d->block && r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS &&
	    (r->off | r->len) % d->block)
		return -EINVAL;
	if ((r->off | r->len) % 512 || (data && r->len > NBD_LENGTH_MAX) ||
	    (r->type == NBD_CMD_BLOCK_STATUS && !r->len))
		return -EINVAL;
	if (nbd_beyond(c->n, r->off, r->len))
		return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_WRITE_ZEROES ? -ENOSPC
										   : -EINVAL;
	if ((r->flags & NBD_CMD_DF) && r->len > nbd_piece())
		return -EOVERFLOW;
	return 0;
}

/* RT1 of tapdisk/limit.h, of a request of which nothing has begun. */
static bool limit_lets(struct nbd_conn *c, const struct nbd_req *r)
{
	bool data = r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE ||
		    r->type == NBD_CMD_WRITE_ZEROES;
	struct limit *l = c->n->disk->limit;
	uint64_t now, due;

	if (!l || !limit_on(l) || (!data && r->type != NBD_CMD_TRIM))
		return true;
	now = td_clock_now();
	due = limit_take(l, &c->place, r->type != NBD_CMD_READ, data ? r->len : 0, now);
	if (!due)
		return true;
	ev_timer_stop(c->n->loop, &c->pace);
	ev_timer_set(&c->pace, limit_delay(due, now), 0);
	ev_timer_start(c->n->loop, &c->pace);
	return false;
}

static void limit_later(struct nbd_conn *c, const struct nbd_req *r)
{
	struct limit *l = c->n->disk->limit;

	if (l && limit_on(l))
		limit_keep(l, &c->place, r->type != NBD_CMD_READ,
			   r->type == NBD_CMD_TRIM ? 0 : r->len);
}

/* Starts a checked request; false when there is no room for its data. */
static bool start_request(struct nbd_conn *c, struct nbd_req *r)
{
	bool data = r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE;

	if (data && r->len > nbd_piece()) {
		nbd_count_begin(r);
		c->whole = r;
		return true;
	}
	if ((data && !nbd_take_buffers(r, r->len)) ||
	    (r->type == NBD_CMD_BLOCK_STATUS && !nbd_take_buffers(r, NBD_BUF)))
		return false;
	nbd_count_begin(r);
	switch (r->type) {
	case NBD_CMD_READ:
		submit(r, TD_READ, 0);
		break;
	case NBD_CMD_WRITE:
		c->filling = r;
		c->filled = 0;
		break;
	case NBD_CMD_FLUSH:
		submit(r, TD_FLUSH, 0);
		break;
	case NBD_CMD_TRIM:
		submit(r, TD_DISCARD, 0);
		break;
	case NBD_CMD_WRITE_ZEROES:
		submit(r, TD_WRITE_ZEROES, r->flags & NBD_CMD_NO_HOLE ? 0 : TD_UNMAP);
		break;
	default:
		nbd_status_add(r);
	}
	return true;
}

bool nbd_take(struct nbd_conn *c, const uint8_t *p)
{
	struct nbd_req *r;
	int err;

	if (nbd_get32(p) != NBD_REQUEST_MAGIC) {
		nbd_conn_drop(c, "a request without its magic");
		return true;
	}
	if (nbd_get16(p + 6) == NBD_CMD_DISC) {
		nbd_conn_end(c);
		return true;
	}
	if (!c->free)
		return false;
	r = nbd_req_get(c);
	r->flags = nbd_get16(p + 4);
	r->type = nbd_get16(p + 6);
	r->cookie = nbd_get64(p + 8);
	r->off = nbd_get64(p + 16);
	r->len = nbd_get32(p + 24);
	err = check_request(c, r);
	if (!err && (r->len || r->type == NBD_CMD_FLUSH)) {
		if (!limit_lets(c, r)) {
			nbd_req_put(r);
			return false;
		}
		if (!start_request(c, r)) {
			limit_later(c, r);
			nbd_req_put(r);
			return false;
		}
	} else if (r->type == NBD_CMD_WRITE && r->len) {
		r->err = err;
		c->refused = r;
		c->skip = r->len; /* N2 */
	} else {
		nbd_reply(r, err);
	}
	nbd_turn_spend(c, 1);
	c->big = r->type == NBD_CMD_WRITE && r->len >= NBD_BIG;
	c->n->n.taken++;
	if (!ev_is_active(&c->n->trim))
		ev_timer_again(c->n->loop, &c->n->trim);
	return true;
}

void nbd_filled(struct nbd_conn *c)
{
	struct nbd_req *r = c->filling;

	c->filling = NULL;
	submit(r, TD_WRITE, 0);
}

static bool cut_one(struct nbd_conn *c, struct nbd_req *w)
{
	uint32_t left = w->len - w->cut, len = left < nbd_piece() ? left : nbd_piece();
	struct nbd_req *r;

	if (w->type == NBD_CMD_READ && nbd_beyond(c->n, w->off + w->cut, len)) { /* N5 */
		w->err = -EIO;
		if (w->cut && !c->hs.structured)
			nbd_conn_drop(c, cut_off);
		return true;
	}
	if (!c->free)
		return false;
	r = nbd_req_get(c);
	if (!nbd_take_buffers(r, len)) {
		nbd_req_put(r);
		return false;
	}
	r->whole = w;
	r->type = w->type;
	r->flags = w->flags;
	r->cookie = w->cookie;
	r->off = w->off + w->cut;
	r->len = len;
	w->cut += len;
	w->pieces++;
	if (r->type == NBD_CMD_READ) {
		submit(r, TD_READ, 0);
	} else {
		c->filling = r;
		c->filled = 0;
	}
	return true;
}

bool nbd_cut(struct nbd_conn *c)
{
	struct nbd_req *w = c->whole;

	if (w->type == NBD_CMD_READ && !c->hs.structured && c->inflight)
		return false;            /* N3: alone, and one piece after the other */
	if (w->err && w->cut < w->len) { /* the rest is not worth while */
		if (w->type == NBD_CMD_WRITE)
			c->skip = w->len - w->cut;
		w->cut = w->len;
		return true;
	}
	if (w->cut == w->len) {
		c->whole = NULL;
		whole_check(w);
		return true;
	}
	return cut_one(c, w);
}
