/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the files of qcow-image.h.  All on a fiber; 0 or -errno. */
#ifndef DRIVERS_QCOW_IMAGE_INSIDE_H
#define DRIVERS_QCOW_IMAGE_INSIDE_H

#include "drivers/qcow/qcow.h"
#include "td/block.h"

/* qcow-image.c: an image with flags, what it stands on with flags `below', and all under that as
 * ordinary parents. */
int qcow_chain_open(const char *path, unsigned flags, unsigned below, const struct td_key *key,
		    struct td_io *io, struct td_image **leaf, struct td_err *err);
void qcow_chain_close(struct td_image *image);
/* One request, waited for. */
int qcow_image_request(struct td_image *image, enum td_op op, unsigned flags, void *buf,
		       uint64_t off, uint64_t len);

#endif
