/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/attach/media.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ctl-client.h"

#define SLOW 30 /* s for a pause and for an open */

static int send_op(pid_t pid, int minor, const char *op, const char *args, struct td_err *err)
{
	json_t *req = json_pack("{s:s,s:i}", "op", op, "minor", minor);

	if (args && json_object_set_new(req, "args", json_string(args))) {
		json_decref(req);
		return td_fail(err, EILSEQ, "'%s' is not UTF-8 text", args);
	}
	return td_ctl_call(pid, req, NULL, 0, SLOW, NULL, NULL, NULL, err);
}

/* params as the hotplug script reads them, for a guest that starts anew. */
static int note(struct store *s, const struct xs_disk *v, const char *spec, struct td_err *err)
{
	int rc = store_write_text(s, v->back, "params", spec);

	return rc ? td_fail(err, -rc, "cannot write %s/params in xenstore: %s", v->back,
			    strerror(-rc))
		  : 0;
}

static int change_medium(struct store *s, const struct xs_disk *v, pid_t pid, int minor,
			 const char *spec, struct td_err *err)
{
	int rc = send_op(pid, minor, "pause", NULL, err);

	if (rc)
		return rc;
	rc = send_op(pid, minor, "unpause", spec ? spec : "empty:drive", err);
	if (rc && spec && !send_op(pid, minor, "unpause", "empty:drive", NULL))
		note(s, v, "", NULL);
	return rc ? rc : note(s, v, spec ? spec : "", err);
}

int vbd_media(struct store *s, const struct xs_disk *v, const char *medium, struct td_err *err)
{
	int64_t pid = store_read_number(s, v->back, "pid", INT_MAX),
		minor = store_read_number(s, v->back, "minor", TD_MINOR_MAX - 1);
	char *spec = NULL;
	int rc;

	if (!store_exists(s, v->back))
		return td_fail(err, ENODEV, "domain %u has no %s disk of number %u", v->domid,
			       v->type, v->devid);
	if (!store_read_is(s, v->back, "device-type", "cdrom"))
		return td_fail(err, EINVAL, "%s is no CD drive (devtype=cdrom): its medium stays",
			       v->back);
	if (pid <= 0 || minor < 0)
		return td_fail(err, ENODEV, "%s has no tapdisk; was its hotplug script run?",
			       v->back);
	if (medium && asprintf(&spec, "%s%s", *medium == '/' ? "aio:" : "", medium) < 0)
		return td_fail(err, ENOMEM, "out of memory");
	rc = change_medium(s, v, (pid_t)pid, (int)minor, spec, err);
	free(spec);
	return rc;
}
