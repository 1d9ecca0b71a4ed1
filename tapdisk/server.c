/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/fiber/call.h"
#include "lib/fiber/fiber.h"
#include "lib/marker.h"
#include "lib/msg.h"
#include "td/ctl.h"
#include "tapdisk/opener/opener.h"

struct server server;

#define LINGER     0.2  /* s from the last detach to the end, for its answer to be read */
#define LAST_LOOKS 1000 /* at disks that an operation works on, before the end; 10 ms each */

static ev_timer end_timer, orphan_timer;
static ev_io leash;
static ev_signal term, intr;
static bool ending;
static unsigned detaching; /* disks that are on no list, and whose markers are being written */

static void on_end(struct ev_loop *loop, ev_timer *w, int revents)
{
	if (td_list_empty(&server.disks) && !detaching)
		ev_break(loop, EVBREAK_ALL);
}

static bool any_disk_is_busy(void)
{
	td_list_each (l, &server.disks)
		if (vbd_busy(td_entry(l, struct vbd, link)))
			return true;
	return false;
}

/* True: one is in use, or could not be closed. */
static bool close_unused(bool *in_use)
{
	bool failed = false;

	td_list_each_safe (l, tmp, &server.disks) {
		struct vbd *v = td_entry(l, struct vbd, link);
		struct td_err err = {0};

		if (!vbd_ring(v) && nbd_clients(v->nbd)) {
			td_log(LOG_WARNING,
			       "minor %d: %u NBD clients use it: the signal is ignored until the "
			       "disk is closed",
			       v->minor, nbd_clients(v->nbd));
			*in_use = true;
		} else if (vbd_ring(v)) {
			td_log(LOG_WARNING,
			       "minor %d: domain %u uses it: the signal is ignored until the disk "
			       "is detached",
			       v->minor, blkif_params(vbd_ring(v))->domid);
			*in_use = true;
		} else if (v->spec && vbd_close(v, false, 0, &err) < 0) {
			td_log(LOG_ERR, "%s", err.text);
			failed = true;
		}
	}
	while (detaching)
		td_fiber_wait_for(0.01);
	return *in_use || failed;
}

/* Closes what no guest uses and ends; a disk in use stays, since its guest could not go on without
 * it.  What is being opened is waited for: half of it would stay, or a guest might have it by now.
 */
static void end_fiber(void *arg)
{
	bool in_use = false;

	for (int i = 0; !close_unused(&in_use) && any_disk_is_busy() && i < LAST_LOOKS; i++)
		td_fiber_wait_for(0.01);
	ending = false;
	if (!in_use)
		ev_break(server.queue.loop, EVBREAK_ALL);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
	if (ending)
		return;
	ending = true;
	td_log(LOG_NOTICE, "asked to end by signal %d", w->signum);
	if (td_fiber_start(loop, end_fiber, NULL) < 0)
		ending = false;
}

void server_init(struct ev_loop *loop)
{
	memset(&server, 0, sizeof server);
	server.queue.loop = loop;
	td_list_init(&server.disks);
	td_list_init(&server.moved);
	ev_timer_init(&end_timer, on_end, LINGER, 0);
	ev_signal_init(&term, on_signal, SIGTERM);
	ev_signal_init(&intr, on_signal, SIGINT);
	ev_signal_start(loop, &term);
	ev_signal_start(loop, &intr);
}

void server_run(void)
{
	ev_run(server.queue.loop, 0);
}

struct vbd *server_find(int minor)
{
	td_list_each (l, &server.disks) {
		struct vbd *v = td_entry(l, struct vbd, link);

		if (v->minor == minor)
			return v;
	}
	return NULL;
}

static void on_changed(struct vbd *v)
{
	if (server.changed)
		server.changed(v);
}

static void on_orphan(struct ev_loop *loop, ev_timer *w, int revents)
{
	if (server.had_disk)
		return;
	td_log(LOG_WARNING, "no disk was attached since the start: ending");
	ev_break(loop, EVBREAK_ALL);
}

void server_orphan(int seconds)
{
	ev_timer_init(&orphan_timer, on_orphan, seconds, 0);
	ev_timer_start(server.queue.loop, &orphan_timer);
}

static void marker_path(int minor, char *path, size_t size)
{
	snprintf(path, size, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor);
}

/* Nothing new begins meanwhile; an open that the dead one had sent before may have begun. */
static void close_all(void)
{
	for (int i = 0; i < LAST_LOOKS && (!i || any_disk_is_busy() || detaching); i++) {
		td_list_each_safe (l, tmp, &server.disks) {
			struct td_err err = {0};

			if (vbd_close(td_entry(l, struct vbd, link), true, 0, &err) < 0 &&
			    err.code != ENODEV)
				td_log(LOG_ERR, "%s", err.text);
		}
		td_fiber_wait_for(0.01);
	}
}

static void give_up_fiber(void *arg)
{
	char path[4200];

	server.giving_up = true;
	close_all();
	/* ours by their locks, and until then so are the files of their minors */
	td_list_each_safe (l, tmp, &server.disks) {
		marker_path(td_entry(l, struct vbd, link)->minor, path, sizeof path);
		td_call_unlink(path);
	}
	ev_break(server.queue.loop, EVBREAK_ALL);
}

static void on_leash(struct ev_loop *loop, ev_io *w, int revents)
{
	json_t *msg = NULL;
	int rc = td_msg_recv(w->fd, &msg, NULL, NULL);

	json_decref(msg);
	if (rc == -EAGAIN || rc == -EINTR)
		return;
	ev_io_stop(loop, w);
	close(w->fd);
	if (!rc) /* it has nothing to say but that it is done */
		return;
	td_log(LOG_WARNING, "the tap-ctl that was making this disk has died: giving it up");
	if (td_fiber_start(loop, give_up_fiber, NULL) < 0)
		ev_break(loop, EVBREAK_ALL);
}

void server_leash(int fd)
{
	ev_io_init(&leash, on_leash, fd, EV_READ);
	ev_io_start(server.queue.loop, &leash);
}

/*
 * The marker is ours while we hold its lock; the pid in it is for people, for those who find it
 * after a crash, and for openers (lib/marker.h).
 */
struct mark {
	int fd, minor; /* fd: -1: it is to be opened, and locked */
	pid_t pid;     /* 0: nobody's */
	bool beside;
};

static int take_lock(struct mark *m)
{
	char path[4200];
	int rc = 0;

	marker_path(m->minor, path, sizeof path);
	m->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (m->fd < 0)
		return -errno;
	if (flock(m->fd, LOCK_EX | LOCK_NB) < 0)
		rc = -EWOULDBLOCK;
	return rc;
}

/* A call for the tapdisk that had it before, or for another that has it, may be under way: it is
 * waited for (OP5 of tapdisk/opener/opener.h). */
static long mark_in_worker(void *arg)
{
	struct mark *m = arg;
	int rc = m->fd < 0 ? take_lock(m) : 0;

	if (!rc)
		rc = opener_mark(m->fd, m->minor, m->pid, m->beside);
	return rc == -ENOSYS ? td_marker_write(m->fd, m->minor, m->pid, m->beside) : rc;
}

/* On a fiber; this thread serves meanwhile. */
static int mark(struct mark *m, struct td_err *err)
{
	bool takes = m->fd < 0;
	char path[4200];
	int rc = (int)td_call(mark_in_worker, m);

	if (!rc)
		return 0;
	marker_path(m->minor, path, sizeof path);
	if (takes && m->fd < 0)
		return td_fail(err, -rc, "cannot open the marker %s: %s%s", path, strerror(-rc),
			       rc == -ENOENT ? " (allocate the minor first)" : "");
	if (takes && rc == -EWOULDBLOCK)
		return td_fail(err, EBUSY, "minor %d belongs to another tapdisk (%s is locked)",
			       m->minor, path);
	return td_fail(err, -rc, "cannot write the marker %s: %s%s", path, strerror(-rc),
		       rc == -EBUSY ? " (a file of the minor is being changed)" : "");
}

static int take_marker(int minor, int *out, struct td_err *err)
{
	struct mark m = {-1, minor, getpid(), false};
	int rc = mark(&m, err);

	if (rc < 0 && m.fd >= 0)
		close(m.fd);
	*out = m.fd;
	return rc;
}

/* marker: taken over. */
static int make_vbd(int minor, int marker, struct vbd **out, struct td_err *err)
{
	struct vbd *v = vbd_new(&server.queue, minor, marker, on_changed);

	if (v && !(v->nbd = nbd_new(server.queue.loop, &v->nbd_disk, minor))) {
		vbd_free(v);
		return td_fail(err, ENOMEM, "out of memory for minor %d", minor);
	}
	if (!v) {
		close(marker);
		return td_fail(err, ENOMEM, "out of memory for minor %d", minor);
	}
	*out = v;
	return 0;
}

static void enter(struct vbd *v)
{
	struct td_list *at;

	for (at = server.disks.next;
	     at != &server.disks && td_entry(at, struct vbd, link)->minor < v->minor;)
		at = at->next;
	td_list_add(at, &v->link);
	server.had_disk = true;
	ev_timer_stop(server.queue.loop, &end_timer);
	ev_timer_stop(server.queue.loop, &orphan_timer);
}

static int is_moving(int minor, struct td_err *err)
{
	return td_fail(err, EBUSY,
		       "minor %d: this tapdisk is just being upgraded: attach it to another",
		       minor);
}

int server_attach(int minor, struct td_err *err)
{
	struct vbd *v = NULL;
	struct td_err why = {0};
	int fd = -1, rc;

	if (server_find(minor))
		return td_fail(err, EEXIST, "minor %d is attached to this tapdisk already", minor);
	rc = server.moving ? is_moving(minor, err) : take_marker(minor, &fd, err);
	if (rc < 0)
		return rc;
	if (server.moving) { /* since then */
		rc = mark(&(struct mark){fd, minor, 0, false}, &why);
		close(fd);
		return rc < 0 ? td_fail(err, EBUSY,
					"minor %d: this tapdisk is just being upgraded: attach it "
					"to another, which must take the marker over: %s",
					minor, why.text)
			      : is_moving(minor, err);
	}
	rc = make_vbd(minor, fd, &v, err);
	if (!rc)
		enter(v);
	return rc;
}

int server_adopt(int minor, int marker, struct vbd **out, struct td_err *err)
{
	int rc = server_find(minor) ? td_fail(err, EEXIST,
					      "minor %d is attached to this tapdisk "
					      "already",
					      minor)
				    : mark(&(struct mark){marker, minor, getpid(), true}, err);

	if (!rc)
		return make_vbd(minor, marker, out, err);
	close(marker);
	return rc;
}

void server_adopted(struct vbd *v)
{
	server_mark(v);
	enter(v);
}

int server_mark(const struct vbd *v)
{
	struct td_err err = {0};
	int rc = mark(&(struct mark){v->marker, v->minor, getpid(), false}, &err);

	if (rc < 0)
		td_log(LOG_ERR, "minor %d: %s", v->minor, err.text);
	return rc;
}

void server_moved(struct vbd *v)
{
	td_list_del(&v->link);
	td_list_add(&server.moved, &v->link);
}

static long leave_notes(void *arg)
{
	td_ctl_remove_sockets(getpid());
	td_list_each (l, &server.moved)
		td_ctl_move(getpid(), td_entry(l, struct vbd, link)->moved,
			    td_entry(l, struct vbd, link)->minor);
	return 0;
}

/* The list does not change any more. */
void server_leave_notes(void)
{
	td_call(leave_notes, NULL);
}

void server_end(void)
{
	ev_now_update(server.queue.loop);
	ev_timer_set(&end_timer, LINGER, 0);
	ev_timer_start(server.queue.loop, &end_timer);
}

int server_detach(int minor, pid_t keeper, bool *last, struct td_err *err)
{
	struct vbd *v = server_find(minor);
	struct td_err why = {0};
	int rc = 0;

	if (!v)
		return td_fail(err, ENODEV, "minor %d is not attached to this tapdisk", minor);
	if (vbd_busy(v))
		return td_fail(
			err, EBUSY,
			"minor %d is open (%s): close it first, or `tap-ctl destroy' does both",
			minor, v->spec ? v->spec : "an operation is under way");
	td_list_del(&v->link); /* from here on nobody finds it */
	detaching++;
	/* without a keeper empty: allocated, and nobody's */
	if (v->marker >= 0)
		rc = mark(&(struct mark){v->marker, minor, keeper > 0 ? keeper : 0, false}, &why);
	if (rc < 0)
		td_log(LOG_WARNING, "minor %d: %s", minor, why.text);
	vbd_free(v);
	detaching--;
	*last = td_list_empty(&server.disks) && !detaching;
	if (*last)
		server_end();
	return 0;
}
