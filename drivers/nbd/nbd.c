/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk that an NBD server holds.  nbd:/PATH is a server's Unix socket, and nbd:NAME a connection
 * that was passed to this process under that name (tapdisk/nbd/nbd-passed.c).  A passed one cannot
 * be made again, so that it is given back at close, in order to outlive a pause.
 */
#include "drivers/nbd/nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "lib/fiber/await.h"
#include "lib/ctl-dir.h"
#include "lib/fiber/fiber.h"
#include "lib/passed.h"
#include "lib/settle.h"

#define NAME_TRIES    100  /* a socket that was passed just now may not have been looked at yet */
#define CONNECT_TRIES 1000 /* of a server that has too many to let in */
#define TRY_EVERY     0.01 /* s */
#define FENCE_WAIT    10   /* s */
#define FENCE_AGAIN   1    /* s: of one attempt; another one follows */

_Static_assert(sizeof(struct nbdc_offer) <= TD_PASSED_NOTE,
	       "what is left with a socket that is given back");

struct connect_call {
	struct td_image *image;
	int fd;           /* the socket */
	int lock;         /* or -1 */
	bool locked;      /* by this call */
	uint64_t lock_at; /* its byte */
	struct td_err *err;
};

/*
 * A server lets in whoever comes, so that two disks of this host could have one export.  An image
 * has one writer: a byte of a file of ours stands for the socket, by its number, and is locked
 * while the disk is open.
 */
static int lock_socket(struct connect_call *c)
{
	bool writes = !(c->image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT));
	struct flock byte = {
		.l_type = writes ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	char path[4200];
	struct stat st;

	if (stat(c->image->path, &st) < 0)
		return -errno;
	byte.l_start = (off_t)((uint64_t)st.st_ino & ((UINT64_C(1) << 46) - 1)) |
		       (off_t)(st.st_dev & 0xffff) << 46;
	c->lock_at = (uint64_t)byte.l_start;
	snprintf(path, sizeof path, "%s/nbd.lock", td_ctl_dir());
	if (c->lock < 0)
		c->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->lock < 0)
		return td_fail(c->err, errno, "cannot make the lock %s: %s", path, strerror(errno));
	if (fcntl(c->lock, F_OFD_SETLK, &byte) == 0) {
		c->locked = true;
		return 0;
	}
	return td_fail(c->err, errno == EAGAIN || errno == EACCES ? EBUSY : errno,
		       "nbd:%s is in use by another disk of this host: an export has "
		       "one writer, or any number of readers",
		       c->image->path);
}

/* A server that was started anew listens at another socket of the same name. */
static void unlock_old(struct nbdc_client *n, uint64_t now)
{
	struct flock byte = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = 1};

	byte.l_start = (off_t)n->lock_at;
	if (n->lock >= 0 && n->lock_at != now)
		fcntl(n->lock, F_OFD_SETLK, &byte);
	n->lock_at = now;
}

/* Through the directory's descriptor, since a socket's address has less room than a path. */
static long connect_run(void *arg)
{
	struct connect_call *c = arg;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	const char *path = c->image->path, *slash = strrchr(path, '/');
	char dir[4097];
	int at, rc = c->locked ? 0 : lock_socket(c);

	if (rc < 0)
		return rc;
	snprintf(dir, sizeof dir, "%.*s/", (int)(slash - path), path);
	at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return -errno;
	if (snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d%s", at, slash) >=
	    (int)sizeof sa.sun_path)
		rc = -ENAMETOOLONG;
	else if (connect(c->fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		rc = -errno;
	close(at);
	return rc;
}

static int connect_path(struct nbdc_client *n, struct td_err *err)
{
	struct td_image *image = n->image;
	struct connect_call c = {
		.image = image,
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
		.lock = n->lock,
		.err = err};
	long rc = c.fd < 0 ? -errno : -EAGAIN;

	for (int i = 0; rc == -EAGAIN && i < CONNECT_TRIES && !n->closing && !n->lost; i++) {
		rc = td_await_call(image->io, connect_run, &c);
		if (rc == -EAGAIN)
			td_fiber_wait_for(TRY_EVERY);
	}
	n->lock = c.lock;
	if (!rc) {
		unlock_old(n, c.lock_at);
		return c.fd;
	}
	if (c.fd >= 0)
		close(c.fd);
	return td_fail(err, (int)-rc, "cannot connect to an NBD server at %s: %s", image->path,
		       strerror((int)-rc));
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
			       "socket has a path, that begins with /)",
			       (int)getpid(), name);
	if (x->flags && is_over(fd)) {
		close(fd);
		return td_fail(err, ECONNRESET,
			       "nbd:%s: the server has closed the connection: pass another one to "
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
		return td_fail(err, EINVAL,
			       "nbd:%s: its size, %llu bytes, is not a multiple of 512",
			       image->path, (unsigned long long)x->size);
	if (x->min > 512)
		return td_fail(err, EINVAL,
			       "nbd:%s: its server takes nothing smaller than %u bytes, a guest's "
			       "sectors have 512: let the server "
			       "take them",
			       image->path, x->min);
	if (writes(image) && (x->flags & NBD_FLAG_READ_ONLY))
		return td_fail(err, EROFS,
			       "nbd:%s: the server does not allow writing: open it read-only (-R)",
			       image->path);
	if (writes(image) && !(x->flags & NBD_FLAG_SEND_FLUSH) &&
	    !(image->file_flags & (TD_FILE_NOSYNC | TD_FILE_COPY)))
		return td_fail(err, EOPNOTSUPP,
			       "nbd:%s: the server does not support flush, so that it is unknown "
			       "when data is on disk: open it "
			       "read-only (-R), or with cache=unsafe and unsafe=yes",
			       image->path);
	return 0;
}

static bool was_passed(const struct td_image *image)
{
	return image->path[0] != '/';
}

/* Back to where it came from, or good-bye. */
static void let_go(const struct td_image *image, int fd, const struct nbdc_offer *x, bool whole)
{
	uint8_t bye[NBD_REQUEST_SIZE] = {0};

	if (fd < 0)
		return;
	if (was_passed(image) && whole) {
		td_passed_keep(image->path, fd, x, sizeof *x);
		return;
	}
	nbd_put16(nbd_put16(nbd_put32(bye, NBD_REQUEST_MAGIC), 0), NBD_CMD_DISC);
	if (whole && send(fd, bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		td_log(LOG_INFO, "nbd:%s: gone without a good-bye: %s", image->path,
		       strerror(errno));
	close(fd);
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

	n->fd = was_passed(image) ? take_passed(image->path, &n->x, err) : connect_path(n, err);
	if (n->fd < 0)
		return n->fd;
	*same = n->x.flags;
	rc = *same ? 0 : nbdc_greet(n->loop, n->fd, n->name, &n->x, err);
	if (rc < 0) {
		close(n->fd);
		return rc;
	}
	rc = check_export(image, &n->x, err);
	if (rc < 0)
		let_go(image, n->fd, &n->x, true);
	return rc;
}

/* K5 */
static int wait_for_the_dead(struct td_image *image, bool *blind, struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	int rc = nbdc_fence(image->io, n->fd, FENCE_WAIT);

	*blind = rc == NBD_FENCE_BLIND;
	if (rc != NBD_FENCE_BUSY)
		return 0;
	return td_fail(
		err, EBUSY,
		"nbd:%s: its server still executes requests of a client that has died, which could "
		"overwrite newer writes: try "
		"again when it has closed that connection (`ss -xp' shows it), or end the server",
		image->path);
}

/* S1 of lib/settle.h, and what an earlier connection has left (K5, K6). */
static int settle_left(struct td_image *image, const struct nbdc_left *was, bool blind,
		       struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	bool doubt =
		nbdc_left_doubt(was, blind, n->nosync || (n->x.flags & NBD_FLAG_CAN_MULTI_CONN));
	int rc = n->nosync ? 0 : td_await_request(image, image->io, TD_FLUSH, 0, 0, 0, NULL, 0);

	if (!rc && doubt) {
		td_log(LOG_ERR, "nbd:%s: an earlier connection %s", image->path,
		       was->failed & NBD_LEFT_FLUSH ? "ended with a flush that had failed"
		       : was->failed ? "ended with its server, which may have lost what it had "
				       "acknowledged, before that was written again"
		       : was->changed != was->covered
			       ? "ended with writes that were acknowledged and not flushed, and "
				 "the server does not offer to flush "
				 "them on another (CAN_MULTI_CONN)"
			       : "ended with writes that were not answered, and may still be "
				 "carried out, over newer ones");
		rc = -EIO;
	}
	rc = td_settled(image, image->path, rc, err);
	if (!rc)
		nbdc_left_settled(n, !n->nosync);
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

int nbdc_connect_again(struct nbdc_client *n, bool *ended, struct td_err *err)
{
	struct nbdc_offer now;
	int fd, rc;

	*ended = false;
	fd = connect_path(n, err);
	if (fd < 0) {
		*ended = fd == -EBUSY; /* another disk has taken the export: it may have written */
		return fd;
	}
	n->trying = fd;
	rc = n->lost || n->closing ? td_fail(err, ECANCELED, "given up")
				   : nbdc_greet(n->loop, fd, n->name, &now, err);
	if (!rc) {
		rc = same_export(n, &now, err);
		*ended = rc < 0;
	}
	/* K11: blind counts as clear, since the old connection has shown its end */
	if (!rc && nbdc_fence(n->image->io, fd, FENCE_AGAIN) == NBD_FENCE_BUSY)
		rc = td_fail(err, EBUSY,
			     "its server still executes requests of the connection before");
	n->trying = -1;
	if (!rc)
		return fd;
	let_go(n->image, fd, &now, false);
	return rc;
}

/* K3: what is needed for it. */
static void may_reconnect(struct nbdc_client *n)
{
	struct td_image *image = n->image;

	n->reconnect = was_passed(image) || n->copy ? 0 : image->reconnect;
	if (!n->reconnect || !writes(image))
		return;
	if (!(n->x.flags & NBD_FLAG_SEND_FLUSH)) {
		td_log(LOG_NOTICE,
		       "nbd:%s: the server does not support flush: if it goes away, all requests "
		       "fail",
		       image->path);
		n->reconnect = 0;
	} else if (nbdc_keep_open(&n->keep) < 0) {
		td_log(LOG_WARNING,
		       "nbd:%s: no memory for what is not flushed: if the server goes away, all "
		       "requests fail",
		       image->path);
		n->reconnect = 0;
	}
}

static int client_open(struct td_image *image, struct td_err *err)
{
	struct nbdc_client *n = image->priv;
	bool same = false, blind = false;
	struct nbdc_left was;
	int rc;

	n->name = image->path;
	n->image = image;
	n->loop = image->io->loop;
	n->nosync = image->file_flags & TD_FILE_NOSYNC;
	n->copy = image->file_flags & TD_FILE_COPY;
	n->lock = -1;
	n->trying = -1;
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
	fill_info(image, &n->x);
	nbdc_wire_start(n);
	/* a copy promises nothing before its first flush, which its mirror waits for as it does for
	 * all (MI2 of tapdisk/mirror.h) */
	if (!rc && writes(image) && !n->copy)
		rc = settle_left(image, &was, blind, err);
	if (rc < 0) {
		let_go(image, n->fd, &n->x, nbdc_wire_stop(n));
		forget_left(n);
	} else {
		may_reconnect(n); /* from here on: an open fails at once */
		nbdc_again_start(n);
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
		td_log(LOG_ERR,
		       "nbd:%s: what was written under cache=unsafe could not be flushed: %s",
		       image->path, strerror(-rc));
}

static void client_close(struct td_image *image)
{
	struct nbdc_client *n = image->priv;

	flush_at_last(image);
	nbdc_again_stop(n);
	let_go(image, n->fd, &n->x, nbdc_wire_stop(n));
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
		nbdc_wire_submit(n, req);
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
};
