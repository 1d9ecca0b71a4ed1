/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frees clusters that are unreferenced on disk and have no I/O in flight: Q4 of qcow-flush.c is
 * kept here. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-refcount.h"
#include "lib/fiber/fiber.h"

static int punch(struct qcow *q, uint64_t first, uint64_t n)
{
	struct td_iop op = {.op = q->file->st.blockdev ? TD_IO_DISCARD : TD_IO_PUNCH,
			    .file = q->file,
			    .off = first << q->cbits,
			    .len = n << q->cbits};
	int rc = td_await_file(q->io, &op);

	return rc == -EOPNOTSUPP ? 0 : rc;
}

/* One reference less for each; those in a row whose last it was are punched at once, before anybody
 * can take them. */
static int give_back(struct qcow *q, uint64_t first, uint64_t n)
{
	struct qcow_page *page;
	uint64_t last = 0; /* of those from first on, how many have one reference */
	int rc = 0;

	while (n) {
		uint64_t index = first / qcow_per_block(q), count = 0;

		if (index < q->ref.n && q->ref.entry[index]) {
			rc = qcow_count_page(q, first, &page);
			if (rc)
				return rc;
			count = qcow_count_get(q, page, first);
		}
		if (!count)
			return qcow_corrupt(q,
					    "the cluster at %#llx is in use, but counted as free",
					    (unsigned long long)first << q->cbits);
		if (count > 1) {
			qcow_count_set(q, page, first, count - 1);
			first++, n--;
			continue;
		}
		for (last = 1; last < n && (first + last) % qcow_per_page(q) &&
			       qcow_count_get(q, page, first + last) == 1;
		     last++)
			;
		/* counted, and nobody's: nothing changes them meanwhile */
		td_unlock(&q->alloc_lock);
		rc = punch(q, first, last);
		td_lock(&q->alloc_lock);
		if (!rc)
			rc = qcow_count_page(q, first, &page);
		if (rc)
			return rc;
		for (uint64_t c = first; c < first + last; c++) {
			qcow_count_set(q, page, c, 0);
			qcow_meta_del(q, c << q->cbits);
		}
		if (first < q->hint)
			q->hint = first;
		first += last, n -= last;
	}
	return 0;
}

/* Waits until the operations that began before now are over (Q4). */
static void drain(struct qcow *q)
{
	unsigned old = q->epoch;

	q->epoch ^= 1;
	q->draining = true;
	while (q->flying[old])
		td_cond_wait(&q->drained);
	q->draining = false;
}

static void reaper(void *arg)
{
	struct qcow *q = arg;

	while (q->ready.n && !q->broken) {
		struct qcow_freed_list now = q->ready;

		q->ready = (struct qcow_freed_list){0};
		drain(q);
		td_lock(&q->alloc_lock);
		for (size_t i = 0; i < now.n; i++)
			if (give_back(q, now.at[i].cluster, now.at[i].n) < 0)
				break; /* a leak */
		td_unlock(&q->alloc_lock);
		free(now.at);
	}
	q->reaping = false;
	td_cond_wake(&q->idle);
}

void qcow_reap(struct qcow *q)
{
	if (!q->ready.n || q->reaping || q->broken)
		return;
	q->reaping = true;
	if (td_fiber_start(q->io->loop, reaper, q) < 0)
		q->reaping = false; /* the next flush tries again */
}
