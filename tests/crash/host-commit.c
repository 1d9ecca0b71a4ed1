/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live commit on the simulated host: an image of a chain, which holds what the guest reads or
 * hides what must not show, goes into its parent, while tapdisks die, are upgraded and paused.
 * The judge reads the chain as the files have it, beginning with the image that was last opened as
 * the disk's own.  Here is judged what is told of the job (LC6 of tapdisk/commit.h): one that is
 * concluded has left the chain, in the images' headers too; so whoever has asked for it deletes the
 * image at once, and nothing after that, also no power cut, may want it again.
 */
#include "tests/crash/host-inside.h"

#include <string.h>

#include "tests/crash/changed-check.h"
#include "tests/crash/clock.h"

static LAB bool slow = false, give_up = false, begun = false;
static LAB char node[64] = "";

bool host_commits(const struct format *f)
{
	return f->commits == COMMITS_ANY;
}

const char *host_type_of(const struct format *f, const struct pages *file)
{
	char magic[8];

	if (!host_commits(f) && !f->joins)
		return f->type;
	pages_read(file, 0, magic, sizeof magic);
	return !memcmp(magic, "conectix", 8)  ? "vhd"
	       : !memcmp(magic, "QFI\xfb", 4) ? "qcow2"
					      : "aio";
}

unsigned host_leaf_at(const struct host_run *r, uint32_t at)
{
	unsigned leaf = host_commits(r->format) ? 0 : r->leaf;

	if (r->format->joins)
		return host_joined_leaf(r);
	for (unsigned i = 0; i < r->nturned && r->turned[i].at <= at; i++)
		leaf = r->turned[i].leaf;
	return leaf;
}

bool host_is_gone(const struct host_run *r, unsigned file, uint32_t at)
{
	return r->gone[file] && r->gone[file] <= at;
}

/* An image is opened as the disk's own. */
static void on_opened(unsigned file)
{
	struct host_run *r = H.r;

	if (!strcmp(H.sim.file[file].name, CHANGED_NAME) || host_leaf_at(r, NEVER) == file)
		return;
	if (r->nturned == HOST_TURNS) {
		host_blame("I11", "the disk's image changes again and again");
		return;
	}
	r->turned[r->nturned].leaf = file;
	r->turned[r->nturned++].at = r->clock;
}

void host_commit_begin(void)
{
	if (host_commits(H.r->format))
		H.sim.opened = on_opened;
}

void host_commit_spec(const char *spec)
{
	const char *path = host_commits(H.r->format) && spec ? strchr(spec, ':') : NULL;

	for (unsigned i = 0; path && i < H.r->template->n; i++)
		if (!strcmp(path + 1, H.r->template->name[i]))
			H.spec = i;
}

static bool stands(const struct vbd *v, const char *path)
{
	for (const struct td_image *i = v->leaf; i; i = i->backing)
		if (!strcmp(i->path, path))
			return true;
	return false;
}

/* Neither image of a leaf's commit could be opened: it says so, and waits for an unpause. */
void host_commit_look(void)
{
	const struct life *l = host_alive() ? H.life[H.serving] : NULL;

	if (H.busy || H.paused || !host_commits(H.r->format) || !l || !l->v || !l->v->spec)
		return;
	H.paused = !l->v->leaf && vbd_state(l->v) & TD_STATE_RESUME_FAILED;
	if (H.paused)
		host_say("the commit has left it paused");
}

/* One that has a parent; of the last kind of format any. */
static void choose(const struct vbd *v, uint64_t dice)
{
	const struct td_image *i = v->leaf;
	unsigned n = 0;

	strcpy(node, "/sim/mid");
	if (!host_commits(H.r->format) || !i)
		return;
	while (i->backing) {
		i = i->backing;
		n++;
	}
	i = v->leaf;
	for (dice = n ? dice % n : 0; dice; dice--)
		i = i->backing;
	snprintf(node, sizeof node, "%s", i->path);
}

static void do_commit(struct vbd *v)
{
	struct vbd_commit c = {.rate = slow ? 4u << 20 : 0};
	bool there;

	choose(v, H.ev->seed >> 7);
	c.image = node;
	there = stands(v, node);
	H.rc = vbd_commit(v, &c, &H.err);
	host_say("a commit of %s: %d %s", node, H.rc, H.rc ? H.err.text : "");
	if (!H.rc && !there)
		host_blame("I11", "an image that is not in the chain is being committed");
	begun = !H.rc;
	H.r->n.commits += begun;
	H.rc = 0; /* it may be refused, or fail by what the history has it meet */
}

/* What a storage manager does when it hears that the job is concluded. */
static void remove_image(const char *path)
{
	for (unsigned i = 0; host_commits(H.r->format) && i < H.r->template->n; i++)
		if (!strcmp(H.sim.file[i].name, path)) {
			strcpy(H.sim.file[i].name, "/sim/gone");
			H.r->gone[i] = host_tick();
			host_say("%s is removed", path);
		}
}

static void do_query(struct vbd *v)
{
	const struct vbd_job_was *now = vbd_job_now(v);
	struct vbd_job_told told;
	char of[64] = "";

	if (now)
		snprintf(of, sizeof of, "%.60s", now->node);
	H.rc = vbd_commit_query(v, &told, &H.err);
	host_say("the commit: %s", H.rc ? H.err.text : told.status);
	if (!H.rc && !strcmp(told.status, "concluded")) {
		if (v->leaf && stands(v, of))
			host_blame("I11",
				   "a commit is told as concluded, and its image is in the chain");
		host_commit_spec(v->spec);
		remove_image(of);
		H.r->n.committed++;
	}
	if (give_up)
		vbd_commit_cancel(v, false, &H.err);
	H.rc = 0;
}

static bool over(void)
{
	return !vbd_job_busy(H.life[H.serving]->v);
}

/* That of a leaf waits to be asked. */
static void ask_on(void)
{
	for (unsigned i = 0; host_alive() && !over() && !H.r->bad.rule; i++) {
		host_let(25);
		give_up = false;
		if (host_alive())
			host_perform(do_query, "a question");
		if (i > 40)
			clock_advance(0.25);
		if (i > 1000)
			host_blame("I6", "a commit does not end");
	}
}

/* wait: for its end, or the tapdisk's. */
void host_commit(const struct event *e)
{
	if (!host_at_rest() || !H.open || H.paused || H.giver != NOBODY)
		return;
	slow = e->other && !e->check;
	H.ev = e;
	if (!host_perform(do_commit, "a commit") || !e->check)
		return;
	if (host_commits(H.r->format)) {
		if (begun)
			ask_on();
		return;
	}
	host_wait_for(over, "a commit's end");
}

void host_query(bool cancel)
{
	if (!host_at_rest() || !H.open || H.giver != NOBODY)
		return;
	give_up = cancel;
	host_perform(do_query, "a question");
}
