/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tap-ctl: tapdisks and their disks from the command line.  The commands, and what each takes; the
 * rest of the family has one concern a file.  The exit code is an errno, with one line of text on
 * stderr.
 *
 * One thing: the table of commands names every file's command, and each command prints and
 * parses through this file and tap-ctl-args.c.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl.h"
#include "lib/conf.h"
#include "lib/output.h"
#include "td/ctl.h"

#define OPT_PID                                                                                    \
	{                                                                                          \
		'p', "pid", "PID", "the tapdisk, by its process", TC_PID                           \
	}
#define OPT_MINOR                                                                                  \
	{                                                                                          \
		'm', "minor", "N", "the disk, by its minor number", TC_MINOR                       \
	}
#define OPT_HELP                                                                                   \
	{'h', "help", NULL, "show these options", TC_HELP},                                        \
	{                                                                                          \
	}
#define OPT_IMAGE                                                                                  \
	{'a', "args", "TYPE:PATH",                                                                 \
	 "the image; TYPE is aio (or raw), vhd, qcow2, qcow, nbd, rbd, empty or null", TC_ARGS},   \
		{'o', "option", "KEY=VALUE",                                                       \
		 "an option of the disk, such as cache=writeback; may be repeated", TC_OPTION},    \
		{'R', "read-only", NULL, "open it read-only", TC_READ_ONLY},                       \
		{'D', "buffered", NULL,                                                            \
		 "read parents through the host's page cache: -o parents-cache=yes", TC_BUFFERED}, \
		{'2', "secondary", "TYPE:PATH",                                                    \
		 "a mirror: what the guest writes goes there as well", TC_SECONDARY},              \
		{'s', "failover", NULL,                                                            \
		 "the secondary stands by, for what the image has no space for", TC_STANDBY},      \
		{'t', "request-timeout", "SECONDS",                                                \
		 "report a store that has not answered for that long", TC_REQUEST_TIMEOUT},        \
		{'C', "changed-blocks", "PATH", "keep a log of changed blocks there", TC_CHANGED}, \
		{'E', "encrypted", NULL,                                                           \
		 "the image is encrypted: its key or passphrase is on stdin", TC_KEY},             \
		{'e', "stack", "N",                                                                \
		 "stand on another disk, by its minor number: -o parent-disk=N", TC_STACK},        \
	{                                                                                          \
		'r', "leaf-cache", NULL,                                                           \
			"keep what is read from parents in the leaf: -o leaf-cache=yes",           \
			TC_LEAF_CACHE                                                              \
	}
#define OPT_TIMEOUT                                                                                \
	{                                                                                          \
		't', "timeout", "SECONDS",                                                         \
			"how long to wait for requests under way; 0: without limit", TC_TIMEOUT    \
	}

static const struct tc_opt opts_none[] = {OPT_HELP};
static const struct tc_opt opts_list[] = {
	{'p', "pid", "PID", "only that tapdisk's disks", TC_PID},
	{'m', "minor", "N", "only that disk", TC_MINOR},
	{'t', "type", "TYPE", "only images of that type", TC_TYPE},
	{'f', "file", "PATH", "only that image", TC_FILE},
	{'n', "name", "NAME", "only disks of that name (create -d)", TC_NAME},
	{1, "json", NULL, "a JSON array with all that is known", TC_JSON},
	OPT_HELP};
static const struct tc_opt opts_minor[] = {OPT_MINOR, OPT_HELP};
static const struct tc_opt opts_revive[] = {
	OPT_MINOR,
	{'E', "encrypted", NULL, "the image is encrypted: its key or passphrase is on stdin",
	 TC_KEY},
	OPT_HELP};
static const struct tc_opt opts_disk[] = {OPT_PID, OPT_MINOR, OPT_HELP};
static const struct tc_opt opts_open[] = {OPT_PID, OPT_MINOR, OPT_IMAGE, OPT_HELP};
static const struct tc_opt opts_create[] = {
	OPT_IMAGE,
	{'d', "name", "NAME", "a name for the disk, for list -n NAME", TC_NAME},
	OPT_HELP};
static const struct tc_opt opts_close[] = {
	OPT_PID,
	OPT_MINOR,
	{'f', "force", NULL, "disconnect the guest instead of waiting until it releases the disk",
	 TC_FORCE},
	OPT_TIMEOUT,
	OPT_HELP};
static const struct tc_opt opts_free[] = {OPT_MINOR,
					  {'f', "force", NULL,
					   "also when what a dead tapdisk had not written yet "
					   "cannot be put into the image: that is lost",
					   TC_FORCE},
					  OPT_HELP};
static const struct tc_opt opts_destroy[] = {
	OPT_PID,
	OPT_MINOR,
	{'f', "force", NULL,
	 "drop the guest's ring; and lose what a dead tapdisk had not written yet, when the image "
	 "does not take it",
	 TC_FORCE},
	OPT_TIMEOUT,
	OPT_HELP};
static const struct tc_opt opts_wait[] = {OPT_PID, OPT_MINOR, OPT_TIMEOUT, OPT_HELP};
static const struct tc_opt opts_unpause[] = {
	OPT_PID,
	OPT_MINOR,
	{'a', "args", "TYPE:PATH", "go on with this image instead of the old one", TC_ARGS},
	{'o', "option", "KEY=VALUE", "an option of the disk; may be repeated", TC_OPTION},
	{'2', "secondary", "TYPE:PATH",
	 "a mirror, from now on; null: none; without it, the mirror goes on", TC_SECONDARY},
	{'c', "changed-blocks", "PATH", "keep a log of changed blocks there; without it, none",
	 TC_CHANGED},
	OPT_HELP};
static const struct tc_opt opts_upgrade[] = {
	{'p', "pid", "PID", "that tapdisk", TC_PID},
	{2, "all", NULL, "all that do not run the program on disk", TC_ALL},
	{'f', "force", NULL, "with --all: those too that run it already", TC_FORCE},
	{1, "json", NULL, "print a JSON array", TC_JSON},
	OPT_HELP};
static const struct tc_opt opts_top[] = {
	OPT_PID,
	OPT_MINOR,
	{'b', "batch", NULL, "print lines, also on a terminal", TC_BATCH},
	{'n', "count", "N", "end after N looks", TC_COUNT},
	{'d', "delay", "SECONDS", "from one look to the next; 2 without it", TC_DELAY},
	{1, "json", NULL, "print JSON, one object a look", TC_JSON},
	OPT_HELP};
static const struct tc_opt opts_audit[] = {
	OPT_PID, OPT_MINOR, {1, "json", NULL, "print a JSON object", TC_JSON}, OPT_HELP};
static const struct tc_opt opts_limit[] = {
	OPT_PID,
	OPT_MINOR,
	{'o', "option", "KEY=VALUE", "a limit, such as limit-iops=500; may be repeated", TC_OPTION},
	{1, "json", NULL, "print a JSON object", TC_JSON},
	OPT_HELP};
static const struct tc_opt opts_mode[] = {
	{'a', "args", "[TYPE:]PATH", "the image", TC_ARGS},
	{'o', "option", "KEY=VALUE", "what it is opened with; may be repeated", TC_OPTION},
	{3, "clear", NULL, "remove the keys of the image", TC_CLEAR},
	OPT_HELP};
static const struct tc_opt opts_metrics[] = {
	{'f', "file", "PATH", "put them into this file, whole, instead of printing them", TC_FILE},
	OPT_HELP};
static const struct tc_opt opts_commit[] = {
	OPT_PID,
	OPT_MINOR,
	{'a', "args", "[TYPE:]PATH", "the image of the chain that goes into its parent", TC_ARGS},
	{'r', "rate", "BYTES", "at most so many bytes a second, as 50M", TC_RATE},
	{'f', "force", NULL, "images that have the same parent, and are not open, do not count",
	 TC_FORCE},
	{'w', "wait", NULL, "wait for the end, showing how far it is", TC_WAIT},
	OPT_HELP};
static const struct tc_opt opts_query[] = {
	OPT_PID,
	OPT_MINOR,
	{'w', "wait", NULL, "wait for the end, showing how far it is", TC_WAIT},
	{1, "json", NULL, "print a JSON object", TC_JSON},
	OPT_HELP};
static const struct tc_opt opts_export[] = {
	OPT_MINOR,
	{'l', "listen", "ADDRESS:PORT", "where; 127.0.0.1 and port 10809 without it", TC_LISTEN},
	{4, "tls-certificates", "DIRECTORY",
	 "server-cert.pem, server-key.pem, and ca-cert.pem, by which clients are known",
	 TC_CERTIFICATES},
	{5, "tls-psk-file", "FILE", "keys of clients, one a line: USER:HEXADECIMAL", TC_PSK_FILE},
	{6, "plain", NULL, "without TLS, on whatever address: anybody may connect", TC_PLAIN},
	{'R', "read-only", NULL, "clients change nothing", TC_READ_ONLY},
	{'c', "clients", "N", "at most so many connections at once; 16 without it", TC_COUNT},
	OPT_HELP};
static const struct tc_opt opts_cancel[] = {
	OPT_PID, OPT_MINOR, {'w', "wait", NULL, "wait for the end", TC_WAIT}, OPT_HELP};

const struct tc_cmd tc_cmds[] = {
	{"list", "show tapdisks and their disks", opts_list, "", tc_cmd_list},
	{"allocate", "reserve a minor number; prints its marker file", opts_none, "",
	 tc_cmd_allocate},
	{"free", "free a minor number", opts_free, "m", tc_cmd_free},
	{"spawn", "start a tapdisk; prints its pid", opts_none, "", tc_cmd_spawn},
	{"attach", "assign a minor number to a tapdisk", opts_disk, "pm", tc_cmd_attach},
	{"detach", "remove it from the tapdisk; a tapdisk without one ends", opts_disk, "pm",
	 tc_cmd_detach},
	{"open", "open an image for an attached disk", opts_open, "pma", tc_cmd_open},
	{"close", "complete the requests under way and close the image", opts_close, "pm",
	 tc_cmd_close},
	{"create", "allocate, spawn, attach and open in one; prints the marker file", opts_create,
	 "a", tc_cmd_create},
	{"destroy", "close, detach and free in one", opts_destroy, "pm", tc_cmd_destroy},
	{"pause", "hold the guest's requests and close the image", opts_wait, "pm", tc_cmd_pause},
	{"unpause", "open the image again, or a new one, and resume", opts_unpause, "pm",
	 tc_cmd_unpause},
	{"revive", "start a new tapdisk for the disk of a dead one; prints its pid", opts_revive,
	 "m", tc_cmd_revive},
	{"settle", "write to the image what a dead tapdisk had not written to it yet", opts_minor,
	 "m", tc_cmd_settle},
	{"upgrade",
	 "replace tapdisks by the program on disk, under running guests; prints the new pid",
	 opts_upgrade, "", tc_cmd_upgrade},
	{"resize", "read the size of an image that has grown, for its guest; prints it in bytes",
	 opts_disk, "pm", tc_cmd_resize},
	{"limit", "limit what a disk may be asked for in a second, or show it", opts_limit, "pm",
	 tc_cmd_limit},
	{"stats", "print a disk's counters as one line of JSON", opts_disk, "pm", tc_cmd_stats},
	{"audit", "show what the kernel says of a disk's files and devices", opts_audit, "pm",
	 tc_cmd_audit},
	{"top", "show the activity of all disks, live", opts_top, "", tc_cmd_top},
	{"metrics", "print the counters of all disks for Prometheus", opts_metrics, "",
	 tc_cmd_metrics},
	{"mode", "keep the cache mode of an image whose toolstack has no word for it", opts_mode,
	 "", tc_cmd_mode},
	{"commit", "put an image of a disk's chain into its parent, under a running guest",
	 opts_commit, "pma", tc_cmd_commit},
	{"query", "show how far a commit is; completes a leaf's that is ready", opts_query, "pm",
	 tc_cmd_query},
	{"cancel", "cancel a commit: the chain is as before", opts_cancel, "pm", tc_cmd_cancel},
	{"export", "serve a disk to other hosts, by NBD over TLS, until it is ended", opts_export,
	 "m", tc_cmd_export},
	{},
};

int tc_put_line(const char *text, struct td_err *err)
{
	puts(text);
	return td_output_end(err);
}

static const struct tc_cmd *find_cmd(const char *name)
{
	for (const struct tc_cmd *c = tc_cmds; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

/* A tapdisk stands in `/', so a path that is given relative to here would be another one to it. */
static int absolute(const char *variable, struct td_err *err)
{
	const char *dir = getenv(variable);
	char cwd[PATH_MAX], *path;
	int ret = 0;

	if (!dir || !*dir || *dir == '/')
		return 0;
	if (!getcwd(cwd, sizeof cwd))
		return td_fail(err, errno, "cannot tell the current directory: %s",
			       strerror(errno));
	if (asprintf(&path, "%s/%s", cwd, dir) < 0)
		return td_fail(err, ENOMEM, "out of memory");
	if (setenv(variable, path, 1) < 0)
		ret = td_fail(err, ENOMEM, "out of memory");
	free(path);
	return ret;
}

static int run_cmd(const struct tc_cmd *cmd, int argc, char **argv, struct td_err *err)
{
	struct tc_args a;
	int ret = tc_parse(cmd, argc, argv, &a, err);

	if (!ret && a.help)
		tc_help(cmd);
	else if (!ret)
		ret = absolute(TD_CTL_DIR_ENV, err);
	if (!ret)
		ret = absolute(TD_CONF_ENV, err);
	if (!ret && !a.help)
		ret = cmd->run(&a, err);
	json_decref(a.options);
	return ret;
}

static int run_help(int argc, char **argv, struct td_err *err)
{
	const struct tc_cmd *cmd = argc > 2 ? find_cmd(argv[2]) : NULL;

	if (argc > 2 && !cmd && *argv[2] != '-')
		return td_fail(err, EINVAL, "there is no command '%s'; tap-ctl --help lists them",
			       argv[2]);
	if (cmd)
		tc_help(cmd);
	else
		tc_usage(false);
	return 0;
}

static int dispatch(int argc, char **argv, struct td_err *err)
{
	const char *word = argv[1];
	const struct tc_cmd *cmd = find_cmd(word);

	if (cmd)
		return run_cmd(cmd, argc - 1, argv + 1, err);
	if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h"))
		return run_help(argc, argv, err);
	if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
		printf("tap-ctl %s\n", PACKAGE_VERSION);
		return 0;
	}
	return td_fail(err, EINVAL,
		       "there is no command '%s'; usage: tap-ctl COMMAND [OPTION]..., tap-ctl "
		       "--help lists the commands",
		       word);
}

int main(int argc, char **argv)
{
	static struct td_err err;

	prctl(PR_SET_DUMPABLE, 0); /* keys pass through its memory */
	/* an end of the reader is an error of the write, not the end of a half-made disk */
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		tc_usage(true);
		return EINVAL;
	}
	dispatch(argc, argv, &err);
	if (!err.code)
		td_output_end(&err);
	if (!err.code)
		return 0;
	td_output_fault("tap-ctl", &err);
	return err.code;
}
