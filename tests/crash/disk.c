/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/disk.h"

#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

void disk_init(struct disk *d, const struct flog *log, unsigned unit, const struct pages *files,
	       const bool *blockdev, unsigned n)
{
	memset(d, 0, sizeof *d);
	d->log = log;
	d->unit = unit;
	d->nfiles = n;
	for (unsigned i = 0; i < n; i++) {
		pages_borrow(&d->file[i].base, &files[i]);
		d->file[i].blockdev = blockdev[i];
		d->file[i].pending = must(malloc((log->nops + 1) * sizeof *d->file[i].pending));
	}
	d->inflight = must(malloc((log->nops + 1) * sizeof *d->inflight));
}

void disk_free(struct disk *d)
{
	for (unsigned i = 0; i < d->nfiles; i++) {
		pages_free(&d->file[i].base);
		free(d->file[i].pending);
	}
	free(d->inflight);
	memset(d, 0, sizeof *d);
}

static void put_data(struct pages *p, const struct fop *op, uint64_t len)
{
	if (op->data) {
		pages_lend(p, op->off, op->data, (size_t)len);
		return;
	}
	if (op->off + len > p->size)
		pages_resize(p, op->off + len);
	pages_zero(p, op->off, len);
}

/* What a completed operation does to a file as it is. */
static void apply(struct pages *p, const struct fop *op)
{
	switch (op->kind) {
	case FOP_WRITE:
		put_data(p, op, (uint64_t)op->res);
		break;
	case FOP_ZERO:
	case FOP_DISCARD:
		pages_zero(p, op->off, op->len);
		break;
	case FOP_TRUNC:
		pages_resize(p, op->off);
		break;
	case FOP_SYNC:
		break;
	}
}

/* D1: what had completed before is durable now, and the first of it need not be remembered one by
 * one. */
static void sync_ended(struct disk *d, const struct fop *sync)
{
	struct disk_file *f = &d->file[sync->file];
	size_t folded = 0;

	if (sync->res < 0 && sync->transient)
		return;
	for (size_t i = 0; i < f->npending; i++) {
		struct pending *p = &f->pending[i];

		if (d->log->op[p->op].end > sync->begin)
			break;
		if (sync->res < 0)
			p->doubtful |= !p->durable; /* D5 */
		else if (!p->doubtful)
			p->durable = true;
	}
	while (folded < f->npending && f->pending[folded].durable &&
	       d->log->op[f->pending[folded].op].kind != FOP_DISCARD)
		apply(&f->base, &d->log->op[f->pending[folded++].op]);
	f->npending -= folded;
	memmove(f->pending, f->pending + folded, f->npending * sizeof *f->pending);
}

static void op_ended(struct disk *d, uint32_t i)
{
	const struct fop *op = &d->log->op[i];
	struct disk_file *f = &d->file[op->file];

	for (size_t k = 0; k < d->ninflight; k++)
		if (d->inflight[k] == i) {
			memmove(d->inflight + k, d->inflight + k + 1,
				(--d->ninflight - k) * sizeof *d->inflight);
			break;
		}
	if (op->write_back)
		for (size_t k = 0; k < f->npending; k++)
			f->pending[k].doubtful |=
				!f->pending[k].durable &&
				d->log->op[f->pending[k].op].end < op->begin; /* D5 */
	if (op->res < 0 || (op->kind == FOP_WRITE && !op->res))
		return;
	f->pending[f->npending++] = (struct pending){i, op->dsync, false}; /* D2 */
}

void disk_to(struct disk *d, uint32_t at)
{
	for (; d->next < d->log->nevents && d->log->event[d->next].at < at; d->next++) {
		const struct flog_event *e = &d->log->event[d->next];
		const struct fop *op = &d->log->op[e->op];

		if (op->kind == FOP_SYNC) {
			if (e->end)
				sync_ended(d, op);
		} else if (e->end) {
			op_ended(d, e->op);
		} else {
			d->inflight[d->ninflight++] = e->op;
		}
	}
}

/* --- building --- */

static bool survives(struct fate *f, bool *op_fate)
{
	f->ndecided++;
	switch (f->how) {
	case FATE_NONE:
		return false;
	case FATE_ALL:
		return true;
	case FATE_UNITS:
		return rng_chance(&f->rng, f->percent);
	case FATE_OPS:
		return *op_fate;
	case FATE_MASK:
		return f->ndecided <= 64 && (f->mask >> (f->ndecided - 1) & 1);
	}
	return false;
}

/* A file on its way from `base' to what may be left of it. */
struct build {
	const struct disk *d;
	struct fate *fate;
	struct pages *out;
	struct pages now; /* as the programs saw it, up to this operation */
	uint64_t lo, hi;  /* sizes that are possible */
};

/* One unit of an operation has reached the disk: as a whole, with what else is in it. */
static void put_unit(struct build *b, uint64_t from, uint64_t to)
{
	unsigned char buf[PAGE];

	if (pages_hole(&b->now, from) && pages_hole(b->out, from)) {
		if (to > b->out->size)
			pages_resize(b->out, to);
		return;
	}
	pages_read(&b->now, from, buf, (size_t)(to - from));
	pages_write(b->out, from, buf, (size_t)(to - from));
}

static void decide_range(struct build *b, uint64_t off, uint64_t end, bool durable,
			 enum fop_kind kind)
{
	bool op_fate = b->fate->how == FATE_OPS && rng_chance(&b->fate->rng, b->fate->percent);

	for (uint64_t u = off / b->d->unit * b->d->unit; u < end; u += b->d->unit) {
		uint64_t to = u + b->d->unit < b->now.size ? u + b->d->unit : b->now.size;

		if (u >= to || !(durable || survives(b->fate, &op_fate)))
			continue;
		/* what was discarded may be there still, or be anything */
		if (kind == FOP_DISCARD && rng_chance(&b->fate->rng, 50))
			continue;
		put_unit(b, u, to);
	}
}

static void note_size(struct build *b, bool durable)
{
	if (durable) {
		b->lo = b->hi = b->now.size;
		return;
	}
	if (b->now.size < b->lo)
		b->lo = b->now.size;
	if (b->now.size > b->hi)
		b->hi = b->now.size;
}

static void build_op(struct build *b, const struct fop *op, uint64_t len, bool durable)
{
	uint64_t old = b->now.size, off = op->off, end = op->off + len;

	if (op->kind == FOP_TRUNC) {
		pages_resize(&b->now, op->off);
		if (op->off < old) { /* what was beyond reads as zeroes if the file grows again */
			pages_resize(&b->now, old);
			decide_range(b, op->off, old, durable, op->kind);
			pages_resize(&b->now, op->off);
		}
	} else {
		if (op->kind == FOP_WRITE)
			put_data(&b->now, op, len);
		else
			pages_zero(&b->now, off, len);
		decide_range(b, off, end, durable, op->kind);
	}
	note_size(b, durable);
}

static uint64_t pick_size(struct build *b)
{
	uint64_t size = b->fate->how == FATE_NONE ? b->lo : b->hi;

	if (b->lo == b->hi || b->fate->how == FATE_NONE || b->fate->how == FATE_ALL)
		return size;
	switch (rng_below(&b->fate->rng, 3)) {
	case 0:
		return b->lo;
	case 1:
		return b->hi;
	default: /* D4 */
		size = b->lo + rng_below(&b->fate->rng, b->hi - b->lo + 1) / SECTOR * SECTOR;
		return size;
	}
}

static void build_file(const struct disk *d, unsigned i, struct fate *fate, struct pages *out)
{
	const struct disk_file *f = &d->file[i];
	struct build b = {.d = d, .fate = fate, .out = out, .lo = f->base.size, .hi = f->base.size};

	pages_borrow(out, &f->base);
	pages_borrow(&b.now, &f->base);
	for (size_t k = 0; k < f->npending; k++) {
		const struct fop *op = &d->log->op[f->pending[k].op];

		build_op(&b, op, op->kind == FOP_WRITE ? (uint64_t)op->res : op->len,
			 f->pending[k].durable);
	}
	for (size_t k = 0; k < d->ninflight; k++) {
		const struct fop *op = &d->log->op[d->inflight[k]];

		if (op->file == i)
			build_op(&b, op, op->len, false);
	}
	if (f->blockdev)
		pages_resize(out, f->base.size);
	else
		pages_resize(out, pick_size(&b));
	pages_free(&b.now);
}

void disk_build(const struct disk *d, struct fate *fate, struct pages *out)
{
	fate->ndecided = 0;
	for (unsigned i = 0; i < d->nfiles; i++)
		build_file(d, i, fate, &out[i]);
}
