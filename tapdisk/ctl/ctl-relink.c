/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vhd-util modify -p on an image that is open here: we are its writer, so we write the name. */
#include <errno.h>

#include "lib/bytes.h"
#include "tapdisk/ctl/ctl-ops.h"

int ctl_op_relink(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	const char *file = json_string_value(json_object_get(call->req, "file"));
	const char *uuid = json_string_value(json_object_get(call->req, "uuid"));
	struct td_relink to = {.relative =
				       json_string_value(json_object_get(call->req, "relative")),
			       .name = json_string_value(json_object_get(call->req, "name")),
			       .raw = json_is_true(json_object_get(call->req, "raw"))};
	json_int_t time = 0;
	int rc = ctl_get_int(call->req, "timestamp", 0, UINT32_MAX, &time, err);

	if (rc < 0)
		return rc;
	if (!file || !to.relative || !to.name || !uuid ||
	    !td_get_hex(uuid, to.uuid, sizeof to.uuid))
		return td_fail(err, EINVAL,
			       "'file', 'relative', 'name' or 'uuid' is missing or malformed");
	to.timestamp = (uint32_t)time;
	return vbd_relink(v, file, &to, err);
}
