/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps in memory.  A fixed number of places, each with room for one; when all are taken the hand
 * of a clock looks for one that was not used since it last came by.  Only cold bitmaps give way:
 * what a hot one knows is not in the file yet.
 *
 * The memory is reserved at open and becomes resident as it is used; whoever looks a bitmap up
 * allocates nothing.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "drivers/vhd/vhd.h"
#include "lib/fiber/fiber.h"

struct waiter {
	struct td_list link;
	struct td_fiber *fiber;
};

/* Apart, since the compiler does not see that a waiter has left the list when vhd_wait returns. */
static __attribute__((noinline)) void enlist(struct td_list *list, struct waiter *w)
{
	td_list_add(list, &w->link);
}

void vhd_wait(struct td_list *list)
{
	struct waiter me = {.fiber = td_fiber_self()};

	enlist(list, &me);
	while (!td_list_empty(&me.link))
		td_fiber_wait();
}

void vhd_wake(struct td_list *list)
{
	struct td_list *l;

	while ((l = td_list_pop(list)))
		td_fiber_wake(td_entry(l, struct waiter, link)->fiber);
}

static size_t bits_bytes(const struct vhd *v)
{
	return (size_t)v->nbm * v->l.bitmap_bytes;
}

int vhd_map_init(struct vhd *v)
{
	uint32_t buckets = 16;

	v->nbm = VHD_CACHE_BYTES / v->l.bitmap_bytes;
	if (v->nbm > v->l.blocks)
		v->nbm = v->l.blocks;
	if (v->nbm < VHD_CACHE_MIN)
		v->nbm = VHD_CACHE_MIN;
	while (buckets < v->nbm)
		buckets *= 2;
	v->bucket_mask = buckets - 1;
	v->bits = mmap(NULL, bits_bytes(v), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->bits == MAP_FAILED) {
		v->bits = NULL;
		return -ENOMEM;
	}
	v->bm = calloc(v->nbm, sizeof *v->bm);
	v->bucket = calloc(buckets, sizeof(struct vhd_bitmap *));
	if (!v->bm || !v->bucket)
		return -ENOMEM;
	for (uint32_t i = 0; i < v->nbm; i++) {
		v->bm[i].bits = v->bits + (size_t)i * v->l.bitmap_bytes;
		td_list_init(&v->bm[i].waiters);
		td_list_add(&v->free, &v->bm[i].link);
	}
	return 0;
}

void vhd_map_fini(struct vhd *v)
{
	if (v->bits)
		munmap(v->bits, bits_bytes(v));
	free(v->bm);
	free(v->bucket);
}

static struct vhd_bitmap **bucket_of(struct vhd *v, uint32_t block)
{
	return &v->bucket[(block * 2654435761u >> 12) & v->bucket_mask];
}

struct vhd_bitmap *vhd_map_find(struct vhd *v, uint32_t block)
{
	for (struct vhd_bitmap *bm = *bucket_of(v, block); bm; bm = bm->next)
		if (bm->block == block) {
			bm->used = true;
			return bm;
		}
	return NULL;
}

void vhd_map_drop(struct vhd *v, struct vhd_bitmap *bm)
{
	struct vhd_bitmap **p = bucket_of(v, bm->block);

	assert(bm->state != VHD_BM_FREE && !bm->dirty && !bm->committing && !bm->writers);
	while (*p != bm)
		p = &(*p)->next;
	*p = bm->next;
	bm->state = VHD_BM_FREE;
	td_list_del(&bm->link);
	td_list_add_front(&v->free, &bm->link);
	vhd_wake(&bm->waiters);
	vhd_wake(&v->room);
}

/* Makes one cold bitmap give way; two rounds, since the first may find them all used. */
static void evict(struct vhd *v)
{
	for (uint32_t i = 0; i < 2 * v->nbm && !td_list_empty(&v->cold); i++) {
		struct vhd_bitmap *bm = td_entry(v->cold.next, struct vhd_bitmap, link);

		if (bm->state == VHD_BM_READY && !bm->used) {
			vhd_map_drop(v, bm);
			return;
		}
		if (bm->state == VHD_BM_READY)
			bm->used = false;
		td_list_del(&bm->link);
		td_list_add(&v->cold, &bm->link);
	}
}

struct vhd_bitmap *vhd_map_new(struct vhd *v, uint32_t block)
{
	struct vhd_bitmap **p = bucket_of(v, block), *bm;

	if (td_list_empty(&v->free))
		evict(v);
	if (td_list_empty(&v->free))
		return NULL;
	bm = td_entry(td_list_pop(&v->free), struct vhd_bitmap, link);
	bm->block = block;
	bm->used = true;
	bm->dirty_from = bm->dirty_to = 0;
	bm->next = *p;
	*p = bm;
	td_list_add(&v->cold, &bm->link);
	return bm;
}

int vhd_map_load(struct vhd *v, uint32_t block)
{
	struct vhd_bitmap *bm = vhd_map_find(v, block);
	int rc;

	if (bm) {
		if (bm->state != VHD_BM_READY)
			vhd_wait(&bm->waiters);
		return 0;
	}
	bm = vhd_map_new(v, block);
	if (!bm)
		return vhd_wait_room(v);
	bm->state = VHD_BM_LOADING;
	rc = td_file_rw(v->file, TD_IO_READ, bm->bits, (uint64_t)v->bat[block] * VHD_SECTOR,
			v->l.bitmap_bytes, 0);
	if (rc < 0) {
		vhd_map_drop(v, bm);
		return rc;
	}
	bm->state = VHD_BM_READY;
	bm->used = true;
	vhd_wake(&bm->waiters);
	vhd_map_full(v, bm);
	return 0;
}

void vhd_map_full(struct vhd *v, struct vhd_bitmap *bm)
{
	bool set;

	if (vhd_bits_run(bm->bits, 0, v->l.block_sectors, &set) < v->l.block_sectors || !set)
		return;
	vhd_bits_set(v->full, bm->block, bm->block + 1);
	v->full_dirty = true;
	vhd_map_drop(v, bm);
}

/* --- extents --- */

int vhd_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out, int max)
{
	struct vhd *v = image->priv;
	unsigned none = v->diff ? TD_EXTENT_PARENT : TD_EXTENT_HOLE | TD_EXTENT_ZERO;
	uint64_t end = off + len;
	int n = 0;

	if (v->fixed)
		return td_file_extents(v->file, off, len, out, max);
	while (off < end) {
		uint32_t block = vhd_block_of(v, off),
			 first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR), last;
		uint64_t to = ((uint64_t)block + 1) << v->l.block_shift;
		bool set = v->bat[block] != VHD_UNUSED;

		to = to < end ? to : end;
		if (set && !vhd_is_full(v, block)) {
			struct vhd_bitmap *bm = vhd_map_find(v, block);

			if (!bm || bm->state != VHD_BM_READY) {
				int rc = vhd_map_load(v, block);

				if (rc < 0)
					return rc;
				continue;
			}
			last = first + (uint32_t)((to - off) / VHD_SECTOR);
			to = off + vhd_bits_run(bm->bits, first, last, &set) * VHD_SECTOR;
		}
		if (n && out[n - 1].flags == (set ? 0 : none)) {
			out[n - 1].len += to - off;
		} else if (n == max) {
			break;
		} else {
			out[n++] = (struct td_extent){off, to - off, set ? 0 : none};
		}
		off = to;
	}
	return n;
}

/* --- for other threads --- */

#define MAP_UNIT (64u << 10) /* bytes: what is told begins at such a place, if it can */

/* The sectors around `first' that the image has, in one block: from the unit's start, or from
 * `first' on. */
static uint64_t run_around(const struct vhd *v, const struct vhd_bitmap *bm, uint32_t *first,
			   uint32_t n)
{
	uint32_t unit = *first & ~(uint32_t)(MAP_UNIT / VHD_SECTOR - 1);
	bool set;
	uint64_t run = vhd_bits_run(bm->bits, unit, v->l.block_sectors, &set);

	if (set && unit + run >= *first + n) {
		*first = unit;
		return run;
	}
	run = vhd_bits_run(bm->bits, *first, v->l.block_sectors, &set);
	return set ? run : 0;
}

/* A block never moves, and a bit that is set stays: so a sector that the image has is where it is,
 * as long as it is open. */
bool vhd_map(struct td_image *image, uint64_t off, uint64_t len, struct td_map *out)
{
	struct vhd *v = image->priv;
	uint32_t block, first, n = (uint32_t)(len / VHD_SECTOR);
	struct vhd_bitmap *bm;
	uint64_t run, end;

	if (v->crypt || v->broken || td_redo_missed(image->redo)) /* V8 */
		return false;
	if (v->fixed) {
		*out = (struct td_map){.len = v->footer.size, .file = v->file, .whole = true};
		return true;
	}
	block = vhd_block_of(v, off);
	if (v->bat[block] == VHD_UNUSED || block == v->lost_block ||
	    vhd_block_of(v, off + len - 1) != block)
		return false;
	first = (uint32_t)((off & (v->l.block_size - 1)) / VHD_SECTOR);
	if (vhd_is_full(v, block)) {
		first = 0;
		run = v->l.block_sectors;
	} else {
		bm = vhd_map_find(v, block);
		run = bm && bm->state == VHD_BM_READY ? run_around(v, bm, &first, n) : 0;
	}
	end = off + len;
	off = ((uint64_t)block << v->l.block_shift) + (uint64_t)first * VHD_SECTOR;
	*out = (struct td_map){
		.off = off, .len = run * VHD_SECTOR, .file = v->file, .at = vhd_place_of(v, off)};
	return off + out->len >= end;
}
