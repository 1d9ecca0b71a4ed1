/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tap-vbd: gives a running guest a tap disk, and takes it away again, without libxl: for Xens whose
 * libxl knows no tap.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/attach/toolstack.h"
#include "control/attach/media.h"
#include "lib/output.h"

#ifndef XENSCRIPTDIR
#define XENSCRIPTDIR "/etc/xen/scripts"
#endif

#define PATIENCE_S 10 /* libxl's, with a backend */
#define START_S    2  /* a guest that runs has taken notice of a new disk by then */

struct options {
	const char *type, *script;
	double timeout_s;
	bool force;
};

static const char usage_text[] =
	"usage: tap-vbd [OPTION...] attach DOMAIN DISK   give the domain a disk\n"
	"       tap-vbd [OPTION...] detach DOMAIN VDEV   take it away\n"
	"       tap-vbd [OPTION...] insert DOMAIN VDEV [TYPE:]FILE   change the medium in a CD "
	"drive\n"
	"       tap-vbd [OPTION...] eject DOMAIN VDEV    take it out\n"
	"       tap-vbd [OPTION...] list [DOMAIN]        show the tap disks\n"
	"DOMAIN is an id or a name.  DISK is what xl accepts in disk=, see tapdisk-disk(7):\n"
	"  'format=raw,vdev=xvdb,access=rw,cache=writeback,target=/srv/a.img'  or  "
	"'/srv/a.img,raw,xvdb,rw'\n"
	"with cache=none|writethrough|writeback|directsync|unsafe, unsafe=yes, shared=yes, "
	"on-enospc=pause|report, sector-size=512|4096, two-primaries=yes, parents-cache=yes, "
	"request-timeout=S, reconnect-limit=S, connections=N, limit-iops=N and the other limits.\n"
	"  -f, --force         detach: even if the guest does not release it\n"
	"  -t, --timeout=S     seconds to wait for the guest and for tapback (10)\n"
	"  -n, --name=TYPE     backend type, as tapback -n (vbd3)\n"
	"  -s, --script=FILE   hotplug script (" XENSCRIPTDIR "/block-tap)\n"
	"  -h, --help          this text;  -V, --version\n";

static int find_domain(struct store *s, const char *arg, unsigned *domid, struct td_err *err)
{
	char dir[64], **doms;
	unsigned n = 0;
	uint64_t id = 0;
	bool found = false;

	if (store_decimal(arg, 0x7fef, &id)) {
		snprintf(dir, sizeof dir, "/local/domain/%u", (unsigned)id);
		*domid = (unsigned)id;
		return store_exists(s, dir) ? 0
					    : td_fail(err, ENOENT, "there is no domain %u", *domid);
	}
	doms = store_list(s, "/local/domain", &n);
	for (unsigned i = 0; doms && i < n && !found; i++) {
		snprintf(dir, sizeof dir, "/local/domain/%.10s", doms[i]);
		found = store_decimal(doms[i], 0x7fef, &id) && store_read_is(s, dir, "name", arg);
	}
	free(doms);
	*domid = (unsigned)id;
	return found ? 0 : td_fail(err, ENOENT, "there is no domain '%s'", arg);
}

/* What tapback says of the disk; the caller frees it. */
static char *error_node(struct store *s, const struct xs_disk *v)
{
	char path[128];

	snprintf(path, sizeof path, "error/%s", v->back);
	return store_read(s, path, "error");
}

/* The script has run: sees the guest connect, when there is one that wants to. */
static int wait_connected(struct store *s, const struct xs_disk *v, const struct options *o,
			  struct td_err *err)
{
	int state = xs_disk_wait(s, v, 1u << 4 | 1u << 5 | 1u << 6 | 1u, START_S);

	if (state == -ETIMEDOUT && store_read_number(s, v->front, "state", 8) == 1) {
		fprintf(stderr, "tap-vbd: attached; the guest has not taken notice yet\n");
		return 0;
	}
	if (state == -ETIMEDOUT)
		state = xs_disk_wait(s, v, 1u << 4 | 1u << 5 | 1u << 6 | 1u, o->timeout_s);
	if (state == 4)
		return 0;
	if (state == -ETIMEDOUT) {
		fprintf(stderr, "tap-vbd: attached; the guest has not connected it within %g s\n",
			o->timeout_s);
		return 0;
	}
	if (state == 5 || state == 6) {
		char *text = error_node(s, v);

		td_fail(err, EIO, "the disk cannot be connected: %s",
			text ? text : "the guest has refused it");
		free(text);
		return -EIO;
	}
	return td_fail(err, EIO, "somebody has removed the disk meanwhile");
}

/* Takes back an attach that went wrong; its own troubles do not hide the cause. */
static void undo(struct store *s, const struct xs_disk *v, bool script)
{
	xs_disk_ask_to_close(s, v, NULL);
	xs_disk_wait(s, v, 1u << 6 | 1u, PATIENCE_S);
	if (script)
		xs_disk_script(s, v, "remove", NULL);
	xs_disk_remove(s, v, NULL);
}

static int attach(struct store *s, const struct options *o, const char *domain, const char *spec,
		  struct td_err *err)
{
	struct xl_disk d = {};
	struct xs_disk v;
	unsigned domid;
	int rc = xl_disk_parse(spec, &d, err), state;

	if (!rc)
		rc = find_domain(s, domain, &domid, err);
	if (!rc && access(o->script, X_OK))
		rc = td_fail(err, errno, "cannot run the hotplug script %s: %s", o->script,
			     strerror(errno));
	if (!rc) {
		xs_disk_init(&v, o->type, o->script, domid, d.devid);
		rc = xs_disk_make(s, &v, &d, err);
	}
	xl_disk_free(&d);
	if (rc)
		return rc;
	state = xs_disk_wait(s, &v, 1u << 2 | 1u << 5 | 1u << 6, o->timeout_s);
	if (state != 2) {
		char *text = state == -ETIMEDOUT ? NULL : error_node(s, &v);

		rc = td_fail(err, state == -ETIMEDOUT ? ETIMEDOUT : EIO, "%s",
			     text ? text
				  : "the backend does not answer; does `tapback' run, and for this "
				    "type?");
		free(text);
		/* nobody is there to close it */
		xs_disk_remove(s, &v, NULL);
		return rc;
	}
	rc = xs_disk_script(s, &v, "add", err);
	if (rc) {
		undo(s, &v, true);
		return rc;
	}
	rc = wait_connected(s, &v, o, err);
	if (rc)
		undo(s, &v, true);
	return rc;
}

static int detach(struct store *s, const struct options *o, const char *domain, const char *vdev,
		  struct td_err *err)
{
	struct td_err late = {};
	struct xs_disk v;
	unsigned domid;
	uint32_t devid;
	int rc;

	if (!xl_vdev_number(vdev, &devid))
		return td_fail(err, EINVAL, "'%s' is not a virtual device such as xvda", vdev);
	rc = find_domain(s, domain, &domid, err);
	if (rc)
		return rc;
	xs_disk_init(&v, o->type, o->script, domid, devid);
	if (!store_exists(s, v.back))
		return td_fail(err, ENODEV, "domain %u has no %s disk %s", domid, o->type, vdev);
	rc = xs_disk_ask_to_close(s, &v, err);
	if (rc)
		return rc;
	if (xs_disk_wait(s, &v, 1u << 6 | 1u, o->timeout_s) == -ETIMEDOUT && !o->force)
		return td_fail(err, EBUSY,
			       "the guest has not released %s within %g s; is it mounted there?  "
			       "The disk continues; "
			       "try again later, or with --force",
			       vdev, o->timeout_s);
	/* the directory has to go even when the script is in trouble, but that has to be said */
	xs_disk_script(s, &v, "remove", &late);
	rc = xs_disk_remove(s, &v, err);
	return rc || !late.code ? rc : td_fail(err, late.code, "detached, but: %s", late.text);
}

static int media(struct store *s, const struct options *o, const char *domain, const char *vdev,
		 const char *medium, struct td_err *err)
{
	struct xs_disk v;
	unsigned domid;
	uint32_t devid;
	int rc;

	if (!xl_vdev_number(vdev, &devid))
		return td_fail(err, EINVAL, "'%s' is not a virtual device such as xvdd", vdev);
	rc = find_domain(s, domain, &domid, err);
	if (rc)
		return rc;
	xs_disk_init(&v, o->type, o->script, domid, devid);
	return vbd_media(s, &v, medium, err);
}

static void print_disk(struct store *s, const char *type, unsigned domid, unsigned devid)
{
	static const char *const names[] = {"?",         "new",     "waiting", "?",
					    "connected", "closing", "closed"};
	char *params, *mode, *why, name[24];
	int64_t state;
	struct xs_disk v;

	xs_disk_init(&v, type, NULL, domid, devid);
	params = store_read(s, v.back, "params");
	mode = store_read(s, v.back, "cache-mode");
	why = error_node(s, &v);
	state = store_read_number(s, v.back, "state", 6);
	xl_vdev_name(devid, name);
	printf("%-6u %-7s %-8u %-10s %-13s ", domid, name, devid, names[state < 0 ? 0 : state],
	       mode ? mode : "-");
	td_output_text(stdout, params ? params : "-");
	td_output_text(stdout, why ? "  error: " : "");
	td_output_text(stdout, why ? why : "");
	putchar('\n');
	free(params);
	free(mode);
	free(why);
}

static int list(struct store *s, const struct options *o, const char *domain, struct td_err *err)
{
	unsigned only = 0, nd = 0, nv;
	char path[128], **doms, **devs;
	uint64_t domid, devid;

	if (domain && find_domain(s, domain, &only, err))
		return -err->code;
	printf("%-6s %-7s %-8s %-10s %-13s %s\n", "domain", "vdev", "number", "state", "cache",
	       "image");
	snprintf(path, sizeof path, "backend/%.40s", o->type);
	doms = store_list(s, path, &nd);
	for (unsigned i = 0; doms && i < nd; i++) {
		if (!store_decimal(doms[i], 0x7fef, &domid) || (domain && domid != only))
			continue;
		snprintf(path, sizeof path, "backend/%.40s/%u", o->type, (unsigned)domid);
		nv = 0;
		devs = store_list(s, path, &nv);
		for (unsigned k = 0; devs && k < nv; k++)
			if (store_decimal(devs[k], UINT32_MAX, &devid))
				print_disk(s, o->type, (unsigned)domid, (unsigned)devid);
		free(devs);
	}
	free(doms);
	return 0;
}

static int parse_command(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"force", no_argument, NULL, 'f'},
		{"timeout", required_argument, NULL, 't'},
		{"name", required_argument, NULL, 'n'},
		{"script", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{},
	};
	uint64_t v;
	int c;

	while ((c = getopt_long(argc, argv, "ft:n:s:hV", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->force = true;
			break;
		case 'n':
			o->type = optarg;
			break;
		case 's':
			o->script = optarg;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return 1;
		case 'V':
			printf("tap-vbd %s\n", PACKAGE_VERSION);
			return 1;
		case 't':
			if (store_decimal(optarg, 3600, &v)) {
				o->timeout_s = (double)v;
				break;
			}
			fprintf(stderr, "tap-vbd: '%s' is not a number of seconds\n", optarg);
			return -EINVAL;
		default:
			fputs(usage_text, stderr);
			return -EINVAL;
		}
	}
	return 0;
}

static int run_command(const struct options *o, int argc, char **argv, struct td_err *err)
{
	struct store *s = NULL;
	int rc = store_open(&s, err);

	if (rc)
		return rc;
	if (!strcmp(argv[0], "attach"))
		rc = attach(s, o, argv[1], argv[2], err);
	else if (!strcmp(argv[0], "detach"))
		rc = detach(s, o, argv[1], argv[2], err);
	else if (!strcmp(argv[0], "insert"))
		rc = media(s, o, argv[1], argv[2], argv[3], err);
	else if (!strcmp(argv[0], "eject"))
		rc = media(s, o, argv[1], argv[2], NULL, err);
	else
		rc = list(s, o, argc > 1 ? argv[1] : NULL, err);
	store_close(s);
	return rc;
}

static bool well_formed(int argc, char **argv)
{
	static const struct {
		const char *command;
		int min, max;
	} known[] = {{"list", 1, 2},
		     {"attach", 3, 3},
		     {"detach", 3, 3},
		     {"insert", 4, 4},
		     {"eject", 3, 3}};

	for (unsigned i = 0; argc && i < sizeof known / sizeof *known; i++)
		if (!strcmp(argv[0], known[i].command))
			return argc >= known[i].min && argc <= known[i].max;
	return false;
}

int main(int argc, char **argv)
{
	struct options o = {
		.type = "vbd3", .script = XENSCRIPTDIR "/block-tap", .timeout_s = PATIENCE_S};
	struct td_err err = {};
	int rc = parse_command(&o, argc, argv);

	if (rc < 0)
		return -rc;
	argc -= optind;
	argv += optind;
	if (!rc && !well_formed(argc, argv)) {
		fputs(usage_text, stderr);
		return EINVAL;
	}
	rc = rc ? 0 : run_command(&o, argc, argv, &err);
	if (!rc)
		rc = td_output_end(&err);
	if (rc)
		td_output_fault("tap-vbd", &err);
	return -rc;
}
