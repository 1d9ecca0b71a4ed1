/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conf.h"
#include "lib/fiber/call.h"
#include "lib/io/reach.h"
#include "lib/nbd-uri.h"

static int set_cache(struct vbd_options *o, const char *v, struct td_err *err)
{
	const struct td_cache_mode *m = td_cache_mode_find(v);

	if (!strcmp(v, "default"))
		return 0; /* what the host's configuration says */
	if (!m)
		return td_fail(err, EINVAL,
			       "cache=%.100s: the modes are none, writethrough, writeback, "
			       "directsync, unsafe and default",
			       v);
	o->mode = m;
	return 0;
}

static int yes_no(const char *key, const char *v, bool *out, struct td_err *err)
{
	if (strcmp(v, "yes") && strcmp(v, "no"))
		return td_fail(err, EINVAL, "%s=%.100s: say yes or no", key, v);
	*out = !strcmp(v, "yes");
	return 0;
}

static int set_unsafe(struct vbd_options *o, const char *v, struct td_err *err)
{
	return yes_no("unsafe", v, &o->unsafe, err);
}

static int set_shared(struct vbd_options *o, const char *v, struct td_err *err)
{
	return yes_no("shared", v, &o->shared, err);
}

static int set_two_primaries(struct vbd_options *o, const char *v, struct td_err *err)
{
	return yes_no("two-primaries", v, &o->two_primaries, err);
}

static int set_parents_cache(struct vbd_options *o, const char *v, struct td_err *err)
{
	return yes_no("parents-cache", v, &o->parents_cache, err);
}

static int set_leaf_cache(struct vbd_options *o, const char *v, struct td_err *err)
{
	return yes_no("leaf-cache", v, &o->leaf_cache, err);
}

static int set_standby(struct vbd_options *o, const char *v, struct td_err *err)
{
	return yes_no("mirror-standby", v, &o->standby, err);
}

static int set_parent_disk(struct vbd_options *o, const char *v, struct td_err *err)
{
	char *end;
	long n = strtol(v, &end, 10);

	if (end == v || *end || n < 0 || n >= TD_MINOR_MAX)
		return td_fail(err, EINVAL,
			       "parent-disk=%.100s: say the minor number of a disk of this host",
			       v);
	o->parent_disk = (int)n + 1;
	return 0;
}

static int set_on_enospc(struct vbd_options *o, const char *v, struct td_err *err)
{
	if (strcmp(v, "pause") && strcmp(v, "report"))
		return td_fail(err, EINVAL,
			       "on-enospc=%.100s: say pause (wait for space) or report (an error "
			       "to the guest)",
			       v);
	o->report_enospc = !strcmp(v, "report");
	return 0;
}

static int set_sector_size(struct vbd_options *o, const char *v, struct td_err *err)
{
	if (strcmp(v, "512") && strcmp(v, "4096"))
		return td_fail(err, EINVAL, "sector-size=%.100s: say 512 or 4096, in bytes", v);
	o->sector_size = *v == '5' ? 512 : 4096;
	return 0;
}

static int set_request_timeout(struct vbd_options *o, const char *v, struct td_err *err)
{
	char *end;
	long n = strtol(v, &end, 10);

	if (end == v || *end || n < 0 || n > 86400)
		return td_fail(err, EINVAL,
			       "request-timeout=%.100s: say a number of seconds, 0 for none, a day "
			       "at most",
			       v);
	o->request_timeout = (int)n;
	return 0;
}

static int set_reconnect_limit(struct vbd_options *o, const char *v, struct td_err *err)
{
	char *end;
	long n = strtol(v, &end, 10);

	if (!strcmp(v, "no")) {
		o->reconnect_limit = -1;
		return 0;
	}
	if (end == v || *end || n < 0 || n > 86400 * 7)
		return td_fail(err, EINVAL,
			       "reconnect-limit=%.100s: say for how many seconds requests wait for "
			       "an NBD server that is away, 0 for as long as it takes, a week at "
			       "most; or no, so that they fail at once",
			       v);
	o->reconnect_limit = (int)n;
	return 0;
}

static int set_connections(struct vbd_options *o, const char *v, struct td_err *err)
{
	char *end;
	long n = strtol(v, &end, 10);

	if (end == v || *end || n < 1 || n > NBD_URI_CONNECTIONS_MAX)
		return td_fail(err, EINVAL,
			       "connections=%.100s: say how many connections a disk has to its "
			       "NBD server, from 1 to %d",
			       v, NBD_URI_CONNECTIONS_MAX);
	o->connections = (unsigned)n;
	return 0;
}

/* The host's to say, not a disk's: who names an image does not widen what the image may reach. */
static int set_parent_dirs(struct vbd_options *o, const char *v, struct td_err *err)
{
	bool ok = strlen(v) < sizeof o->parent_dirs;

	for (const char *p = v; ok && p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL)
		ok = *p == '/';
	if (!ok)
		return td_fail(err, EINVAL,
			       "parent-dirs=%.100s: say absolute directories, with colons between, "
			       "in less than %zu bytes",
			       v, sizeof o->parent_dirs);
	strcpy(o->parent_dirs, v);
	return 0;
}

static int set_parents(struct vbd_options *o, const char *v, struct td_err *err)
{
	if (strlen(v) >= sizeof o->parents || !td_reach_parents_valid(v))
		return td_fail(err, EINVAL,
			       "parents=%.100s: say no, or frozen, same-uid, and absolute paths of "
			       "images or of directories, with colons "
			       "between, in less than %zu bytes",
			       v, sizeof o->parents);
	strcpy(o->parents, v);
	return 0;
}

/* A disk's alone: whoever names the image says what is written with it. */
static int set_data_file(struct vbd_options *o, const char *v, struct td_err *err)
{
	if (*v != '/' || strlen(v) >= sizeof o->data_file)
		return td_fail(err, EINVAL,
			       "data-file=%.100s: say an absolute path of less than %zu bytes", v,
			       sizeof o->data_file);
	strcpy(o->data_file, v);
	return 0;
}

static int set_changed(struct vbd_options *o, const char *v, struct td_err *err)
{
	if (*v != '/' || strlen(v) >= sizeof o->changed)
		return td_fail(err, EINVAL,
			       "changed-blocks=%.100s: say an absolute path of less than %zu bytes",
			       v, sizeof o->changed);
	strcpy(o->changed, v);
	return 0;
}

/* "null", as toolstacks write it: none any more. */
static int set_mirror(struct vbd_options *o, const char *v, struct td_err *err)
{
	const char *colon = strchr(v, ':');
	bool none = !strcmp(v, "null");

	if ((!none && (!colon || colon == v || !colon[1])) || strlen(v) >= sizeof o->mirror)
		return td_fail(err, EINVAL,
			       "mirror=%.100s: say TYPE:PATH in less than %zu bytes, as in "
			       "nbd:NAME, or null for none",
			       v, sizeof o->mirror);
	strcpy(o->mirror, none ? "" : v);
	o->mirror_said = true;
	return 0;
}

static int set_mirror_timeout(struct vbd_options *o, const char *v, struct td_err *err)
{
	char *end;
	long n = strtol(v, &end, 10);

	if (end == v || *end || n < 0 || n > 86400)
		return td_fail(err, EINVAL,
			       "mirror-timeout=%.100s: say after how many seconds without an "
			       "answer a mirror has failed, 0 for never, a day at most",
			       v);
	o->mirror_timeout = n ? (int)n : -1;
	return 0;
}

/* The host's too: how it is done, and not what is promised. */
static int set_io(struct vbd_options *o, const char *v, struct td_err *err)
{
	static const char *const known_engines[] = {"auto", "libaio", "io_uring", "threads"};

	for (size_t i = 0; i < sizeof known_engines / sizeof *known_engines; i++)
		if (!strcmp(v, known_engines[i])) {
			o->io = known_engines[i];
			return 0;
		}
	return td_fail(err, EINVAL,
		       "io=%.100s: the I/O engines are auto, libaio, io_uring and threads", v);
}

/* The host's: MiB for the data of all rings of a tapdisk. */
static int set_ring_memory(struct vbd_options *o, const char *v, struct td_err *err)
{
	char *end;
	long n = strtol(v, &end, 10);

	if (end == v || *end || n < 4 || n > 65536)
		return td_fail(err, EINVAL,
			       "ring-memory=%.100s: say a number of MiB, from 4 to 65536", v);
	o->ring_memory = (size_t)n << 20;
	return 0;
}

/* The host's: whether rings that do not say themselves are polled. */
static int set_polling(struct vbd_options *o, const char *v, struct td_err *err)
{
	bool on = true;
	int rc = yes_no("polling", v, &on, err);

	o->no_polling = !rc && !on;
	return rc;
}

/* Read where a tapdisk starts (tapdisk/sandbox/sandbox.h); here for their spelling. */
static int set_sandbox(struct vbd_options *o, const char *v, struct td_err *err)
{
	bool on;

	return strcmp(v, "network") ? yes_no("sandbox", v, &on, err) : 0;
}

static int set_sandbox_uids(struct vbd_options *o, const char *v, struct td_err *err)
{
	return 0;
}

static const struct {
	const char *key;
	int (*set)(struct vbd_options *o, const char *v, struct td_err *err);
	bool per_disk_only, conf_only;
} known[] = {
	{"cache", set_cache, false, false},
	{"unsafe", set_unsafe, false, false},
	{"on-enospc", set_on_enospc, false, false},
	{"request-timeout", set_request_timeout, false, false},
	{"reconnect-limit", set_reconnect_limit, false, false},
	{"connections", set_connections, false, false},
	{"parents-cache", set_parents_cache, true, false},
	{"shared", set_shared, true, false},
	{"two-primaries", set_two_primaries, true, false},
	{"sector-size", set_sector_size, true, false},
	{"data-file", set_data_file, true, false},
	{"changed-blocks", set_changed, true, false},
	{"parent-disk", set_parent_disk, true, false},
	{"leaf-cache", set_leaf_cache, true, false},
	{"mirror", set_mirror, true, false},
	{"mirror-standby", set_standby, true, false},
	{"mirror-timeout", set_mirror_timeout, false, false},
	{"parent-dirs", set_parent_dirs, false, true},
	{"parents", set_parents, false, true},
	{"io", set_io, false, true},
	{"ring-memory", set_ring_memory, false, true},
	{"polling", set_polling, false, true},
	{"sandbox", set_sandbox, false, true},
	{"sandbox-uids", set_sandbox_uids, false, true},
};

static int set_one(struct vbd_options *o, const char *key, size_t len, const char *value, bool conf,
		   struct td_err *err)
{
	char list[400] = "";

	if (limit_is_word(key, len))
		return limit_set_word(&o->limit, key, len, value, err);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (conf ? known[i].per_disk_only : known[i].conf_only)
			continue;
		if (strlen(known[i].key) == len && !strncmp(known[i].key, key, len))
			return known[i].set(o, value, err);
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
			 known[i].key);
	}
	return td_fail(err, EINVAL, "unknown option '%.*s': the options are %s, %s",
		       (int)(len > 100 ? 100 : len), key, list, LIMIT_WORDS);
}

static int conf_set(const char *key, const char *value, void *arg, struct td_err *err)
{
	return set_one(arg, key, strlen(key), value, true, err);
}

struct reading {
	struct vbd_options *o;
	struct td_err *err;
};

static long default_run(void *arg)
{
	const struct reading *r = arg;

	return td_conf_read(conf_set, r->o, r->err);
}

int options_default(struct vbd_options *o, struct td_err *err)
{
	memset(o, 0, sizeof *o);
	o->mode = td_cache_modes;
	return (int)td_call(default_run, &(struct reading){o, err});
}

int options_add(struct vbd_options *o, const char *word, struct td_err *err)
{
	const char *eq = strchr(word, '=');

	if (!eq || eq == word)
		return td_fail(err, EINVAL,
			       "option '%.100s' is not of the form key=value, as in cache=none",
			       word);
	return set_one(o, word, (size_t)(eq - word), eq + 1, false, err);
}

bool options_is_joined(const struct vbd_options *o)
{
	return o->mirror[0] && (o->standby || (o->parent_disk > 0 && !nbd_is_spec(o->mirror)));
}

bool options_equal(const struct vbd_options *a, const struct vbd_options *b)
{
	return a->mode == b->mode && a->unsafe == b->unsafe &&
	       a->report_enospc == b->report_enospc && a->request_timeout == b->request_timeout &&
	       a->reconnect_limit == b->reconnect_limit && a->connections == b->connections &&
	       a->shared == b->shared && a->two_primaries == b->two_primaries &&
	       a->parents_cache == b->parents_cache && options_sector(a) == options_sector(b) &&
	       a->read_only == b->read_only && !strcmp(a->data_file, b->data_file) &&
	       !strcmp(a->changed, b->changed) && a->parent_disk == b->parent_disk &&
	       a->leaf_cache == b->leaf_cache && !strcmp(a->mirror, b->mirror) &&
	       a->standby == b->standby && options_patience(a) == options_patience(b);
}

int options_check(const struct vbd_options *o, const char *type, struct td_err *err)
{
	bool raw = !strcmp(type, "aio");

	if (o->mode->drop_flush && !o->unsafe)
		return td_fail(
			err, EINVAL,
			"cache=unsafe loses data at a power cut, whatever the guest flushes: "
			"say unsafe=yes as well if that is what you want");
	if (o->parent_disk > 0 && strcmp(type, "vhd") && strcmp(type, "qcow2"))
		return td_fail(err, EINVAL,
			       "parent-disk=%d: an image of the type %s stands on no other",
			       o->parent_disk - 1, type);
	if (o->shared && o->mirror[0])
		return td_fail(
			err, EINVAL,
			"shared=yes and a mirror do not go together: what other hosts write would "
			"not be mirrored");
	if (o->standby && strncmp(o->mirror, "vhd:", 4) && strncmp(o->mirror, "qcow2:", 6))
		return td_fail(err, EINVAL,
			       "mirror-standby (-s) needs a secondary (-2) that can stand upon the "
			       "disk's image: a VHD or a qcow2%s%s",
			       *o->mirror ? ", and not " : "", o->mirror);
	if (o->changed[0] && options_is_joined(o))
		return td_fail(err, EINVAL,
			       "changed-blocks (-C), and a secondary (-2) that may take the place "
			       "of the disk's image, do not go together: what is written there "
			       "would not be logged");
	if (o->shared && !raw)
		return td_fail(
			err, EINVAL,
			"shared=yes works for raw disks only: the metadata of %s has one writer",
			type);
	if (o->shared && !o->mode->shareable)
		return td_fail(err, EINVAL,
			       "shared=yes needs cache=none or cache=directsync: with cache=%s a "
			       "host reads its own page cache "
			       "and not what the other wrote",
			       o->mode->name);
	return 0;
}
