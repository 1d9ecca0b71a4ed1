/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk whose server goes away and comes back, having lost what was volatile; for tests of K8 to
 * K15 in drivers/nbd/nbd.h. */
#ifndef TESTS_NBD_AWAY_H
#define TESTS_NBD_AWAY_H

#include "tests/support/nbd-drive.h"
#include "tests/support/suite.h"

#define BIG (4u << 20)

static bool far; /* the server is one of TCP */

static inline void open_disk(int reconnect, unsigned flags)
{
	snprintf(spec, sizeof spec, "%s", flaky.path);
	open_spec(reconnect, flags);
	UNTIL(!client()->more.working);
	flaky_forget();
}

static inline void begin_with(int reconnect, unsigned flags)
{
	prepare(far);
	open_disk(reconnect, flags);
}

static inline void begin(void)
{
	begin_with(-1, 0);
}

static inline int do_read(uint64_t off)
{
	struct op *o = submit(2, TD_READ, 0, off, 512, 0xee);
	int result = finish(o);

	return result < 0 ? result : (uint8_t)o->mem[0];
}

static inline bool back(void)
{
	return client()->phase == NBD_RUNS && !client()->since && !client()->more.working;
}

static inline void restart(void)
{
	flaky_down();
	UNTIL(image->away || client()->lost);
	flaky_up();
}

static inline uint32_t failed(void)
{
	return client()->left->failed;
}

#endif
