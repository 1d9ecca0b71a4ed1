/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VHD driver against a plain array of bytes: random reads, writes, zeroes, discards, flushes, reopenings and snapshots, many at once and
 * completed in any order, on a store that insists on alignment.  SEED=n in the environment repeats a run; it is printed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/fiber.h"
#include "tapdisk/chain.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/vhd-make.h"

#define SLOTS   16
#define OP_MAX  (96 * 512)

struct slot {
	struct td_req req;
	struct iovec iov[3];
	uint8_t *buf;
	bool busy;
};

struct world {
	struct vhd_make make;       /* the first image */
	uint64_t size;
	uint32_t off_align;
	int steps, chain_max, reopen; /* reopen: once in so many steps */
};

static struct ev_loop *loop;
static struct fault_io fio;
static struct td_image *leaf;
static struct td_key key;
static uint8_t *model, *unknown; /* unknown: a byte a sector; discarded, so that it may read as it was or as zeroes */
static struct slot slots[SLOTS];
static char names[40][24];
static int depth;
static unsigned seed;

static void open_it(void *arg)
{
	struct td_err err = {0};
	char spec[40];
	struct td_how how = {.flags = *(unsigned *)arg, .key = key.len ? &key : NULL};
	int rc;

	snprintf(spec, sizeof spec, "vhd:%s", names[depth]);
	rc = chain_open(spec, &how, fio.io, &leaf, &err);
	ck_assert_msg(rc == 0, "%s", err.text);
}

static void close_it(void *arg)
{
	chain_close(leaf);
	leaf = NULL;
}

static uint64_t rnd(uint64_t below)
{
	return (((uint64_t)(unsigned)rand() << 31) ^ (unsigned)rand()) % below;
}

static bool overlaps(uint64_t off, uint64_t len)
{
	for (int i = 0; i < SLOTS; i++)
		if (slots[i].busy && slots[i].req.op != TD_FLUSH && off < slots[i].req.off + slots[i].req.len &&
		    slots[i].req.off < off + len)
			return true;
	return false;
}

static void check_read(struct slot *s)
{
	for (uint64_t i = 0; i < s->req.len; i += 512) {
		const uint8_t *got = s->buf + i, *want = model + s->req.off + i;
		static const uint8_t zeroes[512];

		if (!memcmp(got, want, 512) || (unknown[(s->req.off + i) / 512] && !memcmp(got, zeroes, 512)))
			continue;
		ck_abort_msg("seed %u: sector %llu reads as %02x %02x, not %02x %02x", seed, (unsigned long long)(s->req.off + i) / 512,
			     got[0], got[1], want[0], want[1]);
	}
}

static void done(struct td_req *req, int err)
{
	struct slot *s = td_entry(req, struct slot, req);

	ck_assert_msg(err == 0, "seed %u: op %d at %llu: %s", seed, req->op, (unsigned long long)req->off, strerror(-err));
	s->busy = false;
	switch (req->op) {
	case TD_READ:
		check_read(s);
		break;
	case TD_WRITE:
		memcpy(model + req->off, s->buf, req->len);
		memset(unknown + req->off / 512, 0, req->len / 512);
		break;
	case TD_WRITE_ZEROES:
		memset(model + req->off, 0, req->len);
		memset(unknown + req->off / 512, 0, req->len / 512);
		break;
	case TD_DISCARD:
		memset(unknown + req->off / 512, 1, req->len / 512);
		break;
	default:
		break;
	}
}

/* One to three pieces, cut anywhere that a sector allows. */
static void cut(struct slot *s, uint64_t len)
{
	uint64_t a = rnd(len / 512 + 1) * 512, at = 0;

	s->req.iovcnt = 0;
	for (int i = 0; i < 3 && at < len; i++) {
		uint64_t n = i == 0 && a ? a : i == 1 && at + 512 < len ? 512 : len - at;

		s->iov[s->req.iovcnt++] = (struct iovec){s->buf + at, n};
		at += n;
	}
	s->req.iov = s->iov;
}

static void begin(const struct world *w, struct slot *s)
{
	unsigned what = (unsigned)rnd(100);
	uint64_t len = (1 + rnd(rnd(4) ? 16 : OP_MAX / 512)) * 512, off = rnd(w->size / 512) * 512;

	if (!rnd(3)) /* somewhere where something is */
		off %= w->size / 4096 * 512;
	if (len > w->size - off)
		len = w->size - off;
	memset(&s->req, 0, sizeof s->req);
	s->req.op = what < 35 ? TD_READ : what < 80 ? TD_WRITE : what < 86 ? TD_WRITE_ZEROES : what < 92 ? TD_DISCARD : TD_FLUSH;
	s->req.io = fio.io;
	s->req.done = done;
	if (s->req.op != TD_FLUSH) {
		if (overlaps(off, len))
			return;
		s->req.off = off;
		s->req.len = len;
	}
	if (s->req.op != TD_READ && s->req.op != TD_FLUSH && !rnd(8))
		s->req.flags |= TD_FUA;
	if (s->req.op == TD_WRITE_ZEROES && rnd(2))
		s->req.flags |= TD_UNMAP;
	if (s->req.op == TD_READ || s->req.op == TD_WRITE)
		cut(s, len);
	for (uint64_t i = 0; s->req.op == TD_WRITE && i < len; i += 512)
		memset(s->buf + i, 1 + (int)rnd(255), 512);
	s->busy = true;
	td_submit(leaf, &s->req);
}

static void drain(void)
{
	for (int i = 0, n = 1; n; i++) {
		ck_assert_msg(i < 100000, "seed %u: it hangs", seed);
		ev_run(loop, EVRUN_NOWAIT);
		n = 0;
		for (int k = 0; k < SLOTS; k++)
			n += slots[k].busy;
	}
}

static void check_all(const struct world *w)
{
	for (uint64_t off = 0; off < w->size; off += OP_MAX) {
		struct slot *s = slots;

		memset(&s->req, 0, sizeof s->req);
		s->req.io = fio.io;
		s->req.done = done;
		s->req.off = off;
		s->req.len = w->size - off < OP_MAX ? w->size - off : OP_MAX;
		s->iov[0] = (struct iovec){s->buf, s->req.len};
		s->req.iov = s->iov;
		s->req.iovcnt = 1;
		s->busy = true;
		td_submit(leaf, &s->req);
		drain();
	}
}

/* What a closed file must be: as long as its last block and the footer, and the footer as it is at the start. */
static void check_file(const struct world *w)
{
	const struct fault_file *f = &fio.file[depth];

	if (w->make.type == VHD_FIXED)
		return;
	ck_assert_mem_eq(f->data, f->data + f->size - VHD_FOOTER, VHD_FOOTER);
}

static void reopen(const struct world *w, bool snapshot)
{
	static unsigned flags = TD_FILE_DIRECT;

	drain();
	on_fiber(loop, close_it, NULL);
	check_file(w);
	if (snapshot && depth + 1 < w->chain_max) {
		struct vhd_make m = w->make;

		/* what a parent shows of a discarded sector stays what it is */
		m.type = VHD_DIFF;
		m.uuid = (uint8_t)(depth + 2);
		m.parent = names[depth];
		m.parent_uuid = (uint8_t)(depth + 1);
		m.name = names[++depth];
		m.device = 0;
		vhd_make(&fio, &m);
	}
	on_fiber(loop, open_it, &flags);
}

static void run(struct world w)
{
	const char *given = getenv("SEED");
	unsigned flags = TD_FILE_DIRECT;

	seed = given ? (unsigned)atoi(given) : (unsigned)time(NULL) ^ (unsigned)getpid();
	printf("SEED=%u\n", seed);
	srand(seed);
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, w.off_align, 512);
	fio.reorder = true;
	depth = 0;
	for (int i = 0; i < 40; i++)
		snprintf(names[i], sizeof names[i], "/%c%d.vhd", 'a' + i % 26, i);
	w.make.name = names[0];
	w.make.size = w.size;
	w.make.uuid = 1;
	vhd_make(&fio, &w.make);
	model = calloc(1, w.size);
	unknown = calloc(1, w.size / 512);
	for (int i = 0; i < SLOTS; i++)
		slots[i].buf = aligned_alloc(4096, OP_MAX);
	on_fiber(loop, open_it, &flags);
	for (int i = 0; i < w.steps; i++) {
		struct slot *s = &slots[rnd(SLOTS)];

		fio.nlog = 0;
		if (!s->busy)
			begin(&w, s);
		if (!rnd(3))
			ev_run(loop, EVRUN_NOWAIT);
		if (!rnd(w.reopen ? w.reopen : 1000))
			reopen(&w, rnd(2));
	}
	reopen(&w, false);
	check_all(&w);
	on_fiber(loop, close_it, NULL);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	for (int i = 0; i < SLOTS; i++)
		free(slots[i].buf);
	free(model);
	free(unknown);
}

START_TEST(dynamic)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 2 << 20}, .size = 24 << 20, .off_align = 512, .steps = 8000,
			   .chain_max = 1});
}
END_TEST

START_TEST(an_odd_size_in_blocks)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10}, .size = (5 << 20) + 3 * 512, .off_align = 512, .steps = 8000,
			   .chain_max = 1});
}
END_TEST

START_TEST(more_bitmaps_than_there_is_room_for)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 4096}, .size = 64 << 20, .off_align = 512, .steps = 30000,
			   .chain_max = 1});
}
END_TEST

START_TEST(blocks_of_a_sector)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 512}, .size = 2 << 20, .off_align = 512, .steps = 5000,
			   .chain_max = 2});
}
END_TEST

START_TEST(large_bitmaps)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 16 << 20}, .size = 64 << 20, .off_align = 512, .steps = 5000,
			   .chain_max = 2});
}
END_TEST

START_TEST(without_a_batmap)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 32 << 10, .no_batmap = true}, .size = 4 << 20, .off_align = 512,
			   .steps = 8000, .chain_max = 3});
}
END_TEST

START_TEST(a_store_of_4096)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 128 << 10}, .size = 8 << 20, .off_align = 4096, .steps = 8000,
			   .chain_max = 3});
}
END_TEST

START_TEST(chains_of_snapshots)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10}, .size = 8 << 20, .off_align = 512, .steps = 30000,
			   .chain_max = 33, .reopen = 400});
}
END_TEST

START_TEST(fixed)
{
	run((struct world){.make = {.type = VHD_FIXED}, .size = 4 << 20, .off_align = 512, .steps = 5000, .chain_max = 1});
}
END_TEST

START_TEST(snapshots_of_a_fixed_disk)
{
	run((struct world){.make = {.type = VHD_FIXED, .block_size = 64 << 10}, .size = 4 << 20, .off_align = 512, .steps = 8000, .chain_max = 4});
}
END_TEST

START_TEST(a_block_device)
{
	run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10, .device = 16 << 20}, .size = 8 << 20, .off_align = 512,
			   .steps = 10000, .chain_max = 1});
}
END_TEST

START_TEST(encrypted)
{
	for (key.len = 32; key.len <= 64; key.len += 32) {
		for (unsigned i = 0; i < key.len; i++)
			key.bytes[i] = (uint8_t)(i * 7 + 1);
		run((struct world){.make = {.type = VHD_DYNAMIC, .block_size = 64 << 10, .key = (char *)key.bytes, .key_len = key.len},
				   .size = 4 << 20, .off_align = 512, .steps = 5000, .chain_max = 3});
	}
	key.len = 0;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd against a model");

	SUITE_ADD(s, dynamic);
	SUITE_ADD(s, an_odd_size_in_blocks);
	SUITE_ADD(s, more_bitmaps_than_there_is_room_for);
	SUITE_ADD(s, blocks_of_a_sector);
	SUITE_ADD(s, large_bitmaps);
	SUITE_ADD(s, without_a_batmap);
	SUITE_ADD(s, a_store_of_4096);
	SUITE_ADD(s, chains_of_snapshots);
	SUITE_ADD(s, fixed);
	SUITE_ADD(s, snapshots_of_a_fixed_disk);
	SUITE_ADD(s, a_block_device);
	SUITE_ADD(s, encrypted);
	return suite_run(s);
}
