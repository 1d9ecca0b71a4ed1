/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A tapdisk has died, and its guest waits: another takes its place, or the disk is given up. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/tapback/device.h"
#include "lib/io/clock.h"

/* It has died too often lately: what kills it would kill the next. */
static bool too_often(struct device *d)
{
	double now = td_clock_s(), *oldest = &d->deaths[d->ndeaths++ % DEVICE_DEATHS];
	bool often = d->ndeaths > DEVICE_DEATHS && now - *oldest < DEVICE_DEATHS_S;

	*oldest = now;
	return often;
}

/* There is no successor.  Held, the guest's requests wait in the ring and in the records, and
 * another is tried for now and then. */
static void lose(struct device *d, const char *why)
{
	char text[800];

	if (!d->m->opt.hold_s) {
		device_fail(d, why);
		return;
	}
	snprintf(text, sizeof text,
		 "%s; its guest's requests are held, and another is tried for every %u s", why,
		 d->m->opt.hold_s);
	d->held_until = td_clock_s() + d->m->opt.hold_s;
	device_error(d, text);
	device_say(d, "lost", text);
	device_again_in(d, DEVICE_RETRY_S);
}

static void on_revived(void *arg, pid_t pid, const char *text)
{
	struct device *d = arg;
	char why[640];

	d->revive = NULL;
	device_mark(d);
	if (pid < 0) {
		snprintf(why, sizeof why,
			 "tapdisk %d is not running any more, and no other takes its place: %s",
			 (int)d->pid, text);
		lose(d, why);
		return;
	}
	td_log(LOG_NOTICE, "%s: tapdisk %d takes the place of %d", d->dir, (int)pid, (int)d->pid);
	tapdisk_call_drop(d->watch);
	d->watch = NULL;
	d->pid = pid;
	d->held_until = 0;
	d->take_over = true;
	device_note_successor(d);
}

/* A guest waits for the answers of a tapdisk that has died. */
void death_bury(struct device *d, const char *text)
{
	char why[256];

	assert(d->magic == DEVICE_MAGIC);
	if (d->m->opt.no_revive || d->disconnecting || d->b.state < XB_CONNECTED ||
	    d->b.state > XB_CLOSING) {
		device_fail(d, text);
		return;
	}
	if (td_clock_s() < d->held_until) {
		device_again_in(d, DEVICE_RETRY_S);
		return;
	}
	if (!d->held_until && too_often(d)) {
		snprintf(why, sizeof why,
			 "%s; it is the %dth to die within %d s: the disk is given up", text,
			 DEVICE_DEATHS + 1, DEVICE_DEATHS_S);
		lose(d, why);
		return;
	}
	td_log(LOG_ERR, "%s: %s: starting another", d->dir, text);
	device_write(d, "tapdisk-state", "died");
	d->said[0] = 0;
	d->verified = false;
	watchdog_drop(d);
	d->revive = revive_start(d->m->loop, d->minor, on_revived, d);
	if (!d->revive) {
		snprintf(why, sizeof why, "%s, and tap-ctl cannot be run: %s", text,
			 strerror(errno));
		lose(d, why);
	}
}
