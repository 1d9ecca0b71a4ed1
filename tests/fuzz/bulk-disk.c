/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/bulk-disk.h"

#include <errno.h>

#include "drivers/qcow/qcow-image.h"
#include "tests/support/drive.h"
#include "tests/support/test-image.h"
#include "tests/support/vhd-make.h"

enum { MODES = 5 };
enum kind { BY_HAND, AT_ONCE, NOTHING, RAW, VHD, QCOW2 };

struct ev_loop *disk_loop;
bool disk_fails, disk_is_slow;

static enum kind kind;
static struct test_image img;
static struct cache cache;
static struct blkif_disk *disk;

/* What comes to the image is within the disk, and allowed. */
static void check_access(struct test_image *t, struct td_req *r)
{
	uint64_t bytes = 0;

	FUZZ_ASSERT(r->off <= disk->sectors * 512 && r->len <= disk->sectors * 512 - r->off);
	if (r->op == TD_READ || r->op == TD_WRITE) {
		for (int i = 0; i < r->iovcnt; i++)
			bytes += r->iov[i].iov_len;
		FUZZ_ASSERT(bytes == r->len);
	}
	if (r->op == TD_FLUSH || r->op == TD_READ)
		return;
	FUZZ_ASSERT(!disk->read_only);
	FUZZ_ASSERT(r->op != TD_DISCARD || disk->discard);
	FUZZ_ASSERT(r->op != TD_WRITE || !disk->block || (r->off | r->len) % disk->block == 0);
}

static void nothing(struct cache *c)
{
}

void disk_start(void)
{
	begin();
	free(mem); /* what comes here has its own */
	fio.grows = fio.lazy = true;
	fio.reorder = true;
	disk_loop = loop;
	test_image_open(&img, 0);
	img.seen = check_access;
	cache_init(&cache, loop, NULL);
	cache.changed = nothing;
}

static void make_qcow2(void *arg)
{
	const struct qcow_create o = {.size = TEST_IMAGE_SECTORS * 512,
				      .version = 3,
				      .cluster_bits = 9 + bulk_rnd(5),
				      .refcount_order = 4};

	fault_io_file(&fio, "/a.img", 0);
	FUZZ_ASSERT(!qcow_image_create("/a.img", &o, fio.io, &err));
}

static void make_image(void)
{
	struct vhd_make v = {.name = "/a.img",
			     .size = TEST_IMAGE_SECTORS * 512,
			     .block_size = 4096u << bulk_rnd(6),
			     .type = VHD_DYNAMIC,
			     .uuid = 1};

	if (kind == RAW)
		fault_io_file(&fio, "/a.img", TEST_IMAGE_SECTORS * 512);
	else if (kind == VHD)
		vhd_make(&fio, &v);
	else
		on_fiber(loop, make_qcow2, NULL);
}

static struct td_image *open_image(unsigned flags)
{
	static const char *const specs[] = {[NOTHING] = "null:2M",
					    [RAW] = "aio:/a.img",
					    [VHD] = "vhd:/a.img",
					    [QCOW2] = "qcow2:/a.img"};

	if (kind == BY_HAND || kind == AT_ONCE)
		return img.image;
	if (kind != NOTHING)
		make_image();
	if (open_how(specs[kind], (struct td_how){.flags = flags}))
		fprintf(stderr, "%s: %s\n", specs[kind], err.text);
	FUZZ_ASSERT(!err.code);
	fault_io_clear(&fio);
	return leaf;
}

void disk_begin(struct blkif_disk *d)
{
	static const enum kind kinds[16] = {BY_HAND, BY_HAND, BY_HAND, BY_HAND, BY_HAND, AT_ONCE,
					    AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE, NOTHING, NOTHING,
					    NOTHING, RAW,     VHD,     QCOW2};
	const struct td_cache_mode *mode = &td_cache_modes[bulk_rnd(MODES)];
	struct td_image *image;
	bool by_hand;

	disk = d;
	kind = kinds[bulk_rnd(16)];
	by_hand = kind == BY_HAND || kind == AT_ONCE;
	disk_is_slow = kind >= RAW;
	disk_fails = kind != NOTHING && bulk_one_in(4);
	srand(bulk_rnd(UINT32_MAX)); /* the store's order */
	img.at_once = kind == AT_ONCE;
	img.at_once_err = disk_fails ? -EIO : 0;
	image = open_image(mode->file_flags);
	d->sectors = TEST_IMAGE_SECTORS;
	d->read_only = bulk_one_in(8);
	d->discard = by_hand ? bulk_rnd(4) : image->info.discard;
	d->block = by_hand && bulk_one_in(8) ? 4096 : 0;
	d->cache = &cache;
	cache_attach(&cache, mode, image, by_hand ? &img.io : fio.io, true);
	cache_resume(&cache);
}

void disk_end(void)
{
	img.at_once_err = 0;
	for (int i = 0; cache.active || !cache_image_idle(&cache); i++) {
		FUZZ_ASSERT(i < 100000);
		cache_quiesce(&cache);
		disk_turn();
		disk_complete(UINT32_MAX);
	}
	cache_quiesce(&cache);
	cache_detach(&cache);
	if (kind >= NOTHING)
		close_leaf();
	for (int i = 0; i < FAULT_FILES; i++) {
		free(fio.file[i].data);
		fio.file[i].data = NULL;
	}
	fault_io_clear(&fio);
}

void disk_turn(void)
{
	turns(1);
	if (cache.out_of_space) /* which is looked at again each second */
		ev_feed_event(loop, &cache.retry, EV_TIMER);
	if (!disk_is_slow)
		return;
	fault_io_clear(&fio);
	for (int i = 0; disk_fails && i < 2; i++)
		fault_io_rule(&fio, 1 + bulk_rnd(1024), bulk_rnd(2) ? -EIO : -ENOSPC);
	turns(2);
}

void disk_complete(unsigned most)
{
	static const int errors[] = {EIO, ENOSPC, EINVAL, EOPNOTSUPP};

	for (; most && img.npending; most--)
		test_image_complete(&img, bulk_rnd(img.npending < 8 ? img.npending : 8),
				    disk_fails && bulk_one_in(16) ? -errors[bulk_rnd(4)] : 0);
}
