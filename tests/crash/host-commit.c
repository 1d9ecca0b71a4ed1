/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live commit on the simulated host: the image in the middle of a chain of three, which holds
 * what the guest reads, goes into its parent, while tapdisks die, are upgraded and paused.  The
 * judge reads the chain as the files have it; here is judged what is told of the job (LC6 of
 * tapdisk/commit.h): one that is concluded has left the chain, in the leaf's header too.
 */
#include "tests/crash/host-inside.h"

#include <string.h>

#define MIDDLE "/sim/mid"

static LAB bool slow = false, give_up = false;

static bool stands(const struct vbd *v)
{
	for (const struct td_image *i = v->leaf; i; i = i->backing)
		if (!strcmp(i->path, MIDDLE))
			return true;
	return false;
}

static void do_commit(struct vbd *v)
{
	const struct vbd_commit c = {.image = MIDDLE, .rate = slow ? 4u << 20 : 0};
	bool there = stands(v);

	H.rc = vbd_commit(v, &c, &H.err);
	host_say("a commit: %d %s", H.rc, H.rc ? H.err.text : "");
	if (!H.rc && !there)
		host_blame("I11", "an image that is not in the chain is being committed");
	H.rc = 0; /* it may be refused, or fail by what the history has it meet */
}

static void do_query(struct vbd *v)
{
	struct vbd_job_told told;

	H.rc = vbd_commit_query(v, &told, &H.err);
	host_say("the commit: %s", H.rc ? H.err.text : told.status);
	if (!H.rc && !strcmp(told.status, "concluded") && v->leaf && stands(v))
		host_blame("I11", "a commit is told as concluded, and its image is in the chain");
	if (give_up)
		vbd_commit_cancel(v, false, &H.err);
	H.rc = 0;
}

static bool over(void)
{
	return !vbd_job_busy(H.life[H.serving]->v);
}

/* wait: for its end, or the tapdisk's. */
void host_commit(bool slowly, bool wait)
{
	if (!host_at_rest() || !H.open || H.paused || H.giver != NOBODY)
		return;
	slow = slowly && !wait;
	if (host_perform(do_commit, "a commit") && wait)
		host_wait_for(over, "a commit's end");
}

void host_query(bool cancel)
{
	if (!host_at_rest() || !H.open || H.giver != NOBODY)
		return;
	give_up = cancel;
	host_perform(do_query, "a question");
}
