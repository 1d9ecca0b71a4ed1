/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/backend.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td/ctl.h"

#define POLLING_MAX 10000 /* us: a tapdisk takes no more */

bool backend_parse_path(const char *path, pid_t *pid, int *minor)
{
	const char *name = strrchr(path, '/'), *dot;
	uint64_t p, m;
	char digits[16];

	name = name ? name + 1 : path;
	dot = strchr(name, '.');
	if (strncmp(name, "nbd", 3) || !dot || (size_t)(dot - name - 3) >= sizeof digits)
		return false;
	memcpy(digits, name + 3, (size_t)(dot - name - 3));
	digits[dot - name - 3] = 0;
	if (!store_decimal(digits, INT_MAX, &p) || !p ||
	    !store_decimal(dot + 1, TD_MINOR_MAX - 1, &m))
		return false;
	*pid = (pid_t)p;
	*minor = (int)m;
	return true;
}

static void read_tapdisk(struct store *s, const char *dir, struct backend *b)
{
	char *path = store_read(s, dir, "physical-device-path");
	bool ok = path && backend_parse_path(path, &b->pid, &b->minor);
	int64_t pid, minor;

	free(path);
	if (ok)
		return;
	pid = store_read_number(s, dir, "pid", INT_MAX);
	minor = store_read_number(s, dir, "minor", TD_MINOR_MAX - 1);
	if (pid > 0 && minor >= 0) {
		b->pid = (pid_t)pid;
		b->minor = (int)minor;
	}
}

bool backend_read(struct store *s, const char *dir, struct backend *b)
{
	char *v;
	int64_t state;

	memset(b, 0, sizeof *b);
	b->exists = store_exists(s, dir);
	if (!b->exists)
		return false;
	state = store_read_number(s, dir, "state", 8);
	b->state = state == -2 ? XB_UNKNOWN : (int)state;
	b->frontend_id = store_read_number(s, dir, "frontend-id", 0x7fef);
	b->online = !store_read_is(s, dir, "online", "0");
	b->hotplugged = store_read_is(s, dir, "hotplug-status", "connected");
	b->discard = !store_read_is(s, dir, "discard-enable", "0");
	b->removable = store_read_is(s, dir, "removable", "1");
	b->cdrom = store_read_is(s, dir, "device-type", "cdrom");
	b->direct_io_safe = store_read_is(s, dir, "direct-io-safe", "1");
	b->polling_us = store_read_number(s, dir, "polling-duration", POLLING_MAX);
	b->polling_idle = store_read_number(s, dir, "polling-idle-threshold", 100);
	v = store_read(s, dir, "script");
	b->script = v != NULL;
	free(v);
	v = store_read(s, dir, "mode");
	b->read_only = v && v[0] == 'r';
	free(v);
	v = store_read(s, dir, "shutdown-request");
	b->shutdown = !v ? SHUTDOWN_NONE : !strcmp(v, "force") ? SHUTDOWN_FORCE : SHUTDOWN_NORMAL;
	free(v);
	v = store_read(s, dir, "shutdown-done");
	b->shutdown_done = v != NULL;
	free(v);
	v = store_read(s, dir, "frontend");
	/* one that is too long stays too long to pass the check */
	if (v)
		snprintf(b->frontend, sizeof b->frontend, "%s", v);
	free(v);
	read_tapdisk(s, dir, b);
	return true;
}

int backend_check_frontend(const char *dir, const struct backend *b, unsigned domid,
			   struct td_err *err)
{
	char home[40];

	if (b->frontend_id != (int64_t)domid)
		return td_fail(
			err, EINVAL,
			"frontend-id of %s is not %u, the domain that the directory is named after",
			dir, domid);
	snprintf(home, sizeof home, "/local/domain/%u/", domid);
	if (strncmp(b->frontend, home, strlen(home)) || !b->frontend[strlen(home)] ||
	    strlen(b->frontend) > STORE_PATH - 64 || strstr(b->frontend, "//") ||
	    strstr(b->frontend, "/.") || b->frontend[strlen(b->frontend) - 1] == '/')
		return td_fail(err, EINVAL, "the frontend path '%.100s' of %s is not inside %s",
			       b->frontend, dir, home);
	return 0;
}
