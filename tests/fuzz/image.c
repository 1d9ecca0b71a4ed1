/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/image.h"

#include <errno.h>

#include "tests/support/drive.h"

enum { HEAD = 6, TOGETHER = 4, STEPS = 24, OP_MAX = 128 << 10 };
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
	fio.grows = true;
	fio.most = 8 * MIB; /* beside what the input has */
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

int image_run(const char *type, const uint8_t *data, size_t size,
	      void (*sums)(uint8_t *image, size_t size))
{
	struct fuzz_in in = {data, size};
	struct fault_file *f;
	uint8_t flags, zeroes;
	char spec[64];
	size_t n;
	int rc;

	state = fuzz_u32(&in);
	flags = fuzz_u8(&in);
	zeroes = fuzz_u8(&in);
	n = in.left;
	f = fault_io_file(&fio, IMAGE_PATH,
			  n + zeroes * 65536ull + (flags & FOOTER_TWICE ? 512 : 0));
	memcpy(f->data, in.p, n);
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
	size_t size;

	fault_io_file(&fio, IMAGE_PARENT, MIB);
	fault_io_file(&fio, IMAGE_PATH, 0);
	on_fiber(loop, make_one, &s);
	size = fio.file[1].size < FUZZ_SIZE_MAX - HEAD ? fio.file[1].size : FUZZ_SIZE_MAX - HEAD;
	memset(out, 0, HEAD);
	out[0] = (uint8_t)n;
	memcpy(out + HEAD, fio.file[1].data, size);
	store_empty();
	return HEAD + size;
}
