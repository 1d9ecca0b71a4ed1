/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/fiber/call.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"

/* An engine that gets nothing but calls.  NULL: this thread may block. */
static _Thread_local struct td_io *callers;

int td_calls_start(struct ev_loop *loop, struct td_err *err)
{
	return td_io_new(loop, "threads", false, &callers, err);
}

void td_calls_stop(void)
{
	td_io_free(callers);
	callers = NULL;
}

long td_call(long (*fn)(void *arg), void *arg)
{
	return callers && td_fiber_self() ? td_await_call(callers, fn, arg) : fn(arg);
}

struct file_name {
	const char *path;
	int flags;
	mode_t mode;
};

static long open_run(void *arg)
{
	const struct file_name *f = arg;
	int fd = open(f->path, f->flags, f->mode);

	return fd < 0 ? -errno : fd;
}

static long unlink_run(void *arg)
{
	return unlink(arg) < 0 ? -errno : 0;
}

int td_call_open(const char *path, int flags, mode_t mode)
{
	return (int)td_call(open_run, &(struct file_name){path, flags, mode});
}

int td_call_unlink(const char *path)
{
	return (int)td_call(unlink_run, (void *)path);
}
