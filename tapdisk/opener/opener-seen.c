/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parents that were granted: known by their file, so that no other one takes their place. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tapdisk/opener/opener-inside.h"

enum { SEEN_MAX = 256 };

static struct object {
	struct stat st;
	char *path; /* as it was asked for */
} seen[SEEN_MAX];
static unsigned seens;
static pthread_mutex_t seeing = PTHREAD_MUTEX_INITIALIZER;

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_rdev == b->st_rdev;
}

bool seen_has(const struct stat *st)
{
	bool has = false;

	pthread_mutex_lock(&seeing);
	for (unsigned i = 0; i < seens && i < SEEN_MAX && !has; i++)
		has = is_same(&seen[i].st, st);
	pthread_mutex_unlock(&seeing);
	return has;
}

void seen_add(int fd, const char *path)
{
	struct stat st;
	struct object *o;

	if (fstat(fd, &st) < 0 || seen_has(&st))
		return;
	pthread_mutex_lock(&seeing);
	o = &seen[seens++ % SEEN_MAX];
	free(o->path);
	*o = (struct object){st, strdup(path)};
	pthread_mutex_unlock(&seeing);
}

bool seen_is_path(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && seen_has(&st);
}

bool seen_any(bool (*fn)(const struct stat *st, const char *path, void *arg), void *arg)
{
	bool is = false;

	pthread_mutex_lock(&seeing);
	for (unsigned i = 0; i < seens && i < SEEN_MAX && !is; i++)
		is = fn(&seen[i].st, seen[i].path ? seen[i].path : "", arg);
	pthread_mutex_unlock(&seeing);
	return is;
}
