/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether a live commit may be: what the disk is, what its images are, and who else stands on P. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"
#include "lib/io/file.h"
#include "lib/readers.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/vbd/vbd-commit.h"

int vbd_commit_check_disk(struct vbd *v, const char *name, struct td_err *err)
{
	if (!v->spec || !v->leaf)
		return td_fail(err, ENODEV, "minor %d is not open, or paused", v->minor);
	if (!v->leaf->driver->relink)
		return td_fail(err, EOPNOTSUPP,
			       "%s: a live commit is of chains whose leaf is a VHD or a qcow2",
			       v->spec);
	if (v->job && v->job->active)
		return td_fail(err, EINVAL,
			       "minor %d: the commit of %s is under way: wait for its end (tap-ctl "
			       "query), or cancel it",
			       v->minor, v->job->is.node);
	if (v->opt.read_only || v->opt.shared)
		return td_fail(err, EINVAL, "minor %d is open %s: its chain cannot change",
			       v->minor, v->opt.read_only ? "read-only" : "with shared=yes");
	if (v->opt.parent_disk > 0) /* P's writer, lock and cache mode are that disk's */
		return td_fail(err, EINVAL,
			       "minor %d stands on the disk of minor %d: its chain cannot change, "
			       "since only that disk's own tapdisk may write it, and others may "
			       "stand on it: close both, and commit offline",
			       v->minor, v->opt.parent_disk - 1);
	if (v->kept)
		return td_fail(err, EINVAL,
			       "minor %d caches what is beneath it in its leaf: its chain cannot "
			       "change",
			       v->minor);
	if (v->mirror)
		return td_fail(
			err, EINVAL,
			"minor %d is mirrored to %s: end that first (pause, unpause -2 null)",
			v->minor, v->opt.mirror);
	if (v->cache.sticky)
		return td_fail(err, EINVAL,
			       "minor %d: a flush of %s has failed: close it, and check it first",
			       v->minor, v->spec);
	if (v->job && v->job->is.lost)
		return td_fail(
			err, EINVAL,
			"minor %d: a sync of %s, or of what names it, has failed in the commit "
			"of %s, so that what is read there may be in no store: close the disk, "
			"and check the chain first",
			v->minor, v->job->is.base, v->job->is.node);
	return name ? 0 : td_fail(err, EINVAL, "'image' is missing");
}

static bool takes_writes(const struct td_driver *d)
{
	return d->relink || !strcmp(d->name, "aio");
}

/* Its names are recorded for a successor, and told, as text. */
static int check_names(const struct td_image *n, const struct td_image *p, struct td_err *err)
{
	json_t *names = json_pack("[s,s]", n->path, p->path);

	json_decref(names);
	return names ? 0
		     : td_fail(err, EINVAL,
			       "the name of %s, or of its parent %s, is not UTF-8 text, so that a "
			       "commit could not be recorded: do it offline (td-qcow commit, "
			       "vhd-util coalesce)",
			       n->path, p->path);
}

int vbd_commit_check_images(struct vbd *v, const struct td_image *n, const char *name,
			    struct td_err *err)
{
	const struct td_image *p = n ? n->backing : NULL;

	if (!n)
		return td_fail(err, EINVAL, "%s is no image of the chain of minor %d (%s)", name,
			       v->minor, v->spec);
	if (!p)
		return td_fail(err, EINVAL, "%s has no parent that it could be committed into",
			       n->path);
	if (check_names(n, p, err) < 0)
		return -EINVAL;
	if (!takes_writes(p->driver))
		return td_fail(err, EINVAL, "%s:%s cannot be written as a parent", p->driver->name,
			       p->path);
	if (n == v->leaf && p->info.size > n->info.size)
		return td_fail(err, EINVAL,
			       "%s has %llu bytes, and its parent %s has %llu: the guest's disk "
			       "would grow; resize the leaf first",
			       n->path, (unsigned long long)n->info.size, p->path,
			       (unsigned long long)p->info.size);
	if (n->info.decrypts && !p->info.decrypts)
		return td_fail(err, EINVAL,
			       "%s is encrypted, and its parent %s is not: a commit would lay its "
			       "data open",
			       n->path, p->path);
	return 0;
}

/* LC7 */
struct beneath {
	const struct td_image *n, *p;
	bool leaf, files;
	struct td_err *err;
};

/* Besides this disk.  Who comes by N would read what he knows of P's places, which change. */
static bool others_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool is = fd >= 0 && td_readers(fd) > 1;

	if (fd >= 0)
		close(fd);
	return is;
}

static long beneath_run(void *arg)
{
	const struct beneath *b = arg;
	const char *path = others_read(b->p->path)               ? b->p->path
			   : !b->leaf && others_read(b->n->path) ? b->n->path
								 : NULL;

	if (path)
		return td_fail(b->err, EBUSY,
			       "%s is in use by another disk too, which would change, or read what "
			       "is being moved: close that one first (lsof %s)",
			       path, path);
	return b->files ? opener_beneath(b->n->driver, b->n->path, b->p->path, b->err) : 0;
}

int vbd_commit_check_beneath(struct vbd *v, const struct td_image *n, bool files,
			     struct td_err *err)
{
	struct beneath b = {n, n->backing, n == v->leaf, files, err};

	return (int)td_await_call(v->cache.io, beneath_run, &b);
}

/* Once more, when nobody else can come: P is claimed, and what the chain had open of it is closed.
 * This sees another host's locks too, where the file system does. */
static long claimed_run(void *arg)
{
	const struct beneath *b = arg;
	int fd = open(b->p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int rc = 0;

	if (fd < 0 && errno == ENOENT)
		return 0; /* it has just been renamed, and this host's readers were looked for */
	if (fd < 0)
		return td_fail(b->err, errno, "cannot open %s: %s", b->p->path, strerror(errno));
	if (td_file_read_by_others(fd))
		rc = td_fail(b->err, EBUSY,
			     "%s is in use by another disk too, which would change, on this host "
			     "or on another that shares the file: close that one first",
			     b->p->path);
	close(fd);
	return rc;
}

int vbd_commit_check_claimed(struct vbd *v, const struct vbd_job *j, struct td_err *err)
{
	struct beneath b = {j->from, j->to, !j->above, false, err};

	return (int)td_await_call(v->cache.io, claimed_run, &b);
}
