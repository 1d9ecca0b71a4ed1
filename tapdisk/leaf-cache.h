/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is read from beneath a leaf is kept in the leaf, so that it is read there the next time: for
 * a leaf on a local disk, upon parents that are far away (XenServer's IntelliCache).
 *
 * It is an image of the chain, between the leaf and its parent, which sees the reads that the leaf
 * sends down; and the leaf's gate, which sees the changes.
 *
 * LF1 The reader has its answer first: the data are copied, and written to the leaf afterwards.
 * LF2 A write of kept data never lands over a change.  It is left out where a change of the same
 *     blocks was under way, or has come, since the read was sent down; and a change that comes
 *     while it is under way waits for its end.
 * LF3 It promises nothing: it is not durable, it is not logged as a change, and its failure is
 *     nobody's.  One at a time is under way; what would exceed LEAF_CACHE_MEMORY is not kept.
 * LF4 Nothing is kept while the leaf's file system has less than LEAF_CACHE_ROOM free, which is
 *     looked at once a second.
 * LF5 Other threads (tapdisk/cache/lane.h) write through the main one.
 */
#ifndef TAPDISK_LEAF_CACHE_H
#define TAPDISK_LEAF_CACHE_H

#include "td/block.h"

#define LEAF_CACHE_MEMORY (4u << 20) /* bytes of data that wait for their write */
#define LEAF_CACHE_ROOM   (2u << 20) /* bytes */

struct leaf_cache;

/*
 * For a leaf that is written and has a parent; of any other *out is NULL.  The image is the chain's
 * from here on, and all of it ends with chain_close().  After changed_open(), whose gate comes
 * after this one.  idle: leaf_cache_busy() has become false.
 */
int leaf_cache_open(struct td_image *leaf, void (*idle)(void *owner), void *owner,
		    struct leaf_cache **out, struct td_err *err);

/* Is a write of kept data under way?  None begins when the disk is at rest, since none is read.
 * NULL is fine. */
bool leaf_cache_busy(const struct leaf_cache *l);

struct leaf_cache_stats {
	uint64_t kept, left_out; /* sectors */
};
struct leaf_cache_stats leaf_cache_stats(const struct leaf_cache *l);

#endif
