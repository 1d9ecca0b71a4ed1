/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-ask.h"
#include "lib/ctl-dir.h"
#include "lib/shm-dir.h"

#define LIST_MOVES 4 /* times that a disk is followed from one tapdisk to another */

struct list {
	struct tc_rows rows;
	struct td_err *err;
};

static bool list_has_minor(const struct list *l, int minor)
{
	for (size_t i = 0; i < l->rows.n; i++) {
		const json_t *v = json_object_get(l->rows.row[i], "minor");

		if (v && json_integer_value(v) == minor)
			return true;
	}
	return false;
}

/* A marker that no tapdisk claims: allocated, or a dead tapdisk's.  One that is held belongs to a
 * tapdisk that did not answer, and shows by its pid alone. */
static void list_marker(int minor, void *arg)
{
	struct list *l = arg;

	enum td_marker what = td_ctl_marker(minor, NULL);

	if (what == TD_MARKER_STALE && !tc_dead_is_wanted(minor, &l->rows))
		tc_marker_sweep(minor);
	if (what != TD_MARKER_FREE || list_has_minor(l, minor))
		return;
	tc_rows_add(&l->rows, json_pack("{s:i}", "minor", minor), l->err);
}

/* The tapdisk that a minor's marker names; -1: none, or there is no such question. */
static int list_holder(const struct tc_args *a)
{
	pid_t pid;

	return a->minor >= 0 && a->pid < 0 && td_ctl_marker(a->minor, &pid) == TD_MARKER_HELD &&
			       pid > 0
		       ? (int)pid
		       : -1;
}

/* The marker says who serves a minor number: the others need not be asked, and one that hangs is
 * not waited for.  A disk that changes its tapdisk meanwhile is looked for in the other one. */
static int list_ask(const struct tc_args *a, struct list *l)
{
	int ret = 0, holder = list_holder(a);

	for (int tries = 0; tries < LIST_MOVES; tries++) {
		int asked = holder;

		ret = tc_ask_all("list", asked > 0 ? asked : a->pid, TD_CTL_TIMEOUT, &l->rows,
				 l->err);
		if (ret || asked < 0 || list_has_minor(l, a->minor))
			return ret;
		holder = list_holder(a);
		if (holder == asked)
			return 0;
	}
	return ret;
}

int tc_cmd_list(const struct tc_args *a, struct td_err *err)
{
	struct list l = {.err = err};
	int ret;

	if (access(td_ctl_dir(), R_OK | X_OK) < 0 && errno != ENOENT)
		return td_fail(err, errno, "cannot look into %s: %s", td_ctl_dir(),
			       strerror(errno));
	ret = list_ask(a, &l);
	if (!ret)
		tc_markers(list_marker, &l);
	td_shm_sweep(0); /* of those whose socket is gone already */
	if (!ret) {
		tc_rows_filter(&l.rows, a);
		tc_rows_sort(&l.rows);
		if (a->json)
			tc_rows_json(&l.rows);
		else if (isatty(STDOUT_FILENO))
			tc_rows_table(&l.rows);
		else
			tc_rows_plain(&l.rows);
	}
	tc_rows_free(&l.rows);
	return ret;
}
