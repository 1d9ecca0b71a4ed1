/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An upgrade on the simulated host: another process serves the disk, on trial at first. */
#include "tests/crash/host-inside.h"

static void run_in(int i, void (*fn)(struct vbd *v), const char *what)
{
	int was = H.serving;

	H.serving = i;
	host_perform(fn, what);
	H.serving = was;
}

/* The new one is dead, or is now. */
static void take_back(void)
{
	if (host_alive())
		host_kill_it();
	H.serving = H.giver;
	H.giver = NOBODY;
	H.sim.who = (unsigned)H.serving;
	H.r->n.taken_back++;
	H.dead = false;
	host_say("the old one takes it back");
	if (!host_perform(host_do_take_back, "taking back"))
		return;
	H.paused = !H.life[H.serving]->v->leaf;
	host_say("it goes on%s", H.paused ? ", paused" : "");
}

void host_upgrade(void)
{
	int old;

	if (!host_at_rest() || !H.open || H.giver != NOBODY)
		return;
	H.die_in = 0; /* what dies from here on is the new one, or is said to be the old */
	if (!host_perform(host_do_give, "giving"))
		return;
	if (H.rc < 0) {
		host_say("it is not given: %s", H.err.text);
		return;
	}
	H.r->n.upgrades++;
	old = H.giver = H.serving;
	H.serving = NOBODY;
	H.serving = host_new_process();
	H.sim.who = (unsigned)H.serving;
	(void)old;
	host_begin(host_do_adopt);
}

/* The adoption has ended, or the adopter has. */
void host_look_at_trial(void)
{
	if (H.giver == NOBODY)
		return;
	if (!host_alive()) {
		take_back();
		return;
	}
	if (!H.busy && H.rc < 0) {
		host_say("it is not taken: %s", H.err.text);
		take_back();
	} else if (!H.busy) {
		H.paused = !H.life[H.serving]->v->leaf;
	}
}

static void end_old(void)
{
	int old = H.giver;

	H.giver = NOBODY;
	host_drop_clients(old);
	process_end((unsigned)old);
	H.life[old] = NULL;
}

void host_end_trial(const struct event *e)
{
	if (H.giver == NOBODY)
		return;
	if (host_at_rest() && !H.rc && e->other) {
		host_say("the old one has died");
		end_old();
	} else if (host_alive() && !H.rc && !e->arg) {
		unsigned die_in = H.die_in;

		H.die_in = 0;
		run_in(H.giver, host_do_taken, "the end of the old one");
		H.die_in = die_in;
		end_old();
		host_say("the trial has ended well");
	} else {
		take_back();
	}
}
