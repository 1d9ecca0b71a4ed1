/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/tapback/device.h"

#define MAX_DOMID 0x7fef
#define MAX_DEVID UINT32_MAX

static struct device *find_device(struct devices *m, unsigned domid, unsigned devid)
{
	td_list_each (l, &m->devices) {
		struct device *d = td_entry(l, struct device, link);

		if (d->domid == domid && d->devid == devid)
			return d;
	}
	return NULL;
}

/* Marks a disk, and makes it known when it is new. */
static void mark(struct devices *m, const char *domid_text, const char *devid_text)
{
	uint64_t domid, devid;
	struct device *d;

	/* other names are nobody's disks */
	if (!store_decimal(domid_text, MAX_DOMID, &domid) ||
	    !store_decimal(devid_text, MAX_DEVID, &devid))
		return;
	if (m->opt.only_domid >= 0 && domid != (unsigned)m->opt.only_domid)
		return;
	d = find_device(m, (unsigned)domid, (unsigned)devid);
	if (!d)
		d = device_new(m, (unsigned)domid, (unsigned)devid);
	if (d)
		device_mark(d);
	else
		td_log(LOG_ERR, "out of memory: disk %s of domain %s is not served", devid_text,
		       domid_text);
}

static void scan_domain(struct devices *m, const char *domid)
{
	char path[STORE_PATH];
	char **devs;
	unsigned n = 0;

	if ((size_t)snprintf(path, sizeof path, "%s/%s", m->root, domid) >= sizeof path)
		return;
	devs = store_list(m->store, path, &n);
	for (unsigned i = 0; devs && i < n; i++)
		mark(m, domid, devs[i]);
	free(devs);
}

static void scan(struct devices *m)
{
	unsigned n = 0;
	char **doms = store_list(m->store, m->root, &n);

	for (unsigned i = 0; doms && i < n; i++)
		scan_domain(m, doms[i]);
	free(doms);
}

/* An event of the watch on the backend's root: path is root[/domid[/devid[/...]]]. */
static void backend_event(struct devices *m, const char *path)
{
	char domid[16], devid[16];
	int n = 0;

	if (strncmp(path, m->root, strlen(m->root)))
		return;
	n = sscanf(path + strlen(m->root), "/%15[0-9]/%15[0-9]", domid, devid);
	if (n == 2) {
		mark(m, domid, devid);
		return;
	}
	/* something above the disks was made or removed: all of them may be concerned */
	td_list_each (l, &m->devices)
		device_mark(td_entry(l, struct device, link));
	if (n == 1)
		scan_domain(m, domid);
	else
		scan(m);
}

static void frontend_event(struct devices *m, const char *token)
{
	unsigned domid, devid;
	struct device *d;

	if (sscanf(token, "f/%u/%u", &domid, &devid) == 2 && (d = find_device(m, domid, devid)))
		device_mark(d);
}

static void lost(struct devices *m, const char *why)
{
	td_log(LOG_ERR,
	       "xenstored is lost (%s); the guests' disks go on, and are taken over by the next "
	       "tapback",
	       why);
	m->lost = true;
	ev_io_stop(m->loop, &m->io);
	ev_io_stop(m->loop, &m->hangup);
	ev_break(m->loop, EVBREAK_ALL);
}

/* xenstored never speaks first, so whatever comes is its end. */
static void on_hangup(struct ev_loop *loop, ev_io *w, int revents)
{
	lost(w->data, "it has hung up");
}

static void on_store(struct ev_loop *loop, ev_io *w, int revents)
{
	struct devices *m = w->data;
	char **ev;

	/* 0 path, 1 token */
	while ((ev = store_event(m->store))) {
		if (!strcmp(ev[1], "b"))
			backend_event(m, ev[0]);
		else
			frontend_event(m, ev[1]);
		free(ev);
	}
	if (errno == EAGAIN)
		return;
	lost(m, strerror(errno));
}

/* A second connection, which tells when xenstored ends.  One that has too many callers just now is
 * asked again at the next look. */
static void watch_hangup(struct devices *m)
{
	int fd = store_hangup_fd();

	ev_io_set(&m->hangup, fd, EV_READ);
	if (fd >= 0)
		ev_io_start(m->loop, &m->hangup);
}

static void on_watchdog(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct devices *m = td_entry(t, struct devices, watchdog);

	if (m->hangup.fd < 0)
		watch_hangup(m);
	td_list_each (l, &m->devices)
		watchdog_look(td_entry(l, struct device, link));
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct devices *m = w->data;
	struct td_list *l;

	/* a look marks its disk again only when it has got a step further, so this ends */
	while (!m->lost && (l = td_list_pop(&m->dirty)))
		device_look(td_entry(l, struct device, dirty));
}

int devices_open(struct devices *m, struct ev_loop *loop, const struct devices_options *opt,
		 struct td_err *err)
{
	int rc;

	memset(m, 0, sizeof *m);
	m->loop = loop;
	m->opt = *opt;
	td_list_init(&m->devices);
	td_list_init(&m->dirty);
	if ((size_t)snprintf(m->root, sizeof m->root, "backend/%s", opt->name) >= sizeof m->root ||
	    strchr(opt->name, '/') || !*opt->name)
		return td_fail(err, EINVAL,
			       "'%.40s' is not a backend type: a short name as vbd3 or vbd",
			       opt->name);
	rc = store_open(&m->store, err);
	if (rc)
		return rc;
	/* xenopsd looks for it once a disk, and stays with what it saw: so it is not taken back at
	 * the end */
	if (opt->shutdown_request &&
	    (rc = store_write(m->store, "control", "feature-shutdown-request", "1")))
		td_log(LOG_ERR, "cannot write control/feature-shutdown-request in xenstore: %s",
		       strerror(-rc));
	rc = store_watch(m->store, m->root, "b");
	if (rc) {
		store_close(m->store);
		m->store = NULL;
		return td_fail(err, -rc, "cannot watch %s in xenstore: %s", m->root, strerror(-rc));
	}
	/* the watch fires at once, and with that event the first scan is done */
	ev_io_init(&m->io, on_store, store_fd(m->store), EV_READ);
	m->io.data = m;
	ev_io_start(loop, &m->io);
	ev_init(&m->hangup, on_hangup);
	m->hangup.data = m;
	watch_hangup(m);
	ev_prepare_init(&m->prepare, on_prepare);
	m->prepare.data = m;
	ev_prepare_start(loop, &m->prepare);
	ev_timer_init(&m->watchdog, on_watchdog, WATCHDOG_LOOK, WATCHDOG_LOOK);
	ev_timer_start(loop, &m->watchdog);
	return 0;
}

void devices_close(struct devices *m)
{
	if (!m->store)
		return;
	td_list_each_safe (l, next, &m->devices)
		device_free(td_entry(l, struct device, link));
	ev_io_stop(m->loop, &m->io);
	ev_io_stop(m->loop, &m->hangup);
	if (m->hangup.fd >= 0)
		close(m->hangup.fd);
	ev_prepare_stop(m->loop, &m->prepare);
	ev_timer_stop(m->loop, &m->watchdog);
	store_close(m->store);
	m->store = NULL;
}
