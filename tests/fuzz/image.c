/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/image.h"

#include <errno.h>

#include "tests/support/drive.h"

enum { TOGETHER = 4, STEPS = 24, OP_MAX = 128 << 10 };
enum { FOOTER_TWICE = 1, READ_ONLY = 2, FAILS = 4 };

static uint32_t state;

static uint32_t rnd(uint32_t below)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % below;
}

void image_start(void)
{
	mem = aligned_alloc(4096, MIB);
	FUZZ_ASSERT(mem);
	memset(mem, 0xab, MIB);
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	fio.grows = fio.lazy = true;
	fio.most = 64 * MIB; /* a VHD grows by 32 */
}

/* One store for all inputs: making it costs more than an input does. */
static void store_empty(void)
{
	for (int i = 0; i < FAULT_FILES; i++) {
		free(fio.file[i].data);
		fio.file[i].data = NULL;
	}
	fault_io_clear(&fio);
}

static void finish_all(struct op *o, int n)
{
	for (int i = 0, left = n; left; i++) {
		FUZZ_ASSERT(i < 100000); /* it hangs */
		turns(1);
		left = 0;
		for (int k = 0; k < n; k++)
			left += !o[k].done;
	}
}

/* A number that a field may have: one near to what it has, one at which something begins or ends,
 * or any. */
static uint64_t other_number(struct fuzz_in *in, uint64_t now)
{
	static const uint64_t some[] = {
		0,    1,    2,    31,   32,    64,    127,   511,        512,        1023,     1024,
		2048, 4095, 4096, 8192, 16384, 65535, 65536, 0x7fffffff, 0xffffffff, INT64_MAX};
	uint8_t how = fuzz_u8(in);
	uint64_t any = fuzz_u64(in);

	return how < 128   ? now + how - 64
	       : how < 240 ? some[how % (sizeof some / sizeof *some)]
			   : any;
}

static void change_field(uint8_t *image, size_t size, const struct image_field *f,
			 struct fuzz_in *in)
{
	const uint8_t *base = f->after ? memmem(image, size, f->after, strlen(f->after)) : image;
	uint64_t v = 0;
	size_t at;

	if (!base)
		return;
	at = (size_t)(base - image) + f->at;
	if (at + f->bytes > size)
		return;
	for (unsigned i = 0; i < f->bytes; i++)
		v = v << 8 | image[at + i];
	v = other_number(in, v);
	for (unsigned i = f->bytes; i; v >>= 8)
		image[at + --i] = (uint8_t)v;
}

static void change_fields(uint8_t *image, size_t size, const struct image_field *fields,
			  struct fuzz_in *in)
{
	unsigned n = 0;

	while (fields && fields[n].bytes)
		n++;
	for (int i = 0; i < IMAGE_CHANGES; i++) {
		struct fuzz_in one = *in;
		uint8_t which = fuzz_u8(&one);

		if (n && which)
			change_field(image, size, &fields[which % n], &one);
		in->p += in->left < 10 ? in->left : 10;
		in->left -= in->left < 10 ? in->left : 10;
	}
}

/* Where the format has something, and at the end; a multiple of the sector. */
static uint64_t somewhere(uint64_t size)
{
	uint64_t sectors = size / 512, at;

	if (!sectors)
		return 0;
	at = rnd(4) ? rnd(4096) : ((uint64_t)rnd(1 << 24) << 24 | rnd(1 << 24));
	return (rnd(8) ? at % sectors : sectors - 1 - at % (sectors < 64 ? sectors : 64)) * 512;
}

static void requests(bool writable)
{
	struct op o[TOGETHER];
	int n = 0;

	for (int i = 0; i < STEPS; i++) {
		uint64_t size = leaf->info.size & ~511ull, off = somewhere(size);
		uint64_t len = (1 + rnd(OP_MAX / 512)) * 512;
		enum td_op what = TD_READ;

		if (!size)
			break;
		if (len > size - off)
			len = size - off;
		switch (writable ? rnd(10) : 0) {
		case 3:
		case 4:
		case 5:
		case 6:
			what = TD_WRITE;
			break;
		case 7:
			what = TD_FLUSH;
			break;
		case 8:
			what = leaf->info.discard ? TD_DISCARD : TD_FLUSH;
			break;
		default:
			break;
		}
		if (what == TD_FLUSH)
			off = len = 0;
		start(&o[n], what, what == TD_READ || what == TD_WRITE ? mem + n * OP_MAX : NULL,
		      off, len, 0);
		n++;
		if (n == TOGETHER || !rnd(3)) {
			finish_all(o, n);
			n = 0;
		}
	}
	finish_all(o, n);
}

static void look(void *arg)
{
	struct td_extent e[32];
	uint64_t size = leaf->info.size & ~511ull;

	for (int i = 0; i < 4 && size; i++) {
		uint64_t off = somewhere(size), at = off;
		int n = td_extents(leaf, off, size - off, e, 32);

		FUZZ_ASSERT(n >= 1 && n <= 32);
		for (int k = 0; k < n; at += e[k++].len)
			FUZZ_ASSERT(e[k].off == at && e[k].len && e[k].len <= size - at);
	}
}

int image_run(const char *type, const uint8_t *data, size_t size, const struct image_field *fields,
	      void (*sums)(uint8_t *image, size_t size))
{
	struct fuzz_in in = {data, size}, changes;
	struct fault_file *f;
	uint8_t flags, zeroes;
	char spec[64];
	size_t n;
	int rc;

	state = fuzz_u32(&in);
	flags = fuzz_u8(&in);
	zeroes = fuzz_u8(&in);
	changes = in;
	in.p += in.left < IMAGE_HEAD - 6 ? in.left : IMAGE_HEAD - 6;
	in.left -= in.left < IMAGE_HEAD - 6 ? in.left : IMAGE_HEAD - 6;
	n = in.left;
	f = fault_io_file(&fio, IMAGE_PATH,
			  n + zeroes * 65536ull + (flags & FOOTER_TWICE ? 512 : 0));
	memcpy(f->data, in.p, n);
	change_fields(f->data, n, fields, &changes);
	if (sums)
		sums(f->data, n);
	if (flags & FOOTER_TWICE && n >= 512)
		memcpy(f->data + f->size - 512, f->data, 512);
	fault_io_file(&fio, IMAGE_PARENT, MIB);
	snprintf(spec, sizeof spec, "%s:%s", type, IMAGE_PATH);
	rc = open_how(spec, (struct td_how){.flags = TD_FILE_DIRECT |
						     (flags & READ_ONLY ? TD_FILE_RDONLY : 0)});
	if (!rc) {
		fault_io_clear(&fio);
		if (flags & FAILS)
			for (int i = 0; i < 4; i++)
				fault_io_rule(&fio, 1 + rnd(64), rnd(2) ? -EIO : -ENOSPC);
		requests(!(flags & READ_ONLY));
		on_fiber(loop, look, NULL);
		close_leaf();
		fuzz_count++;
	} else {
		FUZZ_ASSERT(err.code == -rc && err.text[0]);
	}
	store_empty();
	return 0;
}

struct seeding {
	void (*make)(struct td_io *io, unsigned n);
	unsigned n;
};

static void make_one(void *arg)
{
	struct seeding *s = arg;

	s->make(fio.io, s->n);
}

size_t image_seed(void (*make)(struct td_io *io, unsigned n), unsigned n, uint8_t *out)
{
	struct seeding s = {make, n};
	size_t size, held;

	fault_io_file(&fio, IMAGE_PARENT, MIB);
	fault_io_file(&fio, IMAGE_PATH, 0);
	on_fiber(loop, make_one, &s);
	size = fio.file[1].size < FUZZ_SIZE_MAX - IMAGE_HEAD ? fio.file[1].size
							     : FUZZ_SIZE_MAX - IMAGE_HEAD;
	held = fio.file[1].held < size ? fio.file[1].held : size;
	memset(out, 0, IMAGE_HEAD + size);
	out[0] = (uint8_t)n;
	memcpy(out + IMAGE_HEAD, fio.file[1].data, held);
	store_empty();
	return IMAGE_HEAD + size;
}
