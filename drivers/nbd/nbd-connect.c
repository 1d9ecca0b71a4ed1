/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A connection to the server that a disk names, and this host's lock of its export.  What blocks
 * runs in a worker. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "lib/ctl-dir.h"
#include "lib/dial.h"
#include "lib/fiber/fiber.h"

#define CONNECT_TRIES 1000 /* of a server that has too many to let in */
#define TRY_EVERY     0.01 /* s */

struct connect_call {
	struct nbdc_client *n;
	int fd, under;    /* the socket, and the one beneath TLS (K18); or -1 */
	int cancel;       /* of one on another host: hung up when nobody waits */
	int lock;         /* or -1 */
	bool locked;      /* by this call */
	bool further;     /* held_at is the byte that must be locked already */
	uint64_t lock_at; /* its byte */
	uint64_t held_at;
	int *trying;
	struct td_err *err;
};

static uint64_t hash(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len--)
		h = (h ^ *p++) * 0x100000001b3u; /* FNV-1a */
	return h;
}

/* The address that the connection goes to, in its bytes that name it. */
static int name_peer(int fd, uint64_t *h)
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof a;

	if (getpeername(fd, (struct sockaddr *)&a, &len) < 0)
		return -errno;
	*h = hash(*h, &a, len < sizeof a ? len : sizeof a);
	return 0;
}

/* Which byte stands for the export: a socket's number, and its own name if it has one. */
static int name_export(const struct connect_call *c, uint64_t *at)
{
	const struct nbd_uri *u = &c->n->uri;
	uint64_t h = 0xcbf29ce484222325u;
	struct stat st;
	int rc;

	if (u->way == NBD_UNIX) {
		if (stat(u->path, &st) < 0)
			return -errno;
		h = ((uint64_t)st.st_ino & ((UINT64_C(1) << 46) - 1)) |
		    (uint64_t)(st.st_dev & 0xffff) << 46;
	} else {
		rc = name_peer(c->under >= 0 ? c->under : c->fd, &h);
		if (rc == -ENOTCONN && u->tls) /* TLS 1.3: it has seen ours by now */
			return td_fail(c->err, ECONNRESET,
				       "%s: the server has closed the connection: it may not "
				       "accept the client's certificate",
				       c->n->name);
		if (rc < 0)
			return rc;
	}
	if (*u->export || u->way != NBD_UNIX)
		h = hash(h, u->export, strlen(u->export));
	*at = h & INT64_MAX >> 1;
	return 0;
}

/*
 * A server lets in whoever comes, so that two disks of this host could have one export.  An image
 * has one writer: a byte of a file of ours stands for the export, and is locked while the disk is
 * open.
 */
static int lock_export(struct connect_call *c)
{
	bool writes = !(c->n->image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT));
	struct flock byte = {
		.l_type = writes ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	char path[4200];
	int rc = name_export(c, &c->lock_at);

	if (rc < 0)
		return rc;
	if (c->further && c->lock_at != c->held_at)
		return td_fail(c->err, ESTALE,
			       "the server is at another address, or has been "
			       "started anew there");
	if (c->further) {
		c->locked = true;
		return 0;
	}
	byte.l_start = (off_t)c->lock_at;
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
		       "%s is in use by another disk of this host: an export has "
		       "one writer, or any number of readers",
		       c->n->name);
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
	const char *path = c->n->uri.path, *slash = strrchr(path, '/');
	char dir[4097];
	int at, rc = c->locked ? 0 : lock_export(c);

	if (rc < 0)
		return rc;
	if (c->fd < 0) /* here, too: in a sandbox another process makes it */
		c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return -errno;
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

static long connect_path(struct connect_call *c)
{
	struct nbdc_client *n = c->n;
	long rc = -EAGAIN;

	for (int i = 0; rc == -EAGAIN && i < CONNECT_TRIES && !n->closing && !n->lost; i++) {
		rc = td_await_call(n->image->io, connect_run, c);
		if (rc == -EAGAIN)
			td_fiber_wait_for(TRY_EVERY);
	}
	return rc;
}

/* The name may lead to another address each time, so that the lock comes after it. */
static long dial_run(void *arg)
{
	struct connect_call *c = arg;

	c->fd = td_dial(c->n->image->path, c->cancel, c->err);
	if (c->fd < 0)
		return c->fd;
	if (c->n->uri.tls)
		c->under = td_dial_under(c->fd);
	if (c->n->uri.tls && c->under < 0)
		return td_fail(c->err, -c->under, "%s: the relay for TLS has ended", c->n->name);
	return lock_export(c);
}

static long dial(struct connect_call *c)
{
	struct nbdc_client *n = c->n;
	int sv[2];
	long rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	*c->trying = sv[0];
	c->cancel = sv[1];
	rc = td_await_call(n->image->io, dial_run, c);
	*c->trying = -1;
	close(sv[0]);
	close(sv[1]);
	return rc;
}

int nbdc_connect(struct nbdc_client *n, bool further, int *trying, int *under, struct td_err *err)
{
	struct connect_call c = {.n = n,
				 .fd = -1,
				 .under = -1,
				 .lock = n->lock,
				 .further = further,
				 .held_at = n->lock_at,
				 .trying = trying,
				 .err = err};
	long rc = n->uri.way == NBD_UNIX ? connect_path(&c) : dial(&c);

	if (!further)
		n->lock = c.lock;
	if (!rc) {
		if (!further)
			unlock_old(n, c.lock_at);
		*under = c.under;
		return c.fd;
	}
	if (c.fd >= 0)
		close(c.fd);
	if (c.under >= 0)
		close(c.under);
	if (n->uri.way != NBD_UNIX)
		return td_fail(err, (int)-rc, "cannot connect to %s: %s", n->name,
			       strerror((int)-rc));
	return td_fail(err, (int)-rc, "cannot connect to an NBD server at %s: %s", n->uri.path,
		       strerror((int)-rc));
}
