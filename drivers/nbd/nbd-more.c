/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* KC1: further connections, which a fiber makes, one after the other, while the first goes on.
 * Nobody waits for them, and what becomes of them is no state of the disk.  They end in nbd-wire.c,
 * which sends on them, and begins here. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

#define FIRST 0.1  /* s before the second attempt; the first is made at once */
#define LAST  60.0 /* s between attempts */
#define LASTS 30   /* s: a connection that has lasted so long was a good one */

/* KC4: s that the greeting of a further one may take; tests have less. */
double nbdc_further_patience = 5.0;

static bool may_try(const struct nbdc_client *n)
{
	const struct nbdc_more *m = &n->more;

	return m->conns && m->up < m->wanted && !m->refused && n->phase == NBD_RUNS && !n->since &&
	       !n->lost && !n->closing && !n->first.leaving &&
	       (n->said.flags & NBD_FLAG_CAN_MULTI_CONN);
}

static void wait_longer(struct nbdc_more *m)
{
	m->delay = m->delay < FIRST ? FIRST : m->delay * 2 < LAST ? m->delay * 2 : LAST;
}

/* KC3: what the first connection was told.  A context has a number of the connection's own. */
static bool twin(const struct nbdc_offer *a, const struct nbdc_offer *b)
{
	return a->size == b->size && a->flags == b->flags && a->min == b->min &&
	       a->preferred == b->preferred && a->max == b->max && a->structured == b->structured;
}

/* With its greeting; or -errno with text: -ESTALE, it leads elsewhere. */
static int connect_one(struct nbdc_client *n, int *under, struct td_err *err)
{
	struct nbdc_offer now;
	struct nbdc_server is;
	int *trying = &n->more.trying, fd = nbdc_connect(n, true, trying, under, err), rc;

	if (fd < 0)
		return fd;
	*trying = fd;
	rc = n->lost || n->closing ? td_fail(err, ECANCELED, "given up")
				   : nbdc_greet(n, fd, nbdc_further_patience, &now, err);
	*trying = -1;
	if (!rc && !twin(&now, &n->said))
		rc = td_fail(err, ESTALE,
			     "its export is another one than the first's: %llu bytes, flags 0x%x",
			     (unsigned long long)now.size, now.flags);
	if (!rc) {
		is = nbdc_server_of(n->image->io, nbdc_under(fd, *under));
		if ((is.pid || n->server.pid) && !nbdc_server_same(&is, &n->server))
			rc = td_fail(err, ESTALE,
				     "another process serves it, or one that was "
				     "started anew");
	}
	if (!rc)
		return fd;
	nbdc_hang_up(fd, *under, false);
	return rc;
}

static void cannot_make(struct nbdc_client *n, int rc, const struct td_err *err)
{
	struct nbdc_more *m = &n->more;

	m->refused = rc == -ESTALE || rc == -ETIMEDOUT || rc == -ECONNRESET; /* KC3, KC4 */
	wait_longer(m);
	if (rc == -ESTALE)
		td_log(LOG_WARNING, "%s: a further connection is not used: %s", n->name, err->text);
	else if (!m->told)
		td_log(LOG_INFO, "%s: %u connections, and no more: %s", n->name, m->up + 1,
		       err->text);
	m->told = true;
}

static void attach(struct nbdc_client *n, int fd, int under)
{
	struct nbdc_more *m = &n->more;
	struct nbdc_conn *c = m->conns;

	while (c->fd >= 0)
		c++;
	nbdc_wire_set(c, fd, under);
	m->made = td_clock_s();
	m->told = false;
	if (++m->up == m->wanted)
		td_log(LOG_INFO, "%s: %u connections, for reads", n->name, m->up + 1);
}

/* False: the attempts are over. */
static bool make_one(struct nbdc_client *n)
{
	struct nbdc_more *m = &n->more;
	struct td_err err = {0};
	int fd, under = -1;
	unsigned epoch;

	m->sleeper = td_fiber_self();
	td_fiber_wait_for(m->delay);
	m->sleeper = NULL;
	if (!may_try(n))
		return false;
	epoch = m->epoch;
	fd = connect_one(n, &under, &err);
	if (epoch != m->epoch || !may_try(n)) { /* the first is another, or is away */
		if (fd >= 0)
			nbdc_hang_up(fd, under, true);
	} else if (fd < 0) {
		cannot_make(n, fd, &err);
	} else {
		attach(n, fd, under);
	}
	return may_try(n);
}

static void make_more(void *arg)
{
	struct nbdc_client *n = arg;

	while (make_one(n))
		;
	n->more.working = false;
	if (n->more.closer)
		td_fiber_wake(n->more.closer);
}

void nbdc_more_go(struct nbdc_client *n)
{
	if (n->more.working || !may_try(n))
		return;
	n->more.working = true;
	if (td_fiber_start(n->loop, make_more, n) < 0)
		n->more.working = false; /* fewer do as well */
}

/* --- ends --- */

static void close_conn(struct nbdc_conn *c, bool polite)
{
	int fd = c->fd, under = c->under;

	polite = polite && c->in_at == c->in_len;
	nbdc_wire_unset(c);
	c->n->more.up--;
	nbdc_hang_up(fd, under, polite);
}

void nbdc_more_end(struct nbdc_conn *c, const char *why)
{
	struct nbdc_client *n = c->n;
	struct nbdc_more *m = &n->more;
	unsigned again = 0;

	assert(c != &n->first && n->phase == NBD_RUNS);
	for (unsigned i = 0; i < NBD_CMDS; i++) {
		struct nbdc_cmd *cmd = &n->cmds[i];

		if (cmd->conn != c)
			continue;
		nbdc_cmd_detach(cmd);
		nbdc_cmd_anew(cmd);
		nbdc_cmd_enqueue(cmd, &n->first);
		again++;
	}
	close_conn(c, false);
	if (m->made && td_clock_s() - m->made < LASTS)
		wait_longer(m);
	else
		m->delay = 0;
	td_log(LOG_INFO, "%s: %s: a further connection, whose %u reads are sent again", n->name,
	       why, again);
	nbdc_wire_schedule(n);
	nbdc_more_go(n);
}

void nbdc_more_drop(struct nbdc_client *n)
{
	struct nbdc_more *m = &n->more;

	for (unsigned i = 0; m->conns && i < m->wanted; i++)
		if (m->conns[i].fd >= 0)
			close_conn(&m->conns[i], false);
	m->epoch++;
	m->refused = m->told = false;
	m->delay = 0;
	if (m->conns && m->trying >= 0)
		shutdown(m->trying, SHUT_RDWR);
}

/* --- the image --- */

void nbdc_more_start(struct nbdc_client *n)
{
	struct nbdc_more *m = &n->more;
	unsigned all = n->uri.connections;

	m->trying = -1;
	if (all < 2 || n->uri.way == NBD_PASSED || n->copy ||
	    !(n->x.flags & NBD_FLAG_CAN_MULTI_CONN))
		return;
	m->conns = calloc(all - 1, sizeof *m->conns);
	if (!m->conns || nbdc_spread_open(m) < 0) {
		td_log(LOG_WARNING, "%s: no memory for further connections", n->name);
		free(m->conns);
		m->conns = NULL;
		return;
	}
	m->wanted = all - 1;
	for (unsigned i = 0; i < m->wanted; i++)
		nbdc_wire_init(&m->conns[i], n);
	nbdc_more_go(n);
}

void nbdc_more_stop(struct nbdc_client *n)
{
	struct nbdc_more *m = &n->more;

	m->closer = td_fiber_self();
	if (m->conns && m->trying >= 0)
		shutdown(m->trying, SHUT_RDWR);
	if (m->sleeper)
		td_fiber_wake(m->sleeper);
	while (m->working)
		td_fiber_wait();
	m->closer = NULL;
	for (unsigned i = 0; i < m->wanted; i++)
		if (m->conns[i].fd >= 0)
			close_conn(&m->conns[i], true);
	nbdc_spread_close(m);
	free(m->conns);
	m->conns = NULL;
	m->wanted = 0;
}
