/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/fiber/await.h"

#include "lib/fiber/fiber-lock.h"

struct wait {
	struct td_req req;
	struct td_cond cond;
	bool done;
	int err;
};

static void wait_done(struct td_req *req, int err)
{
	struct wait *w = td_entry(req, struct wait, req);

	w->done = true;
	w->err = err;
	td_cond_wake(&w->cond);
}

int td_await_request(struct td_image *image, struct td_io *io, enum td_op op, unsigned flags,
		     uint64_t off, uint64_t len, struct iovec *iov, int iovcnt)
{
	struct wait w = {.req = {.op = op,
				 .flags = flags,
				 .off = off,
				 .len = len,
				 .iov = iov,
				 .iovcnt = iovcnt,
				 .io = io,
				 .done = wait_done}};

	td_cond_init(&w.cond);
	td_submit(image, &w.req);
	while (!w.done)
		td_cond_wait(&w.cond);
	return w.err;
}
