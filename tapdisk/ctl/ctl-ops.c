/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The control operations of td/ctl.h: what each takes and answers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tapdisk/ctl/ctl-ops.h"
#include "tapdisk/blkif/inflight.h"
#include "tapdisk/vbd/record.h"
#include "lib/bytes.h"
#include "lib/io/budget.h"
#include "lib/json-get.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tapdisk/server.h"
#include "tapdisk/ctl/ctl-stats.h"
#include "tapdisk/vbd/settle.h"
#include "td/ctl.h"

enum op_kind {
	ANY = 0,
	DISK = 1,   /* needs a disk: "minor" is looked up */
	BEGINS = 2, /* what a tapdisk that gives its disks up does not begin any more */
	WAITS = 4,  /* for the others on its disk */
};

struct op {
	const char *name;
	/* Fills the answer; 0 or -errno with text. */
	int (*run)(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err);
	enum op_kind kind;
};

/* --- taking a question apart --- */

int ctl_get_int(const json_t *req, const char *key, json_int_t min, json_int_t max, json_int_t *out,
		struct td_err *err)
{
	const json_t *j = json_object_get(req, key);

	if (!json_is_integer(j) || json_integer_value(j) < min || json_integer_value(j) > max)
		return td_fail(err, EINVAL, "'%s' is missing, or not a number from %lld to %lld",
			       key, (long long)min, (long long)max);
	*out = json_integer_value(j);
	return 0;
}

static int get_timeout(const json_t *req)
{
	const json_t *j = json_object_get(req, "timeout");

	return json_is_integer(j) && json_integer_value(j) > 0 && json_integer_value(j) < 86400
		       ? (int)json_integer_value(j)
		       : 0;
}

_Static_assert(TD_CTL_KEY_MAX == TD_KEY_MAX, "what is sent fits");

static int get_key(const json_t *req, struct td_key *key, struct td_err *err)
{
	const char *hex = json_string_value(json_object_get(req, "key"));
	size_t n = hex ? strlen(hex) : 0;

	if (!hex)
		return 0;
	if (!n || n > 2 * sizeof key->bytes || !td_get_hex(hex, key->bytes, n / 2))
		return td_fail(err, EINVAL, "'key' is not 1 to %zu bytes in hexadecimal",
			       sizeof key->bytes);
	key->len = (unsigned)(n / 2);
	return 0;
}

int ctl_get_options(const json_t *req, const char *spec, struct vbd_options *o, struct td_err *err)
{
	const json_t *words = json_object_get(req, "options");
	const char *name = json_string_value(json_object_get(req, "name"));
	int rc = options_default(o, err);
	const json_t *w;
	size_t i;

	if (!rc && spec)
		rc = ctl_add_disk_words(spec, o, err);
	if (rc < 0)
		return rc;
	__atomic_store_n(&blkif_memory.limit, o->ring_memory ? o->ring_memory : BLKIF_MEMORY,
			 __ATOMIC_RELAXED); /* the whole process's, as the host has it now */
	blkif_polling = !o->no_polling;
	json_array_foreach (words, i, w) {
		if (!json_is_string(w))
			return td_fail(err, EINVAL, "an option is not a word");
		rc = options_add(o, json_string_value(w), err);
		if (rc < 0)
			return rc;
	}
	o->read_only = json_is_true(json_object_get(req, "read_only"));
	if (name && strlen(name) >= sizeof o->name)
		return td_fail(err, ENAMETOOLONG, "the disk's name is longer than %zu bytes",
			       sizeof o->name - 1);
	snprintf(o->name, sizeof o->name, "%s", name ? name : "");
	return get_key(req, &o->key, err);
}

struct vbd_past ctl_get_past(const json_t *past)
{
	json_int_t sectors = json_integer_value(json_object_get(past, "sectors")),
		   sticky = json_integer_value(json_object_get(past, "sticky"));
	struct vbd_past was = {.paused = json_is_true(json_object_get(past, "paused")),
			       .log = record_log(past),
			       .mirror_failed =
				       json_is_true(json_object_get(past, "mirror_failed")),
			       .redirected = json_is_true(json_object_get(past, "redirected")),
			       .handed = json_is_true(json_object_get(past, "handed"))};

	if (sectors > 0 && sectors <= INT64_MAX / 512)
		was.sectors = (uint64_t)sectors;
	/* in doubt a flush has failed */
	was.sticky = sticky < 0 || sticky > INT32_MAX ? -EIO : -(int)sticky;
	record_job(past, &was.job);
	record_identity(past, &was);
	return was;
}

/* --- operations --- */

static int op_ping(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_int_t minor = 0;

	if (json_object_get(call->req, "minor")) {
		if (ctl_get_int(call->req, "minor", 0, TD_MINOR_MAX - 1, &minor, err) < 0)
			return -EINVAL;
		v = server_find((int)minor);
	}
	if (v) {
		json_object_set_new(answer, "state", json_integer(vbd_state(v)));
		json_object_set_new(answer, "answered", json_integer(ctl_answered(v)));
		json_object_set_new(answer, "waiting", json_integer(ctl_waiting(v)));
	}
	json_object_set_new(answer, "pid", json_integer(getpid()));
	json_object_set_new(answer, "version", json_string(PACKAGE_VERSION));
	json_object_set_new(answer, "takes-over", json_string(inflight_layout()));
	return 0;
}

static int op_list(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	td_list_each (l, &server.disks) {
		struct vbd *d = td_entry(l, struct vbd, link);
		json_t *row = json_object();

		ctl_put_state(row, d);
		json_object_set_new(row, "sandbox", json_string(sandbox_state()));
		json_object_set_new(row, "uid", json_integer(geteuid()));
		if (d->spec) {
			json_object_set_new(row, "args", json_string(d->spec));
			json_object_set_new(row, "mode", json_string(d->opt.mode->name));
			if (d->file[0])
				json_object_set_new(row, "file", json_string(d->file));
			if (d->opt.leaf_cache && !vbd_ring(d)) /* no guest writes it */
				json_object_set_new(row, "leaf_cache", json_true());
			ctl_put_name(row, d);
		}
		/* a list tells whether there is a guest, info tells which */
		if (ctl_rings_state(d))
			json_object_set_new(row, "ring", json_string(ctl_rings_state(d)));
		ctl_send(call, json_pack("{s:o}", "row", row));
	}
	return 0;
}

static int op_attach(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_int_t minor = 0;
	int rc = ctl_get_int(call->req, "minor", 0, TD_MINOR_MAX - 1, &minor, err);

	return rc < 0 ? rc : server_attach((int)minor, err);
}

static int detach(struct vbd *v, json_int_t keeper, json_t *answer, struct td_err *err)
{
	bool last = false;
	int rc = server_detach(v->minor, (pid_t)keeper, &last, err);

	if (!rc)
		json_object_set_new(answer, "last", json_boolean(last));
	return rc;
}

static int op_detach(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	return detach(v, json_integer_value(json_object_get(call->req, "keeper")), answer, err);
}

static int op_open(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	const char *spec = json_string_value(json_object_get(call->req, "args"));
	const json_t *past = json_object_get(call->req, "past");
	struct vbd_options o;
	int rc;

	v->users++; /* it stays while the host's words of it are looked up */
	rc = ctl_get_options(call->req, past ? NULL : spec, &o, err);
	v->users--;

	if (rc < 0)
		return rc;
	if (!spec)
		return td_fail(err, EINVAL, "'args' is missing: type:path");
	if (past)
		rc = vbd_reopen(v, spec, &o, (const struct vbd_past[]){ctl_get_past(past)}, err);
	else
		rc = vbd_open(v, spec, &o, err);
	if (!rc)
		ctl_put_info(answer, v);
	return rc;
}

static int op_close(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_int_t keeper = json_integer_value(json_object_get(call->req, "keeper"));
	int minor = v->minor;
	int rc = vbd_close(v, json_is_true(json_object_get(call->req, "force")),
			   get_timeout(call->req), err);

	/* one whose last flush failed is closed as well, and that error is the answer */
	if (keeper > 0 && rc != -ENODEV && server_find(minor) == v && !vbd_busy(v))
		json_object_set_new(answer, "detached",
				    json_boolean(detach(v, keeper, answer, NULL) == 0));
	return rc;
}

static int op_pause(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	return vbd_pause(v, get_timeout(call->req), err);
}

/* Its own options, apart from the log of changed blocks, with the question's words. */
static int keep_options(struct vbd *v, const json_t *req, const char *spec, struct vbd_options *o,
			struct td_err *err)
{
	const json_t *w;
	size_t i;
	int rc = 0;

	*o = v->opt;
	o->changed[0] = 0;
	o->mirror_said = false;
	if (spec && v->spec && strcmp(spec, v->spec))
		o->data_file[0] = 0; /* it was named for another image */
	json_array_foreach (json_object_get(req, "options"), i, w)
		rc = rc ? rc : options_add(o, json_string_value(w) ?: "", err);
	return rc;
}

static int op_unpause(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	bool has = json_array_size(json_object_get(call->req, "options")) > 0;
	const char *spec = json_string_value(json_object_get(call->req, "args"));
	struct vbd_options o;
	int rc = 0;

	v->users++;
	if (has && json_is_true(json_object_get(call->req, "keep_options")))
		rc = keep_options(v, call->req, spec, &o, err);
	else if (has)
		rc = ctl_get_options(call->req, spec ? spec : v->spec, &o, err);
	v->users--;
	if (!rc && has && !o.limit.said)
		o.limit = v->opt.limit;     /* it takes a word to lift them */
	if (!rc && has && !o.mirror_said) { /* and to end it */
		strcpy(o.mirror, v->opt.mirror);
		o.standby = v->opt.standby;
	}
	if (!rc)
		rc = vbd_unpause(v, spec, has ? &o : NULL, err);
	if (!rc)
		ctl_put_info(answer, v);
	return rc;
}

static int op_resize(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	int rc = vbd_resize(v, err);

	if (!rc)
		ctl_put_info(answer, v);
	return rc;
}

static int op_stats(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_object_set_new(answer, "stats",
			    ctl_stats_json(v, json_is_true(json_object_get(call->req, "full"))));
	return 0;
}

static int op_stats_all(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	td_list_each (l, &server.disks) {
		struct vbd *d = td_entry(l, struct vbd, link);
		json_t *row = json_object();

		if (!d->spec) {
			json_decref(row);
			continue;
		}
		ctl_put_state(row, d);
		json_object_set_new(row, "args", json_string(d->spec));
		json_object_set_new(row, "mode", json_string(d->opt.mode->name));
		json_object_set_new(row, "size", json_integer((json_int_t)d->disk.sectors * 512));
		json_object_set_new(row, "stats", ctl_stats_json(d, true));
		ctl_send(call, json_pack("{s:o}", "row", row));
	}
	return 0;
}

static int op_settle(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	const char *spec = json_string_value(json_object_get(call->req, "args"));
	struct vbd_options o;
	json_int_t minor;
	int rc = ctl_get_options(call->req, NULL, &o, err);

	if (!rc)
		rc = ctl_get_int(call->req, "minor", 0, TD_MINOR_MAX - 1, &minor, err);
	if (!rc && !spec)
		rc = td_fail(err, EINVAL, "'args' is missing: type:path");
	if (!rc && server_find((int)minor))
		rc = td_fail(err, EBUSY, "minor %d is this tapdisk's", (int)minor);
	return rc < 0 ? rc
		      : settle(&server.queue, (int)minor, spec, &o,
			       record_log(json_object_get(call->req, "past")), err);
}

static int op_info(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	ctl_put_info(answer, v);
	return 0;
}

/* --- watching --- */

static void send_event(struct ctl_call *call, void *arg)
{
	struct vbd *v = arg;
	json_t *e;

	if (call->minor >= 0 && call->minor != v->minor)
		return;
	e = json_object();
	ctl_put_state(e, v);
	if (v->spec)
		json_object_set_new(e, "sectors", json_integer((json_int_t)v->disk.sectors));
	ctl_send(call, json_pack("{s:o}", "event", e));
}

static void on_changed(struct vbd *v)
{
	ctl_each_watcher(send_event, v);
}

static int op_watch(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	json_int_t minor = 0;

	if (json_object_get(call->req, "minor")) {
		if (ctl_get_int(call->req, "minor", 0, TD_MINOR_MAX - 1, &minor, err) < 0)
			return -EINVAL;
		if (!server_find((int)minor))
			return td_fail(err, ENODEV, "minor %d is not attached to this tapdisk",
				       (int)minor);
		call->minor = (int)minor;
	}
	call->watching = true;
	return 0;
}

/* --- dispatch --- */

static const struct op ops[] = {
	{"ping", op_ping, ANY},
	{"list", op_list, ANY},
	{"attach", op_attach, BEGINS},
	{"detach", op_detach, DISK},
	{"open", op_open, DISK | BEGINS | WAITS},
	{"close", op_close, DISK | WAITS},
	{"pause", op_pause, DISK | WAITS},
	{"unpause", op_unpause, DISK | BEGINS | WAITS},
	{"resize", op_resize, DISK | WAITS},
	{"relink", ctl_op_relink, DISK | WAITS},
	{"limit", ctl_op_limit, DISK | WAITS},
	{"commit", ctl_op_commit, DISK | WAITS},
	{"query", ctl_op_query, DISK},
	{"cancel", ctl_op_cancel, DISK | WAITS},
	{"stats", op_stats, DISK},
	{"stats_all", op_stats_all, ANY},
	{"info", op_info, DISK},
	{"connect", ctl_op_connect, DISK | BEGINS | WAITS},
	{"disconnect", ctl_op_disconnect, DISK | WAITS},
	{"watch", op_watch, ANY},
	{"handover", ctl_op_handover, BEGINS},
	{"adopt", ctl_op_adopt, BEGINS},
	{"settle", op_settle, ANY},
};

/* A disk that is being handed over is waited for by every operation: it may come back. */
static struct vbd *find_disk(struct ctl_call *call, int minor, enum op_kind kind,
			     struct td_err *err)
{
	struct vbd *v = server_find(minor);

	if (v && (kind & WAITS || v->giving) && !ctl_may_wait(call, minor)) {
		td_fail(err, EBUSY,
			"%d operations on minor %d wait for one before them that does not end, "
			"perhaps because the disk's store does not answer: ask again when it does",
			CTL_WAITING - 1, minor);
		return NULL;
	}
	if (v) {
		vbd_stay(v);
		v = server_find(minor);
	}
	if (!v)
		td_fail(err, ENODEV, "minor %d is not attached to tapdisk %d", minor,
			(int)getpid());
	return v;
}

static int run_op(struct ctl_call *call, json_t *answer, struct td_err *err)
{
	const char *name = json_string_value(json_object_get(call->req, "op"));
	struct vbd *v = NULL;
	json_int_t minor = 0;

	for (size_t i = 0; name && i < sizeof ops / sizeof *ops; i++) {
		if (strcmp(ops[i].name, name))
			continue;
		if (server.giving_up && ops[i].kind & BEGINS)
			return td_fail(err, ESHUTDOWN,
				       "tapdisk %d is just ending: the tap-ctl that was making its "
				       "disk has died",
				       (int)getpid());
		if (ops[i].kind & DISK) {
			if (ctl_get_int(call->req, "minor", 0, TD_MINOR_MAX - 1, &minor, err) < 0)
				return -EINVAL;
			v = find_disk(call, (int)minor, ops[i].kind, err);
			if (!v)
				return -err->code;
		}
		return ops[i].run(call, v, answer, err);
	}
	return td_fail(err, EOPNOTSUPP, "this tapdisk (%s) knows no operation '%.40s'",
		       PACKAGE_VERSION, name ? name : "");
}

void ctl_ops_run(struct ctl_call *call)
{
	struct td_err err;
	json_t *answer = json_object();
	int rc;

	err.code = 0;
	err.text[0] = 0;
	rc = run_op(call, answer, &err);
	json_object_set_new(answer, "err", json_integer(rc < 0 ? -rc : 0));
	if (rc < 0) {
		json_object_set_new(answer, "text",
				    td_json_told(err.text[0] ? err.text : strerror(-rc)));
		td_log(LOG_INFO, "%s: %s",
		       json_string_value(json_object_get(call->req, "op")) ?: "?", err.text);
	}
	ctl_send(call, answer);
	if (!rc && call->watching)
		td_list_each (l, &server.disks)
			send_event(call, td_entry(l, struct vbd, link));
}

void ctl_ops_init(void)
{
	server.changed = on_changed;
}
