/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * revive: a new tapdisk instead of one that has died, with the same disk open in the same way,
 * so that its guests' rings can be taken over.  What to do stands in the record that the dead one
 * left (tapdisk/vbd/record.h).
 *
 * Two that want it at once (two guests share a disk) find one successor: the second waits, and is
 * given the first one's.
 */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/io/clock.h"

/* On the record that has the name: it is replaced by renames. */
static int record_lock(int fd, const char *path, double until, bool *renamed, struct td_err *err)
{
	struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
	struct stat held, named;

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return td_fail(err, errno, "cannot lock %s: %s", path, strerror(errno));
		if (td_clock_s() >= until)
			return td_fail(err, ETIMEDOUT,
				       "%s is locked: another tap-ctl works on that disk", path);
		nanosleep(&pause, NULL);
	}
	*renamed = fstat(fd, &held) < 0 || stat(path, &named) < 0 || held.st_ino != named.st_ino ||
		   held.st_dev != named.st_dev;
	return 0;
}

int tc_record_open(int minor, int seconds, int *fd, json_t **record, struct td_err *err)
{
	double until = td_clock_s() + seconds;
	char path[PATH_MAX];
	bool renamed;
	int rc = td_ctl_disk_path(minor, path);

	if (rc)
		return td_fail(err, -rc, "the control directory's name is too long");
	do {
		*fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (*fd < 0)
			return td_fail(
				err, errno == ENOENT ? ENODEV : errno,
				"nothing is known of how minor %d was open (%s: %s): it was closed",
				minor, path, strerror(errno));
		rc = record_lock(*fd, path, until, &renamed, err);
		if (!rc && !renamed && !(*record = json_loadfd(*fd, 0, NULL)))
			rc = td_fail(err, EBADMSG, "%s makes no sense", path);
		if (rc || renamed)
			close(*fd);
	} while (!rc && renamed);
	return rc;
}

static int revive_open(const struct tc_args *a, pid_t pid, int minor, json_t *record,
		       struct td_err *err)
{
	json_t *req = json_pack("{s:s, s:i, s:O, s:O, s:O, s:O, s:O}", "op", "open", "minor", minor,
				"args", json_object_get(record, "args"), "options",
				json_object_get(record, "options"), "read_only",
				json_object_get(record, "read_only"), "name",
				json_object_get(record, "name"), "past", record);
	int ret;

	if (!req)
		return td_fail(err, EBADMSG, "the record of minor %d makes no sense", minor);
	if (json_is_true(json_object_get(record, "encrypted")) &&
	    (ret = tc_put_key(req, err)) < 0) {
		json_decref(req);
		return ret;
	}
	return td_ctl_call(pid, req, NULL, 0, TC_SLOW, NULL, NULL, NULL, err);
}

static int revive_steps(const struct tc_args *a, int minor, json_t *record, pid_t *pid,
			struct td_err *err)
{
	int ret = tc_spawn(pid, NULL, err);

	if (ret)
		return ret;
	ret = tc_attach(*pid, minor, err);
	if (!ret)
		ret = revive_open(a, *pid, minor, record, err);
	if (ret)
		/* marker and record stay for a next try: a guest's ring waits for it */
		tc_reap(*pid, 0);
	return ret;
}

/* Somebody has been here before, who may have been killed between attach and open. */
static int revive_finish(const struct tc_args *a, pid_t pid, int minor, json_t *record,
			 struct td_err *err)
{
	json_t *info = NULL;
	int ret = td_ctl_call(pid, json_pack("{s:s, s:i}", "op", "info", "minor", minor), NULL, 0,
			      TD_CTL_TIMEOUT, NULL, NULL, &info, err);
	bool open = json_object_get(info, "args") != NULL;

	json_decref(info);
	return ret || open ? ret : revive_open(a, pid, minor, record, err);
}

int tc_cmd_revive(const struct tc_args *a, struct td_err *err)
{
	enum td_marker marker;
	json_t *record = NULL;
	char text[32];
	pid_t pid = 0;
	int fd, ret = tc_record_open(a->minor, 2 * TC_SLOW, &fd, &record, err);

	if (ret)
		return ret;
	if (json_is_true(json_object_get(record, "encrypted")) && !a->key) {
		json_decref(record);
		close(fd);
		return td_fail(err, ENOKEY,
			       "the image of minor %d is encrypted, and keys are in no file: give "
			       "its key on standard input, "
			       "with -E",
			       a->minor);
	}
	marker = td_ctl_marker(a->minor, &pid);
	if (marker == TD_MARKER_STALE) {
		td_ctl_remove_sockets(pid);
		ret = revive_steps(a, a->minor, record, &pid, err);
	} else if (marker == TD_MARKER_HELD) {
		ret = revive_finish(a, pid, a->minor, record, err);
	} else {
		ret = td_fail(err, ENODEV, "minor %d has no tapdisk that died: its marker %s",
			      a->minor, marker == TD_MARKER_NONE ? "is gone" : "was never taken");
	}
	json_decref(record);
	close(fd);
	if (ret)
		return ret;
	snprintf(text, sizeof text, "%d", (int)pid);
	return tc_put_line(text, err);
}
