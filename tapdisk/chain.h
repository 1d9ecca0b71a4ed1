/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's chain of images: the leaf, which the guest writes, and the parents that it stands on,
 * root last. */
#ifndef TAPDISK_CHAIN_H
#define TAPDISK_CHAIN_H

#include "lib/io/reach.h"
#include "td/block.h"

#define CHAIN_MAX 64 /* images; deeper is a loop, or a mistake */

/*
 * Opens "type:path" and all that is under it, on a fiber.  how: the leaf's flags, the key of all
 * that is encrypted, and what the host says of the files that the images name: dirs, parents, data.
 */
int chain_open(const char *spec, const struct td_how *how, struct td_io *io, struct td_image **leaf,
	       struct td_err *err);
void chain_close(struct td_image *leaf); /* leaf first; NULL is fine */

/* How far the word of the image goes that spec names; how: what the host says to it.  On a fiber;
 * then td_reach_fini().  0 or -errno. */
int chain_reach(const char *spec, const struct td_how *how, struct td_io *io,
		struct td_reach *reach, struct td_err *err);

#endif
