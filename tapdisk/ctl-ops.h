/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the operations of ctl-ops.c share with those of ctl-move.c.  Each gives 0 or -errno with text. */
#ifndef TAPDISK_CTL_OPS_H
#define TAPDISK_CTL_OPS_H

#include "tapdisk/ctl.h"
#include "tapdisk/server.h"

int ctl_get_int(const json_t *req, const char *key, json_int_t min, json_int_t max, json_int_t *out, struct td_err *err);
int ctl_get_options(const json_t *req, struct vbd_options *o, struct td_err *err);
int ctl_get_params(const json_t *req, struct blkif_params *p, struct td_err *err);
struct vbd_past ctl_get_past(const json_t *past);

/* ctl-move.c */
int ctl_op_handover(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
int ctl_op_adopt(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);

#endif
