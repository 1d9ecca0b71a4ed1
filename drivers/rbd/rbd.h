/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the driver for Ceph's block devices, over librbd.  rbd-lib.c: the library, opened
 * when it is needed; rbd-spec.c: what stands behind rbd:; rbd-call.c: calls that may wait;
 * rbd-cluster.c: connections to clusters; rbd-lock.c: the exclusive lock, and a dead predecessor;
 * rbd-left.c: what a process leaves to its successor; rbd-cache.c: does librbd cache?; rbd-io.c:
 * requests; rbd.c: opens and closes.
 *
 * RB1 a call of librbd or librados that may wait for the cluster is never made on a thread that
 *     serves.  It has a thread of its own, and whoever waits for it waits for a limited time; a
 *     call that returns later undoes itself what it has done
 * RB2 an operation that was handed to librbd is answered when librbd answers it, however long that
 *     takes.  The time limits that a cluster's configuration can set for operations
 *     (rados_osd_op_timeout) are switched off: a write that was given up could land later, on top
 *     of newer data
 * RB3 where the mode bypasses the host's cache, librbd's cache is off as well.  An image and a pool
 *     can have a configuration of their own, which goes before ours: so what is in force is looked
 *     at, and an image that would be cached all the same is not opened.  A cache in persistent
 *     memory or on an SSD of the host is refused in every mode, as it would not move with the disk
 * RB4 without a cache, a write that was acknowledged is durable: all OSDs that hold it have it on
 *     disk.  With one, a FUA write is the write and a flush after it
 * RB5 an image that is opened for writing has the feature exclusive-lock, and its lock is held
 *     until it is closed.  It is taken from nobody who is alive, and given to nobody who asks
 * RB6 a client's address is noted for a successor before the client asks for the lock.  If the
 *     process dies, the successor has the cluster blocklist that client before anything is
 *     replayed, since an OSD may still execute its requests; and it breaks that client's lock, and
 *     no other
 * RB7 what a dead process had acknowledged and not flushed was in its own cache, and is lost.  Such
 *     a disk counts as one whose flush has failed (S2 of lib/settle.h)
 * RB8 a client that was blocklisted, or has lost its lock, serves nothing any more: all requests
 *     fail until the disk is closed and opened again
 * RB9 a key is never a part of a name, since names are in command lines, logs and records
 */
#ifndef DRIVERS_RBD_H
#define DRIVERS_RBD_H

#include <rados/librados.h>
#include <rbd/librbd.h>

#include "td/block.h"

#define RBDC_OPEN_WAIT  30 /* s: an open gives up, of which for the monitors: */
#define RBDC_MON_WAIT   15
#define RBDC_CLOSE_WAIT 30 /* s: a close is left behind */

/* --- rbd-lib.c --- */

/* what is used of the libraries */
#define RBDC_RADOS(X)                                                                              \
	X(rados_create2)                                                                           \
	X(rados_conf_read_file)                                                                    \
	X(rados_conf_set)                                                                          \
	X(rados_connect)                                                                           \
	X(rados_shutdown)                                                                          \
	X(rados_getaddrs)                                                                          \
	X(rados_buffer_free)                                                                       \
	X(rados_blocklist_add)                                                                     \
	X(rados_wait_for_latest_osdmap)                                                            \
	X(rados_ioctx_create)                                                                      \
	X(rados_ioctx_destroy)                                                                     \
	X(rados_ioctx_set_namespace)
#define RBDC_RBD(X)                                                                                \
	X(rbd_open)                                                                                \
	X(rbd_open_read_only)                                                                      \
	X(rbd_close)                                                                               \
	X(rbd_get_size)                                                                            \
	X(rbd_get_features)                                                                        \
	X(rbd_config_image_list)                                                                   \
	X(rbd_config_image_list_cleanup)                                                           \
	X(rbd_lock_acquire)                                                                        \
	X(rbd_lock_get_owners)                                                                     \
	X(rbd_lock_get_owners_cleanup)                                                             \
	X(rbd_lock_break)                                                                          \
	X(rbd_watchers_list)                                                                       \
	X(rbd_watchers_list_cleanup)                                                               \
	X(rbd_set_image_notification)                                                              \
	X(rbd_poll_io_events)                                                                      \
	X(rbd_aio_create_completion)                                                               \
	X(rbd_aio_get_arg)                                                                         \
	X(rbd_aio_get_return_value)                                                                \
	X(rbd_aio_release)                                                                         \
	X(rbd_aio_readv)                                                                           \
	X(rbd_aio_writev)                                                                          \
	X(rbd_aio_discard)                                                                         \
	X(rbd_aio_write_zeroes)                                                                    \
	X(rbd_aio_flush)

struct rbdc_lib {
#define RBDC_MEMBER(name) __typeof__(&name) name;
	RBDC_RADOS(RBDC_MEMBER)
	RBDC_RBD(RBDC_MEMBER)
#undef RBDC_MEMBER
};

/* Any thread, and it reads files: opens the libraries, once.  NULL with text: they are not there,
 * or too old. */
const struct rbdc_lib *rbdc_lib_open(struct td_err *err);
/* What rbdc_lib_open() has opened. */
extern const struct rbdc_lib *rbdc_lib;

/* --- rbd-spec.c --- */

/* pool[/namespace]/image[@snapshot][:key=value]... */
struct rbdc_spec {
	char *text; /* the rest points into it */
	const char *pool, *ns, *image;
	const char *snap;                          /* or NULL */
	const char *conf, *id, *keyring, *cluster; /* or NULL */
};

int rbdc_spec_parse(const char *name, struct rbdc_spec *out, struct td_err *err);
void rbdc_spec_free(struct rbdc_spec *s);

/* --- rbd-call.c --- */

/*
 * On a fiber: runs fn(arg) on a thread of its own, and waits `limit' seconds for it.  Its result,
 * which is no -EINPROGRESS; or that: arg is then the thread's, which calls undo(arg) when fn has
 * returned.  -EAGAIN with nothing done: there is no thread to be had.
 */
int rbdc_call(struct ev_loop *loop, int (*fn)(void *arg), void (*undo)(void *arg), void *arg,
	      double limit);

/* --- rbd-cluster.c --- */

#define RBDC_ADDR 128 /* bytes of a client's address, as "10.0.0.1:0/1234567" */

struct rbdc_cluster {
	rados_t rados;
	char addr[RBDC_ADDR]; /* this client's */
	bool stale;           /* it was blocklisted: no further image is opened through it */
	/* rbd-cluster.c's */
	char *key;
	unsigned users;
	struct td_list link;
};

/* On a thread that may wait: the connection of this process to that cluster, made if it is not
 * there yet.  0 or -errno with text. */
int rbdc_cluster_get(const struct rbdc_spec *s, bool cached, struct rbdc_cluster **out,
		     struct td_err *err);
void rbdc_cluster_put(struct rbdc_cluster *c); /* likewise; the last one disconnects */

/* --- rbd-left.c --- */

#define RBDC_DEAD 8

/* What a process leaves to its successor; each is stored before what follows from it. */
struct rbdc_left {
	uint32_t magic, failed; /* failed: a flush or a durable write was answered with an error */
	/* changes that were acknowledged without being durable; and how many of these a flush has
	 * covered */
	uint64_t changed, covered;
	/* RB6: clients that may have requests under way; "" is none */
	char clients[RBDC_DEAD][RBDC_ADDR];
	char name[4200]; /* of the image, as in rbd:NAME */
};

/* The file image->left: a new one, or `again' the one that is there.  *was: what it said; its
 * clients stay noted until rbdc_left_fenced().  0 or -errno with text. */
int rbdc_left_open(struct rbdc_left **left, struct rbdc_left *own, const struct td_image *image,
		   bool again, struct rbdc_left *was, struct td_err *err);
void rbdc_left_close(struct rbdc_left **left, struct rbdc_left *own);
/* Notes this client; -EMFILE: too many died before they were fenced. */
int rbdc_left_client(struct rbdc_left *l, const char *addr);
void rbdc_left_fenced(struct rbdc_left *l, const char *addr); /* all others are fenced */
bool rbdc_left_doubt(const struct rbdc_left *was);            /* RB7 */
void rbdc_left_settled(struct rbdc_left *l);                  /* whoever opened it has been told */
void rbdc_left_changed(struct rbdc_left *l);
void rbdc_left_covered(struct rbdc_left *l, uint64_t changed);
void rbdc_left_failed(struct rbdc_left *l);

/* --- an open image: rbd.c --- */

/* Closed when nobody uses it any more, which may be later than the td_image's end. */
struct rbdc_handle {
	int users; /* the image, and calls under way */
	struct rbdc_cluster *cluster;
	rados_ioctx_t pool;
	rbd_image_t rbd;
	int events; /* an eventfd: completions are there */
	uint64_t size;
	uint32_t discard; /* bytes: smaller discards are ignored */
	bool cached;      /* librbd caches writes */
};

struct rbdc_client {
	struct td_image *image;
	struct ev_loop *loop;
	struct rbdc_spec spec;
	struct rbdc_handle *h;
	bool nosync;                 /* TD_FILE_NOSYNC: nothing need be durable */
	bool lost;                   /* RB8 */
	struct rbdc_left *left, own; /* left: the file's, or own where no successor can be */
	ev_io in;
};

/* --- rbd-cache.c --- */

/* May wait: is what is in force for the image as it must be (RB3)?  Fills h->cached and discard.
 * may: it may be cached. */
int rbdc_cache_check(struct rbdc_handle *h, const char *name, bool may, struct td_err *err);

/* --- rbd-lock.c --- */

/* May wait; RB6: of these clients, of which one may hold the lock, no request is executed any more.
 */
int rbdc_fence(struct rbdc_handle *h, const char *name, char dead[RBDC_DEAD][RBDC_ADDR],
	       struct td_err *err);
int rbdc_lock(struct rbdc_handle *h, const char *name, struct td_err *err); /* may wait; RB5 */
/* May wait: one that is only read, but not as it is at a snapshot, has no writer. */
int rbdc_no_writer(struct rbdc_handle *h, const char *name, struct td_err *err);

/* --- rbd-io.c --- */

void rbdc_io_start(struct rbdc_client *c);
void rbdc_io_stop(struct rbdc_client *c);
void rbdc_submit(struct td_image *image, struct td_req *req); /* as td_driver.submit */

#endif
