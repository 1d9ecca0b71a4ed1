/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/parent-disk.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"
#include "lib/ctl-dir.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"
#include "lib/json-get.h"

#define LOOK_EVERY 0.1 /* s */

double parent_disk_wait = PARENT_DISK_WAIT;

/* A read, here and at the tapdisk. */
struct pd_read {
	struct td_list link; /* parent_disk.waiting or .spare */
	struct td_req read;
	struct td_req *reader;
	bool again; /* it has been sent a second time */
};

struct parent_disk {
	struct td_image *image, *there; /* there: the connection; NULL: none */
	int minor;
	struct parent_disk_id *id; /* the owner's */
	struct td_list waiting, spare;
	bool fiber;              /* it makes a connection */
	struct td_fiber *closer; /* waits until the fiber has ended */
};

/* --- which disk it is (PD3) --- */

struct holder {
	int minor;
	pid_t pid;
	struct parent_disk_id is;
};

static void get_text(const json_t *o, const char *key, char *out, size_t len)
{
	const char *text = td_json_text(o, key);

	snprintf(out, len, "%s", strlen(text) < len ? text : "");
}

static long holder_run(void *arg)
{
	struct holder *h = arg;
	char path[PATH_MAX];
	json_t *o;
	FILE *f;

	memset(&h->is, 0, sizeof h->is);
	if (td_ctl_marker(h->minor, &h->pid) != TD_MARKER_HELD)
		return 0;
	f = td_ctl_disk_path(h->minor, path) ? NULL : fopen(path, "re");
	if (!f && errno != ENOENT)
		return -errno; /* one that is there says which disk it is */
	o = f ? json_loadf(f, 0, NULL) : NULL;
	if (f)
		fclose(f);
	get_text(o, "born", h->is.born, sizeof h->is.born);
	get_text(o, "file", h->is.file, sizeof h->is.file);
	get_text(o, "args", h->is.args, sizeof h->is.args);
	json_decref(o);
	return 1;
}

/* An older tapdisk's record says less. */
static bool same_id(const struct parent_disk_id *was, const struct parent_disk_id *is)
{
	if (!was->args[0] || (was->born[0] && !strcmp(was->born, is->born)))
		return true;
	return !strcmp(was->args, is->args) &&
	       (!was->file[0] || !is->file[0] || !strcmp(was->file, is->file));
}

static int another(int minor, const struct parent_disk_id *was, const struct parent_disk_id *is,
		   struct td_err *err)
{
	return td_fail(err, ESTALE,
		       "the disk %d (parent-disk=%d) is another one by now, %s instead of %s: open "
		       "that one under its number again",
		       minor, minor, is->args, was->args);
}

static int connect_there(int minor, struct parent_disk_id *id, struct td_io *io,
			 struct td_image **out, struct td_err *err)
{
	static const struct td_how how = {.flags = TD_FILE_PARENT | TD_FILE_RDONLY};
	struct holder h = {.minor = minor}, after = {.minor = minor};
	char path[PATH_MAX];
	int rc = (int)td_await_call(io, holder_run, &h);

	if (rc < 0)
		return td_fail(err, -rc,
			       "the disk %d (parent-disk=%d): its record, which says which one it "
			       "is, cannot be read: %s",
			       minor, minor, strerror(-rc));
	if (!rc)
		return td_fail(
			err, ENOENT,
			"no tapdisk serves the disk %d (parent-disk=%d): open that one first",
			minor, minor);
	if (id->args[0] && !h.is.args[0])
		return td_fail(err, ENOENT,
			       "the disk %d (parent-disk=%d) is closed: open %s under that number",
			       minor, minor, id->args);
	if (!same_id(id, &h.is))
		return another(minor, id, &h.is, err);
	snprintf(path, sizeof path, "%s/nbd-ro%d.%d", td_ctl_dir(), (int)h.pid, minor);
	rc = td_image_open_how(&td_driver_nbd, path, &how, io, out, err);
	if (rc < 0)
		return rc;
	/* a record of before its close, or of after that, is another */
	rc = (int)td_await_call(io, holder_run, &after);
	if (rc <= 0 || strcmp(h.is.born, after.is.born) || !same_id(&h.is, &after.is)) {
		td_image_close(*out);
		return another(minor, &h.is, &after.is, err);
	}
	*id = h.is;
	return 0;
}

/* --- another connection --- */

static void on_read(struct td_req *req, int err);

static void send_read(struct parent_disk *p, struct pd_read *r)
{
	r->read = (struct td_req){.op = TD_READ,
				  .off = r->reader->off,
				  .len = r->reader->len,
				  .iov = r->reader->iov,
				  .iovcnt = r->reader->iovcnt,
				  .io = r->reader->io,
				  .done = on_read};
	td_submit(p->there, &r->read);
}

static void finish(struct parent_disk *p, struct pd_read *r, int err)
{
	struct td_req *reader = r->reader;

	td_list_add(&p->spare, &r->link);
	td_req_done(reader, err);
}

static void settle_all(struct parent_disk *p, int err)
{
	struct td_list *l;

	while ((l = td_list_pop(&p->waiting))) {
		struct pd_read *r = td_entry(l, struct pd_read, link);

		if (err)
			finish(p, r, err);
		else
			send_read(p, r);
	}
}

static uint64_t deadline(void)
{
	return td_clock_now() + (uint64_t)(parent_disk_wait * 1e9);
}

/* What the old connection had is answered by it, be it with an error; or is given up (PD4). */
static void leave_old(struct parent_disk *p)
{
	struct td_image *old = p->there;
	uint64_t until = deadline();

	p->there = NULL;
	while (old && old->inflight) {
		if (td_clock_now() >= until)
			old->driver->abandon(old,
					     "it does not answer, and a read of it has failed");
		else
			td_fiber_wait_for(LOOK_EVERY);
	}
	td_image_close(old);
}

/* Who reads `tap-ctl stats' tells which disk it is by the name of its first socket. */
static char *shown_as(const char *path)
{
	const char *name = strstr(path, "/nbd-ro");
	char *shown;

	while (name && strstr(name + 1, "/nbd-ro"))
		name = strstr(name + 1, "/nbd-ro");
	if (!name ||
	    asprintf(&shown, "%.*s/nbd%s", (int)(name - path), path, name + strlen("/nbd-ro")) < 0)
		return NULL;
	return shown;
}

static bool same_disk(const struct parent_disk *p, const struct td_image *now, struct td_err *err)
{
	if (now->info.size >= p->image->info.size)
		return true;
	td_fail(err, EIO, "%s has %llu bytes, and had %llu: it is another disk", now->path,
		(unsigned long long)now->info.size, (unsigned long long)p->image->info.size);
	return false;
}

static int reach_again(struct parent_disk *p, struct td_err *err)
{
	uint64_t until = deadline();
	struct td_image *now;
	char *path;
	int rc;

	do {
		err->code = 0;
		rc = connect_there(p->minor, p->id, p->image->io, &now, err);
		if (rc < 0)
			td_fiber_wait_for(LOOK_EVERY);
	} while (rc < 0 && td_clock_now() < until);
	if (rc < 0)
		return rc;
	path = same_disk(p, now, err) ? shown_as(now->path) : NULL;
	if (!path) {
		td_image_close(now);
		return -EIO;
	}
	free(p->image->path);
	p->image->path = path;
	p->there = now;
	return 0;
}

static void reconnect(void *arg)
{
	struct parent_disk *p = arg;
	struct td_err err = {0};
	int rc;

	td_fiber_wait_for(0); /* not within the failure of a read */
	leave_old(p);
	rc = reach_again(p, &err);
	if (rc < 0)
		td_log(LOG_ERR, "the disk %d, on which another stands, cannot be reached: %s",
		       p->minor, err.text);
	else
		td_log(LOG_INFO, "the disk %d, on which another stands, is read from %s now",
		       p->minor, p->image->path);
	p->fiber = false;
	settle_all(p, rc < 0 ? -EIO : 0);
	if (p->closer)
		td_fiber_wake(p->closer);
}

static void wait_for_another(struct parent_disk *p, struct pd_read *r)
{
	td_list_add(&p->waiting, &r->link);
	if (p->fiber)
		return;
	p->fiber = true;
	if (td_fiber_start(p->image->io->loop, reconnect, p) < 0) {
		p->fiber = false;
		settle_all(p, -ENOMEM);
	}
}

/* --- reads --- */

static struct parent_disk *of(const struct td_image *image)
{
	return *(struct parent_disk **)image->priv;
}

static void on_read(struct td_req *req, int err)
{
	struct pd_read *r = td_entry(req, struct pd_read, read);
	struct parent_disk *p = of(r->reader->image);

	if (!err || r->again) {
		finish(p, r, err);
		return;
	}
	r->again = true;
	wait_for_another(p, r);
}

static void pd_submit(struct td_image *image, struct td_req *req)
{
	struct parent_disk *p = of(image);
	struct td_list *l = td_list_pop(&p->spare);
	struct pd_read *r = l ? td_entry(l, struct pd_read, link) : malloc(sizeof *r);

	if (!r) {
		td_req_done(req, -ENOMEM);
		return;
	}
	*r = (struct pd_read){.reader = req};
	if (p->there && !p->fiber) {
		send_read(p, r);
		return;
	}
	r->again = true;
	wait_for_another(p, r);
}

/* --- comes and goes --- */

static int pd_open(struct td_image *image, struct td_err *err)
{
	return 0;
}

static void pd_close(struct td_image *image)
{
	struct parent_disk *p = of(image);
	struct td_list *l;

	p->closer = td_fiber_self();
	while (p->fiber)
		td_fiber_wait();
	assert(td_list_empty(&p->waiting));
	td_image_close(p->there);
	while ((l = td_list_pop(&p->spare)))
		free(td_entry(l, struct pd_read, link));
	free(p);
}

/* No type that a disk could be opened with: its name is for who reads `tap-ctl stats'. */
static const struct td_driver disk_driver = {
	.name = "nbd",
	.type = 15,
	.priv_size = sizeof(struct parent_disk *),
	.open = pd_open,
	.close = pd_close,
	.submit = pd_submit,
};

int parent_disk_open(int minor, struct parent_disk_id *id, struct td_io *io, struct td_image **out,
		     struct td_err *err)
{
	static const struct td_how how = {.flags = TD_FILE_PARENT | TD_FILE_RDONLY};
	struct parent_disk *p = calloc(1, sizeof *p);
	char *shown = NULL;
	int rc;

	if (!p)
		return td_fail(err, ENOMEM, "parent-disk=%d: out of memory", minor);
	p->minor = minor;
	p->id = id;
	td_list_init(&p->waiting);
	td_list_init(&p->spare);
	rc = connect_there(minor, id, io, &p->there, err);
	if (!rc && !(shown = shown_as(p->there->path)))
		rc = td_fail(err, ENOMEM, "parent-disk=%d: out of memory", minor);
	if (!rc)
		rc = td_image_open_how(&disk_driver, shown, &how, io, &p->image, err);
	free(shown);
	if (rc < 0) {
		td_image_close(p->there);
		free(p);
		return rc;
	}
	*(struct parent_disk **)p->image->priv = p;
	p->image->info = p->there->info;
	*out = p->image;
	return 0;
}
