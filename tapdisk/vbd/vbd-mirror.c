/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's mirror: opened, let go, and what of its failure the disk keeps
 * (tapdisk/mirror/mirror.h). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/fiber/call.h"
#include "lib/fiber/fiber.h"
#include "lib/kill.h"
#include "lib/nbd-uri.h"
#include "lib/passed.h"
#include "tapdisk/chain.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"

static void on_failed(void *owner)
{
	struct vbd *v = owner;

	v->mirror_failed = true;
	if (v->leaf) /* else it is being opened or closed, which writes the record at its end */
		record_soon(v);
}

/* Has what the disk had as its mirror so far failed? */
static bool has_failed(const struct vbd *v, const struct vbd_options *o, bool fresh)
{
	if (v->past) /* MI8 */
		return v->past->mirror_failed ||
		       (o->mirror[0] && !v->past->paused && !v->past->handed);
	return !fresh && !o->mirror_said && v->mirror_failed;
}

/* Has somebody named it just now, who hears why it cannot be? */
static bool is_asked_for(const struct vbd *v, const struct vbd_options *o, bool fresh)
{
	return !v->past && (fresh || o->mirror_said);
}

static int goes_on_without(const struct vbd *v, const struct td_image *leaf, bool *failed,
			   const struct td_err *why)
{
	*failed = true;
	td_log(LOG_ERR, "minor %d: %s goes on without its mirror: %s", v->minor, leaf->path,
	       why->text);
	return 0;
}

/* The same image twice would be written by both, and two of another size are no mirror. */
static int same_size(const struct td_image *leaf, const struct td_image *copy, const char *spec,
		     struct td_err *err)
{
	if (copy->info.size == leaf->info.size)
		return 0;
	return td_fail(err, EINVAL,
		       "the mirror %s has %llu bytes, and %s has %llu: they must be of one size",
		       spec, (unsigned long long)copy->info.size, leaf->path,
		       (unsigned long long)leaf->info.size);
}

/* --- a copy that is a part of the disk --- */

enum mirror_part vbd_mirror_part(const struct vbd_options *o)
{
	return !options_is_joined(o) ? MIRROR_APART : o->standby ? MIRROR_STANDBY : MIRROR_READ;
}

/* What a standby held would hide what the leaf holds, once it stands upon that. */
static int holds_nothing(struct td_image *copy, const char *spec, struct td_err *err)
{
	struct td_extent e;

	for (uint64_t at = 0; at < copy->info.size; at = e.off + e.len) {
		int n = copy->driver->extents(copy, at, copy->info.size - at, &e, 1);

		if (n < 0)
			return td_fail(err, -n, "cannot tell what is in %s: %s", spec,
				       strerror(-n));
		if (e.flags & TD_EXTENT_ZERO) /* so says a VHD that has no parent of all it lacks */
			return td_fail(
				err, EINVAL,
				"the secondary %s has zeroes, which would hide the leaf: one that "
				"stands by (-s) must be a new VHD with a parent, or a new qcow2",
				spec);
		if (!(e.flags & TD_EXTENT_PARENT))
			return td_fail(
				err, EINVAL,
				"the secondary %s holds data already: one that stands by (-s) "
				"must be new",
				spec);
	}
	return 0;
}

int vbd_part_open(const struct vbd_options *o, const struct td_how *how, struct td_image *leaf,
		  bool redirected, struct td_image **copy, struct td_err *err)
{
	enum mirror_part part = vbd_mirror_part(o);
	struct td_err why = {0};
	int rc;

	*copy = NULL;
	if (!part || (part == MIRROR_STANDBY && o->read_only && !redirected))
		return 0;
	rc = chain_open(o->mirror, how, leaf->io, copy, &why);
	if (rc < 0) {
		*copy = NULL;
		return td_fail(err, -rc, "the secondary: %s", why.text);
	}
	rc = same_size(leaf, *copy, o->mirror, err);
	if (!rc && part == MIRROR_STANDBY && !redirected)
		rc = holds_nothing(*copy, o->mirror, err);
	if (rc < 0) {
		chain_close(*copy);
		*copy = NULL;
	} else if (part == MIRROR_READ) {
		(*copy)->backing = leaf->backing;
		leaf->backing = *copy;
	}
	return rc;
}

void vbd_mirror_tell_full(struct vbd *v)
{
	char path[PATH_MAX];
	int fd;

	if (v->marker < 0 || td_ctl_full_path(v->minor, path))
		return;
	fd = td_call_open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
	if (fd < 0)
		td_log(LOG_ERR, "minor %d: cannot make %s, by which its toolstack knows: %s",
		       v->minor, path, strerror(-fd));
	else
		close(fd);
}

/* On a fiber of its own: a request waits for it, so that the disk stays as it is. */
static void record_full(void *arg)
{
	struct vbd *v = arg;
	int rc;

	TD_KILL(FULL_ASKED);
	v->redirected = true;
	rc = record_write(v);
	if (rc < 0)
		v->redirected = false;
	else
		vbd_mirror_tell_full(v);
	TD_KILL(FULL_TOLD);
	mirror_redirect(v->mirror, rc);
}

static void on_full(void *owner)
{
	struct vbd *v = owner;

	if (td_fiber_start(v->queue->loop, record_full, v) < 0)
		mirror_redirect(v->mirror, -ENOMEM);
}

static void on_lost(void *owner, int err)
{
	struct vbd *v = owner;

	cache_durable_failed(&v->cache, err);
}

int vbd_part_join(struct vbd *v, const struct vbd_options *o, struct td_image *leaf,
		  struct td_image *copy, bool redirected, struct mirror **mirror,
		  struct td_err *err)
{
	int rc;

	*mirror = NULL;
	if (!copy || (o->read_only && !redirected))
		return 0;
	rc = mirror_open(leaf, copy, 0, on_failed, v, mirror, err);
	if (!rc)
		mirror_join(*mirror, vbd_mirror_part(o), redirected, on_full, on_lost);
	return rc;
}

int vbd_mirror_open(struct vbd *v, const struct vbd_options *o, const struct td_how *how,
		    struct td_image *leaf, bool fresh, struct mirror **mirror,
		    struct td_image **copy, bool *failed, struct td_err *err)
{
	bool nbd = nbd_is_spec(o->mirror);
	struct td_how again = *how;
	struct td_err why = {0};
	int rc;

	again.same_server = !is_asked_for(v, o, fresh);
	*mirror = NULL;
	*copy = NULL;
	*failed = has_failed(v, o, fresh);
	if (options_is_joined(o))
		*failed = false; /* it is opened with the disk, or not at all */
	if (!o->mirror[0] || options_is_joined(o) || *failed || o->read_only)
		return 0;
	rc = chain_open(o->mirror, &again, leaf->io, copy, &why);
	if (rc < 0) {
		*copy = NULL;
		/* the guest goes on; who mirrors asks for `nbd_mirror_failed'.  And why it failed
		 * may be said once only, as of a sync: nobody tries it again (MI2) */
		return nbd || !is_asked_for(v, o, fresh)
			       ? goes_on_without(v, leaf, failed, &why)
			       : td_fail(err, -rc, "the mirror: %s", why.text);
	}
	rc = same_size(leaf, *copy, o->mirror, &why);
	if (rc < 0 && !is_asked_for(v, o, fresh)) { /* the disk has grown: MI2 */
		chain_close(*copy);
		*copy = NULL;
		return goes_on_without(v, leaf, failed, &why);
	}
	if (rc < 0)
		td_fail(err, -rc, "%s", why.text);
	else
		rc = mirror_open(leaf, *copy, options_patience(o), on_failed, v, mirror, err);
	if (rc < 0) {
		chain_close(*copy);
		*copy = NULL;
	}
	return rc;
}

void vbd_mirror_close(struct mirror *m, struct td_image *copy)
{
	mirror_close(m);
	chain_close(copy);
}

void vbd_mirror_forget(const char *spec)
{
	int fd = strncmp(spec, "nbd:", 4) ? -1 : td_passed_take(spec + 4, NULL, 0);

	if (fd >= 0)
		close(fd);
}

/* The record is another process's while the disk is handed over, which is told in the message. */
static void torn_at_rest(struct vbd *v)
{
	td_log(LOG_ERR,
	       "minor %d: the mirror %s has failed: a change of the disk, or a sync of the copy as "
	       "it was closed",
	       v->minor, v->opt.mirror);
	v->mirror_failed = true;
	if (v->state & TD_STATE_PAUSED && !v->giving)
		record_soon(v);
}

void vbd_mirror_torn(struct vbd *v)
{
	if (v->mirror)
		mirror_fail(v->mirror, "a change of the disk itself has failed, so that the two "
				       "may differ");
	else if (v->opt.mirror[0] && !v->mirror_failed && !options_is_joined(&v->opt))
		torn_at_rest(v);
}
