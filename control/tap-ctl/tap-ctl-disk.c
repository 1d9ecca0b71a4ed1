/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One disk of one tapdisk: the commands that are one question to it, and what is done when it is
 * dead. */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/ctl-client.h"
#include "lib/output.h"

static json_t *disk_request(const char *op, int minor)
{
	return json_pack("{s:s, s:i}", "op", op, "minor", minor);
}

/* What a dead tapdisk has left: its socket, or a marker with its pid. */
struct remains {
	bool socket, marker;
};

static struct remains remains_of(pid_t pid, int minor)
{
	char path[PATH_MAX];
	struct remains r = {};
	pid_t holder;

	snprintf(path, sizeof path, "%s/ctl%d", td_ctl_dir(), (int)pid);
	r.socket = !access(path, F_OK);
	r.marker = td_ctl_marker(minor, &holder) == TD_MARKER_STALE && holder == pid;
	return r;
}

/* Did this error come from a process that is dead?  An error of the same number may be the
 * tapdisk's own answer. */
static bool disk_dead(pid_t pid, int ret)
{
	struct td_err scratch = {};
	int fd;

	if (ret != -ENOENT && ret != -ECONNRESET)
		return false;
	fd = td_ctl_connect(pid, TD_CTL_TIMEOUT, &scratch);
	if (fd >= 0)
		close(fd);
	return fd == -ENOENT;
}

int tc_attach(pid_t pid, int minor, struct td_err *err)
{
	return td_ctl_call(pid, disk_request("attach", minor), NULL, 0, TD_CTL_TIMEOUT, NULL, NULL,
			   NULL, err);
}

int tc_detach(pid_t pid, int minor, bool keep, bool *last, struct td_err *err)
{
	json_t *reply, *req = disk_request("detach", minor);
	int ret;

	if (keep)
		json_object_set_new(req, "keeper", json_integer(getpid()));
	ret = td_ctl_call(pid, req, NULL, 0, TD_CTL_TIMEOUT, NULL, NULL, &reply, err);

	if (last)
		*last = !ret && json_is_true(json_object_get(reply, "last"));
	json_decref(reply);
	return ret;
}

/* As an option, which an older tapdisk refuses rather than passes over; and without a -o, an
 * unpause leaves the others alone. */
static int add_word(json_t *req, json_t *word, struct td_err *err)
{
	if (!json_object_get(req, "options")) {
		json_object_set_new(req, "options", json_array());
		json_object_set_new(req, "keep_options", json_true());
	}
	if (json_array_append_new(json_object_get(req, "options"), word))
		return td_fail(err, ENOMEM, "out of memory");
	return 0;
}

static int add_changed(const struct tc_args *a, json_t *req, struct td_err *err)
{
	char *path = tc_absolute(a->changed);
	json_t *word = path ? json_sprintf("changed-blocks=%s", path) : NULL;
	int ret = word ? 0 : td_fail(err, path ? EILSEQ : errno, "%s: no such path", a->changed);

	free(path);
	return ret ? ret : add_word(req, word, err);
}

/* TYPE:PATH, or null for none. */
static int add_secondary(const struct tc_args *a, json_t *req, struct td_err *err)
{
	char *spec = NULL;
	int ret = strcmp(a->secondary, "null") ? tc_spec(a->secondary, &spec, err) : 0;
	json_t *word = ret ? NULL : json_sprintf("mirror=%s", spec ?: "null");

	free(spec);
	if (!ret && !word)
		ret = td_fail(err, EILSEQ, "'%s' is not UTF-8 text", a->secondary);
	return ret ? ret : add_word(req, word, err);
}

/* Puts args (made absolute) and options into req. */
static int disk_image(const struct tc_args *a, json_t *req, struct td_err *err)
{
	char *spec;
	int ret;

	if (a->args) {
		ret = tc_spec(a->args, &spec, err);
		if (ret)
			return ret;
		ret = json_object_set_new(req, "args", json_string(spec));
		if (ret)
			ret = td_fail(err, EILSEQ, "'%s' is not UTF-8 text", spec);
		free(spec);
		if (ret)
			return ret;
	}
	if (a->options && json_object_set_new(req, "options", json_deep_copy(a->options)))
		return td_fail(err, ENOMEM, "out of memory");
	ret = a->secondary ? add_secondary(a, req, err) : 0;
	return !ret && a->changed ? add_changed(a, req, err) : ret;
}

/* Reads the key to its end from standard input, and puts it into req in hexadecimal. */
int tc_put_key(json_t *req, struct td_err *err)
{
	unsigned char key[TD_CTL_KEY_MAX + 1];
	char hex[2 * sizeof key + 1];
	size_t n = 0;
	ssize_t got;

	while (n < sizeof key && (got = read(STDIN_FILENO, key + n, sizeof key - n)) != 0) {
		if (got < 0 && errno != EINTR)
			return td_fail(err, errno, "cannot read the key from standard input: %s",
				       strerror(errno));
		n += got > 0 ? (size_t)got : 0;
	}
	if (!n || n > TD_CTL_KEY_MAX)
		return td_fail(err, EINVAL, "the key on standard input %s: it has 1 to %d bytes",
			       n ? "is too long" : "is empty", TD_CTL_KEY_MAX);
	td_put_hex(hex, key, n);
	json_object_set_new(req, "key", json_string(hex));
	explicit_bzero(key, sizeof key);
	explicit_bzero(hex, sizeof hex);
	return 0;
}

int tc_open(const struct tc_args *a, pid_t pid, int minor, struct td_err *err)
{
	json_t *req = disk_request("open", minor);
	int ret = disk_image(a, req, err);

	if (!ret && a->name && json_object_set_new(req, "name", json_string(a->name)))
		ret = td_fail(err, EILSEQ, "the name '%s' is not UTF-8 text", a->name);
	if (!ret && a->key)
		ret = tc_put_key(req, err);
	if (!ret && a->read_only)
		ret = json_object_set_new(req, "read_only", json_true());
	if (ret) {
		json_decref(req);
		return ret;
	}
	return td_ctl_call(pid, req, NULL, 0, TC_SLOW, NULL, NULL, NULL, err);
}

/* An operation that waits for requests under way; 0 s means without limit.  Ours is the longer
 * limit, so that the tapdisk's own text is heard; without one from the user the tapdisk has limits
 * of its own. */
static int disk_drain(const char *op, const struct tc_args *a, bool detach, json_t **reply,
		      struct td_err *err)
{
	json_t *req = disk_request(op, a->minor);
	int wait = TC_SLOW + TD_CTL_TIMEOUT;

	if (a->timeout >= 0)
		json_object_set_new(req, "timeout", json_integer(a->timeout));
	if (a->force)
		json_object_set_new(req, "force", json_true());
	if (detach)
		json_object_set_new(req, "keeper", json_integer(getpid()));
	if (a->timeout == 0 ||
	    (a->timeout > 0 && __builtin_add_overflow(a->timeout, TD_CTL_TIMEOUT, &wait)))
		wait = INT_MAX;
	return td_ctl_call(a->pid, req, NULL, 0, wait, NULL, NULL, reply, err);
}

int tc_close(const struct tc_args *a, bool detach, bool give_up, struct tc_closed *is,
	     struct td_err *err)
{
	struct remains before = remains_of(a->pid, a->minor);
	struct td_err mine = {};
	json_t *reply;
	int ret = disk_drain("close", a, detach, &reply, &mine);

	*is = (struct tc_closed){.gone = disk_dead(a->pid, ret),
				 .detached = json_is_true(json_object_get(reply, "detached")),
				 .last = json_is_true(json_object_get(reply, "last"))};
	json_decref(reply);
	if (is->gone) {
		bool failed;
		/* it may have died of the question itself */
		struct remains after = remains_of(a->pid, a->minor);

		if (after.marker && (ret = tc_settle(a->minor, give_up, err)) < 0) {
			is->gone = false;
			return ret;
		}
		failed = after.marker && tc_flush_failed(a->minor);
		if (after.marker)
			tc_marker_sweep(a->minor);
		if (failed)
			return tc_say_failed(a->minor, give_up, err);
		if (before.socket || before.marker || after.marker)
			return 0;
	}
	return ret ? td_fail(err, -ret, "%s", mine.text) : 0;
}

int tc_cmd_attach(const struct tc_args *a, struct td_err *err)
{
	return tc_attach(a->pid, a->minor, err);
}

int tc_cmd_detach(const struct tc_args *a, struct td_err *err)
{
	return tc_detach(a->pid, a->minor, false, NULL, err);
}

int tc_cmd_open(const struct tc_args *a, struct td_err *err)
{
	return tc_open(a, a->pid, a->minor, err);
}

int tc_cmd_close(const struct tc_args *a, struct td_err *err)
{
	struct tc_closed is;

	return tc_close(a, false, false, &is, err);
}

int tc_cmd_pause(const struct tc_args *a, struct td_err *err)
{
	return disk_drain("pause", a, false, NULL, err);
}

int tc_cmd_unpause(const struct tc_args *a, struct td_err *err)
{
	json_t *req = disk_request("unpause", a->minor);
	int ret = disk_image(a, req, err);

	if (ret) {
		json_decref(req);
		return ret;
	}
	return td_ctl_call(a->pid, req, NULL, 0, TC_SLOW, NULL, NULL, NULL, err);
}

int tc_cmd_resize(const struct tc_args *a, struct td_err *err)
{
	json_t *reply;
	char size[32];
	int ret = td_ctl_call(a->pid, disk_request("resize", a->minor), NULL, 0, TC_SLOW, NULL,
			      NULL, &reply, err);

	if (!ret) {
		snprintf(size, sizeof size, "%lld",
			 (long long)json_integer_value(json_object_get(reply, "sectors")) * 512);
		ret = tc_put_line(size, err);
	}
	json_decref(reply);
	return ret;
}

int tc_cmd_limit(const struct tc_args *a, struct td_err *err)
{
	json_t *reply, *req = disk_request("limit", a->minor);
	const json_t *word;
	size_t i;
	int ret;

	if (a->options)
		json_object_set(req, "options", a->options);
	ret = td_ctl_call(a->pid, req, NULL, 0, TC_SLOW, NULL, NULL, &reply, err);
	if (!ret && a->json)
		json_dumpf(json_object_get(reply, "limit"), stdout, JSON_PRESERVE_ORDER);
	if (!ret && !a->json)
		json_array_foreach (json_object_get(reply, "words"), i, word)
			puts(json_string_value(word) ?: "");
	if (!ret)
		ret = a->json ? tc_put_line("", err) : td_output_end(err);
	json_decref(reply);
	return ret;
}

int tc_cmd_stats(const struct tc_args *a, struct td_err *err)
{
	json_t *reply, *stats;
	int ret = td_ctl_call(a->pid, disk_request("stats", a->minor), NULL, 0, TD_CTL_TIMEOUT,
			      NULL, NULL, &reply, err);

	if (!ret) {
		stats = json_object_get(reply, "stats");
		if (!json_is_object(stats))
			ret = td_fail(err, EPROTO, "tapdisk %d gave no statistics for minor %d",
				      (int)a->pid, a->minor);
		else if (json_dumpf(stats, stdout, JSON_PRESERVE_ORDER) || putchar('\n') == EOF)
			ret = td_fail(err, errno ? errno : EIO,
				      "cannot write to standard output: %s",
				      strerror(errno ? errno : EIO));
	}
	json_decref(reply);
	return ret;
}
