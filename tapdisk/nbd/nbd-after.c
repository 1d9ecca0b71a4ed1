/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* N6 (nbd-cmd.c): a new connection begins after those that have ended before it. */
#include <poll.h>

#include "tapdisk/nbd/nbd-conn.h"

/* Has its client gone, whether or not we have read as far? */
static bool has_ended(const struct nbd_conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};

	return c->ending || (poll(&p, 1, 0) > 0 && p.revents);
}

bool nbd_may_begin(struct nbd_conn *c)
{
	if (c->begun)
		return true;
	td_list_each (l, &c->n->conns) {
		struct nbd_conn *before = td_entry(l, struct nbd_conn, link);

		if (before == c) /* the list is in the order in which they came */
			break;
		if (!before->transmission || !has_ended(before))
			continue;
		/* one that takes no answers is not read as far as its end, and might stay */
		if (!ev_is_active(&before->patience))
			ev_timer_again(c->n->loop, &before->patience);
		return false;
	}
	c->begun = true;
	return true;
}

void nbd_begin_others(struct nbd *n)
{
	td_list_each (l, &n->conns) {
		struct nbd_conn *c = td_entry(l, struct nbd_conn, link);

		if (c->transmission && !c->begun)
			nbd_conn_kick(c);
	}
}
