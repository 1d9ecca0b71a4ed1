/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* KC2: which connection a command takes.  Each part of the disk has a slot in a table, which it
 * shares with others: a collision costs a read its choice, and nothing else. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/nbd/nbd.h"

#define SLOTS 4096
#define WIDE  64 /* chunks of a change that is not entered one by one */

unsigned nbdc_spread_chunk = 16, nbdc_spread_busy = 16;

int nbdc_spread_open(struct nbdc_more *m)
{
	m->slots = calloc(SLOTS, sizeof *m->slots);
	return m->slots ? 0 : -ENOMEM;
}

void nbdc_spread_close(struct nbdc_more *m)
{
	free(m->slots);
	m->slots = NULL;
}

static uint64_t chunk_of(uint64_t off)
{
	return off >> nbdc_spread_chunk;
}

/* The chunks [*from, *to) of a change; none: it is a wide one. */
static void chunks_of(const struct nbdc_cmd *cmd, uint64_t *from, uint64_t *to)
{
	*from = chunk_of(cmd->off);
	*to = chunk_of(cmd->off + cmd->len - 1) + 1;
	if (*to - *from > WIDE)
		*to = *from;
}

void nbdc_spread_count(struct nbdc_more *m, const struct nbdc_cmd *cmd, unsigned by)
{
	uint64_t at, to;

	if (!m->slots)
		return;
	chunks_of(cmd, &at, &to);
	if (at == to)
		m->wide.busy += by;
	for (; at < to; at++)
		m->slots[at % SLOTS].busy += by;
}

/* What has failed may have been done in part: a flush that is sent after one more change covers it
 * for sure. */
void nbdc_spread_done(struct nbdc_client *n, const struct nbdc_cmd *cmd, bool durable, int err)
{
	struct nbdc_more *m = &n->more;
	uint64_t at, to, seen = n->left->changed + (err != 0);

	if (!m->slots || (durable && !err))
		return;
	chunks_of(cmd, &at, &to);
	m->top = seen;
	if (at == to)
		m->wide.seen = seen;
	for (; at < to; at++)
		m->slots[at % SLOTS].seen = seen;
}

static bool is_seen(const struct nbdc_client *n, const struct nbdc_slot *s)
{
	return !s->busy && s->seen <= n->left->covered;
}

/* Do all connections show the same there? */
static bool all_show(const struct nbdc_client *n, uint64_t off, uint32_t len)
{
	const struct nbdc_more *m = &n->more;

	if (!n->changing && m->top <= n->left->covered)
		return true;
	if (!is_seen(n, &m->wide))
		return false;
	for (uint64_t at = chunk_of(off); at <= chunk_of(off + len - 1); at++)
		if (!is_seen(n, &m->slots[at % SLOTS]))
			return false;
	return true;
}

/* The one with the least under way; the first of these, so that few small reads go out in few
 * system calls. */
struct nbdc_conn *nbdc_spread_to(struct nbdc_client *n, const struct nbdc_cmd *cmd)
{
	struct nbdc_conn *best = &n->first;

	if (cmd->type != NBD_CMD_READ || !n->more.up || !all_show(n, cmd->off, cmd->len))
		return best;
	for (unsigned i = 0; i < n->more.wanted; i++) {
		struct nbdc_conn *c = &n->more.conns[i];

		if (c->fd >= 0 && c->load >> nbdc_spread_busy < best->load >> nbdc_spread_busy)
			best = c;
	}
	return best;
}
