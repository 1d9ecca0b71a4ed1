/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One disk of one guest, between toolstack, guest and tapdisk; the diagram is in device.c.
 */
#ifndef TD_CONTROL_DEVICE_H
#define TD_CONTROL_DEVICE_H

#include "control/tapback/backend.h"
#include "control/tapback/devices.h"
#include "control/tapback/revive.h"
#include "control/tapback/tapdisk-call.h"
#include "control/tapback/watchdog.h"

#define DEVICE_DEATHS   5  /* tapdisks that may die */
#define DEVICE_DEATHS_S 60 /* within so many seconds, before the disk is given up */

#define DEVICE_CYCLES 20 /* times that a frontend may start again at once; after them, */
#define DEVICE_CYCLE  1. /* s for each */

enum phase { DEV_NEW, DEV_WAIT, DEV_CONNECTED, DEV_CLOSING, DEV_CLOSED };

#define DEVICE_MAGIC 0x74646465u

struct device {
	unsigned magic;             /* DEVICE_MAGIC from device_new to device_free */
	struct td_list link, dirty; /* devices.h's lists */
	struct devices *m;
	unsigned domid, devid;
	char dir[96];   /* backend/<name>/<domid>/<devid> */
	char *frontend; /* its path, watched; NULL: not yet known */
	enum phase phase;
	bool libxl;         /* the toolstack's order */
	bool refused;       /* the directory makes no sense: nothing but its removal helps */
	bool ring;          /* the tapdisk has the guest's ring, or may have it */
	bool verified;      /* ... and has said so to this daemon */
	bool again;         /* a connect was refused as busy, and is tried once more */
	bool disconnecting; /* the ring is to go, whatever the guest says */
	pid_t pid;          /* the tapdisk; 0: none yet */
	int minor;
	struct backend b;             /* as of the last look */
	struct tapdisk_call *call;    /* the one question that is open */
	struct tapdisk_call *watch;   /* events, and the tapdisk's death */
	double watched_at;            /* td_clock_s() */
	struct revive *revive;        /* a successor for a dead tapdisk is being made */
	bool take_over;               /* it is there, and is to get the ring */
	double deaths[DEVICE_DEATHS]; /* td_clock_s() of the last ones, in a circle */
	unsigned ndeaths;
	double held_until; /* td_clock_s() of the next try for a successor; 0: none is waited for */
	json_t *info;      /* the tapdisk's answer, while connecting */
	long long sectors; /* as published; -1: unknown */
	json_t *limits;    /* key: value, as last said to the tapdisk; NULL: not looked at yet */
	json_t *limits_said; /* they are being said; or NULL */
	char said[96];       /* tapdisk-state as last written */
	struct watchdog watchdog;
	ev_timer retry;            /* a tapdisk that hangs is asked again */
	ev_timer pace;             /* a frontend that has closed may start again */
	double paced;              /* td_clock_s() at which all its starts so far are paid for */
	struct td_log_limit limit; /* the guest can cause most lines */
};

struct device *device_new(struct devices *m, unsigned domid, unsigned devid);
void device_free(struct device *d);
void device_look(struct device *d); /* may free it */

/*
 * Each of these files calls only those behind it:
 *   device.c, tapdisk-link.c, tapdisk-death.c, device-limit.c, device-fail.c, watchdog.c,
 *   device-node.c
 */

/* device-node.c */
void device_mark(struct device *d); /* to be looked at before the loop sleeps */
/* A directory that the toolstack has taken away is never written into: that would make it again. */
void device_write(struct device *d, const char *key, const char *value); /* NULL removes the key */
void device_state(struct device *d, int state);
/* the error node and `tapdisk-error'; NULL removes them */
void device_error(struct device *d, const char *why);
/* How the tapdisk sees its disk, or is seen itself, in a word; reason may be NULL.  Into the log
 * and xenstore when it is another. */
void device_say(struct device *d, const char *now, const char *reason);

/* The hotplug script's remove, and whoever starts after us, find the successor in the directory. */
void device_note_successor(struct device *d);
#define DEVICE_RETRY_S 1.0 /* after a tapdisk did not answer, or could not let go of a ring */
void device_again_in(struct device *d, double seconds); /* to be looked at anew */

/* device-limit.c: the disk is connected for the first time; it is forgotten; says what has changed,
 * maybe as the one question that is open */
void device_limits_begin(struct device *d);
void device_limits_forget(struct device *d);
void device_limits_look(struct device *d);

/* device-fail.c */
/* the error, and Closing; there is no ring (any more) */
void device_fail(struct device *d, const char *why);

/* tapdisk-death.c: a guest waits for the answers of a tapdisk that has died */
void death_bury(struct device *d, const char *text);

/* tapdisk-link.c: the conversation with the tapdisk.  Each leads to another look. */
void link_connect(struct device *d); /* asks for the disk's properties and connects; of a ring that
					is there: takes it over */
void link_disconnect(struct device *d);

#endif
