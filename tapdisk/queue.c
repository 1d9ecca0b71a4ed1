/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/queue.h"

#include <stdlib.h>

int queue_engine(struct queue *q, bool direct, struct td_io **io, struct td_err *err)
{
	struct td_io **slot = direct ? &q->direct : &q->buffered;
	const char *name = getenv("TAPDISK_IO");
	int rc = 0;

	if (!*slot)
		rc = td_io_new(q->loop, name && *name ? name : NULL, direct, slot, err);
	*io = *slot;
	return rc;
}

void queue_fini(struct queue *q)
{
	td_io_free(q->direct);
	td_io_free(q->buffered);
	q->direct = q->buffered = NULL;
}
