/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New blocks and new bits, and the order in which they become part of the image.  A write to
 * sectors that are not in the image goes to their place in the file at once; that they are there
 * now is known in memory alone until a commit writes it down.  These hold at every moment, so that
 * the power may go at any:
 *
 * V1 A bit goes into the file only when the data that it stands for is durable.  A sector then
 *    shows what was there before the write, or the write; never what lay in the file or on the
 *    device by chance.
 * V2 A BAT entry goes into the file only when the bitmap at its place is durable, all clear at
 *    first.  Bits that lay there by chance never count.
 * V3 A place is handed out once: above all blocks and all metadata.  One is given back only when
 *    its block never got into bat[].
 * V4 Bits and entries are never taken back.  So whatever is true of the file once stays true: a
 *    batmap's bit, which sums up a bitmap, is written at close, when all bitmaps are durable;
 *    after a cut the batmap knows too little, never too much.
 * V5 A FLUSH, or a write with FUA, that needs metadata is answered by a commit that began after
 *    it: freeze what is dirty, sync (V1, V2), write what was frozen, sync.  What becomes dirty
 *    meanwhile is the next commit's, since the first sync does not cover it.
 * V6 When a sync fails, what it should have covered may be lost without another sign. Nothing
 *    that was frozen is written, and the image fails every write and flush until it is opened
 *    again; it says so (td_image_fault), since a write by a map that it gave out (vhd_map) does not
 *    come by here.
 * V7 The copy of the footer at 0 rules while the image is open.  The footer at the end gives way
 *    to the first new block; it is written again at close, when all else is durable. Meanwhile
 *    the file is always longer than its last block, so that the guest's bytes never stand where a
 *    reader looks for a footer.
 *
 * V8 A bit or an entry is in image->redo before the write that needs it is answered: a process
 *    that dies takes none along.
 * V9 What bits and entries claim is held against the file's end when it is opened (vhd-end.c).
 *    What a bit stands for beyond the end is lost: the image is not opened for writing, and a
 *    read of it is an error, never zeroes nor the footer that may lie there. A short block of
 *    which nothing is lost gets its whole length before anything is written.
 *
 * A bitmap is hot while the file does not know all that it knows: a write that will set bits is
 * under way, or it is dirty, or being committed.  There are at most hot_max, which bounds the
 * memory and what is lost with a guest that never flushes; a timer also commits what has been dirty
 * for a while.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "drivers/vhd/vhd.h"
#include "lib/bytes.h"
#include "lib/fiber/fiber.h"

#define LATER 2.0 /* s that anything stays dirty at most before a commit is begun */
/* bytes by which a file is made longer: writes beyond its end would wait for each other in the
 * kernel */
#define GROW       (32u << 20)
#define PER_SECTOR (VHD_SECTOR / 4) /* BAT entries */

static size_t frozen_bytes(const struct vhd *v)
{
	return (size_t)v->hot_max * (v->l.bitmap_bytes + VHD_SECTOR);
}

int vhd_alloc_init(struct vhd *v)
{
	v->hot_max = v->nbm / 4 > 4 ? v->nbm / 4 : 4;
	ev_timer_init(&v->later, vhd_commit_later, LATER, 0);
	v->later.data = v;
	v->frozen = mmap(NULL, frozen_bytes(v), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->frozen == MAP_FAILED)
		v->frozen = NULL;
	v->frozen_bat = calloc(v->hot_max, sizeof *v->frozen_bat);
	v->bat_dirty = calloc(1, v->bat_sectors / 8 + 1);
	return v->frozen && v->frozen_bat && v->bat_dirty ? 0 : -ENOMEM;
}

void vhd_alloc_fini(struct vhd *v)
{
	if (v->frozen)
		munmap(v->frozen, frozen_bytes(v));
	free(v->frozen_bat);
	free(v->bat_dirty);
}

/* --- hot and cold --- */

static bool heat(struct vhd *v, struct vhd_bitmap *bm)
{
	if (bm->dirty || bm->committing || bm->writers)
		return true;
	if (v->nhot == v->hot_max)
		return false;
	td_list_del(&bm->link);
	td_list_add(&v->hot, &bm->link);
	v->nhot++;
	return true;
}

void vhd_cool(struct vhd *v, struct vhd_bitmap *bm)
{
	if (bm->dirty || bm->committing || bm->writers)
		return;
	td_list_del(&bm->link);
	td_list_add(&v->cold, &bm->link);
	v->nhot--;
	vhd_map_full(v, bm);
	vhd_wake(&v->room);
}

static void soil(struct vhd *v, struct vhd_bitmap *bm)
{
	bm->dirty = true;
	if (!v->dirty) {
		v->dirty = true;
		ev_timer_start(v->image->io->loop, &v->later);
	}
	if ((v->nhot > v->hot_max / 2 || td_redo_crowded(v->image->redo)) && !v->committing)
		vhd_commit(v, NULL);
}

bool vhd_write_begin(struct vhd *v, struct vhd_bitmap *bm)
{
	if (!heat(v, bm))
		return false;
	bm->writers++;
	return true;
}

void vhd_write_end(struct vhd *v, struct vhd_bitmap *bm, uint32_t first, uint32_t n, int err)
{
	uint32_t from = first / 8 / VHD_SECTOR, to = (first + n - 1) / 8 / VHD_SECTOR + 1;

	if (!err) {
		vhd_bits_set(bm->bits, first, (uint64_t)first + n);
		td_redo_put(v->image->redo, TD_REDO_SECOND | TD_REDO_BITS,
			    (uint64_t)v->bat[bm->block] * VHD_SECTOR + first / 8,
			    bm->bits + first / 8, (first + n - 1) / 8 - first / 8 + 1);
		if (bm->dirty_from == bm->dirty_to)
			bm->dirty_from = from, bm->dirty_to = to;
		bm->dirty_from = from < bm->dirty_from ? from : bm->dirty_from;
		bm->dirty_to = to > bm->dirty_to ? to : bm->dirty_to;
		soil(v, bm);
	}
	bm->writers--;
	vhd_cool(v, bm);
}

/* --- blocks --- */

/* Makes the file reach beyond `end' (V7); a device has the size that it has, and may have grown. */
static int grow_file(struct vhd *v, uint64_t end)
{
	int rc = 0;

	if (v->file->st.blockdev) {
		uint64_t was = v->eof;

		if (end + VHD_FOOTER > was)
			rc = td_file_size(v->file, &v->eof);
		v->tail_lost = v->tail_lost || v->eof != was;
		return rc ? rc : end + VHD_FOOTER > v->eof ? -ENOSPC : 0;
	}
	while (end + VHD_FOOTER > v->eof && !rc) {
		if (v->growing) {
			vhd_wait(&v->growers);
			continue;
		}
		v->growing = true;
		v->tail_lost = true;
		rc = td_file_truncate(v->file, end + GROW);
		if (!rc)
			v->eof = end + GROW;
		v->growing = false;
		vhd_wake(&v->growers);
	}
	return rc;
}

/* A place for a block; its data is at a multiple of 4,096, which every store likes (V3). */
static uint64_t take_place(struct vhd *v)
{
	uint64_t place;

	if (v->nplaces)
		return v->place[--v->nplaces];
	place = td_round_up(v->next + v->l.bitmap_bytes, 4096) - v->l.bitmap_bytes;
	v->next = place + v->l.bitmap_bytes + v->l.block_size;
	return place;
}

static void give_back(struct vhd *v, uint64_t place)
{
	if (v->nplaces < VHD_PLACES)
		v->place[v->nplaces++] = place;
}

/*
 * The bitmap, clear (V2), and, beside it, the write that wanted the block: its bits come later
 * (V1).  In a file, sectors without a bit are zeroes too, for readers that do not look at bits:
 * below what the file had when it was opened, blocks may lie that a cut left without an entry.
 */
static int prepare_block(struct vhd *v, struct vhd_bitmap *bm, uint64_t place,
			 const struct vhd_first *with)
{
	uint64_t data = place + v->l.bitmap_bytes, to = data + v->l.block_size;
	struct vhd_batch b = {.fiber = td_fiber_self()};

	if (to / VHD_SECTOR >= VHD_UNUSED)
		return -EFBIG;
	if (!v->file->st.blockdev && !v->diff && data < v->stale) {
		int rc = vhd_zero(v, TD_IO_PUNCH, data, (to < v->stale ? to : v->stale) - data);

		if (rc < 0)
			return rc;
	}
	vhd_batch_write(v, &b, bm->bits, place, v->l.bitmap_bytes);
	if (with) {
		with->op->off = data + (uint64_t)with->first * VHD_SECTOR;
		vhd_batch_queue(v, &b, with->op);
	}
	vhd_batch_wait(&b);
	return b.err;
}

int vhd_alloc(struct vhd *v, uint32_t block, const struct vhd_first *with)
{
	struct vhd_bitmap *bm = vhd_map_find(v, block);
	uint8_t entry[4];
	uint64_t place;
	int rc;

	if (bm) { /* somebody does it */
		vhd_wait(&bm->waiters);
		return 0;
	}
	if (v->nhot == v->hot_max || !(bm = vhd_map_new(v, block)))
		return vhd_wait_room(v);
	heat(v, bm);
	bm->writers = 1;
	bm->state = VHD_BM_ALLOCATING;
	bm->dirty_from = bm->dirty_to = 0;
	memset(bm->bits, 0, v->l.bitmap_bytes);
	place = take_place(v);
	rc = grow_file(v, place + v->l.bitmap_bytes + v->l.block_size);
	if (!rc)
		rc = prepare_block(v, bm, place, with);
	bm->state = VHD_BM_READY;
	if (rc < 0) {
		give_back(v, place);
		bm->writers = 0;
		vhd_cool(v, bm);
		vhd_map_drop(v, bm);
		return rc;
	}
	v->bat[block] = (uint32_t)(place / VHD_SECTOR);
	vhd_bits_set(v->bat_dirty, block / PER_SECTOR, block / PER_SECTOR + 1);
	td_put_be32(entry, v->bat[block]);
	v->sum ^= vhd_entry_sum(block, v->bat[block]);
	td_redo_put_sum(v->image->redo, TD_REDO_SECOND, v->l.table_off + 4ull * block, entry,
			sizeof entry, v->sum);
	vhd_wake(&bm->waiters);
	soil(v, bm);
	if (with) {
		vhd_write_end(v, bm, with->first, with->n, 0);
	} else {
		bm->writers = 0;
		vhd_cool(v, bm);
	}
	return with != NULL;
}
