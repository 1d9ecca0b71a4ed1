/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/vbd/record.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/fiber/call.h"
#include "lib/fiber/fiber.h"
#include "lib/json-get.h"
#include "lib/kill.h"
#include "lib/redo.h"
#include "lib/syncmark.h"
#include "tapdisk/vbd/vbd.h"

static json_t *words(const struct vbd_options *o)
{
	json_t *a = json_array();
	char limit[64];

	json_array_append_new(a, json_sprintf("cache=%s", o->mode->name));
	json_array_append_new(a, json_sprintf("unsafe=%s", o->unsafe ? "yes" : "no"));
	json_array_append_new(a,
			      json_sprintf("on-enospc=%s", o->report_enospc ? "report" : "pause"));
	json_array_append_new(a, json_sprintf("shared=%s", o->shared ? "yes" : "no"));
	if (options_sector(o) != 512) /* an older tapdisk does not know the word */
		json_array_append_new(a, json_sprintf("sector-size=%u", options_sector(o)));
	if (o->two_primaries)
		json_array_append_new(a, json_string("two-primaries=yes"));
	if (o->parents_cache)
		json_array_append_new(a, json_string("parents-cache=yes"));
	if (o->data_file[0]) /* nor this one */
		json_array_append_new(a, json_sprintf("data-file=%s", o->data_file));
	if (o->changed[0]) /* one that does not know it must not go on without */
		json_array_append_new(a, json_sprintf("changed-blocks=%s", o->changed));
	if (o->parent_disk > 0)
		json_array_append_new(a, json_sprintf("parent-disk=%d", o->parent_disk - 1));
	if (o->leaf_cache)
		json_array_append_new(a, json_string("leaf-cache=yes"));
	if (o->mirror[0]) /* nor this one: its copy would miss what follows */
		json_array_append_new(a, json_sprintf("mirror=%s", o->mirror));
	if (o->standby)
		json_array_append_new(a, json_string("mirror-standby=yes"));
	if (o->mirror_timeout)
		json_array_append_new(a, json_sprintf("mirror-timeout=%d", options_patience(o)));
	json_array_append_new(a, json_sprintf("request-timeout=%d", o->request_timeout));
	json_array_append_new(a, o->reconnect_limit < 0
					 ? json_string("reconnect-limit=no")
					 : json_sprintf("reconnect-limit=%d", o->reconnect_limit));
	if (o->connections) /* an older tapdisk does not know the word */
		json_array_append_new(a, json_sprintf("connections=%u", o->connections));
	/* a successor starts with what the host's configuration says, which may be another by now
	 */
	if (o->limit.said)
		json_array_append_new(a, json_string("limit=none"));
	for (unsigned i = 0; limit_word(&o->limit, i, limit); i++)
		json_array_append_new(a, json_string(limit));
	return a;
}

/* Whole or not at all: it is written beside and renamed.  No sync: it need not outlive the machine.
 */
static int replace(const char *path, const json_t *o)
{
	char beside[PATH_MAX + 4];
	int fd, rc;

	TD_KILL(RECORD_BEGIN);
	snprintf(beside, sizeof beside, "%s.new", path);
	unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = json_dumpfd(o, fd, JSON_COMPACT) < 0 ? -ENOSPC : 0;
	close(fd);
	TD_KILL(RECORD_BESIDE);
	if (!rc && rename(beside, path) < 0)
		rc = -errno;
	TD_KILL(RECORD_RENAMED);
	if (rc < 0)
		unlink(beside);
	return rc;
}

/* --- a live commit --- */

static const char *const job_states[] = {"running", "concluded", "failed"};

static json_t *job_json(const struct vbd *v)
{
	const struct vbd_job_was *j = vbd_job_now((struct vbd *)v);

	return j ? json_pack("{s:s, s:s, s:s, s:o, s:i, s:b, s:I, s:I, s:I, s:I}", "image", j->node,
			     "parent", j->base, "state", job_states[j->state], "text",
			     td_json_told(j->text), "error", -j->err, "lost", j->lost, "at",
			     (json_int_t)j->at, "done", (json_int_t)j->done, "all",
			     (json_int_t)j->all, "rate", (json_int_t)j->rate)
		 : NULL;
}

static void get_text(const json_t *o, const char *key, char *out, size_t len)
{
	const char *text = json_string_value(json_object_get(o, key));

	snprintf(out, len, "%s", text && strlen(text) < len ? text : "");
}

static uint64_t get_bytes(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 ? (uint64_t)n : 0;
}

/* In doubt it has failed. */
static int get_errno(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n < 0 || n > INT32_MAX ? -EIO : -(int)n;
}

void record_job(const json_t *past, struct vbd_job_was *out)
{
	const json_t *o = json_object_get(past, "commit");
	char state[16];

	memset(out, 0, sizeof *out);
	get_text(o, "image", out->node, sizeof out->node);
	get_text(o, "parent", out->base, sizeof out->base);
	get_text(o, "text", out->text, sizeof out->text);
	get_text(o, "state", state, sizeof state);
	out->err = get_errno(o, "error");
	out->lost = json_is_true(json_object_get(o, "lost"));
	out->at = get_bytes(o, "at");
	out->done = get_bytes(o, "done");
	out->all = get_bytes(o, "all");
	out->rate = get_bytes(o, "rate");
	/* what is not understood has not done well */
	out->state = !strcmp(state, "running")     ? VBD_JOB_RUNNING
		     : !strcmp(state, "concluded") ? VBD_JOB_CONCLUDED
						   : VBD_JOB_FAILED;
	if (out->state == VBD_JOB_FAILED && !out->err)
		out->err = -EIO;
}

/* --- who is who (PD3 of tapdisk/parent-disk.h; MI8 of tapdisk/mirror/mirror.h) --- */

void record_identity(const json_t *past, struct vbd_past *out)
{
	const json_t *o = json_object_get(past, "beneath");

	get_text(past, "born", out->born, sizeof out->born);
	get_text(o, "born", out->beneath.born, sizeof out->beneath.born);
	get_text(o, "file", out->beneath.file, sizeof out->beneath.file);
	get_text(o, "args", out->beneath.args, sizeof out->beneath.args);
	o = json_object_get(past, "mirror_server");
	for (size_t i = 0; i < 2; i++) {
		json_int_t n = json_integer_value(json_array_get(o, i));

		out->mirror_server.of[i] = n > 0 ? (uint64_t)n : 0;
	}
}

static void put_identity(json_t *o, const struct vbd *v)
{
	json_object_set_new(o, "born", json_string(v->born));
	json_object_set_new(o, "file", json_string(v->file));
	if (v->redirected)
		json_object_set_new(o, "redirected", json_true());
	if (v->mirror_server.of[0])
		json_object_set_new(o, "mirror_server",
				    json_pack("[I,I]", (json_int_t)v->mirror_server.of[0],
					      (json_int_t)v->mirror_server.of[1]));
	if (v->beneath.args[0])
		json_object_set_new(o, "beneath",
				    json_pack("{s:s, s:s, s:s}", "born", v->beneath.born, "file",
					      v->beneath.file, "args", v->beneath.args));
}

json_t *record_json(const struct vbd *v)
{
	json_t *o, *job;
	bool log = v->leaf ? td_redo_takes(v->redo) : v->log_waits;
	char boot[40];

	td_redo_boot(boot);
	o = json_pack("{s:s, s:o, s:b, s:s, s:b, s:b, s:I, s:i, s:s, s:b}", "args", v->spec,
		      "options", words(&v->opt), "read_only", v->opt.read_only, "name", v->opt.name,
		      "encrypted", v->opt.key.len != 0, "paused", !v->leaf, "sectors",
		      (json_int_t)v->disk.sectors, "sticky", -v->cache.sticky, "log",
		      log ? boot : "", "mirror_failed", v->mirror_failed);
	if (o)
		put_identity(o, v);
	job = job_json(v);
	if (o && job) {
		json_object_set_new(o, "commit", job);
	} else if (vbd_job_now((struct vbd *)v)) { /* a record without it would end the job */
		json_decref(job);
		json_decref(o);
		o = NULL;
	}
	return o;
}

bool record_log(const json_t *past)
{
	const char *log = json_string_value(json_object_get(past, "log"));
	char boot[40];

	td_redo_boot(boot);
	return log && *log && !strcmp(log, boot);
}

/* --- it is written --- */

struct writing {
	char path[PATH_MAX];
	json_t *record; /* NULL: the file goes */
};

static long write_run(void *arg)
{
	struct writing *w = arg;

	if (w->record)
		return replace(w->path, w->record);
	return unlink(w->path) < 0 && errno != ENOENT ? -errno : 0;
}

static int await_writing(struct vbd *v, struct writing *w)
{
	int rc = td_ctl_disk_path(v->minor, w->path);

	return rc ? rc : (int)td_call(write_run, w);
}

static bool has_record(const struct vbd *v)
{
	return v->marker >= 0 && v->spec;
}

static int write_now(struct vbd *v)
{
	struct writing w = {.record = record_json(v)};
	int rc = await_writing(v, &w);

	if (!w.record)
		td_log(LOG_WARNING,
		       "minor %d: it has no record, since a name of its images is not UTF-8 text: "
		       "if this process dies, no other can go on in its place",
		       v->minor);
	json_decref(w.record);
	return rc;
}

static int drop_now(struct vbd *v)
{
	struct writing w = {.record = NULL};

	return await_writing(v, &w);
}

struct reading {
	const char *path;
	json_t *o;
};

static long read_run(void *arg)
{
	struct reading *r = arg;

	r->o = json_load_file(r->path, 0, NULL);
	return 0;
}

/* Is what the file says true all the same? */
static bool says_so(const struct vbd *v)
{
	char path[PATH_MAX];
	struct reading got = {.path = path};
	json_t *o = record_json(v);
	bool same;

	if (!td_ctl_disk_path(v->minor, path))
		td_call(read_run, &got);
	same = o && got.o && json_equal(o, got.o);
	json_decref(o);
	json_decref(got.o);
	return same;
}

static int write_in_turn(struct vbd *v, bool renew)
{
	int rc = 0, gone = -1;

	if (!has_record(v))
		return 0;
	td_lock(&v->recording);
	if (has_record(v)) /* it may have been closed meanwhile */
		rc = write_now(v);
	if (rc < 0 && renew)
		gone = drop_now(v);
	if (gone && renew && rc < 0 && says_so(v))
		rc = 0;
	td_unlock(&v->recording);
	if (rc < 0)
		td_log(LOG_ERR, "minor %d: cannot write its record: %s: if this process dies, %s",
		       v->minor, strerror(-rc),
		       gone ? "another goes on with what it said before"
			    : "no other can go on in its place");
	return gone ? rc : 0;
}

int record_write(struct vbd *v)
{
	return write_in_turn(v, false);
}

int record_renew(struct vbd *v)
{
	return write_in_turn(v, true);
}

static void renew_it(void *arg)
{
	struct vbd *v = arg;

	record_renew(v);
	v->users--;
}

void record_soon(struct vbd *v)
{
	if (!has_record(v))
		return;
	v->users++;
	if (!td_fiber_start(v->queue->loop, renew_it, v))
		return;
	v->users--;
	td_log(LOG_ERR,
	       "minor %d: out of memory for its record: if this process dies, another "
	       "goes on with what it said before",
	       v->minor);
}

void record_settle(struct vbd *v)
{
	td_lock(&v->recording);
	td_unlock(&v->recording);
}

int record_read(int minor, struct vbd_recorded *out)
{
	struct td_err err = {0};
	struct vbd_recorded r = *out;
	char path[PATH_MAX];
	struct reading got = {.path = path};
	const char *spec, *word;
	json_t *o, *w;
	size_t i;
	int rc = td_ctl_disk_path(minor, path);

	if (!rc)
		td_call(read_run, &got);
	o = got.o;
	if (!o)
		return rc ? rc : -ENOENT;
	json_array_foreach (json_object_get(o, "options"), i, w)
		if (!rc && (word = json_string_value(w)))
			rc = options_add(&r.opt, word, &err);
	spec = json_string_value(json_object_get(o, "args"));
	r.spec = !rc && spec ? strdup(spec) : NULL;
	r.opt.read_only = json_is_true(json_object_get(o, "read_only"));
	r.past.paused = json_is_true(json_object_get(o, "paused"));
	r.past.sectors = get_bytes(o, "sectors");
	if (r.past.sectors > INT64_MAX / 512)
		r.past.sectors = 0; /* as a control message's */
	r.past.sticky = get_errno(o, "sticky");
	r.past.log = record_log(o);
	record_job(o, &r.past.job);
	record_identity(o, &r.past);
	r.past.redirected = json_is_true(json_object_get(o, "redirected"));
	r.past.mirror_failed = json_is_true(json_object_get(o, "mirror_failed"));
	json_decref(o);
	if (rc < 0 || !r.spec) {
		td_log(LOG_ERR, "minor %d: %s makes no sense%s%s", minor, path, rc < 0 ? ": " : "",
		       rc < 0 ? err.text : "");
		return rc < 0 ? rc : -EBADMSG;
	}
	*out = r;
	return 0;
}

static long remove_run(void *arg)
{
	int minor = *(int *)arg;
	char path[PATH_MAX];

	if (!td_ctl_disk_path(minor, path))
		unlink(path);
	syncmark_unlink(minor);
	if (!td_ctl_redo_path(minor, path))
		unlink(path);
	if (!td_ctl_left_path(minor, path))
		unlink(path);
	if (!td_ctl_full_path(minor, path))
		unlink(path);
	return 0;
}

void record_remove(struct vbd *v)
{
	if (v->marker < 0)
		return;
	td_lock(&v->recording);
	td_call(remove_run, &v->minor);
	td_unlock(&v->recording);
}
