/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's chain of images: the leaf, which the guest writes, and its parents, the root last. */
#ifndef TAPDISK_CHAIN_H
#define TAPDISK_CHAIN_H

#include "lib/io/reach.h"
#include "td/block.h"

#define CHAIN_MAX 64 /* images; deeper is a loop, or a mistake */

/*
 * Parents through the page cache (how->cached), beneath a leaf that is written past it:
 *
 * PC1 A parent is read-only here, so that no promise rests on its pages: a mode's promises are the
 *     leaf's, which the flag does not touch.
 * PC2 Regular files alone.  The kernel keeps a file's pages in agreement with what others write:
 *     another process of this host, with O_DIRECT or not, and another host, as far as its file
 *     system does so at an open (NFS, SMB, a cluster's).  A block device's pages it does not: the
 *     other host's write into a parent, as in a coalesce, would be hidden by ours for as long as
 *     anybody here has it open.  So a parent on a device is read past the cache, option or not.
 * PC3 A parent that another host writes while it is open here (a coalesce into it, a resize) may be
 *     read as before until the chain is opened again: only where an image above hides what is
 *     written, as a coalesce has it.  The pause and unpause after it open it again.
 * PC4 A leaf that is opened read-only is read as a parent is, by the engine of how->cached.
 */

/*
 * Opens "type:path" and all that is under it, on a fiber.  how: the leaf's flags, the key of all
 * that is encrypted, and what the host says of the files that the images name: dirs, parents, data.
 */
int chain_open(const char *spec, const struct td_how *how, struct td_io *io, struct td_image **leaf,
	       struct td_err *err);
void chain_close(struct td_image *leaf); /* leaf first; NULL is fine */

/*
 * One image of a chain once more, without what is under it; on a fiber.  It was named by `child',
 * of the chain whose leaf is `leaf' (type:path); how: the disk's.  lock (td/io.h): 0 or
 * TD_FILE_CLAIM, as a parent; with TD_FILE_BENEATH for writing, with syncs in every mode.
 */
int chain_open_again(const struct td_image *image, const struct td_image *child, unsigned lock,
		     const char *leaf, const struct td_how *how, struct td_io *io,
		     struct td_image **out, struct td_err *err);

/* How far the word of the image goes that spec names; how: what the host says to it.  On a fiber;
 * then td_reach_fini().  0 or -errno. */
int chain_reach(const char *spec, const struct td_how *how, struct td_io *io,
		struct td_reach *reach, struct td_err *err);

#endif
