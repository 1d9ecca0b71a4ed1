/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/drivers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/nbd-uri.h"

static const struct td_driver *const drivers[] = {
	&td_driver_raw,   &td_driver_vhd,  &td_driver_null, &td_driver_empty,
	&td_driver_qcow2, &td_driver_qcow, &td_driver_nbd,
#ifdef HAVE_RBD
	&td_driver_rbd,
#endif
};

/* Types that hosts write and that this build has no driver for. */
static const char *const known[] = {"ram", "rbd", "vdi", "log"};

const struct td_driver *td_driver_find(const char *type, struct td_err *err)
{
	char list[160] = "";

	for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
		const struct td_driver *d = drivers[i];

		if (!strcmp(type, d->name) || (d->alias && !strcmp(type, d->alias)))
			return d;
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
			 d->name);
		if (d->alias)
			snprintf(list + strlen(list), sizeof list - strlen(list), ", %s", d->alias);
	}
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(type, known[i])) {
			td_fail(err, ENOSYS,
				"this build has no driver for the type '%s': it has %s", type,
				list);
			return NULL;
		}
	td_fail(err, ENOENT, "unknown disk type '%s': the types are %s", type, list);
	return NULL;
}

const struct td_driver *td_driver_parse(const char *spec, const char **path, struct td_err *err)
{
	const char *colon = strchr(spec, ':');
	char type[32];

	if (nbd_is_spec(spec) && strncmp(spec, "nbd:", 4)) { /* a URI of another scheme */
		if (strlen(spec) > 4095) {
			td_fail(err, ENAMETOOLONG, "the URI is longer than 4095 bytes");
			return NULL;
		}
		*path = spec;
		return &td_driver_nbd;
	}

	if (!colon || colon == spec || !colon[1]) {
		td_fail(err, EINVAL,
			"'%.200s' is not of the form type:path, as in aio:/srv/disk.img", spec);
		return NULL;
	}
	if (strlen(colon + 1) > 4095) {
		td_fail(err, ENAMETOOLONG, "the path after '%.*s:' is longer than 4095 bytes",
			(int)(colon - spec), spec);
		return NULL;
	}
	snprintf(type, sizeof type, "%.*s", (int)(colon - spec), spec);
	*path = colon + 1;
	return td_driver_find(type, err);
}
