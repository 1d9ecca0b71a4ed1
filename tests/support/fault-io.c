/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/fault-io.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"

static struct fault_file *file_of(struct fault_io *f, int fd)
{
	assert(fd >= 0 && fd < FAULT_FILES && f->file[fd].data);
	return &f->file[fd];
}

/* What the kernel answers with EINVAL is a bug here: whoever queues must have aligned it. */
static void assert_aligned(struct fault_io *f, const struct td_iop *op)
{
	uint64_t size = file_of(f, op->file->fd)->size;

	if (!(op->file->flags & TD_FILE_DIRECT) || (op->op != TD_IO_READ && op->op != TD_IO_WRITE))
		return;
	if (op->op == TD_IO_READ && op->off + op->moved >= size)
		return; /* at the end of the file the kernel looks at nothing else */
	assert((op->off + op->moved) % f->off_align == 0);
	for (int i = op->first; i < op->iovcnt; i++) {
		assert(op->iov[i].iov_len % f->off_align == 0);
		assert((uintptr_t)op->iov[i].iov_base % f->mem_align == 0);
	}
}

static void queue(struct td_io *io, struct td_iop *op)
{
	struct fault_io *f = io->priv;

	if (op->op != TD_IO_CALL)
		assert_aligned(f, op);
	td_list_add(&f->queued, &op->link);
}

static void record(struct fault_io *f, const struct td_iop *op)
{
	if (op->op == TD_IO_CALL || f->nlog == FAULT_LOG)
		return;
	f->log_file[f->nlog] = (uint8_t)op->file->fd;
	f->log[f->nlog++] =
		(struct fault_record){op->op, op->flags, op->off + op->moved, op->len - op->moved};
}

static void commit(struct td_io *io)
{
	struct fault_io *f = io->priv;
	struct td_list *l;

	f->ncommits++;
	io->n.commits++;
	while ((l = td_list_pop(&f->queued))) {
		record(f, td_entry(l, struct td_iop, link));
		td_list_add(&f->running, l);
		f->nrunning++;
	}
	if (!ev_is_pending(&f->finish))
		ev_feed_event(io->loop, &f->finish, EV_CUSTOM);
}

/* Bytes of data that are there. */
static uint64_t held(const struct fault_io *f, const struct fault_file *file)
{
	return f->lazy ? file->held : file->size;
}

/* Lazy: so many are to be there. */
static int hold(struct fault_file *file, uint64_t size)
{
	unsigned char *p;

	if (size <= file->held)
		return 0;
	if (size > file->room) {
		p = realloc(file->data, size + size / 2);
		if (!p)
			return -ENOMEM;
		file->data = p;
		file->room = size + size / 2;
	}
	memset(file->data + file->held, 0, size - file->held);
	file->held = size;
	return 0;
}

/* Of a read: what is not held is zeroes. */
static void move_out(struct fault_file *file, uint64_t has, void *to, uint64_t off, size_t n)
{
	size_t there = off >= has ? 0 : n < has - off ? n : (size_t)(has - off);

	memcpy(to, file->data + off * (there > 0), there);
	memset((char *)to + there, 0, n - there);
}

/* Moves up to `most' bytes between the operation and its file; what the file has not is not moved.
 */
static long transfer(struct fault_io *f, struct fault_file *file, struct td_iop *op, uint64_t most)
{
	uint64_t off = op->off + op->moved, left = most, moved = 0;

	if (op->op == TD_IO_READ)
		left = off >= file->size ? 0 : left < file->size - off ? left : file->size - off;
	assert(op->op == TD_IO_READ || off + left <= file->size || most == 0);
	if (f->lazy && op->op == TD_IO_WRITE && hold(file, off + left))
		return -ENOSPC;
	for (int i = op->first; i < op->iovcnt && left; i++) {
		size_t n = op->iov[i].iov_len < left ? op->iov[i].iov_len : left;

		if (op->op == TD_IO_READ)
			move_out(file, held(f, file), op->iov[i].iov_base, off + moved, n);
		else
			memcpy(file->data + off + moved, op->iov[i].iov_base, n);
		moved += n;
		left -= n;
	}
	return (long)moved;
}

static int file_truncate(struct td_io *io, int fd, uint64_t size)
{
	struct fault_io *f = io->priv;
	struct fault_file *file = file_of(f, fd);
	unsigned char *p;

	if (f->most && size > f->most)
		return -ENOMEM;
	if (f->lazy) {
		file->held = size < file->held ? size : file->held;
		file->size = size;
		return 0;
	}
	p = realloc(file->data, size ? size : 1);
	if (!p)
		return -ENOMEM;
	if (size > file->size)
		memset(p + file->size, 0, size - file->size);
	file->data = p;
	file->size = size;
	return 0;
}

static long perform(struct fault_io *f, struct td_iop *op)
{
	struct fault_file *file;
	uint64_t most = op->len - op->moved;

	if (op->op == TD_IO_CALL)
		return op->call(op);
	file = file_of(f, op->file->fd);
	f->k++;
	for (unsigned i = 0; i < f->nrules; i++) {
		if (f->rule[i].k != f->k)
			continue;
		if (f->rule[i].res < 0)
			return f->rule[i].res;
		if ((uint64_t)f->rule[i].res < most)
			most = (uint64_t)f->rule[i].res;
	}
	switch (op->op) {
	case TD_IO_WRITE:
		if (f->grows && op->off + op->moved + most > file->size &&
		    file_truncate(op->file->io, op->file->fd, op->off + op->moved + most))
			return -ENOSPC;
		return transfer(f, file, op, most);
	case TD_IO_READ:
		return transfer(f, file, op, most);
	case TD_IO_PUNCH:
	case TD_IO_ZERO:
		if (op->off < held(f, file))
			memset(file->data + op->off, 0,
			       op->len < held(f, file) - op->off ? op->len
								 : held(f, file) - op->off);
		return 0;
	default:
		return 0;
	}
}

static void complete(struct fault_io *f, struct td_list *l)
{
	struct td_iop *op = td_entry(l, struct td_iop, link);

	td_list_del(l);
	f->nrunning--;
	td_iop_result(op, perform(f, op));
}

static struct td_list *at(struct fault_io *f, unsigned i)
{
	td_list_each (l, &f->running)
		if (i-- == 0)
			return l;
	return NULL;
}

static void on_finish(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct fault_io *f = w->data;

	for (unsigned n = f->nrunning, i = 0; n; n--) {
		struct td_list *l = at(f, f->manual    ? i
					  : f->reorder ? (unsigned)rand() % f->nrunning
						       : 0);

		if (f->manual && td_entry(l, struct td_iop, link)->op != TD_IO_CALL)
			i++;
		else
			complete(f, l);
	}
}

static int file_open(struct td_io *io, const char *path, unsigned flags, int *fd,
		     struct td_stat *st, struct td_err *err)
{
	struct fault_io *f = io->priv;

	for (int i = 0; i < FAULT_FILES; i++) {
		if (!f->file[i].data || strcmp(f->file[i].name, path))
			continue;
		*st = (struct td_stat){.size = f->file[i].size,
				       .mem_align = 1,
				       .off_align = 1,
				       .logical = 1,
				       .physical = 4096,
				       .discard_gran = 4096,
				       .blockdev = f->file[i].blockdev};
		if (flags & TD_FILE_DIRECT) {
			st->mem_align = f->mem_align;
			st->off_align = f->off_align;
		}
		*fd = i;
		return 0;
	}
	return td_fail(err, ENOENT, "cannot open %s: %s", path, strerror(ENOENT));
}

static void file_close(struct td_io *io, int fd)
{
}

static int file_size(struct td_io *io, int fd, uint64_t *size)
{
	*size = file_of(io->priv, fd)->size;
	return 0;
}

static const struct td_io_ops ops = {
	.name = "fault",
	.queue = queue,
	.commit = commit,
	.ahead = commit,
	.open = file_open,
	.close = file_close,
	.size = file_size,
	.truncate = file_truncate,
};

static void start(struct fault_io *f, struct ev_loop *loop, uint32_t off_align, uint32_t mem_align,
		  bool merges)
{
	int rc;

	memset(f, 0, sizeof *f);
	f->off_align = off_align;
	f->mem_align = mem_align;
	f->log = calloc(FAULT_LOG, sizeof *f->log);
	assert(f->log);
	td_list_init(&f->queued);
	td_list_init(&f->running);
	ev_init(&f->finish, on_finish);
	f->finish.data = f;
	f->ops = ops;
	f->ops.merges = merges;
	rc = td_io_new_ops(loop, &f->ops, f, &f->io);
	assert(!rc);
}

void fault_io_new(struct fault_io *f, struct ev_loop *loop, uint32_t off_align, uint32_t mem_align)
{
	start(f, loop, off_align, mem_align, false);
}

void fault_io_new_merging(struct fault_io *f, struct ev_loop *loop)
{
	start(f, loop, 1, 1, true);
}

void fault_io_free(struct fault_io *f)
{
	assert(!f->nrunning && td_list_empty(&f->queued));
	ev_clear_pending(f->io->loop, &f->finish);
	td_io_free(f->io);
	for (int i = 0; i < FAULT_FILES; i++)
		free(f->file[i].data);
	free(f->log);
}

struct fault_file *fault_io_file(struct fault_io *f, const char *name, uint64_t size)
{
	for (int i = 0; i < FAULT_FILES; i++)
		if (!f->file[i].data) {
			f->file[i].data = calloc(1, size ? size : 1);
			assert(f->file[i].data && strlen(name) < sizeof f->file[i].name);
			strcpy(f->file[i].name, name);
			f->file[i].size = f->file[i].held = f->file[i].room = size;
			return &f->file[i];
		}
	assert(!"too many files");
	return NULL;
}

void fault_io_rule(struct fault_io *f, uint64_t k, long res)
{
	assert(f->nrules < FAULT_RULES);
	f->rule[f->nrules++] = (struct fault_rule){k, res};
}

void fault_io_clear(struct fault_io *f)
{
	f->nrules = f->nlog = 0;
	f->k = 0;
}

bool fault_io_complete(struct fault_io *f, unsigned i)
{
	struct td_list *l = at(f, i);

	if (l)
		complete(f, l);
	return l;
}
