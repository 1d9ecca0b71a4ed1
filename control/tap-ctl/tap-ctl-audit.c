/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tap-ctl/tap-ctl-audit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "control/tap-ctl/tap-ctl.h"
#include "lib/ctl-client.h"
#include "lib/json-get.h"
#include "lib/output.h"
#include "lib/peers.h"

static int ask(const char *op, const struct tc_args *a, json_t **reply, struct td_err *err)
{
	return td_ctl_call(a->pid, json_pack("{s:s, s:i}", "op", op, "minor", a->minor), NULL, 0,
			   TD_CTL_TIMEOUT, NULL, NULL, reply, err);
}

/* What the kernel says, and what was asked for, do not agree; or somebody should know. */
static void found(json_t *report, bool wrong, const char *fmt, ...)
{
	char text[5000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	json_array_append_new(json_object_get(report, "findings"), json_string(text));
	if (wrong)
		json_object_set_new(report, "as_asked", json_false());
}

static bool past_page_cache(const json_t *report)
{
	const char *mode = td_json_text(report, "cache");

	return !strcmp(mode, "none") || !strcmp(mode, "directsync");
}

/* With parents-cache=yes, what is only read: a parent, or the leaf of a read-only disk. */
static bool may_be_cached(const json_t *report, const json_t *f)
{
	return td_json_true(report, "read_caching") && !td_json_true(f, "writes");
}

/* nolock is NFS's, and GFS2's of a single host; localflocks GFS2's and OCFS2's. */
static bool locks_stay_here(const char *options)
{
	static const char *const words[] = {"nolock", "local_lock=all", "local_lock=posix",
					    "localflocks"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strstr(options, words[i]))
			return true;
	return false;
}

static void judge_file(json_t *report, const json_t *f)
{
	bool direct = past_page_cache(report) && !may_be_cached(report, f);
	const char *path = td_json_text(f, "path");
	long long pages = td_json_number(f, "pages", -1);

	if (direct && !td_json_true(f, "direct"))
		found(report, true, "%s is open without O_DIRECT, with cache=%s", path,
		      td_json_text(report, "cache"));
	if (!json_array_size(json_object_get(f, "locks")))
		found(report, true, "%s is open without a lock", path);
	if (direct && pages > 0)
		found(report, false,
		      "%s: %lld pages are in the page cache, which this tapdisk bypasses: another "
		      "program has read or written the file",
		      path, pages);
	if (locks_stay_here(td_json_text(f, "options")))
		found(report, false,
		      "%s: its file system is mounted without locks between hosts: another host's "
		      "writer is not refused",
		      path);
}

static void add_file(json_t *report, const struct tc_args *a, const char *path)
{
	json_t *o = json_pack("{s:s}", "path", path);
	struct td_peers_view view;
	struct td_peers below;
	struct stat st;

	if (!o)
		return;
	if (tc_audit_file(o, a->pid, path, &st)) {
		if (S_ISREG(st.st_mode))
			tc_audit_mount(o, st.st_dev);
		judge_file(report, o);
		tc_audit_devices(json_object_get(report, "devices"),
				 S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev, 0);
		td_peers_find_image(path, &below);
		td_peers_look(&below, &view);
		if (below.n)
			json_object_set_new(o, "drbd_peer", json_string(td_peer_name(view.role)));
	} else {
		found(report, false, "%s: process %d has no such file or device open", path,
		      (int)a->pid);
	}
	json_array_append_new(json_object_get(report, "files"), o);
}

static void add_counters(json_t *report, const json_t *stats)
{
	const json_t *cache = json_object_get(stats, "cache"),
		     *engine = json_object_get(stats, "engine");

	json_object_set_new(report, "tapdisk",
			    json_pack("{s:I, s:I, s:I, s:I, s:s}", "writes",
				      (json_int_t)td_json_number(cache, "writes", 0), "flushes",
				      (json_int_t)td_json_number(cache, "flushes", 0), "fdatasyncs",
				      (json_int_t)td_json_number(engine, "fdatasyncs", 0),
				      "durable_writes",
				      (json_int_t)td_json_number(engine, "durable_writes", 0),
				      "engine", td_json_text(engine, "name")));
}

static void judge_devices(json_t *report)
{
	long long syncs = td_json_number(json_object_get(report, "tapdisk"), "fdatasyncs", 0);
	json_t *d;
	size_t i;

	json_array_foreach (json_object_get(report, "devices"), i, d)
		if (td_json_true(d, "last") && syncs > 0 &&
		    !strcmp(td_json_text(d, "write_cache"), "write back") &&
		    td_json_number(d, "flushes", -1) == 0)
			found(report, false,
			      "%s has a volatile write cache and has not had one flush since it is "
			      "there, although this tapdisk has made %lld: something in between "
			      "drops them, or does not count them",
			      td_json_text(d, "name"), syncs);
}

static json_t *report_new(const struct tc_args *a, const json_t *info)
{
	struct utsname u = {0};

	uname(&u);
	return json_pack("{s:i, s:i, s:s, s:s, s:s, s:s, s:b, s:s, s:b, s:[], s:[], s:[]}", "pid",
			 (int)a->pid, "minor", a->minor, "version", PACKAGE_VERSION, "kernel",
			 u.release, "args", td_json_text(info, "args"), "cache",
			 td_json_text(info, "mode"), "read_only", td_json_true(info, "read_only"),
			 "promise", td_json_text(info, "promise"), "as_asked", 1, "files",
			 "devices", "findings");
}

int tc_cmd_audit(const struct tc_args *a, struct td_err *err)
{
	json_t *info = NULL, *reply = NULL, *report = NULL, *image;
	const json_t *stats;
	size_t i;
	int rc = ask("info", a, &info, err);

	if (!rc && !json_object_get(info, "args"))
		rc = td_fail(err, ENODEV, "minor %d is not open: there is nothing to audit",
			     a->minor);
	if (!rc)
		rc = ask("stats", a, &reply, err);
	if (!rc && !(report = report_new(a, info)))
		rc = td_fail(err, ENOMEM, "out of memory");
	if (!rc) {
		stats = json_object_get(reply, "stats");
		json_object_set_new(
			report, "read_caching",
			json_boolean(!strcmp(td_json_text(stats, "read_caching"), "true")));
		json_array_foreach (json_object_get(stats, "images"), i, image)
			add_file(report, a, td_json_text(image, "name"));
		if (!i)
			found(report, false, "the disk is paused: its files are closed");
		add_counters(report, stats);
		judge_devices(report);
		if (*td_json_text(info, "reason"))
			found(report,
			      td_json_true(info, "two-primaries") ||
				      td_json_true(info, "peer-cut-off"),
			      "%s", td_json_text(info, "reason"));
		if (a->json) {
			json_dumpf(report, stdout, JSON_PRESERVE_ORDER | JSON_INDENT(1));
			putchar('\n');
		} else {
			tc_audit_print(report);
		}
		rc = td_output_end(err);
	}
	json_decref(info);
	json_decref(reply);
	json_decref(report);
	return rc;
}
