/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's chain of images: the leaf, which the guest writes, and the parents that it stands on, root last. */
#ifndef TAPDISK_CHAIN_H
#define TAPDISK_CHAIN_H

#include "td/block.h"

#define CHAIN_MAX 64 /* images; deeper is a loop, or a mistake */

/*
 * Opens "type:path" and all that is under it, on a fiber.  how: the leaf's flags, the key of all that is encrypted, and the directories where
 * parents may be beside the leaf's own (NULL: nowhere else).
 */
int chain_open(const char *spec, const struct td_how *how, struct td_io *io, struct td_image **leaf, struct td_err *err);
void chain_close(struct td_image *leaf); /* leaf first; NULL is fine */

/* Where the files may be that the image names: its own directory, and `more' (or NULL); colons between; to be freed, NULL: no memory. */
char *chain_dirs(const char *spec, const char *more);

#endif
