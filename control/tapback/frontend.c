/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/frontend.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/tapback/backend.h"

#define MAX_PORT (1u << 17) /* event channels of a domain with the FIFO ABI */

int frontend_state(struct store *s, const char *path)
{
	int64_t state = store_read_number(s, path, "state", 8);

	return state == -2 ? XB_UNKNOWN : (int)state;
}

/* A number that has to be there. */
static int need(struct store *s, const char *path, const char *key, uint64_t min, uint64_t max,
		uint32_t *out, struct td_err *err)
{
	int64_t v = store_read_number(s, path, key, max);

	if (v == -1)
		return td_fail(err, EINVAL, "the frontend has not written %s", key);
	if (v < (int64_t)min)
		return td_fail(err, EINVAL, "the frontend's %s is not a number from %llu to %llu",
			       key, (unsigned long long)min, (unsigned long long)max);
	*out = (uint32_t)v;
	return 0;
}

/* A ring's keys: below `queue-N' of a frontend that has several, else in its own directory. */
static void name_key(char *key, size_t size, const struct frontend *f, unsigned queue,
		     const char *name)
{
	if (f->queues > 1)
		snprintf(key, size, "queue-%u/%s", queue, name);
	else
		snprintf(key, size, "%s", name);
}

static bool ref_given(const struct frontend *f, unsigned queue, unsigned page)
{
	for (unsigned q = 0; q <= queue; q++)
		for (unsigned i = 0; i < (q < queue ? f->pages : page); i++)
			if (f->ring[q].refs[i] == f->ring[queue].refs[page])
				return true;
	return false;
}

static int read_refs(struct store *s, const char *path, struct frontend *f, unsigned queue,
		     struct td_err *err)
{
	char name[24], key[48];

	for (unsigned i = 0; i < f->pages; i++) {
		snprintf(name, sizeof name, "ring-ref%u", i);
		name_key(key, sizeof key, f, queue, "ring-ref");
		/* a ring of one page has its reference under either name */
		if (f->pages != 1 || store_read_number(s, path, key, UINT32_MAX) == -1)
			name_key(key, sizeof key, f, queue, name);
		if (need(s, path, key, 1, UINT32_MAX, &f->ring[queue].refs[i], err))
			return -err->code;
		if (ref_given(f, queue, i))
			return td_fail(err, EINVAL,
				       "the frontend gave grant %u for two pages of its rings",
				       f->ring[queue].refs[i]);
	}
	return 0;
}

static int read_port(struct store *s, const char *path, struct frontend *f, unsigned queue,
		     struct td_err *err)
{
	char key[48];

	name_key(key, sizeof key, f, queue, "event-channel");
	if (need(s, path, key, 1, MAX_PORT, &f->ring[queue].port, err))
		return -err->code;
	for (unsigned q = 0; q < queue; q++)
		if (f->ring[q].port == f->ring[queue].port)
			return td_fail(err, EINVAL,
				       "the frontend gave event channel %u for two rings",
				       f->ring[queue].port);
	return 0;
}

static int read_abi(struct store *s, const char *path, struct frontend *f, struct td_err *err)
{
	static const struct {
		const char *protocol, *abi;
	} known[] = {
		{"x86_64-abi", "x86_64"},
		{"x86_32-abi", "x86_32"},
		{"arm-abi", "native"},
	};
	char *v = store_read(s, path, "protocol");

	f->abi = v ? NULL : "native";
	for (unsigned i = 0; v && i < sizeof known / sizeof *known; i++)
		if (!strcmp(v, known[i].protocol))
			f->abi = known[i].abi;
	if (!f->abi)
		td_fail(err, EINVAL,
			"the frontend's protocol '%.40s' is not one of x86_64-abi, x86_32-abi", v);
	free(v);
	return f->abi ? 0 : -EINVAL;
}

int frontend_read(struct store *s, const char *path, unsigned max_queues, struct frontend *f,
		  struct td_err *err)
{
	int64_t order = store_read_number(s, path, "ring-page-order", FRONTEND_MAX_ORDER);
	int64_t queues = store_read_number(s, path, "multi-queue-num-queues", max_queues);

	memset(f, 0, sizeof *f);
	if (order == -2)
		return td_fail(err, EINVAL,
			       "the frontend's ring-page-order is not a number from 0 to %d",
			       FRONTEND_MAX_ORDER);
	if (queues == -2 || !queues)
		return td_fail(err, EINVAL,
			       "the frontend's multi-queue-num-queues is not a number from 1 to "
			       "%u, which were offered",
			       max_queues);
	f->pages = order < 0 ? 1 : 1u << order;
	f->queues = queues < 0 ? 1 : (unsigned)queues;
	f->persistent = store_read_is(s, path, "feature-persistent", "1");
	for (unsigned q = 0; q < f->queues; q++)
		if (read_refs(s, path, f, q, err) || read_port(s, path, f, q, err))
			return -err->code;
	return read_abi(s, path, f, err);
}
