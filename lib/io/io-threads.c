/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine for buffered files: where io_submit would block, threads do. */
#include <errno.h>
#include <stdlib.h>

#include "lib/io/file.h"
#include "lib/io/io-engines.h"
#include "lib/io/workers.h"

struct threads {
	struct td_workers *workers;
	struct td_list queued;
};

static int threads_start(struct td_io *io)
{
	struct threads *t = calloc(1, sizeof *t);
	int rc;

	if (!t)
		return -ENOMEM;
	td_list_init(&t->queued);
	rc = td_workers_new(io, &t->workers);
	if (rc < 0) {
		free(t);
		return rc;
	}
	io->priv = t;
	return 0;
}

static void threads_stop(struct td_io *io)
{
	struct threads *t = io->priv;

	td_workers_free(t->workers);
	free(t);
}

static void threads_queue(struct td_io *io, struct td_iop *op)
{
	struct threads *t = io->priv;

	td_list_add(&t->queued, &op->link);
}

static void threads_commit(struct td_io *io)
{
	struct threads *t = io->priv;

	if (td_list_empty(&t->queued))
		return;
	io->n.commits++;
	td_workers_run(t->workers, &t->queued);
}

const struct td_io_ops td_io_threads = {
	.name = "threads",
	.start = threads_start,
	.stop = threads_stop,
	.queue = threads_queue,
	.commit = threads_commit,
	.merges = true,
	.open = td_kernel_open,
	.open_in = td_kernel_open_in,
	.close = td_kernel_close,
	.size = td_kernel_size,
	.truncate = td_kernel_truncate,
	.extents = td_kernel_extents,
};
