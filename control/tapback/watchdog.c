/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/watchdog.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/tapback/device.h"
#include "control/tapback/ring-page.h"
#include "lib/io/clock.h"
#include "lib/json-get.h"
#include "lib/proc.h"
#include "lib/shm-dir.h"
#include "td/ctl.h"

/* What the ring's published counters say.  False: there are none. */
static bool look_at_counters(const struct device *d, uint64_t *outstanding, uint64_t *sum)
{
	struct td_shm_counters c;
	char dir[PATH_MAX], path[PATH_MAX + 48];
	ssize_t n;
	int fd;

	if (td_shm_path(d->pid, dir, sizeof dir) < 0)
		return false;
	snprintf(path, sizeof path, "%s/vbd-%u-%u", dir, d->domid, d->devid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : pread(fd, &c, sizeof c, 0);
	if (fd >= 0)
		close(fd);
	if (n != sizeof c)
		return false;
	*outstanding = c.outstanding;
	*sum = c.outstanding + c.read.completed + c.write.completed + c.io_errors;
	return true;
}

static void find_rings(struct device *d)
{
	struct watchdog *w = &d->watchdog;
	struct td_err err = {};
	struct frontend f;

	if (!d->frontend || frontend_read(d->m->store, d->frontend, FRONTEND_MAX_QUEUES, &f, &err))
		return;
	for (w->rings = 0; w->rings < f.queues; w->rings++)
		w->ref[w->rings] = f.ring[w->rings].refs[0];
}

/* Of all rings together.  False: they cannot be looked at. */
static bool look_at_rings(struct device *d, uint32_t *waiting, uint64_t *done)
{
	struct watchdog *w = &d->watchdog;
	uint32_t req_prod, rsp_prod;

	if (!w->rings)
		find_rings(d);
	*waiting = 0;
	*done = 0;
	for (unsigned i = 0; i < w->rings; i++) {
		if (!ring_page_look(d->domid, w->ref[i], &req_prod, &rsp_prod))
			return false;
		*waiting |= req_prod - rsp_prod;
		*done += rsp_prod;
	}
	return w->rings > 0;
}

/* Does the guest wait?  *seen changes when any of its requests has been done. */
static bool guest_waits(struct device *d, uint64_t *seen)
{
	uint64_t outstanding = 0;
	uint32_t waiting;

	if (look_at_counters(d, &outstanding, seen) && outstanding)
		return true;
	return look_at_rings(d, &waiting, seen) && waiting;
}

static void tell(struct device *d, const char *now, const char *what)
{
	char why[256], text[512];

	td_proc_waits(d->pid, why, sizeof why);
	snprintf(text, sizeof text, "%s%s%s", what, *why ? ": " : "", why);
	d->watchdog.told = true;
	device_say(d, now, text);
}

static void goes_on(struct device *d)
{
	struct watchdog *w = &d->watchdog;

	w->answered = -1;
	if (w->told)
		device_say(d, "running", NULL);
	w->told = false;
}

static void on_ping(void *arg, int err, json_t *reply, const char *text)
{
	struct device *d = arg;
	struct watchdog *w = &d->watchdog;
	double now = td_clock_s();
	long long answered = td_json_number(reply, "answered", -1);
	char what[96];

	w->ping = NULL;
	if (err == -ETIMEDOUT) {
		snprintf(what, sizeof what, "tapdisk %d does not answer", (int)d->pid);
		tell(d, "hung", what);
		return;
	}
	/* one that is paused, or has no space, waits for somebody else, and says so itself; one
	 * that has died is dealt with elsewhere */
	/*
	 * One that has nothing to answer is idle, whatever the guest's ring says, which is why it
	 * was asked: the guest can write that as it likes.  An older tapdisk does not say how many.
	 */
	if (err || td_json_number(reply, "state", TD_STATE_CLOSED) || answered < 0 ||
	    answered != w->answered || !td_json_number(reply, "waiting", 1)) {
		w->answered = err ? -1 : answered;
		w->answered_at = now;
		if (w->told && !err)
			device_say(d, "running", NULL);
		w->told = w->told && err;
		return;
	}
	if (now - w->answered_at < WATCHDOG_STALL)
		return;
	snprintf(what, sizeof what, "the store of tapdisk %d does not answer", (int)d->pid);
	tell(d, "stalled", what);
}

void watchdog_look(struct device *d)
{
	struct watchdog *w = &d->watchdog;
	bool stopped, waits;
	uint64_t seen = 0;
	char what[64];

	assert(d->magic == DEVICE_MAGIC);
	if (d->phase != DEV_CONNECTED || !d->ring || !d->pid || d->revive || d->take_over) {
		watchdog_drop(d);
		return;
	}
	stopped = td_proc_stopped(d->pid);
	if (stopped && w->stopped) { /* also one that nobody waits for yet */
		snprintf(what, sizeof what, "tapdisk %d does not run", (int)d->pid);
		tell(d, "hung", what);
		return;
	}
	w->stopped = stopped;
	if (w->ping)
		return;
	waits = guest_waits(d, &seen);
	if (!waits || seen != w->seen) {
		w->seen = seen;
		goes_on(d);
		return;
	}
	w->ping = tapdisk_ask(d->m->loop, d->pid,
			      json_pack("{s:s,s:i}", "op", "ping", "minor", d->minor),
			      WATCHDOG_PING, on_ping, d);
}

void watchdog_drop(struct device *d)
{
	tapdisk_call_drop(d->watchdog.ping);
	d->watchdog = (struct watchdog){.answered = -1};
}
