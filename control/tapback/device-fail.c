/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device is given up: its ring is gone, and its directory says why. */
#include "control/tapback/device.h"

#include <assert.h>

void device_fail(struct device *d, const char *why)
{
	assert(d->magic == DEVICE_MAGIC);
	watchdog_drop(d);
	td_log_limited(&d->limit, LOG_ERR, "%s: %s", d->dir, why);
	tapdisk_call_drop(d->watch);
	d->watch = NULL;
	d->ring = d->verified = d->disconnecting = d->take_over = false;
	device_error(d, why);
	if (d->b.state < XB_CLOSING)
		device_state(d, XB_CLOSING);
	d->phase = DEV_CLOSING;
	device_mark(d);
}
