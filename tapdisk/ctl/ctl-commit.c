/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Live commit (tapdisk/commit.h): begun, asked after, cancelled. */
#include <errno.h>
#include <string.h>

#include "tapdisk/ctl/ctl-ops.h"

int ctl_op_commit(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	struct vbd_commit c = {.image = json_string_value(json_object_get(call->req, "image")),
			       .force = json_is_true(json_object_get(call->req, "force"))};
	json_int_t rate = 0;

	if (json_object_get(call->req, "rate") &&
	    ctl_get_int(call->req, "rate", 0, INT64_MAX, &rate, err) < 0)
		return -EINVAL;
	c.rate = (uint64_t)rate;
	return vbd_commit(v, &c, err);
}

int ctl_op_query(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	struct vbd_job_told told;
	int rc = vbd_commit_query(v, &told, err);

	if (rc)
		return rc;
	json_object_set_new(answer, "status", json_string(told.status));
	json_object_set_new(answer, "done", json_integer((json_int_t)told.done));
	json_object_set_new(answer, "all", json_integer((json_int_t)told.all));
	return 0;
}

int ctl_op_cancel(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	return vbd_commit_cancel(v, json_is_true(json_object_get(call->req, "wait")), err);
}
