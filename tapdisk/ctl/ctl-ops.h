/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the files of the control operations (td/ctl.h); nobody else includes this.  Each gives 0
 * or -errno with text. */
#ifndef TAPDISK_CTL_OPS_H
#define TAPDISK_CTL_OPS_H

#include "tapdisk/ctl/ctl.h"
#include "tapdisk/server.h"

/* The number at key, if it is there and in range; else -EINVAL. */
int ctl_get_int(const json_t *req, const char *key, json_int_t min, json_int_t max, json_int_t *out,
		struct td_err *err);
/* spec: the image that a toolstack opens, of which the host may say something; NULL: the words are
 * of a disk that was open, and are all there is. */
int ctl_get_options(const json_t *req, const char *spec, struct vbd_options *o, struct td_err *err);
/* ctl-words.c; on a fiber */
int ctl_add_disk_words(const char *spec, struct vbd_options *o, struct td_err *err);
struct vbd_past ctl_get_past(const json_t *past);

/* ctl-show.c: into an answer's object */
void ctl_put_name(json_t *o, const struct vbd *v);
void ctl_put_state(json_t *o, const struct vbd *v);
void ctl_put_info(json_t *o, const struct vbd *v);
const char *ctl_rings_state(const struct vbd *v); /* of all in one word, or NULL */
json_int_t ctl_answered(const struct vbd *v);
json_int_t ctl_waiting(const struct vbd *v);

/* ctl-ring.c */
int ctl_op_connect(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
int ctl_op_disconnect(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
/* One ring that another process had; *used: of the message's descriptors. */
int ctl_adopt_ring(struct ctl_call *call, struct vbd *v, const json_t *ring, int *used,
		   struct td_err *err);

/* ctl-relink.c */
int ctl_op_relink(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);

/* ctl-commit.c */
int ctl_op_commit(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
int ctl_op_query(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
int ctl_op_cancel(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);

/* ctl-limit.c */
int ctl_op_limit(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);

/* ctl-move.c */
int ctl_op_handover(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
int ctl_op_adopt(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);

#endif
