/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/frontend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/backend.h"

#define MAX_PORT (1u << 17) /* event channels of a domain with the FIFO ABI */

int frontend_state(struct store *s, const char *path)
{
	int64_t state = store_read_number(s, path, "state", 8);

	return state == -2 ? XB_UNKNOWN : (int)state;
}

/* A number that has to be there. */
static int need(struct store *s, const char *path, const char *key, uint64_t min, uint64_t max, uint32_t *out, struct td_err *err)
{
	int64_t v = store_read_number(s, path, key, max);

	if (v == -1)
		return td_fail(err, EINVAL, "the frontend has not written %s", key);
	if (v < (int64_t)min)
		return td_fail(err, EINVAL, "the frontend's %s is not a number from %llu to %llu", key, (unsigned long long)min,
		               (unsigned long long)max);
	*out = (uint32_t)v;
	return 0;
}

static int read_refs(struct store *s, const char *path, struct frontend *f, struct td_err *err)
{
	char key[24];

	for (unsigned i = 0; i < f->pages; i++) {
		/* a ring of one page has its reference under either name */
		snprintf(key, sizeof key, "ring-ref%u", i);
		if (f->pages == 1 && store_read_number(s, path, "ring-ref", UINT32_MAX) != -1)
			snprintf(key, sizeof key, "ring-ref");
		if (need(s, path, key, 1, UINT32_MAX, &f->refs[i], err))
			return -err->code;
		for (unsigned k = 0; k < i; k++)
			if (f->refs[k] == f->refs[i])
				return td_fail(err, EINVAL, "the frontend gave grant %u for two pages of its ring", f->refs[i]);
	}
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
		td_fail(err, EINVAL, "the frontend's protocol '%.40s' is not one of x86_64-abi, x86_32-abi", v);
	free(v);
	return f->abi ? 0 : -EINVAL;
}

int frontend_read(struct store *s, const char *path, struct frontend *f, struct td_err *err)
{
	int64_t order = store_read_number(s, path, "ring-page-order", FRONTEND_MAX_ORDER);
	int64_t queues = store_read_number(s, path, "multi-queue-num-queues", 1);

	memset(f, 0, sizeof *f);
	if (order == -2)
		return td_fail(err, EINVAL, "the frontend's ring-page-order is not a number from 0 to %d", FRONTEND_MAX_ORDER);
	if (queues == -2 || !queues)
		return td_fail(err, EINVAL, "the frontend wants several queues, which were not offered (multi-queue-num-queues)");
	f->pages = order < 0 ? 1 : 1u << order;
	if (read_refs(s, path, f, err) || need(s, path, "event-channel", 1, MAX_PORT, &f->port, err) || read_abi(s, path, f, err))
		return -err->code;
	return 0;
}
