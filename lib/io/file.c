/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fiber/fiber.h"

struct open_call {
	struct td_io *io;
	struct td_file *f;
	const struct td_reach *reach;
	struct td_err *err;
};

static long open_run(void *arg)
{
	struct open_call *c = arg;

	if (c->reach && c->io->ops->open_in)
		return c->io->ops->open_in(c->io, c->f->path, c->f->flags, c->reach, &c->f->fd,
					   &c->f->st, c->err);
	return c->io->ops->open(c->io, c->f->path, c->f->flags, &c->f->fd, &c->f->st, c->err);
}

static long close_run(void *arg)
{
	struct td_file *f = arg;

	f->io->ops->close(f->io, f->fd);
	return 0;
}

static long size_run(void *arg)
{
	struct td_file *f = arg;
	uint64_t size;
	int rc = f->io->ops->size(f->io, f->fd, &size);

	if (!rc)
		f->st.size = size;
	return rc;
}

struct extents_call {
	struct td_file *f;
	uint64_t off, len;
	struct td_extent *out;
	int max;
};

static long extents_run(void *arg)
{
	struct extents_call *c = arg;

	return c->f->io->ops->extents(c->f->io, c->f->fd, c->off, c->len, c->out, c->max);
}

int td_file_open(struct td_io *io, const char *path, unsigned flags, struct td_file **out,
		 struct td_err *err)
{
	return td_file_open_in(io, path, flags, NULL, out, err);
}

int td_file_open_in(struct td_io *io, const char *path, unsigned flags,
		    const struct td_reach *reach, struct td_file **out, struct td_err *err)
{
	struct td_file *f = calloc(1, sizeof *f);
	struct open_call c = {io, f, reach, err};
	int rc = -ENOMEM;

	if (!f || !(f->path = strdup(path)))
		goto fail;
	f->fd = -1;
	f->flags = flags;
	f->io = io;
	td_list_init(&f->changes);
	rc = (int)td_await_call(io, open_run, &c);
	if (rc < 0)
		goto fail;
	*out = f;
	return 0;
fail:
	if (rc == -ENOMEM)
		td_fail(err, ENOMEM, "cannot open %s: out of memory", path);
	free(f ? f->path : NULL);
	free(f);
	return rc;
}

void td_file_close(struct td_file *f)
{
	if (!f)
		return;
	td_await_call(f->io, close_run, f);
	if (f->over)
		f->over->free(f->over);
	free(f->path);
	free(f);
}

static long is_file_run(void *arg)
{
	struct stat st;

	return !stat(arg, &st) && S_ISREG(st.st_mode);
}

void td_file_cached(const char *path, struct td_io *cached, unsigned *flags, struct td_io **io)
{
	if (!cached || !(*flags & TD_FILE_DIRECT) ||
	    !td_await_call(*io, is_file_run, (void *)(uintptr_t)path))
		return;
	*flags &= ~TD_FILE_DIRECT;
	*io = cached;
}

void td_file_renewed(struct td_file *f)
{
	__atomic_store_n(&f->sync_err, 0, __ATOMIC_RELEASE);
}

int td_file_size(struct td_file *f, uint64_t *size)
{
	int rc = (int)td_await_call(f->io, size_run, f);

	*size = f->st.size;
	return rc;
}

int td_file_extents(struct td_file *f, uint64_t off, uint64_t len, struct td_extent *out, int max)
{
	struct extents_call c = {f, off, len, out, max};

	return f->io->ops->extents ? (int)td_await_call(f->io, extents_run, &c) : -EOPNOTSUPP;
}

struct truncate_call {
	struct td_file *f;
	uint64_t size;
};

static long truncate_run(void *arg)
{
	struct truncate_call *c = arg;

	return c->f->io->ops->truncate(c->f->io, c->f->fd, c->size);
}

int td_file_truncate(struct td_file *f, uint64_t size)
{
	struct truncate_call c = {f, size};
	int rc = (int)td_await_call(f->io, truncate_run, &c);

	if (!rc)
		f->st.size = size;
	return rc;
}

int td_file_rw(struct td_file *f, enum td_io_op what, void *buf, uint64_t off, uint64_t len,
	       unsigned flags)
{
	struct iovec iov = {buf, len};
	struct td_iop op = {.op = what,
			    .flags = flags,
			    .file = f,
			    .off = off,
			    .len = len,
			    .iov = &iov,
			    .iovcnt = 1};

	return td_await_file(f->io, &op);
}
