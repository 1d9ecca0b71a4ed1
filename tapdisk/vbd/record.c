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
#include "lib/json-get.h"
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
	if (o->mirror_timeout)
		json_array_append_new(a, json_sprintf("mirror-timeout=%d", options_patience(o)));
	json_array_append_new(a, json_sprintf("request-timeout=%d", o->request_timeout));
	json_array_append_new(a, o->reconnect_limit < 0
					 ? json_string("reconnect-limit=no")
					 : json_sprintf("reconnect-limit=%d", o->reconnect_limit));
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

	snprintf(beside, sizeof beside, "%s.new", path);
	unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = json_dumpfd(o, fd, JSON_COMPACT) < 0 ? -ENOSPC : 0;
	close(fd);
	if (!rc && rename(beside, path) < 0)
		rc = -errno;
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

void record_job(const json_t *past, struct vbd_job_was *out)
{
	const json_t *o = json_object_get(past, "commit");
	char state[16];

	memset(out, 0, sizeof *out);
	get_text(o, "image", out->node, sizeof out->node);
	get_text(o, "parent", out->base, sizeof out->base);
	get_text(o, "text", out->text, sizeof out->text);
	get_text(o, "state", state, sizeof state);
	out->err = -(int)get_bytes(o, "error");
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

/* --- who is who (PD3 of tapdisk/parent-disk.h) --- */

void record_identity(const json_t *past, struct vbd_past *out)
{
	const json_t *o = json_object_get(past, "beneath");

	get_text(past, "born", out->born, sizeof out->born);
	get_text(o, "born", out->beneath.born, sizeof out->beneath.born);
	get_text(o, "file", out->beneath.file, sizeof out->beneath.file);
	get_text(o, "args", out->beneath.args, sizeof out->beneath.args);
}

static void put_identity(json_t *o, const struct vbd *v)
{
	json_object_set_new(o, "born", json_string(v->born));
	json_object_set_new(o, "file", json_string(v->file));
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

void record_write(const struct vbd *v)
{
	char path[PATH_MAX];
	json_t *o;
	int rc = td_ctl_disk_path(v->minor, path);

	if (v->marker < 0 || !v->spec)
		return;
	o = record_json(v);
	if (!rc)
		rc = o ? replace(path, o) : -EILSEQ;
	json_decref(o);
	if (rc < 0)
		td_log(LOG_WARNING,
		       "minor %d: cannot write its record: %s: if this process dies, no other can "
		       "go on in its place",
		       v->minor, strerror(-rc));
}

int record_read(int minor, struct vbd_recorded *out)
{
	struct td_err err = {0};
	struct vbd_recorded r = *out;
	char path[PATH_MAX];
	const char *spec, *word;
	json_t *o, *w;
	size_t i;
	int rc = td_ctl_disk_path(minor, path);

	o = rc ? NULL : json_load_file(path, 0, NULL);
	if (!o)
		return rc ? rc : -ENOENT;
	json_array_foreach (json_object_get(o, "options"), i, w)
		if (!rc && (word = json_string_value(w)))
			rc = options_add(&r.opt, word, &err);
	spec = json_string_value(json_object_get(o, "args"));
	r.spec = !rc && spec ? strdup(spec) : NULL;
	r.opt.read_only = json_is_true(json_object_get(o, "read_only"));
	r.past.paused = json_is_true(json_object_get(o, "paused"));
	r.past.sectors = (uint64_t)json_integer_value(json_object_get(o, "sectors"));
	r.past.sticky = -(int)json_integer_value(json_object_get(o, "sticky"));
	r.past.log = record_log(o);
	record_job(o, &r.past.job);
	record_identity(o, &r.past);
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

void record_remove(const struct vbd *v)
{
	char path[PATH_MAX];

	if (v->marker < 0)
		return;
	if (!td_ctl_disk_path(v->minor, path))
		unlink(path);
	syncmark_unlink(v->minor);
	if (!td_ctl_redo_path(v->minor, path))
		unlink(path);
	if (!td_ctl_left_path(v->minor, path))
		unlink(path);
}
