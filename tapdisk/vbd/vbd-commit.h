/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of live commit share: vbd-commit.c, the job; vbd-commit-check.c, whether it may
 * be; vbd-commit-chain.c, how the chain changes.  N, P, A and LC1-LC9: tapdisk/commit.h.  All of it
 * on a fiber. */
#ifndef TAPDISK_VBD_COMMIT_H
#define TAPDISK_VBD_COMMIT_H

#include "tapdisk/commit.h"
#include "tapdisk/vbd/vbd-inside.h"

struct vbd_job {
	struct vbd *vbd;
	struct vbd_job_was is; /* what is told and recorded of it */
	struct commit copy;
	struct td_image *from, *to, *above; /* N; P open for writing; A, NULL: N is the leaf */
	bool active;                        /* its fiber is there */
	bool ready, complete;               /* of a leaf: little is left; and it was asked to end */
	bool suspend;                       /* stopped, and another process begins it again */
};

/* --- vbd-commit.c --- */

/* What is told of it from now on; text: why it failed, or NULL.  The record is the caller's. */
void vbd_job_tell(struct vbd_job *j, enum vbd_job_state state, int err, const char *text);

/* --- vbd-commit-check.c: 0, or -errno with text --- */

/* The disk as it is open; name: of the image, which NULL fails. */
int vbd_commit_check_disk(struct vbd *v, const char *name, struct td_err *err);
/* N and the image beneath it; n NULL: there is none of that name. */
int vbd_commit_check_images(struct vbd *v, const struct td_image *n, const char *name,
			    struct td_err *err);
/* LC7, before P is opened; files: those beside it too. */
int vbd_commit_check_beneath(struct vbd *v, const struct td_image *n, bool files,
			     struct td_err *err);
/* LC7 once more, when P is claimed. */
int vbd_commit_check_claimed(struct vbd *v, const struct vbd_job *j, struct td_err *err);

/* --- vbd-commit-chain.c --- */

struct td_image *vbd_commit_above(const struct vbd *v, const struct td_image *image); /* or NULL */
struct td_image *vbd_commit_find(struct vbd *v, const char *name);                    /* or NULL */
/* P as j->to, open for writing and claimed, as large as N; or -errno with text. */
int vbd_commit_open_base(struct vbd *v, struct vbd_job *j, struct td_err *err);
void vbd_commit_put_in(struct vbd *v, struct vbd_job *j); /* and as N's parent (LC2) */
/* P is a parent as before; or, where it cannot be opened anew, stays open as it is (LC6). */
void vbd_commit_put_back(struct vbd *v, struct vbd_job *j);
/* What a job has left so, or one that was stopped for another process and goes on in this one. */
void vbd_commit_put_back_left(struct vbd *v, struct td_image *n);
/* All is copied: N leaves the chain while guests go on; or, N being the leaf, the disk rests and
 * goes on with P.  0: it is concluded, and told so; or -errno with text, and the chain as before,
 * but for what is told of j->is.lost.  Locked. */
int vbd_commit_take_out(struct vbd *v, struct vbd_job *j, struct td_err *err);
int vbd_commit_turn_over(struct vbd *v, struct vbd_job *j, struct td_err *err);

#endif
