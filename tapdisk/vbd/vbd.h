/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One disk: a minor number, its chain of images, its cache layer, and the rings of the guests that
 * use it.  Everything runs in the main thread, except rings that have one of their own
 * (tapdisk/cache/lane.h).  An operation that may wait runs on a fiber, one at a time for each disk
 * (others queue).  The state diagram is at the top of vbd.c.
 */
#ifndef TAPDISK_VBD_H
#define TAPDISK_VBD_H

#include "lib/fiber/fiber-lock.h"
#include "tapdisk/blkif/blkif.h"
#include "tapdisk/cache/cache.h"
#include "tapdisk/changed.h"
#include "tapdisk/leaf-cache.h"
#include "tapdisk/mirror/mirror.h"
#include "tapdisk/nbd/nbd.h"
#include "tapdisk/options.h"
#include "tapdisk/parent-disk.h"
#include "tapdisk/queue.h"
#include "tapdisk/vbd/peers.h"
#include "tapdisk/vbd/stall.h"
#include "tapdisk/stats/stats.h"

#define VBD_MAGIC 0x76626420u

/*
 * A guest's ring.  A device has one, or one a queue; a disk has one device as a rule; a second
 * belongs to the same machine (a guest and its stub domain, or the two ends of a migration to the
 * same host), and a read-only disk has one for each reader.  All go through the one cache layer.
 */
struct vbd_ring {
	struct td_list link;   /* vbd.rings, or vbd.given */
	struct blkif *blkif;   /* NULL: given away */
	struct lane *lane;     /* NULL: the main thread serves it */
	const char *transport; /* "xen" or "mem" */
	/* of one that was given away, and what else makes its transport anew */
	struct blkif_params p;
	int fds[TD_XPORT_FDS], nfds;
};

struct vbd {
	unsigned magic;
	int minor;
	int marker;          /* descriptor of tapdisk-<minor>, flock'ed */
	struct td_list link; /* the server's list of disks */
	struct queue *queue;
	unsigned state; /* TD_STATE_*, without those that follow from the cache layer: see
			   vbd_state() */
	char *spec;     /* type:path; NULL when closed */
	char file[48];  /* which file that is, under any name: DEV:INODE, or of a device "bRDEV";
			   empty: no file */
	char born[33];  /* of its opening, over all pauses and processes; empty: not known */
	struct vbd_options opt;
	struct parent_disk_id beneath;  /* of opt.parent_disk */
	struct td_image *leaf;          /* NULL when closed or paused */
	struct td_redo *redo;           /* its log, or NULL; goes with it, except the file */
	bool log_waits;                 /* closed: the log still holds something */
	struct leaf_cache *kept;        /* of the leaf: what is read beneath it; or NULL */
	struct changed *changes;        /* its log of changed blocks; NULL: none, or no leaf */
	struct vbd_job *job;            /* its live commit, under way or over; or NULL */
	struct mirror *mirror;          /* NULL: none, or no leaf */
	struct td_image *copy;          /* the mirror's chain */
	bool mirror_failed;             /* that of opt, and it is not tried again */
	bool redirected;                /* the leaf is full (MI10 of tapdisk/mirror/mirror.h) */
	struct td_server mirror_server; /* who has its copy, or had it when the disk was paused */
	struct td_sync_mark *syncs;     /* lib/syncmark.h: from its opening on; NULL: none */
	struct td_sync_mark copy_syncs; /* of the mirror's copy, in this process */
	const struct vbd_past *past; /* what its last process has left, while it is opened instead
					of that one; or NULL */
	struct cache cache;
	struct stall stall;
	struct peers peers;
	struct stats stats;       /* from open to close */
	struct blkif_disk disk;   /* what the rings see of us */
	bool sticky_recorded;     /* a flush that failed is in the disk's record, or soon is */
	struct td_lock recording; /* one at a time writes that */
	struct td_list rings;     /* struct vbd_ring, in order of their connection */
	struct blkif *leaving;    /* the ring that is being disconnected, or NULL */
	struct nbd_disk nbd_disk; /* what NBD's clients see of us */
	/* set while the disk is closed, and ours from then on; NULL: no NBD server */
	struct nbd *nbd;
	bool nbd_leaving;            /* its clients are being let go */
	struct td_req ahead;         /* a handover's flush, while the guest runs: */
	bool ahead_runs, ahead_left; /* it is under way; nobody waits for it any more */
	bool all_leave; /* every request is answered with an error: the medium that they were for is
			   gone */
	struct td_fiber *waiter; /* the operation that waits for the disk to be idle */
	struct td_list given;   /* rings that wait, while the disk is handed over to another process
				   (tapdisk/ctl/handover.h) */
	bool giving, going;     /* it is being handed over; and its image was open */
	pid_t moved;            /* the process that has the disk now; 0: this one */
	bool locked;            /* an operation is at work */
	struct td_list lockers; /* and these wait for it */
	unsigned users;         /* operations that wait without holding it */
	bool heard, follows;    /* its image may have another size; a fiber sees to that */
	void (*changed)(struct vbd *v); /* state, size, reason or ring has changed */
};

/* Attached and closed.  marker: taken over. */
struct vbd *vbd_new(struct queue *q, int minor, int marker, void (*changed)(struct vbd *v));
bool vbd_busy(const struct vbd *v); /* open, or an operation is at work */
void vbd_free(struct vbd *v);       /* not busy */

/* The following may wait: on a fiber.  timeout in seconds; 0: no limit. */
int vbd_open(struct vbd *v, const char *spec, const struct vbd_options *o, struct td_err *err);
/* A live commit, as it is recorded (tapdisk/vbd/record.h). */
enum vbd_job_state { VBD_JOB_RUNNING, VBD_JOB_CONCLUDED, VBD_JOB_FAILED };
struct vbd_job_was {
	char node[TD_SPEC_MAX]; /* the image's path; "": there is no commit */
	char base[TD_SPEC_MAX]; /* its parent, as type:path */
	char text[256];         /* why it has failed */
	enum vbd_job_state state;
	int err;            /* -errno of that */
	bool lost;          /* a sync of the parent has failed: what is read there may not last, and
			       no commit relies on it until the disk is closed */
	uint64_t at;        /* bytes of the image that are durable in its parent */
	uint64_t done, all; /* bytes */
	uint64_t rate;      /* bytes a second; 0: no limit */
};

/* In the place of a dead process: as open, with what its record says beside (tapdisk/vbd/record.h).
 */
struct vbd_past {
	bool paused;      /* the image is not opened before the unpause */
	uint64_t sectors; /* paused: the size that guests know */
	int sticky;       /* -errno of a flush that failed, or 0 */
	bool log;         /* there is a log of changes (G6 of lib/redo.h) */
	struct vbd_job_was job;
	bool mirror_failed, redirected;
	struct td_server mirror_server;
	bool handed; /* it was closed cleanly, for this process (MI8 of tapdisk/mirror/mirror.h) */
	char born[33];
	struct parent_disk_id beneath;
};
int vbd_reopen(struct vbd *v, const char *spec, const struct vbd_options *o,
	       const struct vbd_past *past, struct td_err *err);
int vbd_close(struct vbd *v, bool force, int timeout, struct td_err *err);
int vbd_pause(struct vbd *v, int timeout, struct td_err *err);
/* spec or o NULL: as before; but a log of changed blocks ends with the pause, unless o names one.
 */
int vbd_unpause(struct vbd *v, const char *spec, const struct vbd_options *o, struct td_err *err);
int vbd_resize(struct vbd *v, struct td_err *err); /* looks at the image's size again */
/* How much it may be asked for from now on (tapdisk/limit.h); paused too. */
int vbd_limit(struct vbd *v, const struct limit_rates *r, struct td_err *err);
/* Names another parent in the leaf, which is `file' (struct vbd.file); the chain stays open as it
 * is. */
int vbd_relink(struct vbd *v, const char *file, const struct td_relink *to, struct td_err *err);

/*
 * Live commit (tapdisk/commit.h).  vbd_commit begins one, or fails with -ENODEV (not open, or
 * paused), -EOPNOTSUPP (no chain of the kind) or, for all else, -EINVAL.  A pause and a close
 * cancel it.  vbd_commit_query: the error of one that has failed, until there is another; that of
 * one that is concluded it tells once; and it completes a leaf's that is ready.
 */
struct vbd_commit {
	const char *image; /* path or type:path, of the chain */
	uint64_t rate;     /* bytes a second; 0: no limit */
	bool force; /* images in files that are not open do not count as users of the parent */
};
struct vbd_job_told {
	const char *status; /* as QEMU calls it */
	uint64_t done, all; /* bytes */
};
int vbd_commit(struct vbd *v, const struct vbd_commit *c, struct td_err *err);
int vbd_commit_query(struct vbd *v, struct vbd_job_told *out, struct td_err *err);
int vbd_commit_cancel(struct vbd *v, bool wait, struct td_err *err);
const struct vbd_job_was *vbd_job_now(struct vbd *v); /* NULL: there is none */

enum {
	/* the toolstack's word that the others' rings are of the same machine */
	VBD_BESIDE = 1u << 0,
	VBD_TAKE_OVER = 1u << 1, /* the ring of a dead tapdisk that had this minor, with what was in
				    flight (tapdisk/blkif/inflight.h) */
};

/*
 * A guest's device, with its n rings: p[i] is queue i, reached through x[i]; or, n being 1, one
 * further queue of it.  Takes all of x over, also on failure.  0 too when they are connected in
 * just this way already.  how: VBD_*; without BESIDE -EBUSY when another device is there, unless
 * the disk is read-only.
 */
int vbd_connect(struct vbd *v, struct td_xport **x, unsigned n, const char *transport,
		const struct blkif_params *p, unsigned how, struct td_err *err);
int vbd_disconnect(struct vbd *v, unsigned domid, unsigned devid, struct td_err *err);

/*
 * To another process (tapdisk/ctl/handover.h), which opens the disk with what record_json() says
 * and takes its rings over.  After vbd_give the disk is at rest, its rings are in v->given, and
 * every operation on it waits for one of the two others: taken, `to' has it, and nothing of it is
 * left here; or taken back, when the other is surely gone.  vbd_take_back cannot fail: what does
 * not work is logged, and shows in the state.  *began: td_clock_s() at which the guest's pause
 * began.
 */
int vbd_give(struct vbd *v, double *began, struct td_err *err);
void vbd_taken(struct vbd *v, pid_t to);
void vbd_take_back(struct vbd *v);
void vbd_stay(struct vbd *v); /* on a fiber: waits for the end of that, if it is going on */

struct blkif *vbd_ring(const struct vbd *v); /* the first one, or NULL */
unsigned vbd_state(const struct vbd *v);     /* TD_STATE_*, all of them */
const char *vbd_reason(const struct vbd *v); /* why it does not serve, or NULL */

#endif
