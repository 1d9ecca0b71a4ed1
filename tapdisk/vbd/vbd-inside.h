/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vbd.c and the files beside it know of each other. */
#ifndef TAPDISK_VBD_INSIDE_H
#define TAPDISK_VBD_INSIDE_H

#include "tapdisk/vbd/vbd.h"
#include "td/ctl.h"

#define VBD_PAUSED (TD_STATE_CLOSED | TD_STATE_QUIESCED | TD_STATE_PAUSED)

/* --- vbd.c: on a fiber --- */

void vbd_lock(struct vbd *v); /* one operation at a time */
void vbd_unlock(struct vbd *v);
/* Waits until `ready' holds; false when the time is over.  deadline: of td_clock_s(), 0: none. */
bool vbd_wait_until(struct vbd *v, bool (*ready)(const struct vbd *v), double deadline);

/* --- vbd-image.c: on a fiber --- */

/* Opens spec and lets requests through.  fresh: not after a pause. */
int vbd_start(struct vbd *v, const char *spec, const struct vbd_options *o, bool fresh,
	      struct td_err *err);
/* Which opening of a disk it is: a new one, or that of a past process. */
void vbd_identify(struct vbd *v, const struct vbd_past *past);
struct td_how vbd_how(const struct vbd_options *o); /* its images, as far as the options say */
void vbd_tell_nbd(struct vbd *v);                   /* the size, and what else NBD's clients see */

/* Before the disk's images are opened: where their syncs count.  sticky: as its last process has
 * left it. */
void vbd_mark_syncs(struct vbd *v, int sticky);

/* --- vbd-rest.c: on a fiber --- */

/*
 * Brings a running disk to rest and closes its images; -ETIMEDOUT, and with `keep' -ENOSPC for its
 * metadata, and what its log of changed blocks fails with (CB5): it goes on instead.  Any other
 * error: a flush that failed.
 */
int vbd_settle(struct vbd *v, double until, bool keep, struct td_err *err);
/* Its two halves: at rest, with all flushed, or going on as it was; and closed.  rc: of the first.
 */
int vbd_rest(struct vbd *v, double until, bool keep, struct td_err *err);
int vbd_shut(struct vbd *v, int rc, struct td_err *err);
void vbd_go_on(struct vbd *v); /* from rest */

/* --- vbd-commit.c: on a fiber --- */

/* vbd_lock() of an operation that closes the images: a live commit is stopped before.  suspend:
 * another process begins it again, else it is cancelled. */
void vbd_lock_alone(struct vbd *v, bool suspend);
/* locked, the images open: one that was stopped so, or of a dead process, goes on */
void vbd_job_resume(struct vbd *v);
void vbd_job_inherit(struct vbd *v, const struct vbd_job_was *was);
void vbd_job_forget(struct vbd *v); /* none is under way */
bool vbd_job_busy(const struct vbd *v);

/* --- vbd-mirror.c: on a fiber, apart from the last --- */

/* The mirror that o asks for, beside a leaf that has been opened: 0 with *mirror NULL where there
 * is none, or none any more, and then *failed says which. */
int vbd_mirror_open(struct vbd *v, const struct vbd_options *o, const struct td_how *how,
		    struct td_image *leaf, bool fresh, struct mirror **mirror,
		    struct td_image **copy, bool *failed, struct td_err *err);
void vbd_mirror_close(struct mirror *m, struct td_image *copy); /* NULL is fine */
/* A copy that is a part of the disk (MI9 of tapdisk/mirror/mirror.h), for a leaf that stands on its
 * parents already; then the mirror upon both.  MIRROR_READ: it is in the leaf's chain, and ends
 * with it. */
enum mirror_part vbd_mirror_part(const struct vbd_options *o);
int vbd_part_open(const struct vbd_options *o, const struct td_how *how, struct td_image *leaf,
		  bool redirected, struct td_image **copy, struct td_err *err);
int vbd_part_join(struct vbd *v, const struct vbd_options *o, struct td_image *leaf,
		  struct td_image *copy, bool redirected, struct mirror **mirror,
		  struct td_err *err);
/* The disk is closed, or gets another: a connection that was kept for it ends. */
void vbd_mirror_forget(const char *spec);
/* The leaf is full, and the copy has taken its place: for the toolstack. */
void vbd_mirror_tell_full(struct vbd *v);
/* A change was answered with an error: the two may differ from now on. */
void vbd_mirror_torn(struct vbd *v);

/* --- vbd-state.c --- */

bool vbd_lost_data(int sticky); /* is it a failure after which what was not flushed may be lost?  No
				   space is none */
void vbd_on_idle(void *owner);  /* something below has come to rest */
void vbd_listen(struct vbd *v); /* to what its layers tell, from now on */
/* and of each image of a chain that is in use, whether it is corrupt; v NULL: no more */
void vbd_listen_to(struct vbd *v, struct td_image *leaf);

/* --- vbd-ring.c --- */

/* Held, with all answered that is done: closes it, or (leave) lets another process go on with it.
 */
void vbd_ring_close(struct vbd_ring *r, void (*end)(struct blkif *b));
/* x stays the caller's when it fails. */
int vbd_connect_locked(struct vbd *v, struct td_xport *x, const char *transport,
		       const struct blkif_params *p, bool take_over, struct td_err *err);
void vbd_hold_rings(struct vbd *v);
void vbd_run_rings(struct vbd *v);
/* on a fiber: answers all that is in them, and lets go of them */
void vbd_drop_rings(struct vbd *v);
bool vbd_any_live_ring(const struct vbd *v);
const char *vbd_broken_ring(const struct vbd *v); /* why one is broken, or NULL */

#endif
