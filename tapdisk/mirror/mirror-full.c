/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A leaf without space, and the copy that takes its place (MI10 of mirror.h). */
#include <errno.h>

#include "lib/kill.h"
#include "tapdisk/mirror/mirror-inside.h"

/* What a standby's leaf has acknowledged is not in the copy, so that it waits for space to be
 * durable. */
bool mirror_overflows(const struct mirror *m, const struct td_req *child, int err)
{
	return (err == -ENOSPC || err == -EDQUOT) &&
	       (m->part == MIRROR_READ || (m->part == MIRROR_STANDBY && child->op == TD_WRITE));
}

/* The copy's half alone counts from here on. */
static void leave_to_copy(struct mirror_op *op)
{
	op->err = 0;
	if (op->req->op == TD_WRITE)
		mirror_submit_copy(op);
	TD_KILL(FULL_LEFT);
	mirror_put_op(op);
}

void mirror_leaf_is_full(struct mirror_op *op)
{
	struct mirror *m = op->m;

	if (m->redirected) {
		leave_to_copy(op);
		return;
	}
	TD_KILL(FULL_FOUND);
	td_list_add(&m->full, &op->full);
	if (m->asked)
		return;
	m->asked = true;
	m->on_full(m->owner);
}

static void turn_over(struct mirror *m)
{
	m->redirected = true;
	m->image->backing = m->copy;
	td_log(LOG_ERR,
	       "%s: there is no space for a write: from here on, all that is written goes to "
	       "%s:%s alone",
	       m->leaf->path, m->copy->driver->name, m->copy->path);
}

void mirror_redirect(struct mirror *m, int rc)
{
	struct td_list now, *l;

	m->asked = false;
	if (!rc)
		turn_over(m);
	TD_KILL(FULL_TURNED);
	td_list_init(&now);
	td_list_splice(&now, &m->full);
	while ((l = td_list_pop(&now))) {
		struct mirror_op *op = td_entry(l, struct mirror_op, full);

		if (!rc)
			leave_to_copy(op);
		else
			mirror_put_op(op); /* there is no space */
	}
}
