/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How many stacks of fibers are mapped, the kept ones among them: each begins where its guard ends.
 * Other mappings come and go, some of the same size: a sanitizer's runtime makes them as it
 * likes. */
#ifndef TESTS_STACKS_H
#define TESTS_STACKS_H

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "lib/fiber/fiber.h"

static inline unsigned stacks(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end, guarded = 0;
	char line[512], rights[5];
	unsigned n = 0;

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3) {
			n += start == guarded && end - start == TD_FIBER_STACK;
			guarded =
				end - start == TD_FIBER_GUARD && !strcmp(rights, "---p") ? end : 0;
		}
	fclose(maps);
	return n;
}

#endif
