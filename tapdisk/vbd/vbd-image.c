/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's images are opened, with all that runs upon them. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "drivers/drivers.h"
#include "lib/bytes.h"
#include "lib/ctl-dir.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "lib/redo.h"
#include "lib/syncmark.h"
#include "tapdisk/chain.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"

static unsigned file_flags(const struct vbd_options *o)
{
	return o->mode->file_flags | (o->read_only ? TD_FILE_RDONLY : 0) |
	       (o->shared ? TD_FILE_SHARED : 0);
}

void vbd_tell_nbd(struct vbd *v)
{
	v->nbd_disk.name = v->spec;
	v->nbd_disk.size = v->leaf->info.size;
	v->nbd_disk.preferred = v->leaf->info.physical;
	v->nbd_disk.read_only = v->opt.read_only;
	v->nbd_disk.trim = v->leaf->info.discard && !mirror_part(v->mirror);
}

/*
 * A write of less than a block of the store is a read-modify-write, which align.c serialises on
 * this host alone: another host's between the read and the write would be undone.  So a disk that
 * hosts share is written in blocks, and its guests are told so.
 */
static int check_block(const char *spec, const struct vbd_options *o, uint32_t block,
		       struct td_err *err)
{
	if (!o->shared || o->read_only || block <= options_sector(o))
		return 0;
	if (block <= 4096)
		return td_fail(
			err, EINVAL,
			"%s cannot be shared as it is: its storage takes blocks of %u bytes, and "
			"two hosts that write smaller "
			"sectors undo each other's: use sector-size=4096 as well, on every host",
			spec, block);
	return td_fail(err, EINVAL,
		       "%s cannot be shared: its storage takes blocks of %u bytes, and no guest "
		       "has sectors as large",
		       spec, block);
}

/* Guests without NBD go on without its sockets; who needs them hears it from the log, and from its
 * own connect(). */
static void start_nbd(struct vbd *v, bool fresh)
{
	struct td_err err = {0};

	vbd_tell_nbd(v);
	if (v->nbd && fresh && nbd_listen(v->nbd, &err) < 0)
		td_log(LOG_ERR, "minor %d: no NBD server: %s", v->minor, err.text);
	nbd_run(v->nbd);
}

/*
 * The log for an image of that driver; *redo: NULL where there is none.  One that holds something
 * counts, whatever the disk's record says: only where the disk is another one, which has just got
 * its number, it is nobody's here.
 */
static int open_redo(struct vbd *v, const struct td_driver *d, const struct vbd_options *o,
		     bool fresh, struct td_redo **redo, struct td_err *err)
{
	char path[PATH_MAX];

	*redo = NULL;
	if (!d->redo || o->read_only || v->marker < 0 || td_ctl_redo_path(v->minor, path))
		return 0;
	if (v->past || !fresh)
		return td_redo_adopt(path, v->past ? v->past->log : v->log_waits, redo, err);
	*redo = td_redo_new(path);
	return 0;
}

struct identity {
	const char *path;
	char text[sizeof((struct vbd *)0)->file];
};

static long identify_run(void *arg)
{
	struct identity *i = arg;
	struct stat st;

	if (i->path[0] != '/' || stat(i->path, &st) < 0)
		return 0;
	if (S_ISBLK(st.st_mode))
		snprintf(i->text, sizeof i->text, "b%llu", (unsigned long long)st.st_rdev);
	else if (S_ISREG(st.st_mode))
		snprintf(i->text, sizeof i->text, "%llu:%llu", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino);
	return 0;
}

/* For those who know the image by another name: `tap-ctl list -f' need not look at every disk's
 * store for it. */
static void identify_image(struct vbd *v, const char *path, struct td_io *io)
{
	struct identity i = {.path = path};

	td_await_call(io, identify_run, &i);
	strcpy(v->file, i.text);
}

static bool decrypts(const struct td_image *image)
{
	while (image && !image->info.decrypts)
		image = image->backing;
	return image;
}

void vbd_mark_syncs(struct vbd *v, int sticky)
{
	syncmark_close(v->syncs);
	v->syncs = NULL;
	v->syncs = v->marker >= 0 ? syncmark_open(v->minor, vbd_lost_data(sticky)) : NULL;
}

/*
 * An unpause that failed after a sync of the image had: the kernel tells of lost data once, so that
 * the next unpause's sync would do well.  The disk knows it from now on (C5).
 */
static int not_opened(struct vbd *v, bool fresh, int lost, int rc)
{
	if (lost && !fresh && !v->past && !v->cache.sticky) {
		__atomic_store_n(&v->cache.sticky, lost, __ATOMIC_RELEASE);
		v->cache.changed(&v->cache);
	}
	return rc;
}

/* What start() has got hold of so far, for the disk or to let go of. */
struct opening {
	const char *spec, *path;
	const struct vbd_options *o;
	bool fresh;
	struct td_io *io, *buffered;
	struct td_redo *redo;
	struct td_image *leaf;
	struct changed *changed;
	struct leaf_cache *kept;
	struct mirror *mirror;
	struct td_image *copy; /* the mirror's */
	struct td_image *part; /* that, where it is a part of the disk; or NULL */
	bool redirected;
	struct td_server server; /* and whose it is */
	bool mirror_failed;
	char *spec_copy;
	int lost; /* -errno of a sync that failed, or 0 */
	bool shrunk;
};

struct td_how vbd_how(const struct vbd_options *o)
{
	return (struct td_how){.flags = file_flags(o),
			       .key = &o->key,
			       .dirs = o->parent_dirs,
			       .parents = o->parents,
			       .data = o->data_file,
			       .alone = o->parent_disk > 0};
}

/* The chain, with the log and the marks that go with it. */
static int open_image(struct vbd *v, struct opening *n, const struct td_driver *d,
		      struct td_err *err)
{
	const struct vbd_options *o = n->o;
	bool fresh = n->fresh;
	struct td_how how;
	char left[PATH_MAX];
	int sticky = v->past ? v->past->sticky : fresh ? 0 : v->cache.sticky;
	int rc = open_redo(v, d, o, fresh, &n->redo, err);

	n->lost = vbd_lost_data(sticky) ? sticky : 0;
	if (rc < 0)
		return rc;
	if (n->lost)
		td_redo_fail(n->redo);
	if (v->past || fresh)
		vbd_mark_syncs(v, sticky); /* F3 of lib/syncmark.h */
	how = vbd_how(o);
	how.cached = o->parents_cache ? n->buffered : NULL;
	how.redo = n->redo;
	how.lost = v->past || !fresh ? &n->lost : NULL;
	how.died = v->past && !v->past->paused;
	how.mark = v->syncs;
	how.reconnect = o->reconnect_limit > 0 ? o->reconnect_limit : -!o->reconnect_limit;
	how.connections = o->connections;
	how.left = v->marker >= 0 && !td_ctl_left_path(v->minor, left) ? left : NULL;
	rc = chain_open(n->spec, &how, n->io, &n->leaf, err);
	if (rc < 0)
		n->leaf = NULL;
	else
		n->io = n->leaf->io; /* PC4 */
	return rc;
}

static int open_mirror(struct vbd *v, struct opening *n, struct td_err *err)
{
	const struct vbd_options *o = n->o;
	/* cache=unsafe promises nothing of the disk; but that the mirror has it all is told */
	struct td_how how = {.flags = (file_flags(o) & ~(unsigned)TD_FILE_NOSYNC) | TD_FILE_COPY,
			     .key = &o->key,
			     .dirs = o->parent_dirs,
			     .parents = o->parents,
			     .mark = &v->copy_syncs,
			     .server = &n->server,
			     .cached = o->parents_cache ? n->buffered : NULL};

	n->server = v->past ? v->past->mirror_server : v->mirror_server;
	return vbd_mirror_open(v, o, &how, n->leaf, n->fresh, &n->mirror, &n->copy,
			       &n->mirror_failed, err);
}

/* Like the leaf, and without its own parents: those are the leaf's. */
static int open_part(struct vbd *v, struct opening *n, struct td_err *err)
{
	struct td_how how = vbd_how(n->o);

	how.alone = true;
	how.mark = v->syncs;
	how.cached = n->o->parents_cache ? n->buffered : NULL;
	n->redirected = v->past ? v->past->redirected : !n->fresh && v->redirected;
	return vbd_part_open(n->o, &how, n->leaf, n->redirected, &n->part, err);
}

/* The mirror, be its copy a part of the disk or not. */
static int put_mirror(struct vbd *v, struct opening *n, struct td_err *err)
{
	if (!n->part)
		return open_mirror(v, n, err);
	if (n->o->standby) /* else it is the leaf's chain's */
		n->copy = n->part;
	return vbd_part_join(v, n->o, n->leaf, n->part, n->redirected, &n->mirror, err);
}

/* May the disk be what the image is now? */
static int fits_guest(struct vbd *v, struct opening *n, struct td_err *err)
{
	const struct vbd_options *o = n->o;
	uint64_t size = n->leaf->info.size;
	int rc = check_block(n->spec, o, n->leaf->info.block, err);

	if (rc < 0)
		return rc;
	n->shrunk = size / 512 < v->disk.sectors;
	/* a CD may be taken out; of a disk, what was written is lost */
	if ((vbd_ring(v) || nbd_clients(v->nbd)) && n->shrunk && !o->read_only)
		return td_fail(
			err, EINVAL,
			"%s has %llu sectors, the guest knows %llu: a disk in use cannot shrink",
			n->spec, (unsigned long long)size / 512,
			(unsigned long long)v->disk.sectors);
	if (size % options_sector(o))
		return td_fail(err, EINVAL,
			       "%s has %llu bytes, which is not a multiple of sector-size=%u: "
			       "enlarge it, or leave the option out",
			       n->spec, (unsigned long long)size, options_sector(o));
	return 0;
}

/* B5 of tapdisk/sandbox/sandbox.h: what of the disk is on other hosts, or NULL. */
static const char *find_remote(const char *spec, const struct td_driver *d,
			       const struct vbd_options *o)
{
	struct td_err why = {0};
	const char *path;
	const struct td_driver *copy =
		o->mirror[0] ? td_driver_parse(o->mirror, &path, &why) : NULL;

	return d->remote ? spec : copy && copy->remote ? o->mirror : NULL;
}

/* The disk has all of it from here on. */
static void install(struct vbd *v, const struct opening *n)
{
	const struct vbd_options *o = n->o;
	struct td_image *leaf = n->leaf;

	identify_image(v, n->path, n->io);
	free(v->spec); /* which n->spec, and so n->path, may be */
	v->spec = n->spec_copy;
	if (strcmp(v->opt.mirror, o->mirror))
		vbd_mirror_forget(v->opt.mirror);
	v->opt = *o;
	v->opt.mirror_said = false; /* it was for this opening */
	v->mirror = n->mirror;
	v->copy = n->copy;
	v->mirror_server = n->server;
	v->redirected = n->redirected;
	v->mirror_failed = n->mirror_failed || (n->mirror && mirror_why(n->mirror));
	limit_set(&v->disk.rates, &o->limit, td_clock_now());
	v->leaf = leaf;
	v->redo = n->redo;
	v->changes = n->changed;
	v->kept = n->kept;
	v->log_waits = false;
	vbd_listen_to(v, leaf);
	v->cache.report_enospc = o->report_enospc;
	v->disk.sectors = leaf->info.size / 512;
	v->disk.read_only = o->read_only;
	v->disk.discard = leaf->info.discard && !o->read_only && !n->part;
	__atomic_store_n(&v->disk.decrypts, decrypts(leaf), __ATOMIC_RELAXED);
	v->disk.block = v->nbd_disk.block =
		o->shared && leaf->info.block > 512 ? options_sector(o) : 0;
	v->state = 0;
}

/*
 * A successor must know the disk as it is now, before anybody may act on it.  When the record
 * cannot be written, the one of before is removed; but that of a dead process says the same, in
 * what matters.
 */
static int put_record(struct vbd *v, bool fresh, struct td_err *err)
{
	bool other = !fresh && !v->past;
	int rc = other ? record_renew(v) : record_write(v);

	if (!other || !rc)
		return 0;
	vbd_shut(v, 0, err);
	v->state = VBD_PAUSED;
	return td_fail(err, -rc,
		       "minor %d: its record can neither be written nor removed (%s): a successor "
		       "would go on with what was before",
		       v->minor, strerror(-rc));
}

/* Requests may come. */
static int serve(struct vbd *v, const struct opening *n, struct td_err *err)
{
	const struct vbd_options *o = n->o;
	int lost = n->lost, rc;

	cache_attach(&v->cache, o->mode, n->mirror ? mirror_image(n->mirror) : n->leaf, n->io,
		     n->fresh);
	if (v->past) { /* what was lost is lost: whoever opens the disk anew says that it has been
			  checked */
		v->cache.sticky = v->past->sticky;
		v->sticky_recorded = v->cache.sticky;
	}
	if (lost && !v->cache.sticky)
		cache_fail_sticky(&v->cache, lost); /* S2 of lib/settle.h */
	if (n->shrunk && !n->fresh) {
		v->all_leave = true; /* their places were checked against the old size */
		cache_cancel(&v->cache, -EIO);
		v->all_leave = false;
	}
	rc = put_record(v, n->fresh, err);
	if (rc < 0)
		return rc;
	if (v->past && v->redirected)
		vbd_mirror_tell_full(v); /* it may have died before it did */
	cache_resume(&v->cache);
	vbd_run_rings(v);
	start_nbd(v, n->fresh);
	stall_watch(&v->stall, o->request_timeout);
	peers_watch(&v->peers);
	td_log(LOG_INFO, "minor %d: %s is open: %llu sectors, cache=%s%s%s: %s", v->minor, v->spec,
	       (unsigned long long)v->disk.sectors, o->mode->name,
	       o->read_only ? ", read-only" : "", o->shared ? ", shared" : "", o->mode->promise);
	if (n->mirror && !n->part)
		td_log(LOG_NOTICE, "minor %d: %s is mirrored to %s", v->minor, v->spec, o->mirror);
	return 0;
}

static int start(struct vbd *v, struct opening *n, struct td_err *err)
{
	const struct vbd_options *o = n->o;
	const struct td_driver *d = td_driver_parse(n->spec, &n->path, err);
	const char *remote = d ? find_remote(n->spec, d, o) : NULL;
	int rc = d ? options_check(o, d->name, err) : -err->code;

	if (!rc)
		rc = sandbox_network(remote ? remote : n->spec, remote, err);
	if (!rc)
		rc = queue_engine(v->queue, o->io, o->mode->file_flags & TD_FILE_DIRECT, &n->io,
				  err);
	if (!rc && (o->parents_cache || o->changed[0]))
		rc = queue_engine(v->queue, o->io, false, &n->buffered, err);
	if (!rc)
		rc = peers_check(&v->peers, d->name, n->path, o, v->past, n->io, err);
	if (rc < 0)
		return rc;
	rc = open_image(v, n, d, err);
	if (!rc && o->parent_disk > 0)
		rc = parent_disk_open(o->parent_disk - 1, &v->beneath, n->io, &n->leaf->backing,
				      err);
	if (!rc)
		rc = fits_guest(v, n, err);
	if (!rc && o->changed[0])
		rc = changed_open(o->changed, n->leaf, n->buffered, v->past != NULL, &n->changed,
				  err);
	if (!rc)
		rc = open_part(v, n, err);
	if (!rc && o->leaf_cache)
		rc = leaf_cache_open(n->leaf, vbd_on_idle, v, &n->kept, err);
	if (!rc)
		rc = put_mirror(v, n, err);
	if (!rc && !(n->spec_copy = strdup(n->spec)))
		rc = td_fail(err, ENOMEM, "out of memory for %s", n->spec);
	if (!rc) {
		if (n->fresh)
			stats_open(&v->stats, v->minor);
		install(v, n);
		return serve(v, n, err);
	}
	vbd_mirror_close(n->mirror, n->o->standby ? n->part : n->copy);
	chain_close(n->leaf);
	changed_close(n->changed);
	td_redo_free(n->redo);
	return not_opened(v, n->fresh, n->lost, rc);
}

void vbd_identify(struct vbd *v, const struct vbd_past *past)
{
	uint8_t id[(sizeof v->born - 1) / 2];

	memset(&v->beneath, 0, sizeof v->beneath);
	memset(v->born, 0, sizeof v->born);
	if (past) {
		memcpy(v->born, past->born, sizeof v->born);
		v->beneath = past->beneath;
	} else if (getrandom(id, sizeof id, 0) == (ssize_t)sizeof id) {
		td_put_hex(v->born, id, sizeof id);
	}
}

int vbd_start(struct vbd *v, const char *spec, const struct vbd_options *o, bool fresh,
	      struct td_err *err)
{
	struct opening n = {.spec = spec, .o = o, .fresh = fresh};
	int rc;

	if (fresh || v->past)
		vbd_identify(v, v->past);
	else if (o->parent_disk != v->opt.parent_disk)
		memset(&v->beneath, 0, sizeof v->beneath);
	rc = start(v, &n, err);

	if (rc < 0)
		peers_stop(&v->peers);
	return rc;
}
