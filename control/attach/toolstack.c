/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/attach/toolstack.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCRIPT_S 40 /* libxl's patience with a hotplug script */

void xs_disk_init(struct xs_disk *v, const char *type, const char *script, unsigned domid,
		  uint32_t devid)
{
	v->domid = domid;
	v->devid = devid;
	v->type = type;
	v->script = script;
	snprintf(v->back, sizeof v->back, "backend/%.40s/%u/%u", type, domid, devid);
	snprintf(v->front, sizeof v->front, "/local/domain/%u/device/vbd/%u", domid, devid);
}

/* params as the script takes them: [TYPE:][KEY=VALUE:]...PATH */
static int write_params(struct store *s, const struct xs_disk *v, const struct xl_disk *d)
{
	char *params = NULL;
	int rc = asprintf(&params, "%s:%s%s", !strcmp(d->format, "raw") ? "aio" : d->format,
			  d->words ? d->words : "", d->target);

	if (rc < 0)
		return -ENOMEM;
	rc = store_write_text(s, v->back, "params", params);
	free(params);
	return rc;
}

static int write_keys(struct store *s, const char *dir, const char *const (*kv)[2], unsigned n)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < n; i++)
		rc = store_write_text(s, dir, kv[i][0], kv[i][1]);
	return rc;
}

/* The empty directories get their owners first: keys made in them inherit that. */
static int write_owners(struct store *s, const struct xs_disk *v)
{
	int rc = store_write_text(s, v->back, NULL, "");

	if (!rc)
		rc = store_owner(s, v->back, 0, v->domid);
	if (!rc)
		rc = store_write_text(s, v->front, NULL, "");
	return rc ? rc : store_owner(s, v->front, v->domid, 0);
}

static int write_both(struct store *s, const struct xs_disk *v, const struct xl_disk *d)
{
	const char *devtype = d->cdrom ? "cdrom" : "disk";
	char domid[16], devid[16], back[128];
	const char *const bkv[][2] = {
		{"frontend", v->front},
		{"frontend-id", domid},
		{"online", "1"},
		{"removable", d->removable ? "1" : "0"},
		{"bootable", "1"},
		{"dev", d->vdev},
		{"type", v->type},
		{"script", v->script},
		{"mode", d->shared      ? "w!"
			 : d->read_only ? "r"
					: "w"},
		{"device-type", devtype},
		{"specification", "xen"},
		{"discard-enable", d->discard && !d->read_only ? "1" : "0"},
		{"direct-io-safe", d->direct_io_safe ? "1" : "0"},
		{"state", "1"},
	};
	const char *const fkv[][2] = {
		{"backend", back},        {"backend-id", "0"}, {"virtual-device", devid},
		{"device-type", devtype}, {"trusted", "1"},    {"state", "1"},
	};
	const char *const polling[][2] = {{"polling-duration", d->polling_duration},
					  {"polling-idle-threshold", d->polling_idle}};
	int rc;

	snprintf(domid, sizeof domid, "%u", v->domid);
	snprintf(devid, sizeof devid, "%u", v->devid);
	snprintf(back, sizeof back, "/local/domain/0/%s", v->back);
	rc = write_owners(s, v);
	if (!rc)
		rc = write_params(s, v, d);
	if (!rc)
		rc = write_keys(s, v->back, bkv, sizeof bkv / sizeof *bkv);
	for (unsigned i = 0; i < 2 && !rc; i++)
		if (polling[i][1])
			rc = write_keys(s, v->back, &polling[i], 1);
	return rc ? rc : write_keys(s, v->front, fkv, sizeof fkv / sizeof *fkv);
}

int xs_disk_make(struct store *s, const struct xs_disk *v, const struct xl_disk *d,
		 struct td_err *err)
{
	int rc;

	do {
		rc = store_begin(s);
		if (rc)
			break;
		rc = store_exists(s, v->front) || store_exists(s, v->back) ? -EEXIST
									   : write_both(s, v, d);
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	if (rc == -EEXIST)
		return td_fail(
			err, EEXIST,
			"domain %u has a %s already; detach it first, or choose another vdev",
			v->domid, d->vdev);
	return rc ? td_fail(err, -rc, "cannot write %s and %s in xenstore: %s", v->back, v->front,
			    strerror(-rc))
		  : 0;
}

int xs_disk_remove(struct store *s, const struct xs_disk *v, struct td_err *err)
{
	char error[128];
	int rc;

	snprintf(error, sizeof error, "error/%s", v->back);
	do {
		rc = store_begin(s);
		if (rc)
			break;
		rc = store_remove(s, v->front, NULL);
		if (!rc)
			rc = store_remove(s, v->back, NULL);
		if (!rc)
			rc = store_remove(s, error, NULL);
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	return rc ? td_fail(err, -rc, "cannot remove %s and %s: %s", v->back, v->front,
			    strerror(-rc))
		  : 0;
}

int xs_disk_ask_to_close(struct store *s, const struct xs_disk *v, struct td_err *err)
{
	int rc;

	do {
		rc = store_begin(s);
		if (rc)
			break;
		rc = store_write_text(s, v->back, "online", "0");
		/* one that has closed stays closed */
		if (!rc && store_read_number(s, v->back, "state", 8) < 5)
			rc = store_write_text(s, v->back, "state", "5");
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	return rc ? td_fail(err, -rc, "cannot write %s in xenstore: %s", v->back, strerror(-rc))
		  : 0;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int xs_disk_wait(struct store *s, const struct xs_disk *v, unsigned states, double seconds)
{
	double limit = now() + seconds;
	struct pollfd p = {.fd = store_fd(s), .events = POLLIN};
	char path[128], **ev;
	int64_t state;

	snprintf(path, sizeof path, "%s/state", v->back);
	store_watch(s, path, "wait");
	for (;;) {
		state = store_read_number(s, path, NULL, 8);
		if (states & 1u << (state < 0 ? 0 : state))
			break;
		if (now() >= limit) {
			state = -ETIMEDOUT;
			break;
		}
		/* a second at most: nothing then hangs on an event that got lost */
		poll(&p, 1, limit - now() > 1 ? 1000 : (int)((limit - now()) * 1000) + 1);
		while ((ev = store_event(s)))
			free(ev);
	}
	store_unwatch(s, path, "wait");
	return state == -1 ? 0 : (int)state;
}

static void exec_script(const struct xs_disk *v, const char *what)
{
	char *argv[] = {(char *)v->script, (char *)what, NULL};

	setenv("XENBUS_PATH", v->back, 1);
	setenv("XENBUS_TYPE", v->type, 1);
	setenv("XENBUS_BASE_PATH", "backend", 1);
	setenv("script", v->script, 1);
	/* a group of its own, so that a late one goes with its children */
	setpgid(0, 0);
	execv(v->script, argv);
	fprintf(stderr, "tap-vbd: cannot run %s: %s\n", v->script, strerror(errno));
	_exit(127);
}

/* Its wait status, or -errno. */
static int run_script(const struct xs_disk *v, const char *what)
{
	double limit = now() + SCRIPT_S;
	int status;
	pid_t pid = fork(), got;

	if (pid < 0)
		return -errno;
	if (!pid)
		exec_script(v, what);
	while (!(got = waitpid(pid, &status, WNOHANG)) && now() < limit)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	if (got == pid)
		return status;
	kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -ETIMEDOUT;
}

int xs_disk_script(struct store *s, const struct xs_disk *v, const char *what, struct td_err *err)
{
	int rc = run_script(v, what);
	char *text;

	if (!rc)
		return 0;
	if (rc == -ETIMEDOUT)
		return td_fail(err, ETIMEDOUT, "%s %s has not ended within %d s", v->script, what,
			       SCRIPT_S);
	if (rc < 0)
		return td_fail(err, -rc, "cannot run %s: %s", v->script, strerror(-rc));
	text = store_read(s, v->back, "hotplug-error");
	td_fail(err, EIO, "%s",
		text ? text : "the hotplug script has failed; see its messages above");
	free(text);
	return -EIO;
}
