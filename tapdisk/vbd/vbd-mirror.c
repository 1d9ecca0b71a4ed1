/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's mirror: opened, let go, and what of its failure the disk keeps (tapdisk/mirror.h). */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lib/passed.h"
#include "tapdisk/chain.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"

static void on_failed(void *owner)
{
	struct vbd *v = owner;

	v->mirror_failed = true;
	if (v->leaf) /* else it is being opened or closed, which writes the record at its end */
		record_write(v);
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

int vbd_mirror_open(struct vbd *v, const struct vbd_options *o, const struct td_how *how,
		    struct td_image *leaf, bool fresh, struct mirror **mirror,
		    struct td_image **copy, bool *failed, struct td_err *err)
{
	bool nbd = !strncmp(o->mirror, "nbd:", 4);
	struct td_err why = {0};
	int rc;

	*mirror = NULL;
	*copy = NULL;
	*failed = has_failed(v, o, fresh);
	if (!o->mirror[0] || *failed || o->read_only)
		return 0;
	rc = chain_open(o->mirror, how, leaf->io, copy, &why);
	if (rc < 0) {
		*copy = NULL;
		/* the guest goes on; who mirrors asks for `nbd_mirror_failed' */
		return nbd || v->past ? goes_on_without(v, leaf, failed, &why)
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
	v->mirror_failed = true;
	if (v->state & TD_STATE_PAUSED && !v->giving)
		record_write(v);
}

void vbd_mirror_torn(struct vbd *v)
{
	if (v->mirror)
		mirror_fail(v->mirror, "a change of the disk itself has failed, so that the two "
				       "may differ");
	else if (v->opt.mirror[0] && !v->mirror_failed)
		torn_at_rest(v);
}
