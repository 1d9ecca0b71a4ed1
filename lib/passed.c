/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/passed.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "td/list.h"

struct passed {
	struct td_list link;
	int fd;
	char note[TD_PASSED_NOTE];
	char name[];
};

static struct td_list all = TD_LIST_INIT(all); /* the oldest first */
static unsigned number;

static struct passed *find_socket(const char *name)
{
	td_list_each (l, &all)
		if (!strcmp(td_entry(l, struct passed, link)->name, name))
			return td_entry(l, struct passed, link);
	return NULL;
}

static void forget_socket(struct passed *p)
{
	td_list_del(&p->link);
	number--;
	free(p);
}

int td_passed_keep(const char *name, int fd, const void *note, size_t len)
{
	size_t n = strlen(name);
	struct passed *p, *old;

	assert(len <= TD_PASSED_NOTE);
	p = n && n <= TD_PASSED_NAME ? calloc(1, sizeof *p + n + 1) : NULL;
	if (!p) {
		close(fd);
		return n && n <= TD_PASSED_NAME ? -ENOMEM : -EINVAL;
	}
	p->fd = fd;
	if (len)
		memcpy(p->note, note, len);
	memcpy(p->name, name, n + 1);
	old = find_socket(name);
	if (!old && number == TD_PASSED_MAX)
		old = td_entry(all.next, struct passed, link);
	if (old) {
		close(old->fd);
		forget_socket(old);
	}
	td_list_add(&all, &p->link);
	number++;
	return 0;
}

int td_passed_take(const char *name, void *note, size_t len)
{
	struct passed *p = find_socket(name);
	int fd = p ? p->fd : -ENOENT;

	assert(len <= TD_PASSED_NOTE);
	if (len)
		memset(note, 0, len);
	if (p && len)
		memcpy(note, p->note, len);
	if (p)
		forget_socket(p);
	return fd;
}

void td_passed_close_all(void)
{
	td_list_each_safe (l, tmp, &all) {
		struct passed *p = td_entry(l, struct passed, link);

		close(p->fd);
		forget_socket(p);
	}
}
