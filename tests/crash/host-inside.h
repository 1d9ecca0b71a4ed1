/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the simulated host know of each other.
 *
 *   host.c          a run: events in their order, what is promised, and the end
 *   host-process.c  tapdisks' lives, step by step
 *   host-guest.c    requests and answers, and what they are held to
 *   host-disk.c     the operations of a tapdisk on its disk
 *   host-changed.c   its log of changed blocks
 *   host-commit.c   a live commit;  host-mirror.c: its mirror
 *   host-joined.c   a secondary that is a part of it
 *   host-tool.c     the toolstack;  host-move.c: its upgrades;  host-grow.c:
 *                   a larger image
 *   host-outside.c  what surrounds the linked programs
 *
 * H is all there is of a run; it is the lab's own (process.h).
 */
#ifndef CRASH_HOST_INSIDE_H
#define CRASH_HOST_INSIDE_H

#include <stdio.h>

#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"
#include "tests/crash/host.h"
#include "tests/crash/process.h"
#include "tests/crash/ring.h"

#define DIRECT_MAX 32
#define NOBODY     (-1)

/* A request by NBD: past the rings, straight into the cache layer. */
struct direct {
	struct td_req req;
	struct iovec iov;
	unsigned char *mem;
	size_t gop;
	bool busy;
	int owner; /* whose client */
};

/* What a process has. */
struct life {
	struct ev_loop *loop;
	struct queue home;
	struct vbd *v;
	bool idle; /* a step found nothing to do */
};

struct host {
	struct host_run *r;
	const struct history *h;
	struct sim sim;
	struct ring *ring[HISTORY_RINGS];
	struct direct direct[DIRECT_MAX];
	struct life *life[PROCESSES];
	int serving, giver; /* processes, or NOBODY: who has the disk, and who has given it to that
			       one on trial */
	int minor;
	bool open, paused; /* as the toolstack knows it */
	bool between;      /* it died in an operation: paused or not, nobody knows */
	bool dead;         /* somebody had it open, and died; nobody has taken it over */
	bool lost;         /* for good: it was refused, for a reason */
	bool tampered;
	bool logged; /* its changes are */
	bool gone;   /* it was closed with an error, or when a sync had failed, and what its format
			had in memory with it */
	unsigned spec; /* the file that is open, and the one that was asked for */
	struct vbd_options opt;
	struct vbd_past past;
	struct rng rng;
	unsigned outstanding;
	unsigned die_in;    /* 0: it lives on */
	uint32_t failed_at; /* a flush failed: no write or flush that comes after may succeed */
	unsigned nfaults;
	bool unsafe; /* since unsafe_from */
	uint32_t unsafe_from;

	/* the operation on a fiber */
	bool busy, working, starting;
	const struct event *ev;
	struct vbd_options want;
	unsigned want_spec;
	int rc;
	struct td_err err;
	double began;
};

extern struct host H;

/* --- host-process.c */
void host_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void host_blame(const char *rule, const char *text);
uint32_t host_tick(void);
void host_happens(const char *what);
int host_new_process(void);
void host_drop_clients(int of);
void host_kill_it(void);
bool host_step(void);
void host_let(unsigned n);
void host_call(void (*fn)(void *arg), void *arg);
bool host_alive(void);
bool host_wait_for(bool (*done)(void), const char *what);
bool host_op_done(void);
bool host_at_rest(void);
bool host_drained(void);
void host_begin(void (*fn)(struct vbd *v));
bool host_perform(void (*fn)(struct vbd *v), const char *what);

/* --- host-guest.c */
struct ring *host_the_ring(unsigned i);
void host_submit_direct(enum gop_kind kind, unsigned flags, uint64_t sector, uint32_t n);
void host_guest_event(const struct event *e);
void host_verify(void);

/* --- host-disk.c */
void host_note_mode(const struct td_cache_mode *mode, const struct vbd *open);
void host_do_open(struct vbd *none);
void host_do_revive(struct vbd *none);
void host_do_pause(struct vbd *v);
void host_do_unpause(struct vbd *v);
void host_do_close(struct vbd *v);
void host_do_give(struct vbd *v);
void host_do_adopt(struct vbd *none);
void host_do_take_back(struct vbd *v);
void host_do_taken(struct vbd *v);
void host_do_grow(struct vbd *v);

/* --- host-changed.c */
void host_changed_begin(void); /* before the disk is opened */
void host_changed_answered(const struct gop *op);

/* --- host-commit.c */
void host_commit_begin(void);            /* before the disk is opened */
void host_commit_spec(const char *spec); /* what the disk stands on, as somebody has told */
void host_commit_look(void);             /* has one left its disk paused? */
void host_commit(const struct event *e);
void host_query(bool cancel);

/* --- host-mirror.c */
void host_mirror_begin(void); /* before the disk is opened */
void host_mirror_copy(void);
void host_mirror_unpause(const struct event *e);
void host_mirror_answered(size_t gop);
void host_mirror_revived(const struct vbd *v);
void host_mirror_end(void);

/* --- host-joined.c */
void host_joined_begin(void); /* before the disk is opened */
void host_joined_end(void);   /* says whether its leaf was full */

/* --- host-tool.c */
bool host_excused(void);
void host_refused(const char *what);
void host_open_first(void);
void host_list(void); /* tap-ctl list, while no other disk is there */
void host_create(unsigned mode);
void host_revive(bool check);
void host_other(const struct event *e);
void host_tamper(bool gone);
void host_unpause(const struct event *e);
void host_pause_it(void);
void host_reopen(unsigned mode);

/* --- host-grow.c */
void host_grow(void);
void host_grow_paused(void); /* the image is closed */

/* --- host-move.c */
void host_upgrade(void);
void host_look_at_trial(void);
void host_end_trial(const struct event *e);

#endif
