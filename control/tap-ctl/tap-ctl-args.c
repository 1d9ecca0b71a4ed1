/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line: one table a command gives the letters, the long names and the help. */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_OPTS 24

/* getopt's two notations of one table. */
static void parse_tables(const struct tc_opt *opts, char *letters, struct option *longs)
{
	*letters++ = '+'; /* options first: what follows a stray word is not looked at */
	*letters++ = ':';
	for (const struct tc_opt *o = opts; o->letter; o++) {
		*longs++ = (struct option){.name = o->name,
					   .has_arg = o->arg ? required_argument : no_argument,
					   .val = o->letter};
		if (o->letter < ' ')
			continue;
		*letters++ = (char)o->letter;
		if (o->arg)
			*letters++ = ':';
	}
	*letters = 0;
	*longs = (struct option){};
}

static int parse_number(const struct tc_cmd *cmd, const struct tc_opt *o, const char *text, int min,
			int *v, struct td_err *err)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < min || n > INT_MAX)
		return td_fail(err, EINVAL, "%s: -%c takes a number from %d up, not '%s'",
			       cmd->name, o->letter, min, text);
	*v = (int)n;
	return 0;
}

static int parse_seconds(const struct tc_cmd *cmd, const struct tc_opt *o, const char *text,
			 double *v, struct td_err *err)
{
	char *end;
	double n = strtod(text, &end);

	if (end == text || *end || !(n >= 0.1 && n <= 86400))
		return td_fail(err, EINVAL, "%s: -%c takes seconds from 0.1 to 86400, not '%s'",
			       cmd->name, o->letter, text);
	*v = n;
	return 0;
}

/* Bytes a second, with K, M, G or T for 1024 and so on. */
static int parse_rate(const struct tc_cmd *cmd, const struct tc_opt *o, const char *text,
		      unsigned long long *v, struct td_err *err)
{
	static const char units[] = "KMGT";
	const char *unit = NULL;
	char *end;

	errno = 0;
	*v = strtoull(text, &end, 10);
	if (*end)
		unit = strchr(units, *end);
	if (*text < '0' || *text > '9' || errno || (*end && (!unit || end[1])) || *v >> 22)
		return td_fail(err, EINVAL,
			       "%s: -%c takes bytes a second, as 500K or 50M, not '%s'", cmd->name,
			       o->letter, text);
	for (; unit && unit >= units; unit--)
		*v *= 1024;
	return 0;
}

static int parse_option(const struct tc_cmd *cmd, const char *text, struct tc_args *a,
			struct td_err *err)
{
	if (!strchr(text, '=') || *text == '=')
		return td_fail(err, EINVAL, "%s: -o takes KEY=VALUE, not '%s'", cmd->name, text);
	if (!a->options)
		a->options = json_array();
	if (json_array_append_new(a->options, json_string(text)))
		return td_fail(err, EILSEQ, "%s: -o '%s' is not UTF-8 text", cmd->name, text);
	return 0;
}

/* One of the disk's options, a number, by another name. */
static int parse_as(const char *key, const struct tc_cmd *cmd, const struct tc_opt *o,
		    const char *text, struct tc_args *a, struct td_err *err)
{
	char option[40];
	int n = 0, ret = parse_number(cmd, o, text, 0, &n, err);

	if (ret)
		return ret;
	snprintf(option, sizeof option, "%s=%d", key, n);
	return parse_option(cmd, option, a, err);
}

static int parse_one(const struct tc_cmd *cmd, const struct tc_opt *o, const char *text,
		     struct tc_args *a, struct td_err *err)
{
	switch (o->what) {
	case TC_PID:
		return parse_number(cmd, o, text, 1, &a->pid, err);
	case TC_MINOR:
		return parse_number(cmd, o, text, 0, &a->minor, err);
	case TC_TIMEOUT:
		return parse_number(cmd, o, text, 0, &a->timeout, err);
	case TC_REQUEST_TIMEOUT:
		return parse_as("request-timeout", cmd, o, text, a, err);
	case TC_STACK:
		return parse_as("parent-disk", cmd, o, text, a, err);
	case TC_STANDBY:
		return parse_option(cmd, "mirror-standby=yes", a, err);
	case TC_LEAF_CACHE:
		return parse_option(cmd, "leaf-cache=yes", a, err);
	case TC_ARGS:
		a->args = text;
		return 0;
	case TC_TYPE:
		a->type = text;
		return 0;
	case TC_FILE:
		a->file = text;
		return 0;
	case TC_OPTION:
		return parse_option(cmd, text, a, err);
	case TC_CHANGED:
		a->changed = text;
		return 0;
	case TC_RATE:
		return parse_rate(cmd, o, text, &a->rate, err);
	case TC_WAIT:
		a->wait = true;
		return 0;
	case TC_SECONDARY:
		a->secondary = text;
		return 0;
	case TC_READ_ONLY:
		a->read_only = true;
		return 0;
	case TC_BUFFERED:
		a->buffered = true;
		return 0;
	case TC_FORCE:
		a->force = true;
		return 0;
	case TC_JSON:
		a->json = true;
		return 0;
	case TC_BATCH:
		a->batch = true;
		return 0;
	case TC_COUNT:
		return parse_number(cmd, o, text, 1, &a->count, err);
	case TC_DELAY:
		return parse_seconds(cmd, o, text, &a->delay, err);
	case TC_LISTEN:
		a->listen = text;
		return 0;
	case TC_CERTIFICATES:
		a->certificates = text;
		return 0;
	case TC_PSK_FILE:
		a->psk_file = text;
		return 0;
	case TC_PLAIN:
		a->plain = true;
		return 0;
	case TC_CLEAR:
		a->clear = true;
		return 0;
	case TC_ALL:
		a->all = true;
		return 0;
	case TC_HELP:
		a->help = true;
		return 0;
	case TC_NAME:
		a->name = text;
		return 0;
	case TC_KEY:
		a->key = true;
		return 0;
	}
	return td_fail(err, EINVAL, "%s: -%c (--%s) is not known", cmd->name, o->letter, o->name);
}

/* -D is an option of the disk by another name, which sm gives to nearly all; the opposite beside it
 * is a mistake that must not be decided here. */
static int parse_buffered(const struct tc_cmd *cmd, struct tc_args *a, struct td_err *err)
{
	const char *text;
	bool given = false;
	json_t *v;
	size_t i;

	json_array_foreach (a->options, i, v) {
		text = json_string_value(v);
		if (strncmp(text, "parents-cache=", 14))
			continue;
		if (strcmp(text + 14, "yes"))
			return td_fail(err, EINVAL,
				       "%s: -D means -o parents-cache=yes, but -o %s is given too: "
				       "leave one out",
				       cmd->name, text);
		given = true;
	}
	return given ? 0 : parse_option(cmd, "parents-cache=yes", a, err);
}

static int parse_complete(const struct tc_cmd *cmd, const bool *given, struct tc_args *a,
			  struct td_err *err)
{
	for (const char *p = cmd->need; *p; p++)
		if (!given[(unsigned char)*p])
			return td_fail(err, EINVAL, "%s: -%c is missing; see tap-ctl help %s",
				       cmd->name, *p, cmd->name);
	return a->buffered ? parse_buffered(cmd, a, err) : 0;
}

static int parse_bad(const struct tc_cmd *cmd, int c, char **argv, struct td_err *err)
{
	if (c == ':')
		return td_fail(err, EINVAL, "%s: %s needs a value; see tap-ctl help %s", cmd->name,
			       argv[optind - 1], cmd->name);
	if (optopt >= ' ')
		return td_fail(err, EINVAL, "%s: there is no option -%c; see tap-ctl help %s",
			       cmd->name, optopt, cmd->name);
	return td_fail(err, EINVAL,
		       "%s: there is no option %s, or it takes no value; see tap-ctl help %s",
		       cmd->name, argv[optind - 1], cmd->name);
}

int tc_parse(const struct tc_cmd *cmd, int argc, char **argv, struct tc_args *a, struct td_err *err)
{
	struct option longs[MAX_OPTS + 1];
	char letters[2 * MAX_OPTS + 3];
	bool given[256] = {};
	int c, ret = 0;

	*a = (struct tc_args){.pid = -1, .minor = -1, .timeout = -1};
	parse_tables(cmd->opts, letters, longs);
	opterr = 0;
	while (!ret && (c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		const struct tc_opt *o = cmd->opts;

		if (c == '?' || c == ':')
			return parse_bad(cmd, c, argv, err);
		while (o->letter && o->letter != c)
			o++;
		given[c & 0xff] = true;
		ret = parse_one(cmd, o, optarg, a, err);
	}
	if (ret || a->help)
		return ret;
	if (optind < argc)
		return td_fail(err, EINVAL, "%s: '%s' is not an option; see tap-ctl help %s",
			       cmd->name, argv[optind], cmd->name);
	return parse_complete(cmd, given, a, err);
}

void tc_help(const struct tc_cmd *cmd)
{
	printf("tap-ctl %s - %s\n\n", cmd->name, cmd->summary);
	for (const struct tc_opt *o = cmd->opts; o->letter; o++) {
		char head[64], letter[4] = "   ";

		if (o->letter > ' ')
			snprintf(letter, sizeof letter, "-%c,", o->letter);
		snprintf(head, sizeof head, "%s --%s%s%s", letter, o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		printf("  %-32s %s%s\n", head, o->help,
		       o->letter > ' ' && strchr(cmd->need, o->letter) ? " (must be given)" : "");
	}
}

void tc_usage(bool to_stderr)
{
	FILE *f = to_stderr ? stderr : stdout;

	fprintf(f, "usage: tap-ctl COMMAND [OPTION]...\n\n");
	for (const struct tc_cmd *c = tc_cmds; c->name; c++)
		fprintf(f, "  %-10s %s\n", c->name, c->summary);
	fprintf(f,
		"\n'tap-ctl help COMMAND' shows its options.  'tap-ctl --version' shows the "
		"version.\n"
		"The exit code is the number of an error, see errno(3); its text is on stderr.\n");
}

static bool spec_is_file(const char *args, size_t type_len)
{
	static const char *const types[] = {"aio", "raw", "vhd", "qcow", "qcow2", NULL};

	for (const char *const *t = types; *t; t++)
		if (strlen(*t) == type_len && !strncmp(*t, args, type_len))
			return true;
	return false;
}

char *tc_absolute(const char *path)
{
	char cwd[PATH_MAX], *full, *slash;

	if (*path == '/')
		return strdup(path);
	if (!getcwd(cwd, sizeof cwd))
		return NULL;
	/* the current directory's name has no links, so that what is above it is above it in its
	 * name, too */
	for (;;) {
		if (!strncmp(path, "./", 2)) {
			path += 2;
		} else if (!strncmp(path, "../", 3) && (slash = strrchr(cwd, '/'))) {
			path += 3;
			*slash = 0;
		} else if (*path == '/') {
			path++;
		} else {
			break;
		}
	}
	return asprintf(&full, "%s/%s", strcmp(cwd, "/") ? cwd : "", path) < 0 ? NULL : full;
}

int tc_spec(const char *args, char **spec, struct td_err *err)
{
	const char *colon = strchr(args, ':');
	char *path;

	if (!colon || colon == args || !colon[1])
		return td_fail(err, EINVAL, "'%s' is not of the form TYPE:PATH", args);
	if (colon[1] == '/' || !spec_is_file(args, colon - args)) {
		*spec = strdup(args);
		return *spec ? 0 : td_fail(err, ENOMEM, "out of memory");
	}
	path = tc_absolute(colon + 1);
	if (!path)
		return td_fail(err, errno, "cannot tell the current directory: %s",
			       strerror(errno));
	if (asprintf(spec, "%.*s:%s", (int)(colon - args), args, path) < 0)
		*spec = NULL;
	free(path);
	return *spec ? 0 : td_fail(err, ENOMEM, "out of memory");
}
