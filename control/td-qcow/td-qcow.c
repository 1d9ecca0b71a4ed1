/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * td-qcow: qcow2 images, while no guest uses them.
 *
 * One thing: the table of commands names every file's command, and each command reports a wrong
 * call through this file.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "control/td-qcow/td-qcow.h"
#include "lib/conf.h"
#include "lib/fiber/fiber.h"
#include "lib/json-get.h"
#include "lib/output.h"

static const char usage_text[] =
	"usage: td-qcow create [-f] [-E] [-o OPTION=VALUE,...] [-b BACKING -F FORMAT] FILE [SIZE]\n"
	"       td-qcow snapshot [-f] [-E] [-F FORMAT] [-o OPTION=VALUE,...] PARENT FILE    a new "
	"image upon PARENT, of the same size\n"
	"       td-qcow info [--json] FILE\n"
	"       td-qcow check [-r leaks|all] [--json] FILE       0: clean, 2: corrupt, 3: leaks "
	"alone\n"
	"       td-qcow resize [-E] [--shrink] FILE [+|-]SIZE\n"
	"       td-qcow commit [-f] [-E] [-k] [-p] FILE          into its backing file; -k keeps "
	"its contents, -p shows progress\n"
	"       td-qcow map [-E] [--json] FILE\n"
	"OPTION: cluster_size, refcount_bits, compat (0.10, 1.1), lazy_refcounts, extended_l2, "
	"compression_type, data_file, data_file_raw,\n"
	"        preallocation (off, metadata, falloc, full), backing_file, backing_fmt.  SIZE: "
	"bytes, or with K, M, G, T, P.\n"
	"        encrypt.format (luks), encrypt.cipher-alg (aes-128, aes-256), encrypt.cipher-mode "
	"(xts, cbc), encrypt.ivgen-alg (plain, plain64,\n"
	"        essiv), encrypt.hash-alg (sha1, sha256, sha512), encrypt.iter-time (ms)\n"
	"  -f, --force       create: over a file that is there and not empty; commit: beneath "
	"other overlays\n"
	"  -E, --encrypted   the image is encrypted, or to be, and its passphrase on standard "
	"input, up to the end\n"
	"  -h, --help        this text;  -V, --version\n";

int td_qcow_usage(struct td_qcow *t)
{
	fputs(usage_text, stderr);
	t->err->code = 0;
	return 22;
}

int td_qcow_size(const char *text, uint64_t *size, struct td_err *err)
{
	static const char units[] = "bKMGTP";
	char *end;
	const char *unit;
	unsigned shift;

	errno = 0;
	*size = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end == 'k' ? 'K' : *end) : units;
	shift = unit ? (unsigned)(unit - units) * 10 : 0;
	if (errno || text[0] < '0' || text[0] > '9' || !unit || (*end && end[1]) ||
	    *size > UINT64_MAX >> shift)
		return td_fail(err, EINVAL,
			       "'%.100s' is no size: bytes, or a number with K, M, G, T or P",
			       text);
	*size <<= shift;
	return 0;
}

/* --- check --- */

static void say(struct qcow_check *c, const char *line)
{
	if (!*(bool *)c->data)
		puts(line);
}

static int show_check(struct td_qcow *t, const char *path, const struct qcow_check *c)
{
	double all = c->total ? (double)c->total : 1,
	       some = c->allocated ? (double)c->allocated : 1;

	if (t->json)
		return td_qcow_print(json_pack(
			"{s:o, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "filename",
			td_json_name(path), "format", "qcow2", "check-errors", 0, "corruptions",
			(json_int_t)c->corruptions, "leaks", (json_int_t)c->leaks,
			"corruptions-fixed", (json_int_t)c->corruptions_fixed, "leaks-fixed",
			(json_int_t)c->leaks_fixed, "total-clusters", (json_int_t)c->total,
			"allocated-clusters", (json_int_t)c->allocated, "fragmented-clusters",
			(json_int_t)c->fragmented, "compressed-clusters", (json_int_t)c->compressed,
			"image-end-offset", (json_int_t)c->end));
	if (c->corruptions_fixed || c->leaks_fixed)
		printf("%llu errors and %llu leaked clusters were repaired.\n",
		       (unsigned long long)c->corruptions_fixed,
		       (unsigned long long)c->leaks_fixed);
	if (c->corruptions)
		printf("%llu errors were found on the image: data may be corrupt, or become so "
		       "when it is written to.\n",
		       (unsigned long long)c->corruptions);
	if (c->leaks)
		printf("%llu leaked clusters were found on the image: space is wasted, and no data "
		       "is in danger.\n",
		       (unsigned long long)c->leaks);
	if (!c->corruptions && !c->leaks)
		puts("No errors were found on the image.");
	printf("%llu/%llu = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\nImage "
	       "end offset: %llu\n",
	       (unsigned long long)c->allocated, (unsigned long long)c->total,
	       100 * (double)c->allocated / all, 100 * (double)c->fragmented / some,
	       100 * (double)c->compressed / some, (unsigned long long)c->end);
	return 0;
}

static int check_image(struct td_qcow *t)
{
	struct qcow_check c = {.say = say, .data = &t->json};
	int o, rc;

	while ((o = getopt(t->argc, t->argv, "r:")) != -1) {
		if (o != 'r' || (strcmp(optarg, "leaks") && strcmp(optarg, "all")))
			return td_qcow_usage(t);
		c.fix_leaks = true;
		c.fix_errors = !strcmp(optarg, "all");
	}
	if (t->argc - optind != 1)
		return td_qcow_usage(t);
	rc = qcow_image_check(t->argv[optind], &c, t->io, t->err);
	if (rc)
		return -rc;
	show_check(t, t->argv[optind], &c);
	return c.corruptions ? 2 : c.leaks ? 3 : 0;
}

/* --- resize --- */

static int resize(struct td_qcow *t)
{
	static const struct option longs[] = {{"shrink", no_argument, NULL, 's'},
					      {NULL, 0, NULL, 0}};
	bool shrink = false;
	const char *text;
	uint64_t size;
	int o, rc;

	while ((o = getopt_long(t->argc, t->argv, "+", longs, NULL)) != -1) {
		if (o != 's')
			return td_qcow_usage(t);
		shrink = true;
	}
	if (t->argc - optind != 2)
		return td_qcow_usage(t);
	text = t->argv[optind + 1];
	rc = td_qcow_size(text + (*text == '+' || *text == '-'), &size, t->err);
	if (!rc && (*text == '+' || *text == '-')) {
		struct qcow_info info = {.snapshots = NULL};

		rc = qcow_image_info(t->argv[optind], &info, t->io, t->err);
		free(info.snapshots);
		if (!rc && *text == '-' && size > info.h.size)
			rc = td_fail(t->err, EINVAL, "%s has only %llu bytes", t->argv[optind],
				     (unsigned long long)info.h.size);
		size = *text == '+' ? info.h.size + size : info.h.size - size;
	}
	if (!rc)
		rc = qcow_image_resize(t->argv[optind], size, shrink, &t->key, t->io, t->err);
	return -rc;
}

/* --- the program --- */

static const struct {
	const char *name;
	int (*run)(struct td_qcow *t);
} commands[] = {{"create", td_qcow_create}, {"snapshot", td_qcow_snapshot},
		{"info", td_qcow_info},     {"check", check_image},
		{"resize", resize},         {"commit", td_qcow_commit},
		{"map", td_qcow_map}};

struct run {
	struct td_qcow t;
	int (*fn)(struct td_qcow *t);
	int rc;
	bool done;
};

static void run_on_fiber(void *arg)
{
	struct run *r = arg;

	r->rc = r->fn(&r->t);
	r->done = true;
}

/* --json (and --output=json) and -E may stand anywhere. */
static void take_common(int *argc, char **argv, bool *json, bool *key)
{
	int n = 0;

	for (int i = 0; i < *argc; i++) {
		if (!strcmp(argv[i], "--json") || !strcmp(argv[i], "--output=json"))
			*json = true;
		else if (!strcmp(argv[i], "-E") || !strcmp(argv[i], "--encrypted"))
			*key = true;
		else
			argv[n++] = argv[i];
	}
	argv[n] = NULL;
	*argc = n;
}

static int read_key(struct td_key *key, struct td_err *err)
{
	uint8_t more;

	setvbuf(stdin, NULL, _IONBF, 0); /* no copy of the key stays in a buffer */
	key->len = (unsigned)fread(key->bytes, 1, sizeof key->bytes, stdin);
	if (!key->len || fread(&more, 1, 1, stdin))
		return td_fail(err, EINVAL, "the key on standard input %s: it has 1 to %zu bytes",
			       key->len ? "is too long" : "is empty", sizeof key->bytes);
	return 0;
}

/* Of the host's configuration one key is ours: where backing files may be. */
static int read_conf(const char *key, const char *value, void *arg, struct td_err *err)
{
	/* to the end of the program */
	char *dirs = strcmp(key, "parent-dirs") ? NULL : strdup(value);

	if (dirs)
		qcow_parent_dirs(dirs);
	return 0;
}

static int run_command(struct run *r)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	int rc = loop ? td_io_new(loop, "threads", false, &r->t.io, r->t.err) : -ENOMEM;

	if (!rc)
		rc = td_fiber_start(loop, run_on_fiber, r);
	if (rc < 0)
		return -rc;
	while (!r->done)
		ev_run(loop, EVRUN_ONCE);
	td_io_free(r->t.io);
	ev_loop_destroy(loop);
	return r->rc;
}

static int ended(struct td_err *err)
{
	int rc = -td_output_end(err);

	if (rc)
		td_output_fault("td-qcow", err);
	return rc;
}

int main(int argc, char **argv)
{
	static struct td_err err;
	struct run r = {.t = {.err = &err}};
	bool key = false;
	int rc;

	prctl(PR_SET_DUMPABLE, 0); /* keys pass through its memory */
	td_log_open("td-qcow", TD_LOG_STDERR);
	take_common(&argc, argv, &r.t.json, &key);
	if (argc > 1 &&
	    (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))) {
		fputs(usage_text, stdout);
		return ended(&err);
	}
	if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
		printf("td-qcow %s\n", PACKAGE_VERSION);
		return ended(&err);
	}
	for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(argv[1], commands[i].name))
			r.fn = commands[i].run;
	if (!r.fn)
		return td_qcow_usage(&r.t);
	r.t.argc = argc - 1;
	r.t.argv = argv + 1;
	rc = key ? -read_key(&r.t.key, &err) : 0;
	if (!rc)
		rc = -td_conf_read(read_conf, NULL, &err);
	if (!rc)
		rc = run_command(&r);
	if (!rc)
		rc = -td_output_end(&err);
	else if (r.fn == check_image && !err.code)
		td_output_end(&err); /* the image's state is the status, and the output's is told */
	explicit_bzero(&r.t.key, sizeof r.t.key);
	if (rc && err.code)
		td_output_fault("td-qcow", &err);
	else if (rc < 0 || (rc && r.fn != check_image && rc != 22))
		fprintf(stderr, "td-qcow: %s\n", strerror(abs(rc)));
	return rc;
}
