/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests.  Their data are read and written by librbd where they are; an eventfd tells that some
 * are over, and all that are then come in one turn.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/rbd/rbd.h"

#define BATCH 64
#define PIECE 64 /* objects that are discarded or zeroed by one call: RB12 */

/* td_req.state; COVERS: of a flush; OVER: bytes of a discard or zeroes that are over */
enum { STAGE, COVERS, OVER = COVERS };
enum { FIRST, FLUSHING }; /* FLUSHING: a FUA write that is written */

/* RB8 */
static void lose(struct rbdc_client *c, int rc)
{
	char why[300];

	if (c->lost)
		return;
	c->lost = true;
	if (rc == -ESHUTDOWN)
		__atomic_store_n(&c->h->cluster->stale, true, __ATOMIC_RELAXED);
	snprintf(
		why, sizeof why,
		rc == -ESHUTDOWN
			? "the cluster has blocklisted this host's client (%s): another host has "
			  "taken the disk over, or somebody has fenced this one; all requests fail "
			  "until the disk is closed and opened again"
			: "this host's client (%s) has lost the image's exclusive lock: all "
			  "requests fail until the disk is closed and opened again",
		c->h->cluster->addr);
	td_log(LOG_ERR, "rbd:%s: %s", c->image->path, why);
	td_image_fault(c->image, why);
}

static bool changes_data(const struct td_req *req)
{
	return req->op != TD_READ && req->op != TD_FLUSH;
}

static bool is_durable(const struct rbdc_client *c, const struct td_req *req)
{
	return !c->h->cached || (req->flags & TD_FUA);
}

/* Of what counts for a successor, before anybody hears of it. */
static void note(struct rbdc_client *c, const struct td_req *req, int err)
{
	if (err && err != -ENOSPC && err != -EDQUOT && err != -EOPNOTSUPP &&
	    (req->op == TD_FLUSH || (changes_data(req) && is_durable(c, req))))
		rbdc_left_failed(c->left);
	if (err || !c->h->cached)
		return;
	if (req->op == TD_FLUSH)
		rbdc_left_covered(c->left, req->state[COVERS]);
	else if (changes_data(req) && !is_durable(c, req))
		rbdc_left_changed(c->left);
}

static void end_op(struct rbdc_client *c, struct td_req *req, int err)
{
	note(c, req, err);
	if (changes_data(req))
		rbdc_extents_changed(c, req->off, req->len);
	td_req_done(req, err);
}

static bool has_pieces(const struct td_req *req)
{
	return req->op == TD_DISCARD || req->op == TD_WRITE_ZEROES;
}

/* Where the piece ends that is under way: with an object, so that no discard is rounded there. */
static uint64_t end_of_piece(const struct rbdc_client *c, const struct td_req *req)
{
	uint64_t size = PIECE * c->h->object, end = req->off + req->len,
		 next = ((req->off + req->state[OVER]) / size + 1) * size;

	return next < end ? next : end;
}

static int hand_over(struct rbdc_client *c, struct td_req *req, rbd_completion_t done)
{
	rbd_image_t rbd = c->h->rbd;
	uint64_t off = req->off + (has_pieces(req) ? req->state[OVER] : 0);

	if (req->state[STAGE] == FLUSHING)
		return rbdc_lib->rbd_aio_flush(rbd, done);
	switch (req->op) {
	case TD_READ:
		return rbdc_lib->rbd_aio_readv(rbd, req->iov, req->iovcnt, req->off, done);
	case TD_WRITE:
		return rbdc_lib->rbd_aio_writev(rbd, req->iov, req->iovcnt, req->off, done);
	case TD_DISCARD:
		return rbdc_lib->rbd_aio_discard(rbd, off, end_of_piece(c, req) - off, done);
	case TD_WRITE_ZEROES:
		return rbdc_lib->rbd_aio_write_zeroes(
			rbd, off, end_of_piece(c, req) - off, done,
			req->flags & TD_UNMAP ? 0 : (int)RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
	case TD_FLUSH:
		break;
	}
	return rbdc_lib->rbd_aio_flush(rbd, done);
}

static void begin_op(struct rbdc_client *c, struct td_req *req)
{
	rbd_completion_t done;
	int rc = rbdc_lib->rbd_aio_create_completion(req, NULL, &done);

	if (rc < 0) {
		end_op(c, req, rc);
		return;
	}
	rc = hand_over(c, req, done);
	if (rc < 0) {
		rbdc_lib->rbd_aio_release(done);
		end_op(c, req, rc);
	}
}

static void finish(struct rbdc_client *c, struct td_req *req, ssize_t rc)
{
	if (rc == -ESHUTDOWN || (rc == -EROFS && changes_data(req)))
		lose(c, (int)rc);
	if (rc < 0) {
		end_op(c, req, rc == -ENOSPC || rc == -EDQUOT ? (int)rc : -EIO);
		return;
	}
	if ((req->op == TD_READ && (uint64_t)rc != req->len) ||
	    (changes_data(req) && req->off + req->len > c->now)) { /* RB10 */
		end_op(c, req, -EIO);
		return;
	}
	if (req->op == TD_WRITE && (req->flags & TD_FUA) && c->h->cached && !c->nosync &&
	    req->state[STAGE] == FIRST) {
		req->state[STAGE] = FLUSHING; /* RB4 */
		begin_op(c, req);
		return;
	}
	if (has_pieces(req) && end_of_piece(c, req) < req->off + req->len) {
		req->state[OVER] = end_of_piece(c, req) - req->off;
		begin_op(c, req);
		return;
	}
	end_op(c, req, 0);
}

static void on_events(struct ev_loop *loop, ev_io *w, int revents)
{
	struct rbdc_client *c = w->data;
	rbd_completion_t done[BATCH];
	uint64_t count;
	int n;

	if (read(w->fd, &count, sizeof count) < 0 && errno != EAGAIN)
		td_log(LOG_ERR, "rbd:%s: an eventfd: %s", c->image->path, strerror(errno));
	do {
		n = rbdc_lib->rbd_poll_io_events(c->h->rbd, done, BATCH);
		for (int i = 0; i < n; i++) {
			struct td_req *req = rbdc_lib->rbd_aio_get_arg(done[i]);
			ssize_t rc = rbdc_lib->rbd_aio_get_return_value(done[i]);

			rbdc_lib->rbd_aio_release(done[i]);
			finish(c, req, rc);
		}
	} while (n == BATCH);
	rbdc_size_heard(c);
}

void rbdc_submit(struct td_image *image, struct td_req *req)
{
	struct rbdc_client *c = image->priv;

	if (c->lost) {
		end_op(c, req, -EIO);
		return;
	}
	if (req->op == TD_FLUSH && c->nosync) {
		td_req_done(req, 0);
		return;
	}
	req->state[STAGE] = FIRST;
	req->state[COVERS] = req->op == TD_FLUSH ? c->left->changed : 0;
	begin_op(c, req);
}

void rbdc_io_start(struct rbdc_client *c)
{
	ev_io_init(&c->in, on_events, c->h->events, EV_READ);
	c->in.data = c;
	ev_io_start(c->loop, &c->in);
}

void rbdc_io_stop(struct rbdc_client *c)
{
	ev_io_stop(c->loop, &c->in);
}
