/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"
#include "tests/crash/process.h"

/* What an operation carries while it runs: its place in the log, in the engine's own part of it. */
static void set_logged(struct td_iop *op, size_t i)
{
	op->cb.align = i;
}

static bool durable(const struct td_iop *op)
{
	return (op->flags & TD_IO_DSYNC) && !(op->file->flags & TD_FILE_NOSYNC);
}

static void sim_queue(struct td_io *io, struct td_iop *op)
{
	struct sim *s = io->priv;

	if (s->given)
		s->given(op);
	td_list_add(&s->queued, &op->link);
}

/* NULL when it is nothing but zeroes. */
static unsigned char *gather(const struct td_iop *op, uint64_t len)
{
	unsigned char *data = malloc(len + 1), *p = data;

	if (!data)
		abort();
	for (int i = op->first; i < op->iovcnt; i++) {
		memcpy(p, op->iov[i].iov_base, op->iov[i].iov_len);
		p += op->iov[i].iov_len;
	}
	if (len && (data[0] || memcmp(data, data + 1, len - 1)))
		return data;
	free(data);
	return NULL;
}

/* Writes down that an operation has gone to the disk: from now on it may be there after a cut. */
static void log_begin(struct sim *s, struct td_iop *op)
{
	static const int kinds[] = {
		[TD_IO_READ] = -1,        [TD_IO_WRITE] = FOP_WRITE, [TD_IO_SYNC] = FOP_SYNC,
		[TD_IO_PUNCH] = FOP_ZERO, [TD_IO_ZERO] = FOP_ZERO,   [TD_IO_DISCARD] = FOP_DISCARD,
		[TD_IO_CALL] = -1};
	struct fop f;

	set_logged(op, SIZE_MAX);
	if (!s->log || kinds[op->op] < 0)
		return;
	f = (struct fop){.kind = (enum fop_kind)kinds[op->op],
			 .file = (unsigned)op->file->fd,
			 .off = op->off + op->moved,
			 .len = op->len - op->moved,
			 .begin = (*s->clock)++};
	if (op->op == TD_IO_SYNC)
		f.off = f.len = 0;
	else
		f.dsync = durable(op);
	if (op->op == TD_IO_WRITE)
		f.data = gather(op, f.len);
	set_logged(op, flog_begin(s->log, f));
}

static void happens(struct sim *s, const char *what)
{
	if (s->event)
		s->event(what);
}

static void sim_commit(struct td_io *io)
{
	struct sim *s = io->priv;
	struct td_list *l;
	int was;

	io->n.commits++;
	while (!td_list_empty(&s->queued)) {
		happens(s, "an operation goes to the disk");
		l = td_list_pop(&s->queued);
		was = process_lab();
		log_begin(s, td_entry(l, struct td_iop, link));
		process_back(was);
		td_list_add(&s->running, l);
		s->nrunning++;
	}
}

static bool misaligned(const struct sim *s, const struct td_iop *op)
{
	if (!(op->file->flags & TD_FILE_DIRECT) || (op->op != TD_IO_READ && op->op != TD_IO_WRITE))
		return false;
	if (op->op == TD_IO_READ && op->off + op->moved >= s->file[op->file->fd].now.size)
		return false; /* at the end of a file the kernel looks at nothing else */
	if ((op->off + op->moved) % s->off_align)
		return true;
	for (int i = op->first; i < op->iovcnt; i++)
		if (op->iov[i].iov_len % s->off_align || (uintptr_t)op->iov[i].iov_base % 512)
			return true;
	return false;
}

/* Moves the first `len' bytes; what a read finds is less at the end of the file. */
static long transfer(struct sim_file *f, struct td_iop *op, uint64_t len)
{
	uint64_t off = op->off + op->moved, done = 0;

	if (f->blockdev && op->op == TD_IO_WRITE && off + len > f->now.size)
		return -ENOSPC;
	if (op->op == TD_IO_READ)
		len = off >= f->now.size ? 0 : len < f->now.size - off ? len : f->now.size - off;
	for (int i = op->first; i < op->iovcnt && done < len; i++) {
		uint64_t n = op->iov[i].iov_len < len - done ? op->iov[i].iov_len : len - done;

		if (op->op == TD_IO_READ)
			pages_read(&f->now, off + done, op->iov[i].iov_base, (size_t)n);
		else
			pages_write(&f->now, off + done, op->iov[i].iov_base, (size_t)n);
		done += n;
	}
	return (long)done;
}

/* A discard may clear, or leave what is there. */
static long discard(struct sim *s, struct sim_file *f, struct td_iop *op)
{
	if (rng_chance(&s->rng, 50))
		pages_zero(&f->now, op->off, op->len);
	return 0;
}

static long perform(struct sim *s, struct td_iop *op, uint64_t len)
{
	struct sim_file *f = &s->file[op->file->fd];

	switch (op->op) {
	case TD_IO_READ:
	case TD_IO_WRITE:
		return misaligned(s, op) ? -EINVAL : transfer(f, op, len);
	case TD_IO_PUNCH:
	case TD_IO_ZERO:
		if (f->blockdev && (op->off | op->len) % s->off_align)
			return -EINVAL;
		pages_zero(&f->now, op->off, op->len);
		return 0;
	case TD_IO_DISCARD:
		return discard(s, f, op);
	default:
		return 0;
	}
}

static bool is_due(struct sim *s, uint32_t n)
{
	bool due = n >= s->fault.k && n < s->fault.k + s->fault.times;

	s->nfired += due;
	return due;
}

/* What is to happen to this call: 0, -errno, or 1 for a short transfer. */
static int fault_of(struct sim *s, const struct td_iop *op)
{
	bool read = op->op == TD_IO_READ, write = op->op == TD_IO_WRITE,
	     sync = op->op == TD_IO_SYNC;
	bool space = s->fault.kind == SIM_ENOSPC || s->fault.kind == SIM_RECORD;

	if (space && s->fills && s->fills != (unsigned)op->file->fd + 1)
		return 0;
	s->ncalls++;
	s->nreads += read;
	s->nwrites += write;
	s->nsyncs += sync || (write && durable(op));
	switch (s->fault.kind) {
	case SIM_EIO:
		return is_due(s, s->ncalls) ? -EIO : 0;
	case SIM_ESTALE:
		return is_due(s, s->ncalls) ? -ESTALE : 0;
	case SIM_ENOSPC:
	case SIM_RECORD:
		return write && is_due(s, s->nwrites) ? -ENOSPC : 0;
	case SIM_EINTR:
		return is_due(s, s->ncalls) ? -EINTR : 0;
	case SIM_EAGAIN:
		return is_due(s, s->ncalls) ? -EAGAIN : 0;
	case SIM_SHORT_READ:
		return read && is_due(s, s->nreads) ? 1 : 0;
	case SIM_SHORT_WRITE:
		return write && is_due(s, s->nwrites) ? 1 : 0;
	case SIM_SYNC:
		return (sync || (write && durable(op))) && is_due(s, s->nsyncs) ? -EIO : 0;
	default:
		return 0;
	}
}

/* A part of `len' bytes that may have been moved before it stopped. */
static uint64_t part(struct sim *s, const struct td_iop *op, uint64_t len)
{
	uint64_t unit = op->file->flags & TD_FILE_DIRECT ? s->off_align : SECTOR;

	return len > unit ? rng_below(&s->rng, len / unit) * unit : 0;
}

/* Is it tried again, and the guest none the wiser?  A sync is not: what it should have made durable
 * is lost, and that is said once. */
static bool is_hidden(const struct td_iop *op, long res)
{
	return (res == -EINTR || res == -EAGAIN) && op->op != TD_IO_SYNC &&
	       !(op->op == TD_IO_WRITE && durable(op));
}

static void log_end(struct sim *s, const struct td_iop *op, long res)
{
	if (op->op == TD_IO_CALL || op->cb.align == SIZE_MAX)
		return;
	s->log->op[op->cb.align].transient = is_hidden(op, res);
	flog_end(s->log, op->cb.align, (*s->clock)++, res);
}

/* A write that fails may have reached the disk in part: that part is an operation of its own in the
 * log. */
static void fail_write(struct sim *s, struct td_iop *op, long res)
{
	uint64_t len = rng_chance(&s->rng, 50) ? part(s, op, op->len - op->moved) : 0;

	if (res == -EINTR || res == -EAGAIN || !len || misaligned(s, op) ||
	    transfer(&s->file[op->file->fd], op, len) < 0)
		len = 0;
	if (op->cb.align == SIZE_MAX)
		return;
	s->log->op[op->cb.align].write_back = s->fault.kind == SIM_SYNC;
	if (len) {
		s->log->op[op->cb.align].dsync = false;
		log_end(s, op, (long)len);
	} else {
		log_end(s, op, res);
	}
}

/* What the disk makes of an operation. */
static long outcome(struct sim *s, struct td_iop *op)
{
	uint64_t len = op->len - op->moved, moved;
	int fault = fault_of(s, op);
	long res;

	if (fault < 0) {
		bool ours = (unsigned)op->file->fd + 1 != s->spared;

		s->hard |= ours && !is_hidden(op, fault) && fault != -ENOSPC;
		s->sync_failed |=
			ours && (op->op == TD_IO_SYNC || (op->op == TD_IO_WRITE && durable(op)));
		if (op->op == TD_IO_WRITE)
			fail_write(s, op, fault);
		else
			log_end(s, op, fault);
		return fault;
	}
	if (fault && (moved = part(s, op, len))) /* of 0 bytes it would be the end of the file */
		len = moved;
	res = perform(s, op, len);
	log_end(s, op, res);
	return res;
}

static void complete(struct sim *s, struct td_iop *op)
{
	long res;
	int was;

	if (op->op == TD_IO_CALL) {
		td_iop_result(op, op->call(op));
		return;
	}
	was = process_lab();
	res = outcome(s, op);
	process_back(was);
	td_iop_result(op, res);
}

void sim_death(struct sim *s, unsigned who, bool working)
{
	struct td_list *l;

	for (unsigned i = 0; i < s->nfiles; i++) {
		s->file[i].openers[who] = 0;
		s->file[i].written[who] = s->file[i].beneath[who] = false;
		s->file[i].claimed[who] = false;
	}
	if (!working)
		return;
	td_list_init(&s->queued);
	while ((l = td_list_pop(&s->running))) {
		struct td_iop *op = td_entry(l, struct td_iop, link);

		if (op->op == TD_IO_CALL)
			continue;
		if (rng_chance(&s->rng, 50)) {
			log_end(s, op, perform(s, op, op->len - op->moved));
			continue;
		}
		log_end(s, op, -ECANCELED);
		if (op->cb.align != SIZE_MAX)
			s->log->op[op->cb.align].transient = true; /* it has not been looked at */
	}
	s->nrunning = 0;
}

bool sim_no_record(struct sim *s)
{
	if (s->fault.kind != SIM_RECORD || s->nrecords == s->fault.times)
		return false;
	s->nrecords++;
	s->nfired++;
	return true;
}

bool sim_no_space(const struct sim *s)
{
	return s->nfired && (s->fault.kind == SIM_ENOSPC || s->fault.kind == SIM_TRUNCATE_SPACE);
}

bool sim_step(struct sim *s)
{
	uint64_t i = rng_below(&s->rng, s->nrunning);

	td_list_each (l, &s->running)
		if (i-- == 0) {
			td_list_del(l);
			s->nrunning--;
			complete(s, td_entry(l, struct td_iop, link));
			return true;
		}
	return false;
}

/* --- the second half of the table: at once --- */

/* A call that fails as it is: it has done nothing. */
static bool call_fails(struct sim *s, enum sim_fault_kind kind, uint32_t nth)
{
	if (s->fault.kind != kind || !is_due(s, nth))
		return false;
	s->hard |= kind == SIM_SIZE || kind == SIM_TRUNCATE;
	return true;
}

static bool in_use(const struct sim_file *f, bool reader)
{
	for (unsigned i = 0; i < SIM_PROCESSES; i++)
		if (f->written[i] || (f->openers[i] && !reader))
			return true;
	return false;
}

/* Claimed (td/io.h: TD_FILE_CLAIM) by another process. */
static bool is_claimed(const struct sim_file *f, unsigned who)
{
	for (unsigned i = 0; i < SIM_PROCESSES; i++)
		if (f->claimed[i] && i != who)
			return true;
	return false;
}

/* By a writer, or by another process that writes past those who have it as a parent. */
static bool in_use_beneath(const struct sim_file *f, unsigned who)
{
	for (unsigned i = 0; i < SIM_PROCESSES; i++)
		if (f->written[i] || (f->beneath[i] && i != who))
			return true;
	return false;
}

static int sim_open(struct td_io *io, const char *path, unsigned flags, int *fd, struct td_stat *st,
		    struct td_err *err)
{
	struct sim *s = io->priv;
	bool reader = flags & (TD_FILE_RDONLY | TD_FILE_PARENT);
	bool owner = flags & (TD_FILE_CLAIM | TD_FILE_LOOK | TD_FILE_BENEATH);

	if (call_fails(s, SIM_OPEN, ++s->nopens))
		return td_fail(err, EIO, "cannot open %s: made to fail", path);
	for (unsigned i = 0; i < s->nfiles; i++) {
		struct sim_file *f = &s->file[i];

		if (strcmp(f->name, path))
			continue;
		if (!(flags & TD_FILE_SHARED) &&
		    (flags & TD_FILE_BENEATH ? in_use_beneath(f, s->who) : in_use(f, reader)))
			return td_fail(err, EBUSY, "%s is in use", path);
		if (!(flags & TD_FILE_SHARED) && !owner && is_claimed(f, s->who))
			return td_fail(err, EBUSY, "%s is being written as a parent", path);
		*st = (struct td_stat){.size = f->now.size,
				       .blockdev = f->blockdev,
				       .mem_align = 1,
				       .off_align = 1,
				       .logical = f->blockdev ? s->off_align : 1,
				       .physical = 4096,
				       .discard_gran = 4096};
		if (flags & TD_FILE_DIRECT) {
			st->mem_align = 512;
			st->off_align = s->off_align;
		}
		f->openers[s->who]++;
		f->written[s->who] |= !reader && !(flags & TD_FILE_BENEATH);
		f->beneath[s->who] |= flags & TD_FILE_BENEATH;
		f->claimed[s->who] |= flags & TD_FILE_CLAIM && flags & TD_FILE_BENEATH;
		*fd = (int)i;
		if (s->opened && !reader && !(flags & TD_FILE_BENEATH))
			s->opened(i);
		return 0;
	}
	return td_fail(err, ENOENT, "cannot open %s: %s", path, strerror(ENOENT));
}

static void sim_close(struct td_io *io, int fd)
{
	struct sim *s = io->priv;
	struct sim_file *f = &s->file[fd];

	assert(f->openers[s->who]);
	if (!--f->openers[s->who])
		f->written[s->who] = f->beneath[s->who] = f->claimed[s->who] = false;
}

static int sim_size(struct td_io *io, int fd, uint64_t *size)
{
	struct sim *s = io->priv;

	if (call_fails(s, SIM_SIZE, ++s->nsizes))
		return -EIO;
	*size = ((struct sim *)io->priv)->file[fd].now.size;
	return 0;
}

static int sim_truncate(struct td_io *io, int fd, uint64_t size)
{
	struct sim *s = io->priv;
	int was;

	if (s->file[fd].blockdev)
		return -EINVAL;
	happens(s, "a file is cut or made longer");
	s->ntruncates++;
	if (call_fails(s, SIM_TRUNCATE, s->ntruncates))
		return -EIO;
	if (call_fails(s, SIM_TRUNCATE_SPACE, s->ntruncates))
		return -ENOSPC;
	was = process_lab();
	if (s->log) {
		size_t i = flog_begin(s->log, (struct fop){.kind = FOP_TRUNC,
							   .file = (unsigned)fd,
							   .off = size,
							   .begin = (*s->clock)++});

		flog_end(s->log, i, (*s->clock)++, 0);
	}
	pages_resize(&s->file[fd].now, size);
	process_back(was);
	return 0;
}

static const struct td_io_ops ops = {
	.name = "simulated",
	.queue = sim_queue,
	.commit = sim_commit,
	.ahead = sim_commit,
	.merges = true,
	.open = sim_open,
	.close = sim_close,
	.size = sim_size,
	.truncate = sim_truncate,
};

void sim_init(struct sim *s, struct ev_loop *loop, uint32_t *clock, struct flog *log, uint64_t seed)
{
	memset(s, 0, sizeof *s);
	s->off_align = 512;
	s->clock = clock;
	s->log = log;
	s->rng = rng_seed(seed, 'd');
	td_list_init(&s->queued);
	td_list_init(&s->running);
	s->io = loop ? sim_engine(s, loop) : NULL;
}

struct td_io *sim_engine(struct sim *s, struct ev_loop *loop)
{
	struct td_io *io;

	if (td_io_new_ops(loop, &ops, s, &io) < 0)
		abort();
	return io;
}

void sim_free(struct sim *s)
{
	assert(!s->nrunning && td_list_empty(&s->queued));
	if (s->io)
		td_io_free(s->io);
	for (unsigned i = 0; i < s->nfiles; i++)
		pages_free(&s->file[i].now);
}

void sim_add(struct sim *s, const char *name, const struct pages *of, bool blockdev)
{
	struct sim_file *f = &s->file[s->nfiles++];

	assert(s->nfiles <= SIM_FILES && strlen(name) < sizeof f->name);
	strcpy(f->name, name);
	pages_borrow(&f->now, of);
	f->blockdev = blockdev;
}
