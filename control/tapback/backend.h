/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the toolstack wrote into a disk's backend directory, read in one go.  It is the toolstack's
 * word: trusted, but checked.
 */
#ifndef TD_CONTROL_BACKEND_H
#define TD_CONTROL_BACKEND_H

#include <stdbool.h>
#include <sys/types.h>

#include "control/store.h"

/* the states that both ends write */
enum xenbus {
	XB_MISSING = -1,
	XB_UNKNOWN = 0,
	XB_INITIALISING = 1,
	XB_INITWAIT = 2,
	XB_INITIALISED = 3,
	XB_CONNECTED = 4,
	XB_CLOSING = 5,
	XB_CLOSED = 6,
};

enum shutdown { SHUTDOWN_NONE, SHUTDOWN_NORMAL, SHUTDOWN_FORCE };

struct backend {
	bool exists;
	int state;               /* enum xenbus */
	int64_t frontend_id;     /* -1 absent, -2 nonsense */
	bool online;             /* absent counts as yes */
	bool script;             /* the toolstack names a hotplug script: libxl's order */
	bool hotplugged;         /* hotplug-status=connected */
	bool read_only, discard; /* mode, discard-enable */
	bool cdrom, removable;
	bool direct_io_safe; /* the store keeps no page of a request that it has answered */
	int64_t polling_us, polling_idle; /* polling-duration and polling-idle-threshold; below 0:
					     absent, or nonsense */
	enum shutdown shutdown;           /* xenopsd's shutdown-request */
	bool shutdown_done;
	char frontend[STORE_PATH]; /* "" when absent */
	pid_t pid;                 /* of the tapdisk; 0: unknown */
	int minor;
};

/* Reads backend/<type>/<domid>/<devid>.  False when the directory is not there. */
bool backend_read(struct store *s, const char *dir, struct backend *b);

/*
 * The frontend's path must be inside the home of the domain that the backend directory is named
 * after, and stay there. 0 or -EINVAL with text.
 */
int backend_check_frontend(const char *dir, const struct backend *b, unsigned domid,
			   struct td_err *err);

/* "...nbd<pid>.<minor>" */
bool backend_parse_path(const char *path, pid_t *pid, int *minor);

#endif
