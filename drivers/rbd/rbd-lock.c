/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The exclusive lock of an image (RB5), and the clients of dead predecessors (RB6).
 *
 * By default librbd hands the lock to whoever wants to write, so that two writers take turns and
 * neither is refused.  A lock that was asked for (rbd_lock_acquire) is not handed over: the other
 * client's writes fail.  A client that has died keeps its lock, but not its watch on the image,
 * which ends 30 s later by default; librbd then breaks the lock, and has the client blocklisted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/rbd/rbd.h"

#define WATCHERS 64

/* The address of the client that has the lock, into addr, or "". */
static int get_owner(struct rbdc_handle *h, const char *name, char addr[RBDC_ADDR],
		     struct td_err *err)
{
	rbd_lock_mode_t mode;
	char *owners[1];
	size_t n = 1;
	int rc = rbdc_lib->rbd_lock_get_owners(h->rbd, &mode, owners, &n);

	*addr = 0;
	if (rc == -ENOENT || rc == -EINVAL || (!rc && !n)) /* EINVAL: it has no lock at all */
		return 0;
	if (rc < 0)
		return td_fail(err, -rc, "rbd:%s: cannot read who has its lock: %s", name,
			       strerror(-rc));
	if (strlen(owners[0]) < RBDC_ADDR)
		strcpy(addr, owners[0]);
	else
		rc = td_fail(err, EPROTO, "rbd:%s: its lock's owner has no address", name);
	rbdc_lib->rbd_lock_get_owners_cleanup(owners, n);
	return rc;
}

/* Has that client the image open?  When in doubt, yes. */
static bool is_alive(struct rbdc_handle *h, const char *addr)
{
	rbd_image_watcher_t w[WATCHERS];
	size_t n = WATCHERS;
	int rc = rbdc_lib->rbd_watchers_list(h->rbd, w, &n);
	bool found = rc < 0;

	if (rc < 0)
		return true;
	for (size_t i = 0; i < n; i++)
		found = found || !strcmp(w[i].addr, addr);
	rbdc_lib->rbd_watchers_list_cleanup(w, n);
	return found;
}

static int in_use(const char *name, const char *owner, const char *own, struct td_err *err)
{
	if (!strcmp(owner, own))
		return td_fail(
			err, EBUSY,
			"rbd:%s is in use by another disk of this tapdisk, or is still being "
			"closed",
			name);
	return td_fail(err, EBUSY,
		       "rbd:%s is in use: the client at %s holds its exclusive lock, and an image "
		       "has one writer.  If that host is dead, its lock ends by itself in half a "
		       "minute; `rbd lock ls' shows it",
		       name, owner);
}

/* An image that was opened read-only shows no lock; who can write to it has a watch. */
int rbdc_no_writer(struct rbdc_handle *h, const char *name, struct td_err *err)
{
	rbd_image_watcher_t w[WATCHERS];
	size_t n = WATCHERS;
	int rc = rbdc_lib->rbd_watchers_list(h->rbd, w, &n);

	if (rc < 0)
		return td_fail(err, -rc, "rbd:%s: cannot read who has it open: %s", name,
			       strerror(-rc));
	if (n)
		rc = td_fail(
			err, EBUSY,
			"rbd:%s is open for writing by the client at %s: read a snapshot of it "
			"instead (rbd snap create, and @SNAPSHOT behind the image)",
			name, w[0].addr);
	rbdc_lib->rbd_watchers_list_cleanup(w, n);
	return rc;
}

int rbdc_fence(struct rbdc_handle *h, const char *name, char dead[RBDC_DEAD][RBDC_ADDR],
	       struct td_err *err)
{
	char owner[RBDC_ADDR];
	int rc = get_owner(h, name, owner, err);

	for (int i = 0; i < RBDC_DEAD && !rc; i++) {
		if (!*dead[i])
			continue;
		/* that blocklists it as well */
		if (!strcmp(dead[i], owner))
			rc = rbdc_lib->rbd_lock_break(h->rbd, RBD_LOCK_MODE_EXCLUSIVE, owner);
		else
			rc = rbdc_lib->rados_blocklist_add(h->cluster->rados, dead[i], 0);
		if (rc == -ENOENT) /* the lock was broken by somebody else just now */
			rc = rbdc_lib->rados_blocklist_add(h->cluster->rados, dead[i], 0);
		if (rc < 0)
			return td_fail(
				err, -rc,
				"rbd:%s: the tapdisk that had it has died, and its client at "
				"%s, whose requests the cluster may still execute, cannot be "
				"blocklisted: %s: has the user the caps `profile rbd'?",
				name, dead[i], strerror(-rc));
		td_log(LOG_NOTICE, "rbd:%s: the dead tapdisk's client at %s is blocklisted", name,
		       dead[i]);
	}
	/* an OSD looks at the blocklist of its map, and a request of ours brings at least the map
	 * that we know */
	return rc ? rc : rbdc_lib->rados_wait_for_latest_osdmap(h->cluster->rados);
}

int rbdc_lock(struct rbdc_handle *h, const char *name, struct td_err *err)
{
	char owner[RBDC_ADDR];
	uint64_t features = 0;
	int rc = rbdc_lib->rbd_get_features(h->rbd, &features);

	if (rc < 0)
		return td_fail(err, -rc, "rbd:%s: cannot read its features: %s", name,
			       strerror(-rc));
	if (!(features & RBD_FEATURE_EXCLUSIVE_LOCK))
		return td_fail(err, EOPNOTSUPP,
			       "rbd:%s has no exclusive lock, so that nothing would keep a second "
			       "host from writing it: rbd feature enable IMAGE exclusive-lock",
			       name);
	rc = get_owner(h, name, owner, err);
	if (rc < 0)
		return rc;
	if (*owner && (!strcmp(owner, h->cluster->addr) || is_alive(h, owner)))
		return in_use(name, owner, h->cluster->addr, err);
	rc = rbdc_lib->rbd_lock_acquire(h->rbd, RBD_LOCK_MODE_EXCLUSIVE);
	if (rc < 0)
		return td_fail(err, rc == -EROFS ? EBUSY : -rc,
			       "rbd:%s: cannot get its exclusive lock: %s: `rbd lock ls' shows who "
			       "has it",
			       name, strerror(-rc));
	return 0;
}
