/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/ctl/handover.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/ctl-client.h"
#include "lib/fiber/call.h"
#include "lib/io/clock.h"
#include "lib/msg.h"
#include "lib/passed.h"
#include "tapdisk/blkif/inflight.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/server.h"

#define ANSWER   5 /* s that the other has to take a disk: its guest waits */
#define ON_TRIAL 1 /* s for which it must live, after the last */

/* --- what may wait, in a worker --- */

struct question {
	pid_t pid;
	json_t *req, *reply;
	const int *fds;
	int nfds;
	struct td_err *err;
};

static long put_question(void *arg)
{
	struct question *q = arg;

	return td_ctl_call(q->pid, q->req, q->fds, q->nfds, ANSWER, NULL, NULL, &q->reply, q->err);
}

static int ask_peer(struct question q, json_t **reply)
{
	int rc;

	if (!q.req)
		return td_fail(q.err, ENOMEM, "out of memory for a question to tapdisk %d",
			       (int)q.pid);
	rc = (int)td_call(put_question, &q);
	if (reply && !rc)
		*reply = q.reply;
	else
		json_decref(q.reply);
	return rc;
}

struct watch {
	int pidfd, ms;
};

static long wait_for_end(void *arg)
{
	const struct watch *w = arg;

	return poll(&(struct pollfd){.fd = w->pidfd, .events = POLLIN}, 1, w->ms) > 0;
}

/* Has it ended within that time? */
static bool ends(int pidfd, int ms)
{
	return td_call(wait_for_end, &(struct watch){pidfd, ms}) > 0;
}

static long open_pid(void *to)
{
	return syscall(SYS_pidfd_open, *(pid_t *)to, 0);
}

static long kill_peer(void *pidfd)
{
	return syscall(SYS_pidfd_send_signal, *(int *)pidfd, SIGKILL, NULL, 0) < 0 ? -errno : 0;
}

static long remove_names(void *pid)
{
	td_ctl_remove_sockets(*(pid_t *)pid);
	return 0;
}

/* --- a disk in words --- */

static json_t *ring_json(const struct vbd_ring *r)
{
	json_t *refs = json_array(), *o;

	for (unsigned i = 0; i < r->p.pages; i++)
		json_array_append_new(refs, json_integer(r->p.refs[i]));
	o = json_pack("{s:i, s:I, s:i, s:I, s:o, s:s, s:s, s:b, s:I}", "domid", r->p.domid, "devid",
		      (json_int_t)r->p.devid, "queue", (int)r->p.queue, "port",
		      (json_int_t)r->p.port, "refs", refs, "abi", blkif_abi_name(r->p.abi),
		      "transport", r->transport, "persistent", r->p.persistent,
		      "polling-idle-threshold", (json_int_t)r->p.polling_idle);
	if (r->p.polling_us != BLKIF_POLLING_UNSAID)
		json_object_set_new(o, "polling-duration", json_integer(r->p.polling_us));
	return o;
}

static void put_key(json_t *o, const struct td_key *key)
{
	char hex[2 * sizeof key->bytes + 1];

	if (!key->len)
		return;
	td_put_hex(hex, key->bytes, key->len);
	json_object_set_new(o, "key", json_string(hex));
	explicit_bzero(hex, sizeof hex);
}

/* The connection that the disk's mirror goes on with (MI8 of tapdisk/mirror/mirror.h), if it is one
 * that was passed: to `fds' behind the marker.  -1: none. */
static int put_mirror(json_t *o, const struct vbd *v, int *fds, int *nfds)
{
	bool passed = !strncmp(v->opt.mirror, "nbd:", 4) && !v->mirror_failed;
	uint8_t note[TD_PASSED_NOTE];
	char hex[2 * sizeof note + 1];
	int fd = passed ? td_passed_take(v->opt.mirror + 4, note, sizeof note) : -1;

	if (fd < 0)
		return -1;
	td_put_hex(hex, note, sizeof note);
	json_object_set_new(o, "passed",
			    json_pack("{s:s, s:s}", "name", v->opt.mirror + 4, "note", hex));
	fds[(*nfds)++] = fd;
	return fd;
}

/* Of a disk that has been given; its descriptors into fds: the marker, the mirror's, which is the
 * caller's to close, and those of each ring.  NULL and text. */
static json_t *disk_json(const struct vbd *v, int fds[TD_MSG_FDS], int *nfds, int *mirror,
			 struct td_err *err)
{
	json_t *o = record_json(v), *past, *rings = json_array();

	if (!o) {
		td_fail(err, EILSEQ, "minor %d: the name of its image is not UTF-8 text", v->minor);
		json_decref(rings);
		return NULL;
	}
	*nfds = 0;
	fds[(*nfds)++] = v->marker;
	*mirror = put_mirror(o, v, fds, nfds);
	td_list_each (l, &v->given) {
		const struct vbd_ring *r = td_entry(l, struct vbd_ring, link);

		json_array_append_new(rings, ring_json(r));
		/* too few are refused there */
		for (int i = 0; i < r->nfds && *nfds < TD_MSG_FDS; i++)
			fds[(*nfds)++] = r->fds[i];
	}
	past = json_pack("{s:b, s:b, s:I, s:i, s:O, s:b, s:b}", "redirected", v->redirected,
			 "paused", !v->going, "sectors", (json_int_t)v->disk.sectors, "sticky",
			 -v->cache.sticky, "log", json_object_get(o, "log"), "mirror_failed",
			 v->mirror_failed, "handed", 1);
	if (json_object_get(o, "commit"))
		json_object_set(past, "commit", json_object_get(o, "commit"));
	if (json_object_get(o, "beneath"))
		json_object_set(past, "beneath", json_object_get(o, "beneath"));
	if (json_object_get(o, "mirror_server"))
		json_object_set(past, "mirror_server", json_object_get(o, "mirror_server"));
	json_object_set(past, "born", json_object_get(o, "born"));
	json_object_set_new(o, "op", json_string("adopt"));
	json_object_set_new(o, "minor", json_integer(v->minor));
	json_object_set_new(o, "network", json_boolean(sandbox_has_network()));
	json_object_set_new(o, "past", past);
	json_object_set_new(o, "rings", rings);
	put_key(o, &v->opt.key);
	return o;
}

/* --- the way there --- */

/* H1; and is it there at all? */
static int sound_out(pid_t to, struct td_err *err)
{
	const char *layout;
	json_t *reply = NULL;
	int rc = ask_peer(
		(struct question){.pid = to, .req = json_pack("{s:s}", "op", "ping"), .err = err},
		&reply);

	if (rc < 0)
		return rc;
	layout = json_string_value(json_object_get(reply, "takes-over"));
	if (!layout || strcmp(layout, inflight_layout()))
		rc = td_fail(err, EPROTO,
			     "tapdisk %d, version %s, cannot take over the rings of this one, "
			     "version %s (%s, not %s)",
			     (int)to,
			     json_string_value(json_object_get(reply, "version")) ?: "unknown",
			     PACKAGE_VERSION, layout ? layout : "none", inflight_layout());
	json_decref(reply);
	return rc;
}

/* The disk has been given away when this begins (H2); the other has it when it gives 0. */
static int pass(pid_t to, struct vbd *v, struct td_err *err)
{
	struct question q = {.pid = to, .err = err};
	int fds[TD_MSG_FDS], mirror = -1, rc;

	q.req = disk_json(v, fds, &q.nfds, &mirror, err);
	q.fds = fds;
	rc = q.req ? ask_peer(q, NULL) : -err->code;
	if (mirror >= 0) /* the other's, from here on, whatever became of it */
		close(mirror);
	return rc;
}

struct given {
	struct vbd **v;
	unsigned n;
};

static int pass_all(pid_t to, struct given *g, handover_told *told, void *arg, struct td_err *err)
{
	td_list_each (l, &server.disks) {
		struct vbd *v = td_entry(l, struct vbd, link);
		double began;
		int rc = vbd_give(v, &began, err);

		if (rc < 0)
			return rc;
		g->v[g->n++] = v;
		rc = pass(to, v, err);
		if (rc < 0)
			return rc;
		told(arg, v, td_clock_s() - began);
	}
	return 0;
}

/* H4 */
static int put_on_trial(pid_t to, int pidfd, struct td_err *err)
{
	if (ends(pidfd, ON_TRIAL * 1000))
		return td_fail(err, ECHILD, "tapdisk %d has died as soon as it had the disks",
			       (int)to);
	return ask_peer(
		(struct question){.pid = to, .req = json_pack("{s:s}", "op", "ping"), .err = err},
		NULL);
}

/* As long as it takes: while it has an image, nobody else may. */
static void end_other(pid_t to, int pidfd)
{
	for (;;) {
		int rc = (int)td_call(kill_peer, &pidfd);
		bool killed = !rc || rc == -ESRCH;

		if (ends(pidfd, killed ? 10000 : 1000))
			return;
		td_log(LOG_ERR, "tapdisk %d cannot be ended, which its disks wait for: %s", (int)to,
		       killed ? "it was killed, and does not end" : strerror(-rc));
	}
}

static void take_back(pid_t to, int pidfd, struct given *g)
{
	end_other(to, pidfd);
	td_call(remove_names, &to);
	for (unsigned i = 0; i < g->n; i++) {
		server_mark(g->v[i]);
		vbd_take_back(g->v[i]);
	}
}

static unsigned count_disks(void)
{
	unsigned n = 0;

	td_list_each (l, &server.disks)
		n++;
	return n;
}

static int go(pid_t to, int pidfd, handover_told *told, void *arg, struct td_err *err)
{
	struct given g = {.v = calloc(count_disks() + 1, sizeof *g.v)};
	int rc = g.v ? sound_out(to, err) : td_fail(err, ENOMEM, "out of memory");

	if (rc < 0) {
		free(g.v);
		return rc;
	}
	rc = pass_all(to, &g, told, arg, err);
	if (!rc)
		rc = put_on_trial(to, pidfd, err);
	if (rc < 0) {
		td_log(LOG_ERR,
		       "the handover to tapdisk %d has failed, and this tapdisk continues: %s",
		       (int)to, err->text);
		take_back(to, pidfd, &g);
	}
	for (unsigned i = 0; !rc && i < g.n; i++) {
		server_moved(g.v[i]);
		vbd_taken(g.v[i], to);
	}
	if (!rc) {
		server_leave_notes();
		td_log(LOG_NOTICE, "tapdisk %d has all disks now: ending", (int)to);
	}
	free(g.v);
	return rc;
}

int handover(pid_t to, handover_told *told, void *arg, struct td_err *err)
{
	int pidfd, rc;

	if (server.moving)
		return td_fail(err, EALREADY, "tapdisk %d is being upgraded already",
			       (int)getpid());
	if (td_list_empty(&server.disks))
		return td_fail(
			err, ENODEV,
			"tapdisk %d has no disk: the program that started it knows it by its pid",
			(int)getpid());
	server.moving = true;
	pidfd = to == getpid() ? -1 : (int)td_call(open_pid, &to);
	rc = pidfd < 0 ? td_fail(err, ESRCH, "there is no other process %d", (int)to)
		       : go(to, pidfd, told, arg, err);
	server.moving = rc == 0; /* then it ends, and takes no disk any more */
	if (pidfd >= 0)
		close(pidfd);
	return rc;
}
