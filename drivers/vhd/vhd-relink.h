/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Another parent's name, which replaces the old one (RL1-RL4 of vhd-relink-plan.c). */
#ifndef DRIVERS_VHD_RELINK_H
#define DRIVERS_VHD_RELINK_H

#include "drivers/vhd/vhd-format.h"
#include "td/block.h"

struct vhd_relink_name {
	uint64_t off;
	uint32_t len;
	uint8_t *data;
};

/* What is written, each durable before the next: name[0], the first sector of head, the rest. */
struct vhd_relink {
	struct vhd_relink_name name[VHD_LOCATORS];
	unsigned names;
	uint8_t head[VHD_HEADER];
	struct vhd_header header;
};

/* old: the header as the file has it.  -EBUSY with text when the names do not fit. */
int vhd_relink_plan(const uint8_t old[VHD_HEADER], const struct td_relink *to, struct vhd_relink *r,
		    const char *path, struct td_err *err);
void vhd_relink_free(struct vhd_relink *r);

/* The driver's; on a fiber. */
int vhd_relink(struct td_image *image, const struct td_relink *to, struct td_err *err);
void vhd_identify(struct td_image *image, struct td_relink *to); /* td_driver's */
/* vhd-beneath.c; td_driver's */
int vhd_beneath(const char *child, const char *parent, struct td_err *err);

#endif
