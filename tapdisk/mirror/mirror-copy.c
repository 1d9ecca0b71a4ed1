/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The copy's half of a change: what it gets, what it answers, and whether it is still there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/io/clock.h"
#include "lib/kill.h"
#include "lib/zeroes.h"
#include "tapdisk/mirror/mirror-inside.h"

#define LOOKS 4 /* at a copy that does not answer, within `patience' */

/* Not the wall clock's, which may be set: a guest would wait, or a good mirror fail. */
static double seconds(void)
{
	return (double)td_clock() / 1e9;
}

void mirror_submit_copy(struct mirror_op *op)
{
	struct mirror *m = op->m;

	op->pending++;
	if (!m->at_copy++)
		m->heard = seconds();
	td_submit(m->copy, &op->copy);
}

/* The next piece of zeroes that it gets as a write (MI5). */
static void write_zeroes(struct mirror_op *op)
{
	uint64_t left = op->req->len - op->zeroed;
	int n = 0;

	op->copy.op = TD_WRITE;
	op->copy.flags = 0;
	op->copy.off = op->req->off + op->zeroed;
	op->copy.len = left < MIRROR_PIECE ? left : MIRROR_PIECE;
	for (uint64_t k = op->copy.len; k; k -= op->iov[n++].iov_len)
		op->iov[n] = td_zeroes_iov(k);
	op->copy.iov = op->iov;
	op->copy.iovcnt = n;
	op->zeroed += op->copy.len;
	mirror_submit_copy(op);
}

static void copy_failed(struct mirror *m, const struct td_req *req, int err)
{
	static const char *const what[] = {"a read", "a write", "a flush", "a discard",
					   "a write of zeroes"};
	char why[160];

	snprintf(why, sizeof why, "%s there failed: %s", what[req->op], strerror(-err));
	mirror_fail(m, why);
}

void mirror_on_copy(struct td_req *child, int err)
{
	struct mirror_op *op = td_entry(child, struct mirror_op, copy);
	struct mirror *m = op->m;

	m->at_copy--;
	m->heard = seconds();
	if (err == -EOPNOTSUPP && child->op == TD_WRITE_ZEROES) {
		op->by_hand = true;
		err = 0;
	}
	if (err && m->part) {
		op->copy_err = err;
		if (child->op == TD_WRITE)
			m->on_lost(m->owner, err);
	} else if (err) {
		copy_failed(m, child, err);
	} else if (op->by_hand && op->zeroed < op->req->len && !m->failed) {
		write_zeroes(op);
	}
	TD_KILL(COPY_DONE);
	mirror_put_op(op);
}

/* --- is it there? --- */

/* What the copy's server had taken may be lost with the connection. */
static void on_copy_fault(struct td_image *image)
{
	mirror_fail(image->owner, image->fault);
}

static void listen_to_copy(struct mirror *m, bool on)
{
	for (struct td_image *i = m->copy; i; i = i->backing) {
		i->owner = on ? m : NULL;
		i->failed = on ? on_copy_fault : NULL;
	}
}

static void on_watch(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct mirror *m = w->data;
	char why[100];

	if (!m->at_copy || seconds() - m->heard < m->patience)
		return;
	snprintf(why, sizeof why, "it has not answered for %d s", m->patience);
	mirror_fail(m, why);
}

void mirror_watch_copy(struct mirror *m)
{
	listen_to_copy(m, true);
	ev_init(&m->look, on_watch);
	m->look.data = m;
	m->look.repeat = (double)m->patience / LOOKS;
	if (m->patience)
		ev_timer_again(m->loop, &m->look);
}

void mirror_leave_copy(struct mirror *m)
{
	ev_timer_stop(m->loop, &m->look);
	listen_to_copy(m, false);
}
