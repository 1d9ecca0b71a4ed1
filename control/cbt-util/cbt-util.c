/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cbt-util: logs of changed blocks from the command line, with the commands, options and output
 * that XenServer's storage manager expects.  The exit code is an errno, with one line of text on
 * stderr; a command line that cannot be understood gets the usage on stdout as well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/cbt-util/cbt-log.h"
#include "lib/output.h"

struct args {
	const char *val[128]; /* by letter: the value, "" of one that takes none; NULL: not given */
};

struct cmd {
	const char *name, *letters /* of getopt */, *need, *usage;
	int (*run)(const struct args *a, struct td_err *err);
};

/* --- uuids and numbers --- */

static void put_uuid(const uint8_t *u)
{
	for (int i = 0; i < 16; i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
	putchar('\n');
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

static int get_uuid(const char *text, uint8_t *u, struct td_err *err)
{
	const char *p = text;
	bool ok = strlen(text) == 36;

	for (int i = 0; i < 16 && ok; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			ok = *p++ == '-';
		ok = ok && hex_digit(p[0]) >= 0 && hex_digit(p[1]) >= 0;
		if (ok)
			u[i] = (uint8_t)(hex_digit(p[0]) << 4 | hex_digit(p[1]));
		p += 2;
	}
	return ok ? 0 : td_fail(err, EINVAL, "'%.60s' is no uuid", text);
}

static int get_number(char letter, const char *text, uint64_t max, uint64_t *out,
		      struct td_err *err)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text < '0' || *text > '9' || *out > max)
		return td_fail(err, EINVAL, "-%c takes a number from 0 to %llu, not '%.60s'",
			       letter, (unsigned long long)max, text);
	return 0;
}

/* --- commands --- */

static int run_create(const struct args *a, struct td_err *err)
{
	uint64_t size;
	int rc = get_number('s', a->val['s'], CBT_SIZE_MAX, &size, err);

	return rc ? rc : cbt_create(a->val['n'], size, err);
}

static int put_bits(const void *bits, size_t len, void *arg)
{
	if (fwrite(bits, 1, len, stdout) != len)
		return td_fail(arg, errno ? errno : EIO, "writing the output: %s",
			       strerror(errno ? errno : EIO));
	return 0;
}

static int run_get(const struct args *a, struct td_err *err)
{
	struct cbt_log l;
	int n = 0, rc;

	for (const char *p = "pcfsb"; *p; p++)
		n += a->val[(unsigned char)*p] != NULL;
	if (n != 1)
		return td_fail(err, EINVAL, "get takes exactly one of -p, -c, -f, -s and -b");
	rc = cbt_open(&l, a->val['n'], false, err);
	if (rc < 0)
		return rc;
	if (a->val['p'])
		put_uuid(l.head + CHANGED_PARENT);
	else if (a->val['c'])
		put_uuid(l.head + CHANGED_CHILD);
	else if (a->val['f'])
		printf("%d\n", (int)td_get_le32(l.head + CHANGED_CONSISTENT));
	else if (a->val['s'])
		printf("%llu\n", (unsigned long long)l.size);
	else
		rc = cbt_read_bits(&l, put_bits, err, err);
	cbt_close(&l);
	return rc;
}

/* All is looked at before anything is changed. */
static int run_set(const struct args *a, struct td_err *err)
{
	uint8_t parent[16], child[16];
	uint64_t flag = 0, size = 0;
	struct cbt_log l;
	int rc = 0;

	if (!a->val['p'] && !a->val['c'] && !a->val['f'] && !a->val['s'])
		return td_fail(err, EINVAL, "set takes at least one of -p, -c, -f and -s");
	if (a->val['p'])
		rc = get_uuid(a->val['p'], parent, err);
	if (!rc && a->val['c'])
		rc = get_uuid(a->val['c'], child, err);
	if (!rc && a->val['f'])
		rc = get_number('f', a->val['f'], 1, &flag, err);
	if (!rc && a->val['s'])
		rc = get_number('s', a->val['s'], CBT_SIZE_MAX, &size, err);
	if (!rc)
		rc = cbt_open(&l, a->val['n'], true, err);
	if (rc < 0)
		return rc;
	if (a->val['s'])
		rc = cbt_grow(&l, size, err);
	if (a->val['p'])
		memcpy(l.head + CHANGED_PARENT, parent, sizeof parent);
	if (a->val['c'])
		memcpy(l.head + CHANGED_CHILD, child, sizeof child);
	if (a->val['f'])
		td_put_le32(l.head + CHANGED_CONSISTENT, (uint32_t)flag);
	if (!rc)
		rc = cbt_put_head(&l, err);
	cbt_close(&l);
	return rc;
}

static int run_coalesce(const struct args *a, struct td_err *err)
{
	struct cbt_log parent, child;
	int rc = cbt_open(&parent, a->val['p'], false, err);

	if (rc < 0)
		return rc;
	rc = cbt_open(&child, a->val['c'], true, err);
	if (!rc) {
		rc = cbt_merge(&parent, &child, err);
		cbt_close(&child);
	}
	cbt_close(&parent);
	return rc;
}

static const struct cmd cmds[] = {
	{"create", ":n:s:h", "ns", "-n LOG -s BYTES", run_create},
	{"get", ":n:pcfsbh", "n", "-n LOG -p | -c | -f | -s | -b", run_get},
	{"set", ":n:p:c:f:s:h", "n", "-n LOG [-p UUID] [-c UUID] [-f 0|1] [-s BYTES]", run_set},
	{"coalesce", ":p:c:h", "pc", "-p PARENT -c CHILD", run_coalesce},
	{0},
};

static void print_usage(void)
{
	puts("usage:");
	for (const struct cmd *c = cmds; c->name; c++)
		printf("  cbt-util %s %s\n", c->name, c->usage);
	puts("\n"
	     "A log of changed blocks: create makes one for a disk of so many bytes; get prints "
	     "the\n"
	     "parent's or child's uuid, the flag of a clean close, the disk's size, or the bits; "
	     "set\n"
	     "changes them; coalesce adds the parent's bits to the child's.");
}

/* 1: help was asked for. */
static int parse(const struct cmd *cmd, int argc, char **argv, struct args *a, struct td_err *err)
{
	int c;

	opterr = 0;
	while ((c = getopt(argc, argv, cmd->letters)) != -1) {
		if (c == 'h')
			return 1;
		if (c == ':' || c == '?')
			return td_fail(err, EINVAL, "%s: -%c %s", cmd->name, optopt,
				       c == ':' ? "needs a value" : "is no option of it");
		a->val[c] = optarg ? optarg : "";
	}
	if (optind < argc)
		return td_fail(err, EINVAL, "%s: '%.100s' is too much", cmd->name, argv[optind]);
	for (const char *p = cmd->need; *p; p++)
		if (!a->val[(unsigned char)*p])
			return td_fail(err, EINVAL, "%s: -%c is missing", cmd->name, *p);
	return 0;
}

static int run_line(int argc, char **argv, struct td_err *err)
{
	struct args a = {0};
	int rc;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		print_usage();
		return 0;
	}
	if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
		printf("cbt-util %s\n", PACKAGE_VERSION);
		return 0;
	}
	for (const struct cmd *c = cmds; argc > 1 && c->name; c++) {
		if (strcmp(c->name, argv[1]))
			continue;
		rc = parse(c, argc - 1, argv + 1, &a, err);
		if (rc)
			print_usage();
		return rc ? rc : c->run(&a, err);
	}
	print_usage();
	return argc > 1 ? td_fail(err, EINVAL, "there is no command '%.60s'", argv[1])
			: td_fail(err, EINVAL, "a command is missing");
}

int main(int argc, char **argv)
{
	static struct td_err err;

	run_line(argc, argv, &err);
	if (!err.code)
		td_output_end(&err);
	if (!err.code)
		return 0;
	fflush(stdout);
	td_output_fault("cbt-util", &err);
	return err.code;
}
