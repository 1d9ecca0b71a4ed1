/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* commit, query, cancel: an image of a disk's chain goes into its parent while guests go on. */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "td/ctl.h"

#define LOOK 500 /* ms between two questions of one who waits, at most */

static json_t *question(const char *op, const struct tc_args *a)
{
	return json_pack("{s:s, s:i}", "op", op, "minor", a->minor);
}

struct status {
	char word[32];
	long long done, all;
};

static int ask_status(const struct tc_args *a, struct status *s, struct td_err *err)
{
	json_t *reply = NULL;
	int ret = td_ctl_call(a->pid, question("query", a), NULL, 0, TD_CTL_TIMEOUT, NULL, NULL,
			      &reply, err);
	const char *word = json_string_value(json_object_get(reply, "status"));

	if (!ret) {
		snprintf(s->word, sizeof s->word, "%s", word ? word : "undefined");
		s->done = json_integer_value(json_object_get(reply, "done"));
		s->all = json_integer_value(json_object_get(reply, "all"));
	}
	json_decref(reply);
	return ret;
}

static bool job_is_over(const struct status *s)
{
	return !strcmp(s->word, "concluded") || !strcmp(s->word, "undefined");
}

static void show_progress(const struct status *s)
{
	fprintf(stderr, "\r%6.2f%%  %-10.20s",
		s->all ? 100.0 * (double)s->done / (double)s->all : 0.0, s->word);
	fflush(stderr);
}

/* Until it is over; a leaf's is completed by being asked. */
static int follow_job(const struct tc_args *a, struct status *s, struct td_err *err)
{
	bool show = isatty(STDERR_FILENO);
	int ret, ms = 10;

	while (!(ret = ask_status(a, s, err)) && !job_is_over(s)) {
		if (show)
			show_progress(s);
		nanosleep(&(struct timespec){0, ms * 1000000L}, NULL);
		ms = 2 * ms < LOOK ? 2 * ms : LOOK;
	}
	if (show)
		fprintf(stderr, "\r%32s\r", "");
	return ret;
}

static int put_status(const struct status *s, struct td_err *err)
{
	char line[128];

	snprintf(line, sizeof line, "Commit status '%s' (%lld/%lld)", s->word, s->done, s->all);
	return tc_put_line(line, err);
}

/* A path as it is, or TYPE:PATH; made absolute. */
static int image_name(const struct tc_args *a, char **name, struct td_err *err)
{
	if (*a->args == '/' || !strchr(a->args, ':')) {
		*name = tc_absolute(a->args);
		return *name ? 0 : td_fail(err, errno, "%s: no such path", a->args);
	}
	return tc_spec(a->args, name, err);
}

int tc_cmd_commit(const struct tc_args *a, struct td_err *err)
{
	json_t *req = question("commit", a);
	struct status s;
	char *name = NULL;
	int ret = image_name(a, &name, err);

	if (!ret && json_object_set_new(req, "image", json_string(name)))
		ret = td_fail(err, EILSEQ, "'%s' is not UTF-8 text", name);
	free(name);
	if (ret) {
		json_decref(req);
		return ret;
	}
	if (a->rate)
		json_object_set_new(req, "rate", json_integer((json_int_t)a->rate));
	if (a->force)
		json_object_set_new(req, "force", json_true());
	ret = td_ctl_call(a->pid, req, NULL, 0, TC_SLOW, NULL, NULL, NULL, err);
	if (ret || !a->wait)
		return ret;
	ret = follow_job(a, &s, err);
	if (!ret && strcmp(s.word, "concluded"))
		ret = td_fail(err, ESTALE,
			      "the end of the commit was told to somebody else, who asked for it");
	return ret ? ret : put_status(&s, err);
}

int tc_cmd_query(const struct tc_args *a, struct td_err *err)
{
	struct status s;
	int ret = a->wait ? follow_job(a, &s, err) : ask_status(a, &s, err);

	if (ret || !a->json)
		return ret ? ret : put_status(&s, err);
	printf("{\"status\": \"%s\", \"done\": %lld, \"all\": %lld}", s.word, s.done, s.all);
	return tc_put_line("", err);
}

int tc_cmd_cancel(const struct tc_args *a, struct td_err *err)
{
	json_t *req = question("cancel", a);

	if (a->wait)
		json_object_set_new(req, "wait", json_true());
	return td_ctl_call(a->pid, req, NULL, 0, TC_SLOW, NULL, NULL, NULL, err);
}
