/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/host.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl.h"
#include "lib/ctl-client.h"
#include "tests/crash/bitmap-check.h"
#include "tests/crash/host-inside.h"
#include "tests/crash/image-check.h"

LAB uint32_t crash_redo_bytes = 256u << 10; /* TD_REDO_BYTES, here */

static void happen(const struct event *e)
{
	switch (e->kind) {
	case H_WRITE:
	case H_READ:
	case H_FLUSH:
	case H_BARRIER:
	case H_ZERO:
	case H_DISCARD:
		host_guest_event(e);
		break;
	case H_DRAIN:
		if (!H.busy && !H.paused && H.giver == NOBODY && host_alive())
			host_wait_for(host_drained, "the guest's answers");
		break;
	case H_PAUSE:
		if (H.giver == NOBODY)
			host_pause_it();
		break;
	case H_UNPAUSE:
		if (H.giver == NOBODY)
			host_unpause(e);
		break;
	case H_DIE:
		H.die_in = host_alive() ? e->after : 0;
		if (host_alive() && H.paused && !H.busy && H.giver == NOBODY)
			host_kill_it(); /* in one that is paused nothing happens that it could die
					   at */
		break;
	case H_REVIVE:
		host_revive(e->check);
		break;
	case H_CREATE:
		host_create(e->arg);
		break;
	case H_OTHER:
		host_other(e);
		break;
	case H_LIST:
		host_list();
		break;
	case H_TAMPER:
		host_tamper(e->arg);
		break;
	case H_UPGRADE:
		host_upgrade();
		break;
	case H_TRIAL:
		host_end_trial(e);
		break;
	case H_FAULT:
		H.sim.fault = e->fault;
		H.sim.ncalls = H.sim.nreads = H.sim.nwrites = H.sim.nsyncs = H.sim.nopens =
			H.sim.nsizes = H.sim.ntruncates = H.sim.nrecords = 0;
		break;
	case H_REOPEN:
		host_reopen(e->arg);
		break;
	case H_GROW:
		host_grow();
		break;
	case H_COMMIT:
		host_commit(e);
		break;
	case H_QUERY:
		host_query(e->other);
		break;
	case H_LET:
	case H_KINDS:
		break;
	}
}

static void start_trace(void)
{
	struct host_run *r = H.r;

	r->guest.sectors = r->format->sectors;
	r->guest.seed = r->history->seed;
	r->guest.initial = r->format->initial;
	r->guest.initial_every = r->format->initial_every;
}

static void forget_files(void)
{
	char path[4200];

	for (int minor = 0; minor <= H.minor; minor++) {
		td_ctl_record_sweep(minor);
		snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor);
		unlink(path);
	}
	td_ctl_record_sweep(40);
	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-40", td_ctl_dir());
	unlink(path);
}

static void end_all(void)
{
	for (unsigned i = 0; i < PROCESSES; i++)
		if ((int)i == H.serving || (int)i == H.giver) {
			if ((int)i == H.serving)
				sim_death(&H.sim, i, true);
			process_end(i);
		}
	for (unsigned i = 0; i < DIRECT_MAX; i++)
		if (H.direct[i].busy)
			free(H.direct[i].mem);
	forget_files();
	sim_free(&H.sim);
}

/* All that is not answered yet is, by a successor if need be; and all is read. */
static void finale(void)
{
	const struct event same = {.kind = H_UNPAUSE, .arg = 5};

	H.die_in = 0;
	H.sim.fault = (struct sim_fault){0};
	host_look_at_trial();
	for (unsigned tries = 0; tries < 6 && !H.r->bad.rule && !H.lost; tries++) {
		if (H.giver != NOBODY)
			host_end_trial(&(struct event){.kind = H_TRIAL, .arg = H.h->seed % 2});
		if (!host_alive() && H.dead)
			host_revive(false);
		if (host_alive() && host_at_rest() && H.paused && !H.r->bad.rule) {
			host_unpause(&same);
			host_wait_for(host_op_done, "resuming");
			if (host_alive() && H.rc < 0 && !host_excused())
				host_refused("going on");
		}
		if (host_alive() && !H.paused && H.giver == NOBODY)
			break;
	}
	if (!host_alive() || H.paused || H.r->bad.rule)
		return;
	if (host_wait_for(host_drained, "the end")) {
		host_verify();
		host_mirror_end();
	}
	host_joined_end();
}

void host_run(struct host_run *r)
{
	const struct history *h = r->history;

	memset(&H, 0, sizeof H);
	H.r = r;
	H.h = h;
	H.serving = H.giver = NOBODY;
	H.failed_at = r->doubt = NEVER;
	r->grows = strcmp(r->format->type, "aio") ? 2048 : HOST_GROWS;
	H.rng = rng_seed(h->seed, 'r');
	crash_redo_bytes = h->redo_bytes;
	start_trace();
	sim_init(&H.sim, NULL, &r->clock, &r->log, h->seed);
	H.sim.off_align = r->format->align;
	H.sim.event = host_happens;
	process_called = host_happens;
	for (unsigned i = 0; i < r->template->n; i++)
		sim_add(&H.sim, r->template->name[i], &r->template->file[i],
			r->template->blockdev[i]);
	for (unsigned i = 0; i < h->rings; i++) {
		H.ring[i] = host_the_ring(i);
	}
	H.want = H.opt = (struct vbd_options){
		.mode = td_cache_mode_find(r->mode), .unsafe = true, .key = r->template->key};
	host_changed_begin();
	host_commit_begin();
	host_mirror_begin();
	host_joined_begin();
	host_open_first();
	for (unsigned i = 0; i < h->n && !r->bad.rule; i++) {
		char words[200];

		if (h->left_out[i])
			continue;
		H.rng = rng_seed(h->ev[i].seed, 'r');
		H.sim.rng = rng_seed(h->ev[i].seed, 'd');
		if (r->verbose) {
			history_words(&h->ev[i], words, sizeof words);
			host_say("event %u: %s", i, words);
		}
		happen(&h->ev[i]);
		host_look_at_trial();
		host_let(h->ev[i].let);
		host_look_at_trial();
	}
	r->end = r->clock;
	if (H.unsafe) {
		r->unsafe[r->nunsafe].from = H.unsafe_from;
		r->unsafe[r->nunsafe++].to = NEVER;
	}
	if (!r->bad.rule)
		finale();
	r->leaf = H.spec;
	r->n.faults = H.sim.nfired;
	r->guest.hard_fault = H.sim.hard;
	end_all();
}

bool host_promised(const struct host_run *r, uint32_t at)
{
	if (at >= r->doubt)
		return false;
	for (unsigned i = 0; i < r->nunsafe; i++)
		if (at >= r->unsafe[i].from && at <= r->unsafe[i].to)
			return false;
	return true;
}

void host_run_free(struct host_run *r)
{
	gtrace_free(&r->guest);
	flog_free(&r->log);
}

int host_check(const struct host_run *r, uint32_t at, unsigned leaf, const struct pages *files,
	       char *text, size_t len)
{
	int rc = 0;

	bool all = host_commits(r->format) || r->format->joins;

	for (unsigned i = 0; all && i < r->template->n && !rc; i++)
		if (!host_is_gone(r, i, at))
			rc = image_check(host_type_of(r->format, &files[i]), &files[i], text, len);
	if (!rc && !all)
		rc = image_check(r->format->type, &files[leaf], text, len);

	if (!rc && !leaf && !strcmp(r->format->type, "qcow2"))
		rc = bitmap_check(&files[leaf], &r->guest, at, text, len);
	return rc;
}
