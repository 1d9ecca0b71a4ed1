/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The operations with which disks go from one process to another (tapdisk/ctl/handover.h): the
 * side that gives, and the one that takes. */
#include <errno.h>
#include <string.h>

#include "lib/bytes.h"
#include "lib/passed.h"
#include "tapdisk/ctl/ctl-ops.h"
#include "tapdisk/ctl/handover.h"
#include "tapdisk/sandbox/sandbox.h"

static void tell_given(void *arg, const struct vbd *v, double pause)
{
	ctl_send(arg, json_pack("{s:{s:i, s:f}}", "row", "minor", v->minor, "pause", pause));
}

int ctl_op_handover(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_int_t to;
	int rc = ctl_get_int(call->req, "to", 2, INT32_MAX, &to, err);

	if (!rc)
		rc = handover((pid_t)to, tell_given, call, err);
	if (!rc)
		server_end();
	return rc;
}

/* A connection that the disk's mirror had, under its name again. */
static int keep_passed(struct ctl_call *call, int *used, struct td_err *err)
{
	const json_t *p = json_object_get(call->req, "passed");
	const char *name = json_string_value(json_object_get(p, "name")),
		   *hex = json_string_value(json_object_get(p, "note"));
	uint8_t note[TD_PASSED_NOTE];
	int rc;

	if (!p)
		return 0;
	if (!name || !hex || call->nfds <= *used || strlen(hex) != 2 * sizeof note ||
	    !td_get_hex(hex, note, sizeof note))
		return td_fail(err, EINVAL, "the mirror's connection makes no sense");
	rc = td_passed_keep(name, call->fds[*used], note, sizeof note);
	call->fds[(*used)++] = -1; /* taken over */
	return rc < 0 ? td_fail(err, -rc, "the mirror's connection is not kept: %s", strerror(-rc))
		      : 0;
}

/* Whoever asks this kills us when we fail: nothing is undone, and above all not the records. */
int ctl_op_adopt(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	const char *spec = json_string_value(json_object_get(call->req, "args"));
	struct vbd_past past = ctl_get_past(json_object_get(call->req, "past"));
	int rc, used = 1;
	struct vbd_options o;
	json_int_t minor;
	json_t *ring;
	size_t i;

	rc = ctl_get_options(call->req, NULL, &o, err);
	if (!rc)
		rc = ctl_get_int(call->req, "minor", 0, TD_MINOR_MAX - 1, &minor, err);
	if (!rc && (!spec || call->nfds < 1))
		rc = td_fail(err, EINVAL, "'args' is missing, or the marker is");
	if (rc < 0)
		return rc;
	if (json_is_true(json_object_get(call->req, "network")))
		sandbox_expect_network();
	rc = server_adopt((int)minor, call->fds[0], &v, err);
	call->fds[0] = -1; /* taken over */
	if (!rc)
		rc = keep_passed(call, &used, err);
	if (!rc)
		rc = vbd_reopen(v, spec, &o, &past, err);
	json_array_foreach (json_object_get(call->req, "rings"), i, ring)
		if (!rc)
			rc = ctl_adopt_ring(call, v, ring, &used, err);
	if (!rc)
		server_adopted(v);
	return rc;
}
