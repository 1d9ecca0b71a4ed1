/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The toolstack of the simulated host: disks are opened, paused, revived, closed. */
#include "tests/crash/host-inside.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-rows.h"
#include "lib/ctl-client.h"

static struct vbd_options options_for(unsigned mode)
{
	struct vbd_options o = H.opt;

	if (mode < 5)
		o.mode = td_cache_mode_find(history_modes[mode]);
	return o;
}

bool host_excused(void)
{
	return H.tampered || H.sim.nfired > H.nfaults || H.sim.hard;
}

/* One that is wanted and cannot be had. */
void host_refused(const char *what)
{
	char text[300];

	H.r->n.refused++;
	host_say("%s is refused: %s", what, H.err.text);
	snprintf(text, sizeof text, "%s is refused: %.250s", what, H.err.text);
	if (!host_excused())
		host_blame("I5", text);
	if (host_alive()) {
		bool dead = H.dead;

		host_kill_it();
		H.dead = dead;
	}
	H.nfaults = H.sim.nfired;
	H.lost |= H.tampered;
}

void host_open_first(void)
{
	host_mirror_copy();
	H.serving = host_new_process();
	H.sim.who = (unsigned)H.serving;
	if (!host_perform(host_do_open, "opening"))
		return;
	if (H.rc < 0) {
		host_refused("opening");
		return;
	}
	H.open = true;
	H.dead = H.paused = H.between = false;
	H.opt = H.want;
	H.spec = H.want_spec;
	H.failed_at = NEVER;
	H.gone |= H.sim.sync_failed && strcmp(H.r->format->type, "aio") != 0;
	/* whoever opens it anew says that it has been checked: after a sync that failed, and when
	 * closing it told that something is lost */
	if ((H.sim.sync_failed || H.gone) && H.r->clock < H.r->doubt)
		H.r->doubt = H.r->clock;
}

static bool recorded(void)
{
	char path[4200];

	return !td_ctl_disk_path(H.minor, path) && !access(path, F_OK);
}

void host_list(void)
{
	static const struct tc_rows none;

	if (!host_alive() && !tc_dead_is_wanted(H.minor, &none))
		tc_marker_sweep(H.minor);
}

void host_create(unsigned mode)
{
	if (host_alive() || !H.dead || H.h->rings || H.lost)
		return;
	host_list();
	H.minor++;
	H.want = options_for(mode);
	H.want_spec = H.spec;
	host_open_first();
}

void host_revive(bool check)
{
	if (host_alive() || !H.dead || H.lost)
		return;
	if (H.r->format->joins && !recorded()) { /* that could not be written */
		H.lost = true;
		return;
	}
	if (!H.h->rings && !recorded()) {
		host_create(
			5); /* it was tidied away, or had just been closed: then nothing is lost */
		if (check)
			host_verify();
		return;
	}
	H.serving = host_new_process();
	H.sim.who = (unsigned)H.serving;
	if (!host_perform(host_do_revive, "reviving"))
		return;
	if (H.rc < 0) {
		host_refused("a successor");
		return;
	}
	H.r->n.revived++;
	host_mirror_revived(H.life[H.serving]->v);
	H.dead = false;
	if (!H.between && H.paused != !H.life[H.serving]->v->leaf)
		host_blame("I9", H.paused ? "a disk that was paused goes on after a death"
					  : "a disk that was not paused is, after a death");
	H.between = false;
	H.paused = !H.life[H.serving]->v->leaf;
	host_say("revived%s, mode %s", H.paused ? ", paused" : "",
		 H.life[H.serving]->v->opt.mode->name);
	/* what was on its way, the record tells */
	host_note_mode(H.life[H.serving]->v->opt.mode, H.paused ? NULL : H.life[H.serving]->v);
	H.opt = H.life[H.serving]->v->opt;
	for (unsigned i = 0; i < H.r->template->n; i++)
		if (!strcmp(strchr(H.life[H.serving]->v->spec, ':') + 1, H.r->template->name[i]))
			H.spec = i;
	if (check)
		host_verify();
}

/* Another tapdisk, another number. */
void host_other(const struct event *e)
{
	struct vbd_options was = H.opt;
	bool paused = H.paused, dead = H.dead;
	unsigned spec = H.spec;
	uint32_t failed_at = H.failed_at;
	int minor = H.minor;

	if (host_alive() || !H.dead || H.lost || H.h->rings)
		return;
	H.minor = 40;
	H.want = was;
	H.want_spec = spec;
	host_say("another opens it");
	host_open_first();
	if (host_alive()) {
		if (e->sector + e->n <= H.r->guest.sectors)
			host_submit_direct(GOP_WRITE, 0, e->sector, e->n);
		if (host_wait_for(host_drained, "another's write") &&
		    host_perform(host_do_close, "another's closing"))
			host_kill_it();
		H.dead = dead;
	}
	H.r->n.deaths--;
	H.minor = minor;
	H.opt = was;
	H.paused = paused;
	H.spec = spec;
	H.open = true;
	H.dead = true;
	H.failed_at = failed_at;
}

void host_tamper(bool gone)
{
	char path[4200];
	int fd;

	if (host_alive() || !H.dead || td_ctl_redo_path(H.minor, path))
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	H.tampered = true;
	if (gone)
		unlink(path);
	else if (pwrite(fd, "XXXX", 4, 0) != 4)
		abort();
	close(fd);
}

void host_unpause(const struct event *e)
{
	unsigned snap = H.spec;

	if (!host_at_rest() || !H.paused)
		return;
	host_commit_spec(H.life[H.serving]->v->spec);
	snap = H.spec;
	/* nobody takes a snapshot of a disk that has failed */
	for (unsigned i = 0; e->other && !H.sim.sync_failed && i < H.r->template->n; i++)
		if (strstr(H.r->template->name[i], "/snap"))
			snap = i;
	H.want = options_for(e->arg);
	H.want_spec = snap;
	if (H.h->rings && H.want.mode->advertise_flush && !H.opt.mode->advertise_flush)
		H.want.mode = H.opt.mode; /* host_refused, and rightly */
	host_mirror_unpause(e);
	if (e->kind == H_UNPAUSE && e->after % 8 == 5)
		host_grow_paused();
	H.r->n.pauses++;
	host_begin(host_do_unpause);
}

void host_pause_it(void)
{
	if (host_at_rest() && H.open && !H.paused)
		host_begin(host_do_pause);
}

void host_reopen(unsigned mode)
{
	if (H.h->rings || !H.open || H.giver != NOBODY || !host_at_rest() ||
	    (H.paused && H.outstanding) || !host_wait_for(host_drained, "the clients' end"))
		return;
	if (H.sim.fault.kind == SIM_ENOSPC || H.sim.fault.kind == SIM_TRUNCATE_SPACE)
		H.sim.fault.kind = SIM_NONE; /* who closes a disk that has no space is told that
						something is lost, or not even that (unsafe) */
	host_commit_spec(H.life[H.serving]->v->spec);
	if (!host_perform(host_do_close, "closing"))
		return;
	H.open = false;
	host_kill_it();
	H.r->n.deaths--;
	H.want = options_for(mode);
	H.want_spec = H.spec;
	host_open_first();
}
