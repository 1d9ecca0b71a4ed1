/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The libraries of Ceph's clients.  They are not linked, because that would cost each tapdisk 21
 * MiB, whatever its disk is: they are opened by the first disk that is in a cluster, and stay.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include "drivers/rbd/rbd.h"

const struct rbdc_lib *rbdc_lib;

static struct rbdc_lib lib;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *open_library(const char *file, const char *package, struct td_err *err)
{
	void *l = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	const char *why = l ? NULL : dlerror();

	if (!l)
		td_fail(err, ELIBACC,
			"a disk of the type rbd needs Ceph's %s, which cannot be opened (%s): "
			"install it (Debian: %s; RPM: %.*s)",
			file, why ? why : "no reason given", package, (int)sizeof "librbd1" - 1,
			package);
	return l;
}

static bool find_function(void *l, const char *name, void **to, struct td_err *err)
{
	*to = dlsym(l, name);
	if (!*to)
		td_fail(err, ELIBBAD,
			"Ceph's library has no %s: a disk of the type rbd needs Ceph 16 or later",
			name);
	return *to;
}

static bool fill(struct td_err *err)
{
	void *rados = open_library("librados.so.2", "librados2", err),
	     *rbd = rados ? open_library("librbd.so.1", "librbd1", err) : NULL;

	if (!rbd)
		return false;
#define FIND_RADOS(name)                                                                           \
	if (!find_function(rados, #name, (void **)&lib.name, err))                                 \
		return false;
#define FIND_RBD(name)                                                                             \
	if (!find_function(rbd, #name, (void **)&lib.name, err))                                   \
		return false;
	RBDC_RADOS(FIND_RADOS)
	RBDC_RBD(FIND_RBD)
	return true;
}

const struct rbdc_lib *rbdc_lib_open(struct td_err *err)
{
	pthread_mutex_lock(&lock);
	if (!rbdc_lib && fill(err))
		rbdc_lib = &lib;
	pthread_mutex_unlock(&lock);
	return rbdc_lib;
}
