/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk that an NBD server holds: one that is named by its address (lib/nbd-uri.h), or nbd:NAME, a
 * connection that was passed to this process under that name (tapdisk/nbd/nbd-passed.c).  A passed
 * one cannot be made again, so that it is given back at close, in order to outlive a pause.
 */
#include "drivers/nbd/nbd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/passed.h"
#include "lib/settle.h"

#define NAME_TRIES  100  /* a socket that was passed just now may not have been looked at yet */
#define TRY_EVERY   0.01 /* s */
#define FENCE_WAIT  10   /* s */
#define FENCE_AGAIN 1    /* s: of one attempt; another one follows */

_Static_assert(sizeof(struct nbdc_offer) <= TD_PASSED_NOTE,
	       "what is left with a socket that is given back");

static const char *title_of(const struct td_image *image)
{
	return ((const struct nbdc_client *)image->priv)->name;
}

static bool was_passed(const struct nbdc_client *n)
{
	return n->uri.way == NBD_PASSED;
}

/* A socket that was given back may have been closed by its server meanwhile; nothing else can have
 * come through it. */
static bool is_over(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

static int take_passed(const char *name, struct nbdc_offer *x, struct td_err *err)
{
	int fd = td_passed_take(name, x, sizeof *x);

	for (int i = 0; fd < 0 && i < NAME_TRIES; i++) {
		td_fiber_wait_for(TRY_EVERY);
		fd = td_passed_take(name, x, sizeof *x);
	}
	if (fd < 0)
		return td_fail(err, ENOENT,
			       "no socket has been passed to nbdclient%d as '%s' (a server's own "
			       "socket has a path, that begins with /, and one on another host is "
			       "nbd://HOST/EXPORT)",
			       (int)getpid(), name);
	if (x->flags && is_over(fd)) {
		close(fd);
		return td_fail(err, ECONNRESET,
			       "%s: the server has closed the connection: pass another one to "
			       "nbdclient%d",
			       name, (int)getpid());
	}
	return fd;
}

static bool writes(const struct td_image *image)
{
	return !(image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT));
}

static int check_export(const struct td_image *image, const struct nbdc_offer *x,
			struct td_err *err)
{
	if (!x->size || x->size % 512)
		return td_fail(err, EINVAL, "%s: its size, %llu bytes, is not a multiple of 512",
			       title_of(image), (unsigned long long)x->size);
	if (x->min > 512)
		return td_fail(err, EINVAL,
			       "%s: its server takes nothing smaller than %u bytes, a guest's "
			       "sectors have 512: let the server "
			       "take them",
			       title_of(image), x->min);
	if (writes(image) && (x->flags & NBD_FLAG_READ_ONLY))
		return td_fail(err, EROFS,
			       "%s: the server does not allow writing: open it read-only (-R)",
			       title_of(image));
	if (writes(image) && !(x->flags & NBD_FLAG_SEND_FLUSH) &&
	    !(image->file_flags & (TD_FILE_NOSYNC | TD_FILE_COPY)))
		return td_fail(err, EOPNOTSUPP,
			       "%s: the server does not support flush, so that it is unknown "
			       "when data is on disk: open it "
			       "read-only (-R), or with cache=unsafe and unsafe=yes",
			       title_of(image));
	return 0;
}

void nbdc_hang_up(int fd, int under, bool polite)
{
	uint8_t bye[NBD_REQUEST_SIZE] = {0};

	nbd_put16(nbd_put16(nbd_put32(bye, NBD_REQUEST_MAGIC), 0), NBD_CMD_DISC);
	if (polite && send(fd, bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		td_log(LOG_INFO, "an NBD connection ends without a good-bye: %s", strerror(errno));
	close(fd);
	if (under >= 0)
		close(under);
}

/* Back to where it came from, or good-bye. */
static void let_go(const struct td_image *image, int fd, const struct nbdc_offer *x, bool whole)
{
	const struct nbdc_client *n = image->priv;

	if (fd < 0)
		return;
	if (was_passed(n) && whole) {
		td_passed_keep(image->path, fd, x, sizeof *x);
		return;
	}
	nbdc_hang_up(fd, -1, whole);
}

static void fill_info(struct td_image *image, const struct nbdc_offer *x)
{
	image->info.size = x->size;
	image->info.physical = x->preferred < 512 || x->preferred > 4096 ? 4096 : x->preferred;
	image->info.discard =
		(x->flags & NBD_FLAG_SEND_TRIM) && !(image->file_flags & TD_FILE_RDONLY);
	image->info.discard_gran = image->info.physical;
}

static void unlock(struct nbdc_client *n)
{
	if (n->lock >= 0)
		close(n->lock);
}

static void forget_left(struct nbdc_client *n)
{
	unlock(n);
	nbdc_left_close(n);
}

/* An export that can be used; *same: through the connection that was given back. */
static int connect_export(struct td_image *image, bool *same, struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	int rc;

	n->first.fd = was_passed(n) ? take_passed(image->path, &n->x, err)
				    : nbdc_connect(n, false, &n->trying, &n->first.under, err);
	if (n->first.fd < 0)
		return n->first.fd;
	*same = n->x.flags;
	rc = *same ? 0 : nbdc_greet(n, n->first.fd, NBD_PATIENCE, &n->x, err);
	if (rc < 0) {
		close(n->first.fd);
		nbdc_under_close(n);
		return rc;
	}
	n->said = n->x;
	rc = check_export(image, &n->x, err);
	if (rc < 0) {
		let_go(image, n->first.fd, &n->x, true);
		nbdc_under_close(n);
	}
	return rc;
}

/* K5 */
static int wait_for_the_dead(struct td_image *image, bool *blind, struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	int rc = nbdc_fence(image->io, nbdc_under(n->first.fd, n->first.under), FENCE_WAIT);

	*blind = rc == NBD_FENCE_BLIND;
	if (rc != NBD_FENCE_BUSY)
		return 0;
	return td_fail(
		err, EBUSY,
		"%s: its server still executes requests of a client that has died, which could "
		"overwrite newer writes: try "
		"again when it has closed that connection (`ss -xp' shows it), or end the server",
		title_of(image));
}

/* S1 of lib/settle.h, and what an earlier connection has left (K5, K6). */
static int settle_left(struct td_image *image, const struct nbdc_left *was, bool blind,
		       struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	bool multi = n->x.flags & NBD_FLAG_CAN_MULTI_CONN,
	     same = nbdc_server_same(&was->server, &n->server),
	     doubt = nbdc_left_doubt(was, blind, n->nosync || (multi && same));
	int rc = n->nosync ? 0 : td_await_request(image, image->io, TD_FLUSH, 0, 0, 0, NULL, 0);

	if (!rc && doubt) {
		td_log(LOG_ERR, "%s: an earlier connection %s", title_of(image),
		       was->failed & NBD_LEFT_FLUSH ? "ended with a flush that had failed"
		       : was->failed ? "ended with its server, which may have lost what it had "
				       "acknowledged, before that was written again"
		       : was->changed != was->covered && multi
			       ? "ended with writes that were acknowledged and not flushed, and "
				 "the server is not known to be the process that it was, which had "
				 "them"
		       : was->changed != was->covered
			       ? "ended with writes that were acknowledged and not flushed, and "
				 "the server does not offer to flush "
				 "them on another (CAN_MULTI_CONN)"
			       : "ended with writes that were not answered, and may still be "
				 "carried out, over newer ones");
		rc = -EIO;
	}
	rc = td_settled(image, image->path, rc, err);
	if (!rc) {
		nbdc_left_settled(n, !n->nosync);
		nbdc_left_server(n);
	}
	return rc;
}

/* K12: what is the same, or better, is the same export. */
static int same_export(const struct nbdc_client *n, const struct nbdc_offer *now,
		       struct td_err *err)
{
	const uint32_t used = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
			      NBD_FLAG_SEND_WRITE_ZEROES;
	uint32_t lacks = n->x.flags & ~now->flags & used;

	if (now->size != n->x.size)
		return td_fail(err, EINVAL,
			       "the server has come back with an export of %llu bytes, and had one "
			       "of %llu: it is another disk",
			       (unsigned long long)now->size, (unsigned long long)n->x.size);
	if (writes(n->image) && (now->flags & NBD_FLAG_READ_ONLY))
		return td_fail(err, EROFS, "the server has come back with a read-only export");
	if (lacks && writes(n->image))
		return td_fail(err, EOPNOTSUPP, "the server has come back without %s%s%s%s",
			       lacks & NBD_FLAG_SEND_FLUSH ? "flush " : "",
			       lacks & NBD_FLAG_SEND_FUA ? "FUA " : "",
			       lacks & NBD_FLAG_SEND_TRIM ? "trim " : "",
			       lacks & NBD_FLAG_SEND_WRITE_ZEROES ? "write-zeroes " : "");
	if (now->min > 512 || now->max < n->x.max)
		return td_fail(err, EINVAL,
			       "the server has come back with requests of %u to %u bytes, and had "
			       "%u to %u: it could not take what it had been sent",
			       now->min, now->max, n->x.min, n->x.max);
	return 0;
}

int nbdc_connect_again(struct nbdc_client *n, int *under, bool *ended, struct td_err *err)
{
	struct nbdc_offer now;
	int fd, rc, looked_at;

	*ended = false;
	*under = -1;
	if (!nbdc_under_over(n)) /* K18 */
		return td_fail(err, EBUSY, "its server has not closed the connection before");
	fd = nbdc_connect(n, false, &n->trying, under, err);
	if (fd < 0) {
		*ended = fd == -EBUSY; /* another disk has taken the export: it may have written */
		return fd;
	}
	looked_at = nbdc_under(fd, *under);
	n->trying = fd;
	rc = n->lost || n->closing ? td_fail(err, ECANCELED, "given up")
				   : nbdc_greet(n, fd, NBD_PATIENCE, &now, err);
	if (!rc) {
		rc = same_export(n, &now, err);
		*ended = rc < 0;
	}
	/* K11: blind counts as clear, since the old connection has shown its end */
	if (!rc && nbdc_fence(n->image->io, looked_at, FENCE_AGAIN) == NBD_FENCE_BUSY)
		rc = td_fail(err, EBUSY,
			     "its server still executes requests of the connection before");
	if (!rc)
		n->server = nbdc_server_of(n->image->io, looked_at);
	n->trying = -1;
	if (!rc) {
		n->x.structured = now.structured;
		n->x.context = now.context;
		n->said = now;
		return fd;
	}
	let_go(n->image, fd, &now, false);
	if (*under >= 0)
		close(*under);
	return rc;
}

/* K3: what is needed for it. */
static void may_reconnect(struct nbdc_client *n)
{
	struct td_image *image = n->image;

	n->reconnect = was_passed(n) || n->copy ? 0 : image->reconnect;
	if (!n->reconnect || !writes(image))
		return;
	if (!(n->x.flags & NBD_FLAG_SEND_FLUSH)) {
		td_log(LOG_NOTICE,
		       "%s: the server does not support flush: if it goes away, all requests "
		       "fail",
		       title_of(image));
		n->reconnect = 0;
	} else if (nbdc_keep_open(&n->keep) < 0) {
		td_log(LOG_WARNING,
		       "%s: no memory for what is not flushed: if the server goes away, all "
		       "requests fail",
		       title_of(image));
		n->reconnect = 0;
	}
}

static int client_open(struct td_image *image, struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	bool same = false, blind = false;
	struct nbdc_left was;
	int rc;

	nbd_title(image->path, n->title, sizeof n->title);
	n->name = n->title;
	n->image = image;
	n->loop = image->io->loop;
	n->nosync = image->file_flags & TD_FILE_NOSYNC;
	n->copy = image->file_flags & TD_FILE_COPY;
	n->lock = -1;
	n->trying = -1;
	n->first.under = -1;
	n->past = -1;
	rc = nbd_uri_parse(image->path, &n->uri, err);
	if (rc < 0)
		return rc;
	if (!n->uri.connections) /* the address is nearer to the server than the disk's words */
		n->uri.connections = image->connections;
	rc = nbdc_left_open(n, image, image->lost, &was, err);
	if (!rc)
		rc = connect_export(image, &same, err);
	if (rc < 0) {
		forget_left(n);
		return rc;
	}
	if (same)
		was.covered = was.changed; /* its own flush covers them */
	else if (writes(image))
		rc = wait_for_the_dead(image, &blind, err);
	n->server = nbdc_server_of(image->io, nbdc_under(n->first.fd, n->first.under));
	fill_info(image, &n->x);
	nbdc_wire_start(n);
	if (!rc)
		rc = nbdc_server_check(n, same, err);
	/* a copy promises nothing before its first flush, which its mirror waits for as it does for
	 * all (MI2 of tapdisk/mirror/mirror.h) */
	if (!rc && writes(image) && !n->copy)
		rc = settle_left(image, &was, blind, err);
	if (rc < 0) {
		let_go(image, n->first.fd, &n->x, nbdc_wire_stop(n));
		nbdc_under_close(n);
		forget_left(n);
	} else {
		may_reconnect(n); /* from here on: an open fails at once */
		nbdc_again_start(n);
		nbdc_more_start(n);
	}
	return rc;
}

/* K7 */
static void flush_at_last(struct td_image *image)
{
	struct nbdc_client *n = image->priv;
	int rc;

	if (!n->nosync || n->lost || n->since || n->left->changed == n->left->covered ||
	    !(n->x.flags & NBD_FLAG_SEND_FLUSH))
		return;
	n->nosync = false;
	rc = td_await_request(image, image->io, TD_FLUSH, 0, 0, 0, NULL, 0);
	if (rc < 0)
		td_log(LOG_ERR, "%s: what was written under cache=unsafe could not be flushed: %s",
		       title_of(image), strerror(-rc));
}

static void client_close(struct td_image *image)
{
	struct nbdc_client *n = image->priv;

	flush_at_last(image);
	nbdc_again_stop(n);
	nbdc_more_stop(n);
	let_go(image, n->first.fd, &n->x, nbdc_wire_stop(n));
	nbdc_under_close(n);
	nbdc_keep_close(&n->keep);
	forget_left(n);
}

static void client_submit(struct td_image *image, struct td_req *req)
{
	struct nbdc_client *n = image->priv;

	if (req->op == TD_FLUSH && n->nosync)
		td_req_done(req, n->lost ? -EIO : 0);
	else if (req->op == TD_FLUSH && !(n->x.flags & NBD_FLAG_SEND_FLUSH))
		/* nothing is ever written; or it is a copy, whose writes have all been answered */
		td_req_done(req, n->lost ? -EIO : 0);
	else if (req->op == TD_DISCARD && !(n->x.flags & NBD_FLAG_SEND_TRIM))
		td_req_done(req, 0);
	else if (req->op == TD_WRITE_ZEROES && !(n->x.flags & NBD_FLAG_SEND_WRITE_ZEROES))
		td_req_done(req, -EOPNOTSUPP);
	else
		nbdc_cmd_submit(n, req);
}

static void client_abandon(struct td_image *image, const char *why)
{
	nbdc_wire_lose(image->priv, why);
}

const struct td_driver td_driver_nbd = {
	.name = "nbd",
	.type = 15,
	.priv_size = sizeof(struct nbdc_client),
	.open = client_open,
	.close = client_close,
	.submit = client_submit,
	.abandon = client_abandon,
	.extents = nbdc_extents,
};
