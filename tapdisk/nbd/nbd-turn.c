/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What NBD clients may cost a turn of the loop. */
#include "tapdisk/nbd/nbd-conn.h"

static unsigned all_turn, all_spent; /* by the clients of all disks */

static void look_at_turn(struct nbd_conn *c)
{
	unsigned turn = ev_iteration(c->n->loop);

	if (c->turn != turn)
		c->spent = 0;
	if (all_turn != turn)
		all_spent = 0;
	c->turn = all_turn = turn;
}

void nbd_turn_spend(struct nbd_conn *c, unsigned n)
{
	look_at_turn(c);
	c->spent += n;
	all_spent += n;
}

void nbd_turn_next(struct nbd_conn *c)
{
	ev_idle_start(c->n->loop, &c->more);
}

bool nbd_turn_lets(struct nbd_conn *c)
{
	look_at_turn(c);
	if (c->spent < NBD_TURN_MIN || (c->spent < NBD_TURN && all_spent < NBD_TURN_ALL))
		return true;
	nbd_turn_next(c);
	return false;
}
