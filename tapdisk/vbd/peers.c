/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/vbd/peers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fiber/fiber.h"
#include "td/list.h"

#define LOOK_S 2.0 /* from one look to the next */

struct peers_look {
	struct td_iop op;
	struct peers *owner;
	const char *path; /* NULL: `below' is known */
	struct td_peers below;
	struct td_peers_view seen;
};

/* In a worker thread. */
static long look_run(void *arg)
{
	struct peers_look *l = arg;

	if (l->path)
		td_peers_find_image(l->path, &l->below);
	td_peers_look(&l->below, &l->seen);
	return 0;
}

static long look_call(struct td_iop *op)
{
	return look_run(td_entry(op, struct peers_look, op));
}

static void judge_view(struct peers *p, const struct td_peers_view *seen)
{
	p->reason[0] = 0;
	p->wrong = p->shared ? seen->cut_off : seen->role == TD_PEER_PRIMARY;
	if (p->wrong && p->shared)
		snprintf(p->reason, sizeof p->reason,
			 "DRBD's device %u is cut off from the other host, which may go on writing "
			 "its own half: neither host sees what the other writes",
			 seen->cut);
	else if (p->wrong)
		snprintf(p->reason, sizeof p->reason,
			 "DRBD's device %u is Primary on the other host too: with cache=%s neither "
			 "host sees what the other writes, and each may undo it",
			 seen->device, p->mode);
}

static void log_change(const struct peers *p)
{
	if (p->wrong && p->shared)
		td_log(LOG_ERR,
		       "%s (DRBD's fencing resource-and-stonith, with a fence-peer handler that "
		       "turns the peer off, prevents it: tapdisk-cache(7))",
		       p->reason);
	else if (p->wrong)
		td_log(LOG_ERR, "%s (`drbdadm secondary' on one host ends it)", p->reason);
	else if (p->shared)
		td_log(LOG_NOTICE, "DRBD is connected to the other host again, or knows that its "
				   "half is outdated");
	else
		td_log(LOG_NOTICE, "the other host is not Primary any more");
}

static void look_done(struct td_iop *op, int err)
{
	struct peers_look *l = td_entry(op, struct peers_look, op);
	struct peers *p = l->owner;
	bool was = p->wrong;

	p->look = NULL;
	if (!err)
		judge_view(p, &l->seen);
	free(l);
	if (err || was == p->wrong)
		return;
	log_change(p);
	p->changed(p);
}

static void on_look(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct peers *p = w->data;

	if (p->look || !(p->look = calloc(1, sizeof *p->look)))
		return;
	*p->look =
		(struct peers_look){.op = {.op = TD_IO_CALL, .call = look_call, .done = look_done},
				    .owner = p,
				    .below = p->below};
	td_iop_queue(p->io, &p->look->op);
}

void peers_init(struct peers *p, struct ev_loop *loop, void (*changed)(struct peers *p))
{
	*p = (struct peers){.loop = loop, .changed = changed};
	ev_init(&p->timer, on_look);
	p->timer.data = p;
}

static int refuse(const char *type, const char *path, const struct vbd_options *o, unsigned device,
		  struct td_err *err)
{
	bool raw = !strcmp(type, "aio");

	return td_fail(err, EBUSY,
		       "%s: DRBD's device %u is Primary on the other host too, which can write it "
		       "at the same time, but %s%s is kept in this host's memory, so that neither "
		       "sees what the other writes, and each may undo it.  Make it Secondary there "
		       "(`drbdadm secondary RESOURCE'), or %s; two-primaries=yes opens it all the "
		       "same, for whoever sees to it that one host at a time has the disk open",
		       path, device, raw ? "with cache=" : "the metadata of ",
		       raw ? o->mode->name : type,
		       raw ? "ask for cache=none or cache=directsync"
			   : "share a raw disk with cache=none instead");
}

int peers_check(struct peers *p, const char *type, const char *path, const struct vbd_options *o,
		bool successor, struct td_io *io, struct td_err *err)
{
	struct peers_look l = {.path = path};

	p->below.n = 0;
	p->mode = o->mode->name;
	p->shared = o->shared;
	judge_view(p, &l.seen);
	if (o->read_only || (!strcmp(type, "aio") && o->mode->shareable && !o->shared))
		return 0;
	td_await_call(io, look_run, &l);
	if (!o->shared && l.seen.role == TD_PEER_PRIMARY && !o->two_primaries && !successor)
		return refuse(type, path, o, l.seen.device, err);
	if (!o->shared && l.seen.role == TD_PEER_UNSEEN)
		td_log(LOG_WARNING,
		       "%s stands on DRBD's device %u, and neither /proc/drbd nor debugfs (`mount "
		       "-t debugfs none /sys/kernel/debug') tells whether its peer is Primary: "
		       "nothing refuses two hosts that write it with cache=%s",
		       path, l.seen.device, o->mode->name);
	p->below = l.below;
	p->io = io;
	judge_view(p, &l.seen);
	if (p->wrong)
		td_log(LOG_ERR, "%s: %s", path, p->reason);
	return 0;
}

void peers_watch(struct peers *p)
{
	if (!p->below.n)
		return;
	p->timer.repeat = LOOK_S;
	ev_timer_again(p->loop, &p->timer);
}

void peers_stop(struct peers *p)
{
	ev_timer_stop(p->loop, &p->timer);
	while (p->look) /* it reads what the kernel has in memory */
		td_fiber_wait_for(0.01);
	p->below.n = 0;
	p->wrong = false;
	p->reason[0] = 0;
}
