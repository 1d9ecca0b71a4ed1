/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk as xl's configuration writes it (xl-disk-configuration(5)), and a few keys of ours.  Pure:
 * reads text, touches nothing.
 *
 *   /srv/a.img, raw, xvda, rw          by position: target, format, vdev, access
 *   format=vhd, vdev=xvdb, target=/x   by name, in any order; target= last, as it takes all that
 *                                      follows, commas too
 *   raw:/srv/a.img,xvda,w              the old way: a format in front of the target; vdev and
 *                                      access follow
 *
 * Ours: shared=yes (or access w!), polling-duration=US, polling-idle-threshold=PERCENT, and the
 * words that block-tap(7) hands to the tapdisk, which judges their values: cache=MODE, unsafe=yes,
 * on-enospc=pause|report, sector-size=512|4096, two-primaries=yes, parents-cache=yes,
 * request-timeout=S, reconnect-limit=S, connections=N, limit=none, limit-iops=N and the other
 * limits.
 */
#ifndef TD_CONTROL_XL_DISK_H
#define TD_CONTROL_XL_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "td/log.h"

struct xl_disk {
	char *target;   /* a path; never NULL, and "" only for a CD drive without a medium */
	char *format;   /* "raw", "vhd", "qcow2", ... */
	char *vdev;     /* as written: "xvda" */
	uint32_t devid; /* its number in xenstore */
	bool read_only, shared, cdrom, removable;
	bool discard; /* true unless no-discard */
	bool direct_io_safe;
	char *words; /* for the tapdisk: "cache=none:limit-iops=100:"; NULL: none */
	char *polling_duration, *polling_idle; /* microseconds, percent; NULL: not given */
};

/* 0 or -EINVAL with text (-ENOMEM).  xl_disk_free takes one of a failed parse, too. */
int xl_disk_parse(const char *text, struct xl_disk *d, struct td_err *err);
void xl_disk_free(struct xl_disk *d);

/* The number of a virtual device: xvda, xvda1, d0p1, hda, sda, or the number itself.  False when it
 * is none. */
bool xl_vdev_number(const char *vdev, uint32_t *devid);
/* The other way, for people: xvda for 51712; "?" and the number for what has no such name. */
void xl_vdev_name(uint32_t devid, char name[24]);

#endif
