/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's chain of images: the leaf, which the guest writes, and the parents that it stands on, root last. */
#ifndef TAPDISK_CHAIN_H
#define TAPDISK_CHAIN_H

#include "td/block.h"

#define CHAIN_MAX 64 /* images; deeper is a loop, or a mistake */

/* Opens "type:path" and all that is under it, on a fiber.  flags: TD_FILE_* of the leaf. */
int chain_open(const char *spec, unsigned flags, struct td_io *io, struct td_image **leaf, struct td_err *err);
void chain_close(struct td_image *leaf); /* leaf first; NULL is fine */

#endif
