/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What scan finds, before it is looked at. */
#ifndef CONTROL_VHD_UTIL_SCAN_H
#define CONTROL_VHD_UTIL_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "td/log.h"

struct vu_target {
	char *name;      /* a file's path, or a volume's name */
	char *device;    /* of a volume: the device that its first bytes are on; else NULL */
	uint64_t start;  /* bytes: where on it */
	uint64_t length; /* bytes: how many of them are the volume's and in one piece there */
	uint64_t size;   /* bytes of the file or volume */
};

struct vu_targets {
	struct vu_target *t;
	size_t n, room;
};

/* A zeroed one is added, its name copied; NULL: no memory. */
struct vu_target *vu_target_add(struct vu_targets *all, const char *name);
void vu_targets_free(struct vu_targets *all);

/* vhd-util-lvm.c: the volumes of a group, by LVM's own tools, whether they are active or not. */
int vu_lvm_volumes(const char *vg, struct vu_targets *all, struct td_err *err);
/* The volume in a device mapper's name, /dev/mapper/GROUP-VOLUME with each dash in them doubled; in
 * place; false: it is none. */
bool vu_lvm_volume_of(char *path);

#endif
