/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhd-util: VHD images from the command line, as XenServer's storage manager calls it.  The
 * commands, and what each takes; the rest of the family has one concern a file.  The exit code is
 * an errno, with one line of text on stderr.
 *
 * One thing: the table of commands names every file's command, and each command parses and
 * prints through this file.
 */
#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"
#include "lib/conf.h"
#include "lib/output.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NAME                                                                                       \
	{                                                                                          \
		'n', "name", "PATH", "the image"                                                   \
	}

static const struct vu_opt opts_create[] = {
	NAME,
	{'s', "size", "MIB", "size of the disk"},
	{'r', "fixed", NULL, "a fixed disk, with all its space"},
	{'S', "max-size", "MIB", "room in the block table for a later resize"},
	{'F', "force", NULL, "overwrite an existing file"},
	{0}};
static const struct vu_opt opts_snapshot[] = {
	NAME,
	{'p', "parent", "PATH", "what it is a snapshot of"},
	{'m', "raw", NULL, "the parent is a raw image"},
	{'S', "max-size", "MIB", "room in the block table for a later resize"},
	{'e', "empty", NULL, "name this parent even if it has no data of its own"},
	{'l', "limit", NULL, "accepted; the limit of a chain is 30 images, or what follows"},
	{'F', "force", NULL, "overwrite an existing file"},
	{0}};
static const struct vu_opt opts_query[] = {
	NAME,
	{'v', "virtual", NULL, "size of the disk in MiB"},
	{'s', "physical", NULL, "bytes of the file in use"},
	{'p', "parent", NULL, "the parent's path"},
	{'f', "fields", NULL, "the field hidden"},
	{'d', "depth", NULL, "how many images the chain has"},
	{'S', "max-size", NULL, "MiB that resize -f can reach"},
	{'a', "allocated", NULL, "how many blocks have data"},
	{'u', "unresolved", NULL, "with -p: the name that it has for the parent, there or not"},
	{'b', "backup-footer", NULL, "accepted: the copy of the footer at the start counts anyway"},
	{'U', "uuid", NULL, "its uuid"},
	{0}};
static const struct vu_opt opts_read[] = {
	NAME,
	{'p', "headers", NULL, "print footer, header, locators and batmap header"},
	{'t', "translate", "SECTOR", "where a sector of the disk is in the file"},
	{'b', "bat", "BLOCK", "the block's entry in the block table"},
	{'m', "bitmap", "BLOCK", "the block's bitmap, as bytes"},
	{'i', "test-bitmap", "SECTOR", "is the sector written"},
	{'a', "batmap", NULL, "the batmap, as bytes"},
	{'j', "test-batmap", "BLOCK", "is the block whole"},
	{'d', "data", "BLOCK", "the block's data, as bytes"},
	{'r', "read", "SECTOR", "sectors of the disk through its chain, as bytes"},
	{'c', "count", "N", "how many of them; 1"},
	{'B', "blocks", NULL, "a bit a block that has data, as bytes"},
	{'x', "hex", NULL, "print numbers in hexadecimal"},
	{0}};
static const struct vu_opt opts_set[] = {
	NAME, {'f', "field", "NAME", "hidden or marker"}, {'v', "value", "N", "0 to 255"}, {0}};
static const struct vu_opt opts_check[] = {
	NAME,
	{'i', "ignore-footer", NULL, "the footer at the end may be missing"},
	{'I', "ignore-uuid", NULL, "the parent may be another one"},
	{'t', "ignore-time", NULL, "say nothing of a parent that was written since"},
	{'B', "no-bitmaps", NULL, "do not read the blocks' bitmaps"},
	{'p', "parents", NULL, "all images of the chain"},
	{'b', "bitmaps", NULL, "read the blocks' bitmaps (which is done anyway)"},
	{'s', "stats", NULL, "count blocks and sectors"},
	{0}};
static const struct vu_opt opts_name[] = {NAME, {0}};
static const struct vu_opt opts_resize[] = {
	NAME,
	{'s', "size", "MIB", "the new size"},
	{'j', "journal", "PATH", "a journal to be made, for revert"},
	{'f', "fast", NULL, "without a journal: what the block table has room for"},
	{0}};
static const struct vu_opt opts_revert[] = {
	NAME, {'j', "journal", "PATH", "what resize -j was given"}, {0}};
static const struct vu_opt opts_coalesce[] = {
	NAME,
	{'a', "ancestor", "PATH", "into this image of the chain instead of the parent"},
	{'o', "output", "PATH", "all of the chain into a new image"},
	{'x', "parent", "PATH", "into this image, as if it were the parent"},
	{'s', "sparse", NULL, "accepted: writes are as sparse as the data is"},
	{'p', "progress", NULL, "show how far it is, also when stdout is no terminal"},
	{'F', "force", NULL, "even if a further image, not open, has the same parent"},
	{0}};
static const struct vu_opt opts_modify[] = {
	NAME,
	{'p', "parent", "PATH", "name another parent"},
	{'m', "raw", NULL, "which is a raw image"},
	{'s', "size", "BYTES",
	 "put the footer at the end of so many bytes: of a device that was or will be resized"},
	{'z', "zero", NULL, "forget all data"},
	{0}};
static const struct vu_opt opts_scan[] = {
	{'m', "match", "PATTERN", "a glob of files, or of names of volumes"},
	{'f', "fast", NULL, "take the parent's name from the header"},
	{'c', "continue", NULL, "go on, and exit with 0, after an image that cannot be read"},
	{'l', "lvm", "VG", "the volumes of this group, active or not"},
	{'p', "pretty", NULL, "as trees"},
	{'a', "parents", NULL, "the parents of each, too"},
	{'v', "verbose", NULL, "whole paths"},
	{'M', "markers", NULL, "marker and key hash too"},
	{0}};
static const struct vu_opt opts_key[] = {
	{'n', "name", "PATH", "the image"},
	{'s', "set", NULL,
	 "store the hash of the key -k, or the hash -H; the image must have no data"},
	{'c', "check", NULL, "compare the key -k with the stored hash"},
	{'C', "calculate", NULL, "print the hash of the key -k"},
	{'p', "print", NULL, "print nonce and hash, or none"},
	{'k', "key", "PATH", "a file with the key, of 32 or 64 bytes"},
	{'H', "hash", "HEX", "the key's hash"},
	{'N', "nonce", "HEX", "32 bytes that go before the key; zero"},
	{0}};
static const struct vu_opt opts_copy[] = {NAME,
					  {'o', "output", "PATH", "a raw file or device"},
					  {'s', "stdout", NULL, "to standard output"},
					  {'e', "events", "N", "accepted; without effect"},
					  {0}};

const struct vu_cmd vu_cmds[] = {
	{"create", "make an image", opts_create, "ns", false, vu_create},
	{"snapshot", "make an image whose parent is another image", opts_snapshot, "np", false,
	 vu_snapshot},
	{"query", "print properties of an image", opts_query, "n", false, vu_query},
	{"read", "print the content of an image", opts_read, "n", false, vu_read},
	{"set", "set a field", opts_set, "nfv", false, vu_set},
	{"check", "check an image for errors", opts_check, "n", false, vu_check},
	{"repair", "restore footers and batmap", opts_name, "n", false, vu_repair},
	{"resize", "make the disk larger", opts_resize, "ns", false, vu_resize},
	{"revert", "undo a resize that was interrupted", opts_revert, "nj", false, vu_revert},
	{"fill", "allocate every block, with its content", opts_name, "n", false, vu_fill},
	{"coalesce", "write an image's data into its parent", opts_coalesce, "n", false,
	 vu_coalesce},
	{"modify", "change the parent, move the footer, discard the data", opts_modify, "n", false,
	 vu_modify},
	{"scan", "list images", opts_scan, "", true, vu_scan},
	{"key", "the hash of an encrypted image's key", opts_key, "", false, vu_key},
	{"copy", "write the content of the disk into a raw image", opts_copy, "n", false, vu_copy},
	{0},
};

#define OPT_DEBUG 126
#define OPT_JSON  127

static void help(const struct vu_cmd *cmd)
{
	printf("usage: vhd-util %s [OPTION]...%s\n%s\n\n", cmd->name,
	       cmd->names ? " [PATH]..." : "", cmd->summary);
	for (const struct vu_opt *o = cmd->opts; o->letter; o++) {
		char left[64];

		snprintf(left, sizeof left, "-%c, --%s%s%s", o->letter, o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		printf("  %-26s %s%s\n", left, o->help,
		       strchr(cmd->need, o->letter) ? " (needed)" : "");
	}
	printf("  %-26s %s\n  %-26s %s\n  %-26s %s\n", "    --json",
	       "print JSON: query, check, scan and coalesce", "    --debug",
	       "accepted; errors have one line on stderr anyway", "-h, --help", "this");
}

/* getopt's two notations of one table. */
static void tables(const struct vu_opt *opts, char *letters, struct option *longs)
{
	*letters++ = ':';
	for (const struct vu_opt *o = opts; o->letter; o++) {
		*letters++ = o->letter;
		if (o->arg)
			*letters++ = ':';
		*longs++ = (struct option){.name = o->name,
					   .has_arg = o->arg ? required_argument : no_argument,
					   .val = o->letter};
	}
	*letters++ = 'h';
	*letters = 0;
	*longs++ = (struct option){.name = "help", .val = 'h'};
	*longs++ = (struct option){.name = "debug", .val = OPT_DEBUG};
	*longs++ = (struct option){.name = "json", .val = OPT_JSON};
	*longs = (struct option){0};
}

int vu_parse(const struct vu_cmd *cmd, int argc, char **argv, struct vu_args *a, struct td_err *err)
{
	struct option longs[24];
	char letters[48];
	int c;

	*a = (struct vu_args){0};
	tables(cmd->opts, letters, longs);
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (c == 'h') {
			help(cmd);
			return 1;
		}
		if (c == ':' || c == '?')
			return td_fail(err, EINVAL, "%s: %s %s; see vhd-util %s -h", cmd->name,
				       argv[optind - 1],
				       c == ':' ? "needs a value" : "is no option of it",
				       cmd->name);
		if (c == OPT_JSON)
			a->json = true;
		else if (c != OPT_DEBUG)
			a->val[c] = optarg ? optarg : "";
	}
	a->rest = argv + optind;
	a->nrest = argc - optind;
	/* a snapshot's -l once took a number, and once none */
	if (a->val['l'] && !cmd->names && a->nrest == 1 &&
	    strspn(a->rest[0], "0123456789") == strlen(a->rest[0])) {
		a->val['l'] = a->rest[0];
		a->nrest = 0;
	}
	if (a->nrest && !cmd->names)
		return td_fail(err, EINVAL, "%s: '%s' is too much; see vhd-util %s -h", cmd->name,
			       a->rest[0], cmd->name);
	for (const char *p = cmd->need; *p; p++)
		if (!a->val[(unsigned char)*p])
			return td_fail(err, EINVAL, "%s: -%c is missing; see vhd-util %s -h",
				       cmd->name, *p, cmd->name);
	return 0;
}

void vu_usage(bool to_stderr)
{
	FILE *f = to_stderr ? stderr : stdout;

	fputs("usage: vhd-util COMMAND [OPTION]...\n\n", f);
	for (const struct vu_cmd *c = vu_cmds; c->name; c++)
		fprintf(f, "  %-9s %s\n", c->name, c->summary);
	fputs("\nvhd-util COMMAND -h shows its options.\n", f);
}

int vu_number(const struct vu_args *a, char letter, uint64_t max, uint64_t *v, struct td_err *err)
{
	const char *text = a->val[(unsigned char)letter];
	unsigned long long n;
	char *end;

	if (!text)
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || n > max)
		return td_fail(err, EINVAL, "-%c takes a number from 0 to %llu, not '%s'", letter,
			       (unsigned long long)max, text);
	*v = n;
	return 0;
}

int vu_mib(const struct vu_args *a, char letter, uint64_t *v, struct td_err *err)
{
	uint64_t mib = 0;
	int rc = vu_number(a, letter, 1u << 30, &mib, err);

	if (!rc && a->val[(unsigned char)letter])
		*v = mib << 20;
	return rc;
}

int vu_put(const void *buf, size_t len, struct td_err *err)
{
	if (fwrite(buf, 1, len, stdout) != len)
		return td_fail(err, errno ? errno : EIO, "writing the output: %s",
			       strerror(errno ? errno : EIO));
	return 0;
}

/* Of the host's configuration one key is ours: where parents may be. */
static int read_conf(const char *key, const char *value, void *arg, struct td_err *err)
{
	/* to the end of the program */
	char *dirs = strcmp(key, "parent-dirs") ? NULL : strdup(value);

	if (dirs)
		vhd_parent_dirs(dirs);
	return 0;
}

static void dispatch(int argc, char **argv, struct td_err *err)
{
	struct vu_args a;
	int at = 1, rc;

	while (at < argc && !strcmp(argv[at], "--debug"))
		at++;
	if (at == argc) {
		vu_usage(true);
		td_fail(err, EINVAL, "no command was given");
		return;
	}
	if (!strcmp(argv[at], "help") || !strcmp(argv[at], "--help") || !strcmp(argv[at], "-h")) {
		vu_usage(false);
		return;
	}
	if (!strcmp(argv[at], "--version") || !strcmp(argv[at], "-V")) {
		printf("vhd-util %s\n", PACKAGE_VERSION);
		return;
	}
	for (const struct vu_cmd *c = vu_cmds; c->name; c++) {
		if (strcmp(c->name, argv[at]))
			continue;
		rc = vu_parse(c, argc - at, argv + at, &a, err);
		if (!rc)
			rc = td_conf_read(read_conf, NULL, err);
		if (!rc)
			c->run(&a, err);
		return;
	}
	td_fail(err, EINVAL, "there is no command '%s'; vhd-util --help lists them", argv[at]);
}

int main(int argc, char **argv)
{
	static struct td_err err;

	prctl(PR_SET_DUMPABLE, 0); /* keys pass through its memory */
	signal(SIGPIPE, SIG_IGN);
	dispatch(argc, argv, &err);
	if (!err.code)
		td_output_end(&err);
	if (!err.code)
		return 0;
	td_output_fault("vhd-util", &err);
	return err.code;
}
