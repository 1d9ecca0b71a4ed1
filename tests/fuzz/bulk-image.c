/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images in bulk: one of each kind (bulk-made.h) is made at the start; a copy of it is changed, by
 * its fields, by its tables, by any bytes or in its length, opened for reading or writing, read,
 * written, flushed, discarded, grown, closed; and checked, mended and resized offline, where it is
 * a qcow2.  A round is IMAGES of them, on a store in memory that fails now and then.
 *
 * Checked: an open that fails says why; each request comes to its end; extents follow each other;
 * where a repair says that nothing is left to mend, a second check finds nothing.
 */
#include <errno.h>

#include "drivers/qcow/qcow-image.h"
#include "tests/fuzz/bulk-made.h"
#include "tests/support/drive.h"

enum { IMAGES = 32, TOGETHER = 4, LENGTH = 16 << 10, MOST = 64 << 20 };

const char bulk_name[] = "bulk-image";
struct bulk_row bulk_rows[1 + 8 + MADE_MAX + 1] = {
	{"images", 0},
	{"of them opened", 0},
	{"of these read-only", 0},
	{"of these on a store that fails", 0},
	{"requests", 0},
	{"of them failed", 0},
	{"qcow2 images checked", 0},
	{"of these mended", 0},
	{"qcow2 images resized or committed", 0},
};
enum { DONE, OPENED, READ_ONLY, ON_BAD_STORE, REQUESTS, FAILED, CHECKED, MENDED, RESIZED, KINDS };

static struct made *made;
static unsigned nmade;

/* --- an image --- */

static void put_parents(void)
{
	for (unsigned i = 0; i < made->nothers; i++) {
		const struct made_file *o = &made->other[i];

		memcpy(fault_io_file(&fio, o->name, o->size)->data, o->bytes, o->size);
	}
}

static uint64_t other_number(uint64_t now)
{
	static const uint64_t some[] = {
		0,   1,    2,    3,     8,     9,       31,      32,         64,         127,
		512, 1023, 4096, 65535, 65536, 1 << 20, 1 << 30, 0x7fffffff, 0xffffffff, INT64_MAX};

	switch (bulk_rnd(6)) {
	case 0:
		return now + 1 - bulk_rnd(3);
	case 1:
		return now ^ UINT64_C(1) << bulk_rnd(64);
	case 2:
		return now + (uint64_t)bulk_rnd(64) * 512;
	case 3:
		return bulk_any() >> bulk_rnd(64);
	default:
		return some[bulk_rnd(sizeof some / sizeof *some)];
	}
}

static void put_number(uint8_t *at, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | at[i];
	v = other_number(v);
	for (unsigned i = bytes; i; v >>= 8)
		at[--i] = (uint8_t)v;
}

/* One entry of a table, or what stands elsewhere, becomes another one's. */
static void mix(uint8_t *b, uint64_t size)
{
	uint64_t from = made->word[bulk_rnd(made->nwords)], to = made->word[bulk_rnd(made->nwords)];

	if (from + 8 <= size && to + 8 <= size)
		memmove(b + to, b + from, bulk_rnd(2) ? 8 : 4);
}

static void change(uint8_t *b, uint64_t size)
{
	uint64_t at;

	switch (bulk_rnd(8)) {
	case 0:
	case 1:
	case 2:
		at = made->nfields ? bulk_rnd(made->nfields) : 0;
		if (made->nfields && made->field[at].at + made->field[at].bytes <= size)
			put_number(b + made->field[at].at, made->field[at].bytes);
		break;
	case 3:
	case 4:
		at = made->word[bulk_rnd(made->nwords)];
		if (at + 8 <= size)
			put_number(b + at, bulk_rnd(4) ? 8 : 4);
		break;
	case 5:
		mix(b, size);
		break;
	case 6:
		at = made->word[bulk_rnd(made->nwords)] + bulk_rnd(8);
		if (at < size)
			b[at] ^= (uint8_t)(1u << bulk_rnd(8));
		break;
	default:
		b[bulk_rnd((uint32_t)size)] = (uint8_t)bulk_any();
	}
}

static struct fault_file *put_image(void)
{
	const struct made_file *m = &made->image;
	uint64_t size = m->size;
	struct fault_file *f;

	if (bulk_one_in(16))
		size = 1 + bulk_rnd((uint32_t)size);
	else if (bulk_one_in(16))
		size += bulk_rnd(64 << 10);
	f = fault_io_file(&fio, m->name, size);
	memcpy(f->data, m->bytes, size < m->size ? size : m->size);
	for (unsigned n = bulk_one_in(16) ? 0 : 1 + bulk_rnd(bulk_rnd(4) ? 3 : 16); n; n--)
		change(f->data, size);
	if (!bulk_one_in(8))
		made_sums(made, f->data, size);
	if (made->key.len)
		made_cheap(made, f->data, size);
	return f;
}

static void store_empty(void)
{
	for (int i = 0; i < FAULT_FILES; i++) {
		free(fio.file[i].data);
		fio.file[i].data = NULL;
	}
	fault_io_clear(&fio);
}

/* --- what is done to it while it is open --- */

static void finish_all(struct op *o, unsigned n)
{
	for (unsigned left = n, i = 0; left; i++) {
		FUZZ_ASSERT(i < 100000); /* it hangs */
		turns(1);
		left = 0;
		for (unsigned k = 0; k < n; k++)
			left += !o[k].done;
	}
	for (unsigned k = 0; k < n; k++) {
		FUZZ_ASSERT(o[k].done == 1);
		bulk_rows[FAILED].n += o[k].err != 0;
	}
	bulk_rows[REQUESTS].n += n;
}

static uint64_t somewhere(uint64_t size)
{
	uint64_t sectors = size / 512;

	switch (bulk_rnd(8)) {
	case 0:
		return (sectors - 1 - bulk_rnd(sectors < 64 ? (uint32_t)sectors : 64)) * 512;
	case 1:
		return bulk_any() % sectors * 512;
	default:
		return bulk_rnd(sectors < 512 ? (uint32_t)sectors : 512) * 512ull;
	}
}

static void requests(bool writable)
{
	static const enum td_op ops[] = {TD_READ,  TD_READ,  TD_READ,    TD_WRITE,
					 TD_WRITE, TD_FLUSH, TD_DISCARD, TD_WRITE_ZEROES};
	struct op o[TOGETHER];
	unsigned n = 0;

	for (unsigned i = 4 + bulk_rnd(8); i; i--) {
		uint64_t size = leaf->info.size & ~511ull, off, len;
		enum td_op what = writable ? ops[bulk_rnd(8)] : TD_READ;

		if (!size)
			return;
		off = somewhere(size);
		len = (1 + bulk_rnd(LENGTH / 512)) * 512ull;
		if (what == TD_DISCARD && !leaf->info.discard)
			what = TD_FLUSH;
		if (what >= TD_DISCARD)
			len <<= bulk_rnd(6);
		if (len > size - off)
			len = size - off;
		if (what == TD_FLUSH)
			off = len = 0;
		start(&o[n], what, what <= TD_WRITE ? mem + n * LENGTH : NULL, off, len,
		      what == TD_WRITE && bulk_one_in(8) ? TD_FUA : 0);
		n++;
		if (n == TOGETHER || bulk_one_in(3)) {
			finish_all(o, n);
			n = 0;
		}
	}
	finish_all(o, n);
}

static void look(void *arg)
{
	struct td_extent e[16];
	uint64_t size = leaf->info.size & ~511ull;

	for (int i = 0; i < 2 && size; i++) {
		uint64_t off = somewhere(size), at = off;
		int n = td_extents(leaf, off, size - off, e, 16);

		FUZZ_ASSERT(n >= 1 && n <= 16);
		for (int k = 0; k < n; at += e[k++].len)
			FUZZ_ASSERT(e[k].off == at && e[k].len && e[k].len <= size - at);
	}
}

static void grow(void *arg)
{
	struct td_err why = {0};
	uint64_t size = (leaf->info.size & ~511ull) + 512ull * (1 + bulk_rnd(4096));
	int rc = leaf->driver->grow(leaf, size, &why);

	FUZZ_ASSERT(rc ? why.code == -rc && why.text[0] : leaf->info.size >= size);
}

static void use(void)
{
	bool writable = bulk_rnd(4), bad = bulk_one_in(4);
	struct td_how how = {.flags = (bulk_rnd(2) ? TD_FILE_DIRECT : 0) |
				      (writable ? 0 : TD_FILE_RDONLY),
			     .key = made->key.len ? &made->key : NULL,
			     .data = made->data,
			     .trusted = bulk_rnd(2)};
	char spec[64];
	int rc;

	if (bad && bulk_one_in(4)) /* while it is opened, too */
		fault_io_rule(&fio, 1 + bulk_rnd(8), -EIO);
	snprintf(spec, sizeof spec, "%s:%s", made->type, made->image.name);
	rc = open_how(spec, how);
	if (rc) {
		FUZZ_ASSERT(err.code == -rc && err.text[0]);
		if (bulk_verbose)
			fprintf(stderr, "%s: %s\n", made->what, err.text);
		return;
	}
	bulk_rows[OPENED].n++;
	bulk_rows[KINDS + (made - made_all)].n++;
	bulk_rows[READ_ONLY].n += !writable;
	bulk_rows[ON_BAD_STORE].n += bad;
	fault_io_clear(&fio);
	for (int i = 0; bad && i < 3; i++)
		fault_io_rule(&fio, 1 + bulk_rnd(64), bulk_rnd(2) ? -EIO : -ENOSPC);
	if (writable && leaf->driver->grow && bulk_one_in(16))
		on_fiber(loop, grow, NULL);
	requests(writable);
	on_fiber(loop, look, NULL);
	close_leaf();
}

/* --- and while it is not --- */

static void check_it(void *arg)
{
	struct qcow_check c = {.fix_leaks = bulk_rnd(2), .fix_errors = bulk_one_in(4)}, again = {0};
	struct td_err why = {0};
	int rc = qcow_image_check(made->image.name, &c, fio.io, &why);

	FUZZ_ASSERT(!rc || (why.code == -rc && why.text[0]));
	bulk_rows[CHECKED].n++;
	if (!rc && c.fix_errors && !c.corruptions) {
		rc = qcow_image_check(made->image.name, &again, fio.io, &why);
		FUZZ_ASSERT(!rc && !again.corruptions && !again.leaks);
	}
	bulk_rows[MENDED].n += c.corruptions_fixed || c.leaks_fixed;
}

static void resize_it(void *arg)
{
	struct td_err why = {0};
	const struct td_key *key = made->key.len ? &made->key : NULL;
	int rc = bulk_rnd(2) ? qcow_image_resize(made->image.name, 512ull * (1 + bulk_rnd(4096)),
						 bulk_rnd(2), key, fio.io, &why)
			     : qcow_image_commit(made->image.name, bulk_rnd(2), key, NULL, NULL,
						 fio.io, &why);

	FUZZ_ASSERT(!rc || (why.code == -rc && why.text[0]));
	bulk_rows[RESIZED].n += !rc;
}

static int each_extent(void *data, const struct qcow_extent *e)
{
	uint64_t *at = data;

	if (e) {
		FUZZ_ASSERT(e->off == *at && e->len);
		*at += e->len;
	}
	return *at > 64ull << 30 ? -EINTR : 0;
}

static void map_it(void *arg)
{
	struct td_err why = {0};
	struct qcow_info info = {0};
	uint64_t at = 0;

	if (!qcow_image_info(made->image.name, &info, fio.io, &why) &&
	    info.h.size < 1ull << 30) /* or it takes long */
		qcow_image_map(made->image.name, each_extent, &at,
			       made->key.len ? &made->key : NULL, fio.io, &why);
	free(info.snapshots);
}

static void offline(void)
{
	fault_io_clear(&fio);
	if (bulk_one_in(4))
		on_fiber(loop, check_it, NULL);
	if (bulk_one_in(8))
		on_fiber(loop, resize_it, NULL);
	if (bulk_one_in(8))
		on_fiber(loop, map_it, NULL);
}

void bulk_round(void)
{
	srand(bulk_rnd(UINT32_MAX)); /* the store's order */
	for (int i = 0; i < IMAGES; i++) {
		made = &made_all[bulk_rnd(nmade)];
		put_parents();
		put_image();
		bulk_rows[DONE].n++;
		use();
		if (made->offline)
			offline();
		if (made->offline && bulk_one_in(16))
			use(); /* what was mended or resized */
		store_empty();
	}
}

void bulk_start(void)
{
	begin();
	fio.grows = fio.lazy = true;
	fio.reorder = true;
	fio.most = MOST;
	nmade = made_make(&fio, loop);
	for (unsigned i = 0; i < nmade; i++)
		bulk_rows[KINDS + i].what = made_all[i].what;
	store_empty();
}
