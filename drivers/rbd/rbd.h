/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of the driver for Ceph's block devices, over librbd.  rbd-lib.c: the library, opened
 * when it is needed; rbd-spec.c: what stands behind rbd:; rbd-call.c: calls that may wait;
 * rbd-cluster.c: connections to clusters; rbd-lock.c: the exclusive lock, and a dead predecessor;
 * rbd-left.c: what a process leaves to its successor; rbd-cache.c: does librbd cache?; rbd-crypt.c:
 * LUKS; rbd-handle.c: an open image; rbd-size.c: its size; rbd-extents.c: holes; rbd-io.c:
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
 * RB6 a client's address is noted for a successor before the client asks for the lock, and after it
 *     has fenced those that were noted before, so that opens that fail while the cluster is away
 *     leave none.  If the process dies, the successor has the cluster blocklist that client before
 *     anything is replayed, since an OSD may still execute its requests; and it breaks that
 *     client's lock, and no other
 * RB7 what a dead process had acknowledged and not flushed was in its own cache, and is lost.  Such
 *     a disk counts as one whose flush has failed (S2 of lib/settle.h)
 * RB8 a client that was blocklisted, or has lost its lock, serves nothing any more: all requests
 *     fail until the disk is closed and opened again
 * RB9 a key is never a part of a name, since names are in command lines, logs and records
 * RB10 a disk grows with its image.  It does not shrink: librbd would cut what is written beyond
 *     the new end, and call it done.  So an image that was shrunk under its guest is a fault that
 *     shows in the disk's state, and changes there fail
 * RB11 a hole is told where librbd knows one, of no place that was changed since, and only of what
 *     nobody else writes; of an encrypted image nothing is told
 * RB12 with a cache, a request is handed to a thread of librbd's first, since it may wait for space
 *     in the cache; without one it is handed on at once, which spares a wake-up, and no limit of
 *     the client's own is in force that could make the call wait (objecter_inflight_ops and _bytes:
 *     the rings limit what is under way).  A discard and zeroes of many objects are handed over
 *     piece by piece, since each object takes its time on the thread that serves
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
	X(rbd_get_flags)                                                                           \
	X(rbd_get_overlap)                                                                         \
	X(rbd_get_stripe_unit)                                                                     \
	X(rbd_get_stripe_count)                                                                    \
	X(rbd_stat)                                                                                \
	X(rbd_read)                                                                                \
	X(rbd_encryption_load)                                                                     \
	X(rbd_update_watch)                                                                        \
	X(rbd_update_unwatch)                                                                      \
	X(rbd_diff_iterate2)                                                                       \
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
	/* RB6: clients that may have requests under way; one counts when its bit is in `whole' */
	uint32_t whole;
	char clients[RBDC_DEAD][RBDC_ADDR];
	char name[4200]; /* of the image, as in rbd:NAME */
};

/* The file image->left: a new one, or `again' the one that is there.  *was: what it said, with
 * "" for each client that does not count; they stay noted until rbdc_left_fenced().  0 or -errno
 * with text. */
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

/* --- an open image: rbd-handle.c --- */

/* Closed when nobody uses it any more, which may be later than the td_image's end. */
struct rbdc_handle {
	int users; /* the image, and calls under way */
	struct rbdc_cluster *cluster;
	rados_ioctx_t pool;
	rbd_image_t rbd;
	int events;       /* an eventfd: completions are there */
	uint64_t size;    /* when it was opened */
	uint64_t object;  /* bytes of an object */
	uint32_t discard; /* bytes: smaller discards are ignored */
	bool cached;      /* librbd caches writes */
	bool encrypted;
	uint64_t watch; /* of changes of the image, if: */
	bool watched;
	bool updated; /* it has changed; atomic */
};

void rbdc_handle_get(struct rbdc_handle *h);
void rbdc_handle_put(struct rbdc_handle *h); /* the last one may wait */

struct rbdc_asking;

struct rbdc_client {
	struct td_image *image;
	struct ev_loop *loop;
	struct rbdc_spec spec;
	struct rbdc_handle *h;
	uint64_t now;                /* bytes that the image has; less than its info says: RB10 */
	bool nosync;                 /* TD_FILE_NOSYNC: nothing need be durable */
	bool lost;                   /* RB8 */
	bool alone;                  /* nobody else writes to it: a snapshot, or ours */
	struct rbdc_asking *asking;  /* questions under way */
	struct rbdc_question *told;  /* the last answer; or NULL */
	struct rbdc_left *left, own; /* left: the file's, or own where no successor can be */
	ev_io in;
};

/* --- rbd-cache.c --- */

/* May wait: is what is in force for the image as it must be (RB3)?  Fills h->cached and discard.
 * may: it may be cached. */
int rbdc_cache_check(struct rbdc_handle *h, const char *name, bool may, struct td_err *err);

/* --- rbd-crypt.c --- */

/* May wait: the image is read and written through its encryption from now on. */
int rbdc_unlock(struct rbdc_handle *h, const char *name, const struct td_key *key,
		struct td_err *err);

/* --- rbd-lock.c --- */

/* May wait; RB6: of these clients, of which one may hold the lock, no request is executed any more.
 */
int rbdc_fence(struct rbdc_handle *h, const char *name, char dead[RBDC_DEAD][RBDC_ADDR],
	       struct td_err *err);
int rbdc_lock(struct rbdc_handle *h, const char *name, struct td_err *err); /* may wait; RB5 */
/* May wait: one that is only read, but not as it is at a snapshot, has no writer. */
int rbdc_no_writer(struct rbdc_handle *h, const char *name, struct td_err *err);

/* --- rbd-size.c --- */

int rbdc_size_watch(struct rbdc_handle *h, const char *name, struct td_err *err); /* may wait */
void rbdc_size_heard(struct rbdc_client *c);                 /* there were events */
int rbdc_resize(struct td_image *image, struct td_err *err); /* as td_driver.resize */

/* --- rbd-extents.c --- */

#define RBDC_KNOWN 256

/* What librbd has said of a range. */
struct rbdc_known {
	uint64_t from, end; /* bytes: the range */
	uint64_t to;        /* it is known up to here, */
	uint64_t cut;       /* or here, where something was changed since */
	uint64_t heard;     /* the end of the last place that librbd has told */
	bool full, bad;
	int n;
	struct td_extent e[RBDC_KNOWN];
};

/* Of a call that may wait, whose caller may have given it up. */
struct rbdc_question {
	struct rbdc_handle *h;
	uint64_t size, want[2]; /* bytes to ask for, without a map of objects and by it */
	struct rbdc_known known;
};

/* By a fiber: where changes have been, while its question is under way. */
struct rbdc_asking {
	struct rbdc_asking *next;
	uint64_t from, cut;
};

struct rbdc_question *rbdc_question_new(struct rbdc_handle *h); /* NULL: no memory */
void rbdc_question_free(void *q);
/* As librbd calls it, for each place in order; then rc is what librbd's call has given. */
int rbdc_known_take(uint64_t off, size_t len, int exists, void *known);
void rbdc_known_finish(struct rbdc_known *k, int rc);
int rbdc_known_tell(const struct rbdc_known *k, uint64_t off, uint64_t len, struct td_extent *out,
		    int max);
void rbdc_extents_changed(struct rbdc_client *c, uint64_t off, uint64_t len);
void rbdc_extents_forget(struct rbdc_client *c);
int rbdc_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		 int max); /* as td_driver.extents */

/* --- rbd-io.c --- */

void rbdc_io_start(struct rbdc_client *c);
void rbdc_io_stop(struct rbdc_client *c);
void rbdc_submit(struct td_image *image, struct td_req *req); /* as td_driver.submit */

#endif
