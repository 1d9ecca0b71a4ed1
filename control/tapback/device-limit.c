/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits of a disk (tapdisk/limit.h) as keys of its backend directory, which the toolstack may
 * change while the guest runs.  They are words of the tapdisk, which judges them.
 *
 * What has changed since the last look is said, and nothing else: `tap-ctl limit' stays in force
 * over a restart of this daemon, or of the frontend.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/tapback/device.h"
#include "lib/json-get.h"

/* In the order in which they are said; and what lifts one whose key is taken away. */
static const struct {
	const char *key, *lifted;
} words[] = {
	{"limit", NULL},
	{"limit-iops", "0"},
	{"limit-iops-read", "0"},
	{"limit-iops-write", "0"},
	{"limit-bytes", "0"},
	{"limit-bytes-read", "0"},
	{"limit-bytes-write", "0"},
	{"limit-burst", "100"},
};

#define WORDS (sizeof words / sizeof *words)

/* Most disks have none: one look at the directory tells. */
static json_t *read_keys(struct device *d)
{
	json_t *keys = json_object();
	unsigned n = 0;
	char **names = store_list(d->m->store, d->dir, &n);

	for (unsigned i = 0; i < n; i++) {
		bool ours = !strncmp(names[i], "limit", 5) && strcmp(names[i], "limit-error");
		char *value = ours ? store_read(d->m->store, d->dir, names[i]) : NULL;

		if (value)
			json_object_set_new(keys, names[i], td_json_told(value));
		free(value);
	}
	free(names);
	return keys;
}

static void put_word(json_t *said, const char *key, const char *value)
{
	json_array_append_new(said, json_sprintf("%s=%s", key, value));
}

/* From what was seen to what is there now; "limit" lifts all, so that all are said again. */
static json_t *what_changed(const json_t *was, const json_t *is)
{
	json_t *said = json_array();
	bool all = strcmp(td_json_text(was, "limit"), td_json_text(is, "limit"));

	for (unsigned i = 0; i < WORDS; i++) {
		const char *before = td_json_text(was, words[i].key),
			   *now = td_json_text(is, words[i].key);

		if (*now && (all || strcmp(before, now)))
			put_word(said, words[i].key, now);
		else if (!*now && *before && words[i].lifted)
			put_word(said, words[i].key, words[i].lifted);
	}
	return said;
}

static bool is_refused(int err)
{
	return err == -EINVAL || err == -EOPNOTSUPP || err == -ENOSYS;
}

static void on_limits_said(void *arg, int err, json_t *reply, const char *text)
{
	struct device *d = arg;

	d->call = NULL;
	device_mark(d);
	if (err && !is_refused(err)) { /* it is said again, to this tapdisk or to its successor */
		json_decref(d->limits_said);
		d->limits_said = NULL;
		d->verified = false;
		device_again_in(d, DEVICE_RETRY_S);
		return;
	}
	json_decref(d->limits);
	d->limits = d->limits_said;
	d->limits_said = NULL;
	if (err)
		td_log_limited(&d->limit, LOG_ERR, "%s: its limits are not changed: %s", d->dir,
			       text);
	else
		td_log_limited(&d->limit, LOG_INFO, "%s: its limits are changed", d->dir);
	device_write(d, "limit-error", err ? text : NULL);
}

void device_limits_begin(struct device *d)
{
	assert(d->magic == DEVICE_MAGIC);
	if (!d->limits)
		d->limits = json_object();
}

void device_limits_forget(struct device *d)
{
	json_decref(d->limits);
	json_decref(d->limits_said);
	d->limits = d->limits_said = NULL;
}

void device_limits_look(struct device *d)
{
	json_t *is, *said;

	assert(d->magic == DEVICE_MAGIC && !d->call);
	is = read_keys(d);
	if (!d->limits) { /* a daemon before this one has said them */
		d->limits = is;
		return;
	}
	said = what_changed(d->limits, is);
	if (!json_array_size(said)) {
		json_decref(said);
		json_decref(d->limits);
		d->limits = is;
		return;
	}
	json_decref(d->limits_said);
	d->limits_said = is;
	d->call = tapdisk_ask(
		d->m->loop, d->pid,
		json_pack("{s:s,s:i,s:o}", "op", "limit", "minor", d->minor, "options", said),
		d->m->opt.timeout_s, on_limits_said, d);
	if (!d->call)
		device_again_in(d, DEVICE_RETRY_S);
}
