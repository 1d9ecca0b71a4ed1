/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What surrounds the linked programs: memory of a library, and the part of tap-ctl that is not
 * here. */
#include "tests/crash/host-inside.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl.h"
#include "lib/ctl-client.h"

/* OpenSSL keeps what it has found out for the whole program: its memory is nobody's who may die. */
int CRYPTO_set_mem_functions(void *(*get)(size_t n, const char *file, int line),
			     void *(*more)(void *p, size_t n, const char *file, int line),
			     void (*put)(void *p, const char *file, int line))
	__attribute__((weak));

static void *crypto_get(size_t n, const char *file, int line)
{
	int was = process_lab();
	void *p = malloc(n);

	process_back(was);
	return p;
}

static void *crypto_more(void *p, size_t n, const char *file, int line)
{
	int was = process_lab();

	p = realloc(p, n);
	process_back(was);
	return p;
}

static void crypto_put(void *p, const char *file, int line)
{
	free(p);
}

void host_init(void)
{
	if (CRYPTO_set_mem_functions)
		CRYPTO_set_mem_functions(crypto_get, crypto_more, crypto_put);
	process_init();
}

/* tap-ctl's, for its markers: does a log of changes hold anything?  (One that is there, where the
 * library cannot tell.) */
int tc_log_waits(int minor);
bool tc_flush_failed(int minor);
int tc_settle(int minor, bool give_up, struct td_err *err);
int td_redo_waits(const char *path) __attribute__((weak));

int tc_log_waits(int minor)
{
	char path[4200];

	if (td_ctl_redo_path(minor, path))
		return 0;
	return td_redo_waits ? td_redo_waits(path) : !access(path, F_OK);
}

int tc_settle(int minor, bool give_up, struct td_err *err)
{
	return td_fail(err, ENOSYS, "the lab does not free a minor");
}

int tc_put_line(const char *text, struct td_err *err)
{
	return 0;
}

/* In the lab a look sweeps also what has failed: its judge has the failure from the trace. */
bool tc_flush_failed(int minor)
{
	return false;
}
