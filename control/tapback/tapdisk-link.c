/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's conversation with its tapdisk: info, connect, disconnect and what the watch says.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/tapback/device.h"
#include "control/tapback/publish.h"
#include "control/tapback/frontend.h"
#include "control/tapback/same-machine.h"
#include "lib/io/clock.h"
#include "lib/json-get.h"
#include "lib/ctl-dir.h"
#include "td/ctl.h"

#define SETTLE_S 0.2 /* after a watch that ended as soon as it had begun */

/* Opens the one question; without memory for it, the disk tries again later. */
static void ask_tapdisk(struct device *d, json_t *req, tapdisk_answer *fn)
{
	d->call = tapdisk_ask(d->m->loop, d->pid, req, d->m->opt.timeout_s, fn, d);
	if (!d->call)
		device_again_in(d, DEVICE_RETRY_S);
}

/*
 * It closed the connection and had not answered.  Most likely it died, which the next question
 * shows; one that lives, and was short of memory, say, may have the guest's ring.
 */
static bool no_answer(int err)
{
	return err == -ENODATA || err == -ECONNRESET || err == -EPIPE;
}

static bool process_gone(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || no_answer(err);
}

/*
 * Is another tapdisk known to have the disk of the one that has ended, as after a `tap-ctl
 * upgrade'?  Then it is the one from now on, and has the ring already; to ask for it is to make
 * sure.
 */
static bool follow(struct device *d)
{
	pid_t pid = td_ctl_moved(d->pid, d->minor);
	char text[16];

	if (!pid)
		return false;
	td_log(LOG_NOTICE, "%s: tapdisk %d has handed the disk over to %d", d->dir, (int)d->pid,
	       (int)pid);
	tapdisk_call_drop(d->watch);
	d->watch = NULL;
	d->verified = false;
	d->pid = pid;
	watchdog_drop(d);
	d->take_over = d->ring;
	snprintf(text, sizeof text, "%d", (int)pid);
	if (d->ring)
		device_write(d, "kthread-pid", text);
	device_note_successor(d);
	return true;
}

static void on_disconnect(void *arg, int err, json_t *reply, const char *text)
{
	struct device *d = arg;

	d->call = NULL;
	device_mark(d);
	/* ENODEV: the process has gone on without this disk */
	if ((err == -ENODEV || process_gone(err)) && follow(d))
		return; /* and ask that one */
	if (no_answer(err) || (err && err != -ENODEV && !process_gone(err))) {
		td_log_limited(&d->limit, LOG_WARNING, "%s: the ring is not disconnected yet: %s",
			       d->dir, text);
		device_again_in(d, no_answer(err) ? SETTLE_S : DEVICE_RETRY_S);
		return;
	}
	td_log_limited(&d->limit, LOG_INFO, "%s: ring disconnected", d->dir);
	watchdog_drop(d);
	tapdisk_call_drop(d->watch);
	d->watch = NULL;
	d->ring = d->verified = d->disconnecting = false;
	d->held_until = 0; /* it was for the requests in that ring */
	if (d->phase == DEV_CONNECTED)
		d->phase = DEV_CLOSING;
}

void link_disconnect(struct device *d)
{
	assert(d->magic == DEVICE_MAGIC);
	d->disconnecting = true;
	ask_tapdisk(d,
		    json_pack("{s:s,s:i,s:I,s:I}", "op", "disconnect", "minor", d->minor, "domid",
			      (json_int_t)d->domid, "devid", (json_int_t)d->devid),
		    on_disconnect);
}

/*
 * This disk's ring among those that an answer or an event tells of; NULL: the tapdisk does not have
 * it.  Of several it has all or none: a broken one, if there is any, speaks for them.
 */
static json_t *own_ring(const struct device *d, json_t *o)
{
	json_t *r, *own = NULL;
	size_t i;

	json_array_foreach (json_object_get(o, "rings"), i, r) {
		if (td_json_number(r, "domid", -1) == d->domid &&
		    td_json_number(r, "devid", -1) == d->devid &&
		    (!own || strcmp(td_json_text(r, "state"), "connected")))
			own = r;
	}
	return own;
}

/* Others have rings on it, and they are all of the same machine. */
static bool beside(const struct device *d, json_t *o)
{
	json_t *r;
	size_t i;

	json_array_foreach (json_object_get(o, "rings"), i, r) {
		if (!same_machine(d->m->store, d->domid, (unsigned)td_json_number(r, "domid", 0)))
			return false;
	}
	return i > 0;
}

/* For admins: how the tapdisk sees its disk.  A pause does not show: the ring is held, not failed.
 */
static void say_state(struct device *d, json_t *ev)
{
	json_t *ring = own_ring(d, ev);
	long long state = td_json_number(ev, "state", 0);
	const char *reason = td_json_text(ev, "reason"), *now = "running";
	bool was_failed;

	if (!strcmp(td_json_text(ring, "state"), "broken")) {
		now = "broken";
		reason = td_json_text(ring, "reason");
	} else if (state & TD_STATE_FAILED) {
		now = "failed";
	} else if (state & TD_STATE_NO_SPACE) {
		now = "no-space";
	} else if (state & TD_STATE_CLOSED) {
		now = "closed";
	} else if (td_json_true(ev, "two-primaries")) {
		now = "two-primaries";
	} else if (td_json_true(ev, "peer-cut-off")) {
		now = "peer-cut-off";
	} else if (td_json_true(ev, "reconnecting")) {
		now = "reconnecting";
	} else if (*reason) {
		now = "stalled";
	}
	if (!strcmp(d->said, now))
		return;
	was_failed = !strcmp(d->said, "failed");
	/* nothing that is written stays, or of this guest's nothing is taken any more: the
	 * toolstack is told, as its kernel's backends do; before the word that others wait for */
	if (!strcmp(now, "failed") || !strcmp(now, "broken"))
		device_error(d, reason);
	else if (was_failed)
		device_error(d, NULL);
	device_say(d, now, reason);
	if (!strcmp(now, "broken")) {
		if (d->b.state < XB_CLOSING)
			device_state(d, XB_CLOSING);
	}
}

/* The guest is told of a new size; also of one that the disk got while no daemon was there to see.
 */
static void see_size(struct device *d, long long sectors)
{
	int rc;

	if (sectors < 0 || d->sectors < 0 || sectors == d->sectors)
		return;
	rc = publish_size(d->m->store, d->dir, (uint64_t)sectors);
	if (rc && rc != -ESTALE) {
		td_log(LOG_ERR, "%s: cannot tell the guest of %lld sectors: %s", d->dir, sectors,
		       strerror(-rc));
		return;
	}
	td_log(LOG_NOTICE, "%s: the disk has %lld sectors now, %lld before", d->dir, sectors,
	       d->sectors);
	d->sectors = sectors;
}

static void on_watch(void *arg, json_t *ev, const char *text)
{
	struct device *d = arg;

	if (!ev) {
		/* most likely its death: the next question tells, and is asked at once */
		d->watch = NULL;
		d->verified = false;
		if (!d->call && d->ring && td_clock_s() - d->watched_at < SETTLE_S)
			device_again_in(d, SETTLE_S);
		device_mark(d);
		return;
	}
	if (td_json_number(ev, "minor", -1) != d->minor || d->phase != DEV_CONNECTED || !d->ring)
		return;
	say_state(d, ev);
	if (!own_ring(d, ev) && !d->call) {
		/* somebody has closed it by force (tap-ctl close -f): the next question makes sure,
		 * and the guest hears of it */
		d->verified = false;
		device_mark(d);
		return;
	}
	see_size(d, td_json_number(ev, "sectors", -1));
}

/* The ring is live: tells the guest. */
static void publish(struct device *d)
{
	char pid[16];
	int rc;

	snprintf(pid, sizeof pid, "%d", (int)d->pid);
	device_write(d, "kthread-pid", pid);
	device_error(d, NULL); /* before state 4: whoever waits for that finds no old error */
	rc = publish_disk(d->m->store, d->dir, &d->b, d->info, d->m->opt.no_barrier);
	if (rc == -ESTALE)
		return; /* closed or taken away meanwhile: the next look sees it */
	if (rc) {
		td_log(LOG_ERR, "%s: cannot tell the guest of its disk: %s", d->dir, strerror(-rc));
		d->disconnecting = true;
		return;
	}
	d->b.state = XB_CONNECTED;
	d->sectors = td_json_number(d->info, "sectors", 0);
	td_log_limited(&d->limit, LOG_INFO,
		       "%s: connected to tapdisk %d, minor %d: %s, cache=%s, %lld sectors", d->dir,
		       (int)d->pid, d->minor, td_json_text(d->info, "args"),
		       td_json_text(d->info, "mode"), d->sectors);
}

/* A successor has the ring: the guest is not told of anything. */
static void succeeded(struct device *d)
{
	char pid[16];

	snprintf(pid, sizeof pid, "%d", (int)d->pid);
	d->take_over = false;
	d->held_until = 0;
	device_write(d, "kthread-pid", pid);
	device_error(d, NULL);
	td_log(LOG_NOTICE, "%s: tapdisk %d has taken the ring over", d->dir, (int)d->pid);
}

static void on_connect(void *arg, int err, json_t *reply, const char *text)
{
	struct device *d = arg;

	d->call = NULL;
	device_mark(d);
	/* another domain of this machine may have come in between our look at the rings and this:
	 * the next look shows it */
	if (err == -EBUSY && !d->again) {
		d->again = true;
		return;
	}
	d->again = false;
	if ((err == -ENODEV || process_gone(err)) && follow(d))
		return;
	/* its guest waits: whether this successor has died too, the next question shows */
	if (d->take_over && process_gone(err)) {
		td_log_limited(&d->limit, LOG_WARNING, "%s: the ring is not taken over yet: %s",
			       d->dir, text);
		device_again_in(d, SETTLE_S);
		return;
	}
	if (err && err != -ETIMEDOUT && !no_answer(err)) {
		device_fail(d, text);
		return;
	}
	d->phase = DEV_CONNECTED;
	d->ring = true;
	if (err) {
		/* it may still do it: the ring counts as connected until the tapdisk has said
		 * otherwise */
		td_log_limited(&d->limit, LOG_ERR, "%s: %s", d->dir, text);
		device_error(d, text);
		d->disconnecting = true;
		return;
	}
	d->verified = d->watch != NULL;
	if (d->take_over) {
		succeeded(d);
	} else {
		device_limits_begin(d);
		publish(d);
	}
}

static void connect_frontend(struct device *d)
{
	struct td_err err = {};
	struct frontend f;
	json_t *queues = json_array(), *req;

	if (frontend_read(d->m->store, d->frontend, d->m->opt.max_queues, &f, &err)) {
		json_decref(queues);
		device_fail(d, err.text);
		return;
	}
	for (unsigned q = 0; q < f.queues; q++) {
		json_t *refs = json_array();

		for (unsigned i = 0; i < f.pages; i++)
			json_array_append_new(refs, json_integer(f.ring[q].refs[i]));
		json_array_append_new(queues, json_pack("{s:o,s:I}", "refs", refs, "port",
							(json_int_t)f.ring[q].port));
	}
	req = json_pack("{s:s,s:i,s:I,s:I,s:s,s:o,s:s,s:b}", "op", "connect", "minor", d->minor,
			"domid", (json_int_t)d->domid, "devid", (json_int_t)d->devid, "transport",
			"xen", "queues", queues, "abi", f.abi, "beside", beside(d, d->info));
	if (d->take_over)
		json_object_set_new(req, "take-over", json_true());
	if (f.persistent && publish_persistent(&d->b, d->info))
		json_object_set_new(req, "persistent", json_true());
	if (d->b.polling_us >= 0)
		json_object_set_new(req, "polling-duration", json_integer(d->b.polling_us));
	if (d->b.polling_idle >= 0)
		json_object_set_new(req, "polling-idle-threshold", json_integer(d->b.polling_idle));
	ask_tapdisk(d, req, on_connect);
}

/* Whether the disk may be given to the guest as it is open. */
static int fit(struct device *d, struct td_err *err)
{
	if (td_json_number(d->info, "state", 0) & TD_STATE_CLOSED)
		return td_fail(
			err, ENODEV,
			"minor %d of tapdisk %d has no image open; was its hotplug script run?",
			d->minor, (int)d->pid);
	if ((d->b.read_only || d->b.cdrom) && !json_is_true(json_object_get(d->info, "read_only")))
		return td_fail(err, EROFS,
			       "the guest's disk is to be read-only, but tapdisk %d has minor %d "
			       "open for writing; "
			       "open it with tap-ctl open -R",
			       (int)d->pid, d->minor);
	return 0;
}

/* The directory was found connected.  True: the tapdisk has the ring too, and all goes on. */
static bool taken_over(struct device *d, bool mine)
{
	if (mine) {
		int64_t sectors = store_read_number(d->m->store, d->dir, "sectors", INT64_MAX);

		d->verified = d->watch != NULL;
		d->sectors = sectors >= 0 ? sectors : -1;
		if (d->b.state == XB_CONNECTED &&
		    store_read_number(d->m->store, d->dir, "kthread-pid", INT32_MAX) != d->pid)
			succeeded(d); /* a daemon before this one died before it had said so */
		if (d->b.state == XB_CONNECTED)
			see_size(d, td_json_number(d->info, "sectors", -1));
		if (!d->verified)
			device_again_in(d, DEVICE_RETRY_S);
		else
			td_log(LOG_INFO, "%s: taken over, with its live ring", d->dir);
		return true;
	}
	d->ring = false;
	if (d->b.state < XB_CLOSING)
		return false;
	d->phase = DEV_CLOSING;
	return true;
}

static void on_info(void *arg, int err, json_t *reply, const char *text)
{
	struct device *d = arg;
	bool mine = own_ring(d, reply) != NULL;
	struct td_err why = {};

	d->call = NULL;
	device_mark(d);
	if ((err == -ENODEV || process_gone(err)) && follow(d))
		return;
	if (err && d->ring && err != -ENOENT && err != -ECONNREFUSED && err != -ENODEV) {
		/* a guest's ring may be live in there: only a tapdisk that is gone for sure is a
		 * reason to close it */
		td_log_limited(&d->limit, LOG_WARNING, "%s: %s; asking again", d->dir, text);
		device_again_in(d, no_answer(err) ? SETTLE_S : DEVICE_RETRY_S);
		return;
	}
	if (err && d->ring && (err == -ENOENT || err == -ECONNREFUSED)) {
		death_bury(d, text);
		return;
	}
	if (err) {
		device_fail(d, text);
		return;
	}
	json_decref(d->info);
	d->info = json_incref(reply);
	if (d->take_over) {
		connect_frontend(d);
		return;
	}
	if (d->phase == DEV_CONNECTED && taken_over(d, mine))
		return;
	if (d->phase != DEV_CONNECTED && mine) {
		/* of an earlier life of this frontend: its references are not valid any more */
		d->ring = true;
		return;
	}
	if (fit(d, &why))
		device_fail(d, why.text);
	else
		connect_frontend(d);
}

void link_connect(struct device *d)
{
	assert(d->magic == DEVICE_MAGIC);
	if (!d->b.pid) {
		device_fail(d, "no tapdisk: neither physical-device-path (.../nbd<pid>.<minor>) "
			       "nor pid and minor are in the directory");
		return;
	}
	d->pid = d->b.pid;
	d->minor = d->b.minor;
	if (!d->watch) {
		d->watch = tapdisk_watch(d->m->loop, d->pid, d->minor, d->m->opt.timeout_s,
					 on_watch, d);
		d->watched_at = td_clock_s();
		d->said[0] = 0;
	}
	ask_tapdisk(d, json_pack("{s:s,s:i}", "op", "info", "minor", d->minor), on_info);
}
