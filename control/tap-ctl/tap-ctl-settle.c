/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a dead tapdisk had answered and not written to its image yet (lib/redo.h) is put there,
 * before its disk is taken away.  A tapdisk does it that has nothing else to do: it knows the
 * formats, and locks the image.
 */
#include "control/tap-ctl/tap-ctl-rows.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/output.h"
#include "lib/redo.h"
#include "lib/syncmark.h"

/* Does the record tell of a log, of this boot of the host? */
static bool record_has_log(const json_t *record)
{
	const char *log = json_string_value(json_object_get(record, "log"));
	char boot[40];

	td_redo_boot(boot);
	return log && *log && !strcmp(log, boot);
}

int tc_log_waits(int minor)
{
	char log[PATH_MAX], path[PATH_MAX];
	json_t *record;
	bool has;
	int rc;

	if (td_ctl_redo_path(minor, log) || td_ctl_disk_path(minor, path))
		return 0;
	rc = td_redo_waits(log);
	if (rc || !access(log, F_OK))
		return rc;
	record = json_load_file(path, 0, NULL);
	has = record_has_log(record);
	json_decref(record);
	return has ? -ENODATA : 0;
}

static json_t *load_record(int minor)
{
	char path[PATH_MAX];

	return td_ctl_disk_path(minor, path) ? NULL : json_load_file(path, 0, NULL);
}

/* As the tapdisk's close: one that found no space has lost nothing. */
static bool says_failed(int minor, const json_t *record)
{
	int sticky = (int)json_integer_value(json_object_get(record, "sticky"));

	return (sticky && sticky != ENOSPC && sticky != EDQUOT) || syncmark_failed(minor);
}

bool tc_flush_failed(int minor)
{
	json_t *record = load_record(minor);
	bool failed = says_failed(minor, record);

	json_decref(record);
	return failed;
}

/* Has another disk the image by now? */
static bool is_taken(const json_t *record, const struct tc_rows *live)
{
	for (size_t i = 0; i < live->n; i++) {
		const char *its = json_string_value(json_object_get(live->row[i], "file"));

		if (its && tc_is_file(live->row[i], its) && tc_is_file(record, its))
			return true;
	}
	return false;
}

bool tc_dead_is_wanted(int minor, const struct tc_rows *live)
{
	json_t *record = load_record(minor);
	/* whoever paused it works on its image, and is going to unpause it; whoever began a commit
	 * asks what became of it */
	bool asked = json_is_true(json_object_get(record, "paused")) ||
		     json_object_get(record, "commit"),
	     wanted = td_ctl_ring_any(minor) || says_failed(minor, record) ||
		      (asked && !is_taken(record, live));

	json_decref(record);
	return wanted;
}

static int ask_tapdisk(int minor, json_t *record, struct td_err *err)
{
	json_t *req = json_pack("{s:s, s:i, s:O, s:O, s:O}", "op", "settle", "minor", minor, "args",
				json_object_get(record, "args"), "options",
				json_object_get(record, "options"), "past", record);
	pid_t pid;
	int ret;

	if (!req)
		return td_fail(err, EBADMSG, "the record of minor %d makes no sense", minor);
	ret = tc_spawn(&pid, NULL, err);
	if (ret) {
		json_decref(req);
		return ret;
	}
	ret = td_ctl_call(pid, req, NULL, 0, TC_SLOW, NULL, NULL, NULL, err);
	tc_reap(pid, 0);
	return ret;
}

static int settle_disk(int minor, struct td_err *err)
{
	json_t *record = NULL;
	pid_t pid = 0;
	int fd, ret = tc_record_open(minor, TC_SLOW, &fd, &record, err);

	if (ret)
		return ret;
	if (td_ctl_marker(minor, &pid) == TD_MARKER_HELD)
		ret = td_fail(err, EBUSY, "minor %d is held by tapdisk %d", minor, (int)pid);
	else
		ret = ask_tapdisk(minor, record, err);
	json_decref(record);
	close(fd);
	return ret;
}

int tc_settle(int minor, bool give_up, struct td_err *err)
{
	int waits = tc_log_waits(minor), ret;
	struct td_err why = {};
	char what[64], log[PATH_MAX];

	if (!waits)
		return 0;
	ret = settle_disk(minor, &why);
	if (!ret)
		return 0;
	snprintf(what, sizeof what, waits > 0 ? "%d changes" : "what was changed", waits);
	if (!give_up || td_ctl_redo_path(minor, log))
		return td_fail(err, ret == -ENODEV ? ENODATA : -ret,
			       "minor %d: %s of its image that were acknowledged cannot be written "
			       "to it: %s%s",
			       minor, what, why.text,
			       strstr(why.text, "free -f") ? ""
							   : "; `tap-ctl free -f' gives them up");
	td_output_line(why.text);
	fprintf(stderr, "tap-ctl: minor %d: %s of its image that were acknowledged are lost: %s\n",
		minor, what, why.text);
	unlink(log);
	return 0;
}

int tc_cmd_settle(const struct tc_args *a, struct td_err *err)
{
	return tc_settle(a->minor, false, err);
}
