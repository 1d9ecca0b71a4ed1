/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/same-machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The domain that a stub domain works for; any other domain works for itself. */
static unsigned target_of(struct store *s, unsigned domid)
{
	char dir[40];
	int64_t t;

	snprintf(dir, sizeof dir, "/local/domain/%u", domid);
	t = store_read_number(s, dir, "target", 0x7fef);
	return t < 0 ? domid : (unsigned)t;
}

static char *vm_of(struct store *s, unsigned domid)
{
	char dir[40];

	snprintf(dir, sizeof dir, "/local/domain/%u", domid);
	return store_read(s, dir, "vm");
}

bool same_machine(struct store *s, unsigned a, unsigned b)
{
	unsigned ta = target_of(s, a), tb = target_of(s, b);
	char *va, *vb;
	bool same;

	if (a == b)
		return false;
	if (ta == tb)
		return true;
	va = vm_of(s, ta);
	vb = vm_of(s, tb);
	same = va && vb && *va && !strcmp(va, vb);
	free(va);
	free(vb);
	return same;
}
