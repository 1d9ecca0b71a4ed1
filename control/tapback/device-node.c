/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a device's directory in xenstore says of it, and the list of those to be looked at. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/tapback/device.h"
#include "lib/ctl-dir.h"

void device_mark(struct device *d)
{
	assert(d->magic == DEVICE_MAGIC);
	if (td_list_empty(&d->dirty))
		td_list_add(&d->m->dirty, &d->dirty);
}

/* Writes, or with a NULL value removes; -ENOENT when the directory is gone. */
static int write_kept(struct device *d, const char *key, const char *value)
{
	struct store *s = d->m->store;
	int rc;

	do {
		rc = store_begin(s);
		if (rc)
			return rc;
		if (store_read_number(s, d->dir, "state", 8) == -1)
			rc = -ENOENT;
		else
			rc = value ? store_write(s, d->dir, key, "%s", value)
				   : store_remove(s, d->dir, key);
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	return rc;
}

void device_write(struct device *d, const char *key, const char *value)
{
	int rc;

	assert(d->magic == DEVICE_MAGIC);
	rc = write_kept(d, key, value);
	if (rc && rc != -ENOENT)
		td_log(LOG_ERR, "%s: cannot write the key %s in xenstore: %s", d->dir, key,
		       strerror(-rc));
}

void device_state(struct device *d, int state)
{
	assert(d->magic == DEVICE_MAGIC);
	if (d->b.state == state)
		return;
	td_log(LOG_DEBUG, "%s: backend state %d -> %d", d->dir, d->b.state, state);
	device_write(d, "state", (const char[]){(char)('0' + state), 0});
	d->b.state = state;
}

void device_error(struct device *d, const char *why)
{
	char path[STORE_PATH];

	assert(d->magic == DEVICE_MAGIC);
	snprintf(path, sizeof path, "error/%s", d->dir);
	if (why)
		store_write(d->m->store, path, "error", "%s", why);
	else if (store_exists(d->m->store, path))
		store_remove(d->m->store, path, NULL);
	device_write(d, "tapdisk-error", why);
}

void device_say(struct device *d, const char *now, const char *reason)
{
	bool well = !strcmp(now, "running"), has = reason && *reason;

	assert(d->magic == DEVICE_MAGIC);
	if (!strcmp(d->said, now))
		return;
	if (!well || d->said[0])
		td_log_limited(&d->limit, well ? LOG_NOTICE : LOG_ERR, "%s: tapdisk %d: %s%s%s",
			       d->dir, (int)d->pid, now, has ? ": " : "", has ? reason : "");
	snprintf(d->said, sizeof d->said, "%s", now);
	device_write(d, "reason", has ? reason : NULL);
	device_write(d, "tapdisk-state", now); /* last: who waits for it reads the reason then */
}

void device_note_successor(struct device *d)
{
	char text[64];

	assert(d->magic == DEVICE_MAGIC);
	snprintf(text, sizeof text, "%d", (int)d->pid);
	device_write(d, "pid", text);
	snprintf(text, sizeof text, "%s/nbd%d.%d", td_ctl_dir(), (int)d->pid, d->minor);
	device_write(d, "physical-device-path", text);
}

void device_again_in(struct device *d, double seconds)
{
	assert(d->magic == DEVICE_MAGIC);
	ev_timer_stop(d->m->loop, &d->retry);
	ev_timer_set(&d->retry, seconds, 0.);
	ev_timer_start(d->m->loop, &d->retry);
}
