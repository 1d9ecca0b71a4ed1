/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An NBD request's memory, its place in the statistics, and its reply. */
#include "tapdisk/nbd/nbd-conn.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/io/clock.h"

/* --- counting --- */

/* ns; one look at the clock a turn. */
static uint64_t now(struct nbd *n)
{
	if (n->turn != ev_iteration(n->loop) || !n->now) {
		n->turn = ev_iteration(n->loop);
		n->now = td_clock();
	}
	return n->now;
}

static const enum td_op op_of[] = {
	[NBD_CMD_READ] = TD_READ,
	[NBD_CMD_WRITE] = TD_WRITE,
	[NBD_CMD_FLUSH] = TD_FLUSH,
	[NBD_CMD_TRIM] = TD_DISCARD,
	[NBD_CMD_WRITE_ZEROES] = TD_WRITE_ZEROES,
};

void nbd_count_begin(struct nbd_req *r)
{
	struct nbd *n = r->conn->n;

	if (r->type == NBD_CMD_BLOCK_STATUS)
		return;
	r->start = now(n);
	stats_begin(&n->stats, op_of[r->type]);
}

static void count_end(struct nbd_req *r, int err)
{
	struct nbd *n = r->conn->n;

	if (r->start)
		stats_end(&n->stats, op_of[r->type], r->type == NBD_CMD_FLUSH ? 0 : r->len,
			  now(n) - r->start, err);
	r->start = 0;
}

void nbd_count_answer(struct nbd_req *r, int err)
{
	struct nbd *n = r->conn->n;

	n->n.answered++;
	n->n.errors += err != 0;
	count_end(r, err);
}

/* --- requests and their buffers --- */

struct nbd_req *nbd_req_get(struct nbd_conn *c)
{
	struct nbd_req *r = c->free;

	c->free = r->next;
	r->next = r->whole = NULL;
	r->cut = r->pieces = 0;
	r->err = 0;
	r->start = 0;
	r->data = r->head_len = 0;
	return r;
}

static void put_buffers(struct nbd_req *r)
{
	struct nbd_conn *c = r->conn;

	for (unsigned i = 0; i < r->bufs; i++)
		td_pool_put(c->pool, r->iov[i].iov_base);
	c->held -= r->bufs;
	r->bufs = 0;
}

void nbd_req_put(struct nbd_req *r)
{
	count_end(r, -ECANCELED); /* unless it is answered */
	put_buffers(r);
	r->next = r->conn->free;
	r->conn->free = r;
}

uint32_t nbd_piece(void)
{
	unsigned share = nbd_share();

	return NBD_BUF * (share < NBD_PIECE ? share : NBD_PIECE);
}

bool nbd_take_buffers(struct nbd_req *r, uint32_t len)
{
	struct nbd_conn *c = r->conn;
	unsigned n = (len + NBD_BUF - 1) / NBD_BUF;

	if (c->held + n > nbd_share() || n > NBD_PIECE)
		return false;
	for (unsigned i = 0; i < n; i++) {
		void *buf = td_pool_get(c->pool);

		assert(buf); /* the pool has as many as a share can be */
		r->iov[i] = (struct iovec){buf, len < NBD_BUF ? len : NBD_BUF};
		len -= (uint32_t)r->iov[i].iov_len;
	}
	r->bufs = n;
	c->held += n;
	nbd_turn_spend(c, n - 1); /* for one, the request itself counts */
	return true;
}

/* --- replies --- */

static uint32_t wire_error(int err)
{
	switch (-err) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
	case EACCES:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case EOPNOTSUPP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

uint8_t *nbd_chunk(struct nbd_req *r, uint16_t type, uint16_t flags, uint32_t len)
{
	uint8_t *p = nbd_put32(r->head, NBD_STRUCTURED_MAGIC);

	p = nbd_put16(p, flags);
	p = nbd_put16(p, type);
	p = nbd_put64(p, r->cookie);
	return nbd_put32(p, len);
}

void nbd_simple_head(struct nbd_req *r, int err)
{
	uint8_t *p = nbd_put32(r->head, NBD_SIMPLE_MAGIC);

	p = nbd_put32(p, wire_error(err));
	nbd_put64(p, r->cookie);
	r->head_len = NBD_SIMPLE_SIZE;
}

void nbd_data_chunk(struct nbd_req *r, uint16_t flags)
{
	nbd_put64(nbd_chunk(r, NBD_CHUNK_DATA, flags, 8 + r->len), r->off);
	r->head_len = NBD_CHUNK_SIZE + 8;
	r->data = r->len;
}

static void last_chunk(struct nbd_req *r, int err)
{
	const char *text = err ? strerror(-err) : "";
	uint16_t n = (uint16_t)strnlen(text, NBD_HEAD_MAX - NBD_CHUNK_SIZE - 6);

	if (err) {
		uint8_t *p = nbd_chunk(r, NBD_CHUNK_ERROR, NBD_CHUNK_DONE, 6u + n);

		memcpy(nbd_put16(nbd_put32(p, wire_error(err)), n), text, n);
		r->head_len = NBD_CHUNK_SIZE + 6u + n;
	} else {
		nbd_chunk(r, NBD_CHUNK_NONE, NBD_CHUNK_DONE, 0);
		r->head_len = NBD_CHUNK_SIZE;
	}
}

void nbd_queue(struct nbd_req *r)
{
	struct nbd_conn *c = r->conn;

	if (!r->data)
		put_buffers(r);
	r->next = NULL;
	*c->replies_tail = r;
	c->replies_tail = &r->next;
	nbd_conn_kick(c);
}

void nbd_reply(struct nbd_req *r, int err)
{
	struct nbd_conn *c = r->conn;

	nbd_count_answer(r, err);
	if (r->type == NBD_CMD_BLOCK_STATUS && !err) {
		/* nbd-status.c has made it */
	} else if (c->hs.structured &&
		   (r->type == NBD_CMD_READ || r->type == NBD_CMD_BLOCK_STATUS)) {
		if (!err && r->bufs)
			nbd_data_chunk(r, NBD_CHUNK_DONE);
		else
			last_chunk(r, err);
	} else {
		nbd_simple_head(r, err);
		r->data = !err && r->type == NBD_CMD_READ ? r->len : 0;
	}
	nbd_queue(r);
}
