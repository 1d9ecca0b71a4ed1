/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's two xenstore directories, and its hotplug script: the toolstack's side, step by step as
 * libxl does it.
 */
#ifndef TD_CONTROL_TOOLSTACK_H
#define TD_CONTROL_TOOLSTACK_H

#include "control/store.h"
#include "control/attach/xl-disk.h"

struct xs_disk {
	unsigned domid;
	uint32_t devid;
	char back[96];  /* backend/<type>/<domid>/<devid>, relative */
	char front[96]; /* /local/domain/<domid>/device/vbd/<devid> */
	const char *type, *script;
};

void xs_disk_init(struct xs_disk *v, const char *type, const char *script, unsigned domid,
		  uint32_t devid);

/* Makes both, in one transaction.  -EEXIST when the guest has a device of that number. */
int xs_disk_make(struct store *s, const struct xs_disk *v, const struct xl_disk *d,
		 struct td_err *err);
/* Removes both, and the error node; 0 also when they are not there. */
int xs_disk_remove(struct store *s, const struct xs_disk *v, struct td_err *err);
/* online=0 and backend state 5, in one transaction. */
int xs_disk_ask_to_close(struct store *s, const struct xs_disk *v, struct td_err *err);

/*
 * Waits until the backend's state is in the set (bit 1 << state; bit 0: there is none).  Its state,
 * or -ETIMEDOUT.
 */
int xs_disk_wait(struct store *s, const struct xs_disk *v, unsigned states, double seconds);

/* Runs "script add" or "script remove" as libxl does, for at most 40 s.  On failure the text is its
 * hotplug-error. */
int xs_disk_script(struct store *s, const struct xs_disk *v, const char *what, struct td_err *err);

#endif
