/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The process: its queue 0 and its disks. */
#ifndef TAPDISK_SERVER_H
#define TAPDISK_SERVER_H

#include "tapdisk/vbd/vbd.h"

struct server {
	struct queue queue;
	struct td_list disks; /* vbd.link, in order of minor */
	struct td_list moved; /* those that another process has by now: not to be found any more */
	bool giving_up;       /* the disks, as their maker has died: nothing is begun any more */
	bool moving;   /* they are being handed over (tapdisk/ctl/handover.h): no disk may come */
	bool had_disk; /* the last one's detach ends the process */
	void (*changed)(struct vbd *v); /* told to those who watch */
};

extern struct server server;

void server_init(struct ev_loop *loop);
void server_run(void); /* until the last disk is detached, or a signal asks for the end and no guest
			  is connected */

/* Ends the process when no disk has been attached within that time: who started it has died. */
void server_orphan(int seconds);
/*
 * fd (taken over): a socket to a tap-ctl that makes a disk in several steps.  If it hangs up before
 * it has sent {"op": "release"}, it was killed at one of them and nobody knows of this process: its
 * disks are closed, their markers removed, and it ends.
 */
void server_leash(int fd);

struct vbd *server_find(int minor); /* NULL */

/* What writes a marker is on a fiber: another process may be changing the minor's files, and is
 * waited for while this one serves.
 *
 * EEXIST: it is here already; EBUSY: another tapdisk has it; ENOENT: not allocated. */
int server_attach(int minor, struct td_err *err);
/* EBUSY: open.  keeper: the process that frees the minor next, whose pid the marker bears until
 * then; 0: none, and the marker is empty. *last: it was the last one, the process ends soon. */
int server_detach(int minor, pid_t keeper, bool *last, struct td_err *err);

/* A disk that another process hands over, with its marker (taken over).  It is not found before
 * server_adopted(). */
int server_adopt(int minor, int marker, struct vbd **out, struct td_err *err);
void server_adopted(struct vbd *v);
int server_mark(const struct vbd *v); /* likewise: our pid into its marker; 0 or -errno */
/* It has been handed over. */
void server_moved(struct vbd *v);
/* All disks have moved: this process is found no more, except by those connected to it, and the
 * names of its sockets become links to the new owner's. */
void server_leave_notes(void);
void server_end(void); /* soon: time for the last answer to be read */

#endif
