/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/opener/opener-datagram.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
	bool (*isolate)(void), (*restrict_it)(void);
	int isolated;   /* 1, 0; -1: it is not known yet */
	int type, made; /* what is asked for: 0 for nothing; the result */
	bool done;
} maker = {.isolated = -1};

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER, asking = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *make_sockets(void *arg)
{
	bool isolated = maker.isolate();

	if (!maker.restrict_it()) /* with all rights it is not to live */
		_exit(1);
	pthread_mutex_lock(&making);
	maker.isolated = isolated;
	pthread_cond_broadcast(&changed);
	while (isolated) {
		while (!maker.type)
			pthread_cond_wait(&changed, &making);
		maker.made = socket(AF_UNIX, maker.type | SOCK_CLOEXEC, 0);
		if (maker.made < 0)
			maker.made = -errno;
		maker.type = 0;
		maker.done = true;
		pthread_cond_broadcast(&changed);
	}
	pthread_mutex_unlock(&making);
	return arg;
}

bool datagrams_start(bool (*isolate)(void), bool (*restrict_it)(void))
{
	enum { STACK = 64 * 1024 };
	pthread_attr_t attr;
	pthread_t t;
	int rc;

	maker.isolate = isolate;
	maker.restrict_it = restrict_it;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&t, &attr, make_sockets, NULL);
	pthread_attr_destroy(&attr);
	pthread_mutex_lock(&making);
	if (rc)
		maker.isolated = 0;
	while (maker.isolated < 0)
		pthread_cond_wait(&changed, &making);
	pthread_mutex_unlock(&making);
	return maker.isolated;
}

int datagrams_socket(int type)
{
	int fd;

	if (!maker.isolated) {
		fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
		return fd < 0 ? -errno : fd;
	}
	pthread_mutex_lock(&asking);
	pthread_mutex_lock(&making);
	maker.done = false;
	maker.type = type;
	pthread_cond_broadcast(&changed);
	while (!maker.done)
		pthread_cond_wait(&changed, &making);
	fd = maker.made;
	pthread_mutex_unlock(&making);
	pthread_mutex_unlock(&asking);
	return fd;
}
