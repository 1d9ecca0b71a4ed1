/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A drive without a medium: no sectors, so that whatever is asked of it is beyond its end. */
#include "drivers/drivers.h"

static int empty_open(struct td_image *image, struct td_err *err)
{
	image->info.physical = 512;
	return 0;
}

static void empty_close(struct td_image *image)
{
}

/* FLUSH, and nothing else: there is no range that it could have. */
static void empty_submit(struct td_image *image, struct td_req *req)
{
	td_req_done(req, 0);
}

const struct td_driver td_driver_empty = {
	.name = "empty",
	.type = 101,
	.open = empty_open,
	.close = empty_close,
	.submit = empty_submit,
};
