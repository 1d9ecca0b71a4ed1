/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's life.  In brackets, the backend state that the guest and the toolstack see.
 *
 *                 complete (libxl's order), and hotplugged (xenopsd's)
 *        NEW [1] ---------------------------------------------> WAIT [2]
 *         |                                                     |     ^
 *         | the directory                      hotplugged, and  |     | frontend starts again,
 *         | was in 4 or 5: a                   frontend 3 or 4: |     | still online
 *         | daemon before us                    info, connect   |     |
 *         v                  the ring is live                   v     |
 *        CONNECTED [4] <----------------------------------------+     |
 *         |  \                                                  |     |
 *         |   \ toolstack or guest closes: [5], ring goes on    |     |
 *         |    v until the frontend has closed                  |     |
 *         |  CONNECTED [5]                                      |     |
 *         |     | frontend closed or gone, or forced:           |     |
 *         |     |   disconnect                                  |     |
 *         v     v                                               |     |
 *        CLOSING [5] <------------------------------------------+     |
 *         |  no ring; also after a failure and the tapdisk's death    |
 *         v  frontend closed, or the toolstack wants it gone          |
 *        CLOSED [6] --------------------------------------------------+
 *
 * The directory may vanish at any point (the ring is disconnected first), and may come back as [1]:
 * a new disk of the same number. A live ring is never let go for any other reason than those above.
 */
#include "control/tapback/device.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/tapback/publish.h"
#include "control/tapback/frontend.h"
#include "lib/io/clock.h"

static void on_retry(struct ev_loop *loop, ev_timer *t, int revents)
{
	device_mark(td_entry(t, struct device, retry));
}

static void on_pace(struct ev_loop *loop, ev_timer *t, int revents)
{
	device_mark(td_entry(t, struct device, pace));
}

struct device *device_new(struct devices *m, unsigned domid, unsigned devid)
{
	struct device *d = calloc(1, sizeof *d);

	if (!d)
		return NULL;
	d->magic = DEVICE_MAGIC;
	d->m = m;
	d->domid = domid;
	d->devid = devid;
	d->sectors = -1;
	d->watchdog.answered = -1;
	snprintf(d->dir, sizeof d->dir, "%s/%u/%u", m->root, domid, devid);
	td_list_init(&d->dirty);
	td_list_add(&m->devices, &d->link);
	ev_timer_init(&d->retry, on_retry, 0., 0.);
	ev_timer_init(&d->pace, on_pace, 0., 0.);
	return d;
}

static void forget_frontend(struct device *d)
{
	char path[STORE_PATH + 8], token[32];

	if (!d->frontend)
		return;
	snprintf(path, sizeof path, "%s/state", d->frontend);
	snprintf(token, sizeof token, "f/%u/%u", d->domid, d->devid);
	if (!d->m->lost)
		store_unwatch(d->m->store, path, token);
	free(d->frontend);
	d->frontend = NULL;
}

void device_free(struct device *d)
{
	assert(d->magic == DEVICE_MAGIC);
	td_list_del(&d->link);
	td_list_del(&d->dirty);
	ev_timer_stop(d->m->loop, &d->retry);
	ev_timer_stop(d->m->loop, &d->pace);
	tapdisk_call_drop(d->call);
	tapdisk_call_drop(d->watch);
	watchdog_drop(d);
	revive_drop(d->revive);
	json_decref(d->info);
	device_limits_forget(d);
	forget_frontend(d);
	d->magic = 0;
	free(d);
}

/* The guest neither uses its end of the ring nor is about to: it has not started, has closed, or is
 * no more. */
static bool frontend_away(int fe)
{
	return fe == XB_MISSING || fe == XB_UNKNOWN || fe == XB_INITIALISING || fe == XB_CLOSED;
}

static bool toolstack_closes(const struct backend *b)
{
	return !b->online || b->shutdown != SHUTDOWN_NONE;
}

/* Nothing is connected: the end of the handshake. */
static void closed(struct device *d)
{
	if (d->b.state < XB_CLOSING)
		device_state(d, XB_CLOSING);
	device_state(d, XB_CLOSED);
	d->phase = DEV_CLOSED;
	device_mark(d);
}

/* The frontend's state is watched from here on.  False: not now. */
static bool meet_frontend(struct device *d)
{
	struct td_err err = {};
	char path[STORE_PATH + 8], token[32];
	int rc;

	if (backend_check_frontend(d->dir, &d->b, d->domid, &err)) {
		d->refused = true;
		device_fail(d, err.text);
		return false;
	}
	d->frontend = strdup(d->b.frontend);
	if (!d->frontend)
		return false;
	snprintf(path, sizeof path, "%s/state", d->frontend);
	snprintf(token, sizeof token, "f/%u/%u", d->domid, d->devid);
	rc = store_watch(d->m->store, path, token);
	if (rc && rc != -EEXIST)
		td_log(LOG_ERR, "%s: cannot watch %s: %s", d->dir, path, strerror(-rc));
	return true;
}

/* A state that a daemon before this one has reached. */
static void take_up(struct device *d)
{
	switch (d->b.state) {
	case XB_CONNECTED:
	case XB_CLOSING:
		/* it may be the tapdisk's: to be asked */
		d->phase = d->b.pid ? DEV_CONNECTED : DEV_CLOSING;
		d->ring = d->b.pid != 0;
		d->pid = d->b.pid;
		d->minor = d->b.minor;
		if (!d->ring)
			device_state(d, XB_CLOSING);
		break;
	case XB_CLOSED:
		d->phase = DEV_CLOSED;
		break;
	default:
		d->phase = DEV_WAIT;
	}
	td_log(LOG_INFO, "%s: found in state %d", d->dir, d->b.state);
	device_mark(d);
}

static void look_new(struct device *d)
{
	struct backend *b = &d->b;
	int rc;

	/* the toolstack is still writing: more events will come */
	if (b->state == XB_MISSING || !b->frontend[0] || b->frontend_id == -1)
		return;
	if (!d->frontend && !meet_frontend(d))
		return;
	d->libxl = d->m->opt.order == ORDER_LIBXL || (d->m->opt.order == ORDER_AUTO && b->script);
	if (b->state > XB_INITIALISING) {
		take_up(d);
		return;
	}
	if (toolstack_closes(b)) {
		closed(d);
		return;
	}
	if (frontend_state(d->m->store, d->frontend) == XB_MISSING || (!d->libxl && !b->hotplugged))
		return;
	rc = publish_offer(d->m->store, d->dir, b->state, d->m->opt.max_queues);
	if (rc == -ESTALE)
		return;
	if (rc) {
		td_log(LOG_ERR, "%s: cannot write: %s", d->dir, strerror(-rc));
		return;
	}
	td_log(LOG_INFO, "%s: new disk, waiting for the guest (%s's order)", d->dir,
	       d->libxl ? "libxl" : "xenopsd");
	b->state = XB_INITWAIT;
	d->phase = DEV_WAIT;
	device_mark(d);
}

static void look_wait(struct device *d, int fe)
{
	struct backend *b = &d->b;

	if (d->ring)
		link_disconnect(d); /* one that a daemon before this one left half made */
	else if (toolstack_closes(b) || b->state >= XB_CLOSING || fe == XB_MISSING ||
		 fe == XB_CLOSED)
		closed(d);
	else if (fe == XB_CLOSING) {
		device_state(d, XB_CLOSING);
		d->phase = DEV_CLOSING;
	} else if (b->hotplugged && (fe == XB_INITIALISED || fe == XB_CONNECTED) &&
		   (b->pid || !b->cdrom))
		link_connect(d); /* a drive without a tapdisk is an empty one: the guest waits for
				    its medium */
}

static void look_connected(struct device *d, int fe)
{
	struct backend *b = &d->b;
	bool leave = d->disconnecting || frontend_away(fe) || b->shutdown == SHUTDOWN_FORCE;

	if ((leave || fe == XB_CLOSING || toolstack_closes(b)) && b->state < XB_CLOSING)
		device_state(d, XB_CLOSING);
	if (leave)
		link_disconnect(d);
	else if (!d->verified)
		link_connect(d);
	else
		device_limits_look(d);
}

/*
 * A frontend that keeps closing and starting costs this daemon, xenstored and a tapdisk their time,
 * and other guests theirs: each start of it is paid for with DEVICE_CYCLE, and DEVICE_CYCLES of
 * them in advance.  What the toolstack wants does not wait.
 */
static bool may_start(struct device *d)
{
	double now = td_clock_s(), from = d->paced > now ? d->paced : now,
	       wait = from - now - (DEVICE_CYCLES - 1) * DEVICE_CYCLE;

	if (ev_is_active(&d->pace))
		return false;
	if (wait > 0) {
		td_log_limited(&d->limit, LOG_WARNING,
			       "%s: the frontend keeps closing and starting: it waits for %.1f s",
			       d->dir, wait);
		ev_timer_set(&d->pace, wait, 0.);
		ev_timer_start(d->m->loop, &d->pace);
		return false;
	}
	d->paced = from + DEVICE_CYCLE;
	return true;
}

static void look_closed(struct device *d, int fe)
{
	struct backend *b = &d->b;

	if (b->shutdown != SHUTDOWN_NONE && !b->shutdown_done)
		device_write(d, "shutdown-done", "");
	/* xenopsd leaves the node to us, libxl needs it for the remove script */
	if (!d->libxl && !d->refused && d->frontend && !store_exists(d->m->store, d->frontend)) {
		td_log(LOG_INFO, "%s: the frontend is gone; the node goes too", d->dir);
		store_remove(d->m->store, d->dir, NULL);
		return;
	}
	if (d->refused || toolstack_closes(b) || b->state != XB_CLOSED ||
	    (fe != XB_INITIALISING && fe != XB_INITWAIT && fe != XB_INITIALISED))
		return;
	if (!may_start(d))
		return;
	if (publish_offer(d->m->store, d->dir, b->state, d->m->opt.max_queues))
		return;
	b->state = XB_INITWAIT;
	d->phase = DEV_WAIT;
	device_mark(d);
}

/* The directory is new: what was known of the last one is not true of it. */
static void renew(struct device *d)
{
	watchdog_drop(d);
	tapdisk_call_drop(d->watch);
	d->watch = NULL;
	forget_frontend(d);
	device_limits_forget(d);
	d->phase = DEV_NEW;
	d->refused = d->verified = d->disconnecting = d->take_over = false;
	d->pid = 0;
	d->sectors = -1;
	d->said[0] = 0;
	look_new(d);
}

void device_look(struct device *d)
{
	bool there;
	int fe;

	assert(d->magic == DEVICE_MAGIC);
	/* one question at a time: its answer is the next occasion */
	if (d->call || d->revive || ev_is_active(&d->retry))
		return;
	there = backend_read(d->m->store, d->dir, &d->b);
	if (!there || (d->b.state == XB_INITIALISING && d->phase != DEV_NEW)) {
		if (d->ring) {
			link_disconnect(d);
		} else if (there) {
			renew(d);
		} else {
			device_error(d, NULL);
			td_log(LOG_INFO, "%s: removed", d->dir);
			device_free(d);
		}
		return;
	}
	fe = d->frontend ? frontend_state(d->m->store, d->frontend) : XB_MISSING;
	switch (d->phase) {
	case DEV_NEW:
		look_new(d);
		break;
	case DEV_WAIT:
		look_wait(d, fe);
		break;
	case DEV_CONNECTED:
		look_connected(d, fe);
		break;
	case DEV_CLOSING:
		if (frontend_away(fe) || toolstack_closes(&d->b))
			closed(d);
		break;
	case DEV_CLOSED:
		look_closed(d, fe);
		break;
	}
}
