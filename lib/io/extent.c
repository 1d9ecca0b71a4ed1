/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a chain of images shows in a range: each image says what it holds itself, and for the rest
 * the one below it is asked. */
#include "td/block.h"

#include <assert.h>

/* extents asked of one image at a time; a chain's worth of them stands on a fiber's stack */
#define BATCH 16

struct shown {
	struct td_extent *out;
	int n, max;
};

/* False when there is no room for another. */
static bool add_extent(struct shown *s, uint64_t off, uint64_t len, unsigned flags)
{
	struct td_extent *last = s->n ? &s->out[s->n - 1] : NULL;

	if (last && last->flags == flags) {
		last->len += len;
		return true;
	}
	if (s->n == s->max)
		return false;
	s->out[s->n++] = (struct td_extent){off, len, flags};
	return true;
}

/* What `image' itself says of the start of a range; at least one extent. */
static int ask_driver(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *e)
{
	int n = image->driver->extents ? image->driver->extents(image, off, len, e, BATCH) : 0;

	if (n > 0)
		return n;
	e[0] = (struct td_extent){off, len, 0};
	return 1;
}

static bool show_extent(struct td_image *image, uint64_t off, uint64_t len, struct shown *s);

static bool show_all(struct td_image *image, uint64_t off, uint64_t len, struct shown *s)
{
	struct td_extent e[BATCH];

	while (len) {
		uint64_t inside = image && off < image->info.size ? image->info.size - off : 0;
		int n;

		if (!inside) /* below the root, or beyond the end of an image that is smaller than
				the one upon it */
			return add_extent(s, off, len, TD_EXTENT_HOLE | TD_EXTENT_ZERO);
		n = ask_driver(image, off, inside < len ? inside : len, e);
		for (int i = 0; i < n; i++) {
			assert(e[i].off == off && e[i].len && e[i].len <= len);
			if (!(e[i].flags & TD_EXTENT_PARENT
				      ? show_extent(image->backing, off, e[i].len, s)
				      : add_extent(s, off, e[i].len, e[i].flags)))
				return false;
			off += e[i].len;
			len -= e[i].len;
		}
	}
	return true;
}

/* The image may be taken out of its chain meanwhile, and is not closed before this is over. */
static bool show_extent(struct td_image *image, uint64_t off, uint64_t len, struct shown *s)
{
	bool room;

	if (image)
		image->inflight++;
	room = show_all(image, off, len, s);
	if (image)
		image->inflight--;
	return room;
}

int td_extents(struct td_image *leaf, uint64_t off, uint64_t len, struct td_extent *out, int max)
{
	struct shown s = {out, 0, max};

	assert(leaf->magic == TD_IMAGE_MAGIC);
	assert(len && off <= leaf->info.size && len <= leaf->info.size - off && max > 0);
	show_extent(leaf, off, len, &s);
	return s.n;
}
