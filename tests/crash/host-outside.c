/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What surrounds the linked programs: memory of a library, and the part of tap-ctl that is not
 * here. */
#include "tests/crash/host-inside.h"

#include <errno.h>
#include <stdlib.h>

#include "control/tap-ctl/tap-ctl.h"

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

/* What tap-ctl's markers and logs of changes (tap-ctl-minor.c, tap-ctl-settle.c) ask for beyond
 * that: another tapdisk, which the lab makes by itself, and somewhere to print. */
int tc_spawn(pid_t *pid, int *leash, struct td_err *err)
{
	return td_fail(err, ENOSYS, "the lab starts no tapdisk for tap-ctl");
}

void tc_reap(pid_t pid, int grace_ms)
{
}

int tc_record_open(int minor, int seconds, int *fd, json_t **record, struct td_err *err)
{
	return td_fail(err, ENOSYS, "the lab does not settle by tap-ctl");
}

int tc_put_line(const char *text, struct td_err *err)
{
	return 0;
}
