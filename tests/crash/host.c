/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/host.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl.h"
#include "lib/ctl-client.h"
#include "lib/fiber/fiber.h"
#include "lib/kill.h"
#include "tapdisk/ctl/ctl-ops.h"
#include "tapdisk/vbd/record.h"
#include "tapdisk/vbd/vbd-inside.h"
#include "tests/crash/bitmap-check.h"
#include "tests/crash/clock.h"
#include "tests/crash/image-check.h"
#include "tests/crash/process.h"
#include "tests/crash/ring.h"
#include "tests/crash/stand-in.h"

#define TURN       0.0002 /* s on the lab's clock that a turn of the loop takes */
#define BORED      0.25   /* s that it jumps when nothing can happen before a timer */
#define BORED_MAX  600    /* of these in a row, and it hangs */
#define DIRECT_MAX 32
#define NOBODY     (-1)

LAB uint32_t crash_redo_bytes = 256u << 10; /* TD_REDO_BYTES, here */

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
	bool gone; /* it was closed with an error, or when a sync had failed, and what its format
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

static LAB struct host H = {0};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;

	if (!H.r->verbose)
		return;
	va_start(ap, fmt);
	printf("    [%u] ", H.r->clock);
	vprintf(fmt, ap);
	printf("\n");
	fflush(stdout);
	va_end(ap);
}

static void blame(const char *rule, const char *text)
{
	if (H.r->bad.rule)
		return;
	H.r->bad.rule = rule;
	H.r->bad.sector = 0;
	H.r->bad_at = H.r->clock;
	snprintf(H.r->bad.text, sizeof H.r->bad.text, "%s", text);
}

static uint32_t tick(void)
{
	return H.r->clock++;
}

/* What a successor would be told: is it paused? */
static bool recorded_as_paused(void)
{
	char path[4200];
	json_t *rec;
	bool paused;

	td_ctl_disk_path(H.minor, path);
	rec = json_load_file(path, 0, NULL);
	paused = json_is_true(json_object_get(rec, "paused"));
	json_decref(rec);
	return paused;
}

/* While a disk goes on after a pause: no guest's request is at its image before the record says so.
 */
static void check_record(void)
{
	const struct life *l = H.life[H.serving];

	if (H.starting && l && l->v && l->v->cache.at_image && recorded_as_paused())
		blame("I8", "guests run, and a successor would be paused: the record does not say "
			    "so yet");
}

/* Something is about to happen, in a process; which may die before it. */
static void happens(const char *what)
{
	if (process_current() == H.serving && H.serving != NOBODY && H.starting)
		check_record();
	if (process_current() != H.serving || !H.die_in || --H.die_in)
		return;
	H.r->last = what;
	process_die();
}

#define X(name) #name,
static const char *const instants[] = {TD_KILL_NAMES(X)};
#undef X

void td_kill_at(enum td_kill_point p)
{
	happens(instants[p]);
}

int td_kill_sync(int result)
{
	return result;
}

/* --- the guest
 * ------------------------------------------------------------------------------------------------------------
 */

static void check_order(const struct gop *op, size_t i)
{
	char text[200];

	if (op->status && !H.r->guest.hard_fault && !H.sim.hard) {
		snprintf(text, sizeof text,
			 "request %zu failed (status %d), and nothing had been made to fail that "
			 "cannot be hidden",
			 i + 1, op->status);
		blame("I7", text);
	}
	if (op->kind == GOP_FLUSH && op->status && op->ack < H.failed_at)
		H.failed_at = op->ack;
	if (op->kind != GOP_READ && !op->status && op->issue > H.failed_at) {
		snprintf(text, sizeof text, "request %zu succeeded after a flush had failed",
			 i + 1);
		blame("I7", text);
	}
}

static void answered(size_t i, int status)
{
	const struct td_cache_mode *mode = H.life[process_current()]->v->opt.mode;
	struct gop *op = &H.r->guest.op[i];

	op->ack = tick();
	op->status = status;
	op->flags |= (mode->fua_every_write ? GOP_EACH : 0) | (mode->drop_flush ? GOP_VOID : 0);
	H.outstanding--;
	check_order(op, i);
	say("request %zu is answered: %d", i + 1, status);
}

static void check_read(size_t i, const void *data)
{
	struct verdict v;

	if (H.r->guest.op[i].status || H.r->bad.rule || H.gone)
		return;
	judge_read(&H.r->guest, i, data, &v);
	if (v.rule) {
		H.r->bad = v;
		H.r->bad_at = H.r->clock;
	}
}

static void on_notify(void *arg)
{
	struct ring *ring = arg;
	int was = process_current(), status;
	size_t i;

	happens("the guest is told");
	while (ring_reap(ring, &i, &status)) {
		answered(i, status);
		process_lab();
		if (H.r->guest.op[i].kind == GOP_READ && !status)
			check_read(i, ring_data(ring, i, H.r->guest.op[i].n));
		ring_release(ring, i);
		process_back(was);
	}
}

static void direct_done(struct td_req *req, int err)
{
	struct direct *d = td_entry(req, struct direct, req);
	struct gop *op = &H.r->guest.op[d->gop];
	int was;

	if (err == -EOPNOTSUPP && (op->kind == GOP_DISCARD ||
				   op->kind == GOP_ZERO)) { /* not offered: it has done nothing */
		op->n = 0;
		op->kind = GOP_READ;
		err = 0;
	}
	answered(d->gop, err);
	was = process_lab();
	if (op->kind == GOP_READ && op->n)
		check_read(d->gop, d->mem);
	process_back(was);
	free(d->mem);
	d->mem = NULL;
	d->busy = false;
}

static void fill(unsigned char *buf, size_t gop)
{
	const struct gop *op = &H.r->guest.op[gop];

	for (uint32_t k = 0; k < op->n; k++)
		sector_fill(buf + (size_t)k * SECTOR, H.r->guest.seed, (uint32_t)gop + 1,
			    op->sector + k);
}

static size_t new_gop(enum gop_kind kind, unsigned flags, uint64_t sector, uint32_t n)
{
	size_t i = gtrace_add(&H.r->guest, (struct gop){.kind = kind,
							.flags = flags,
							.sector = sector,
							.n = n,
							.issue = tick(),
							.ack = NEVER});

	H.outstanding++;
	return i;
}

static void direct_go(void *arg)
{
	struct direct *d = arg;

	cache_submit(&H.life[H.serving]->v->cache, &d->req);
}

static void lost_all(void);

static void run(void (*fn)(void *arg), void *arg)
{
	if (!process_run((unsigned)H.serving, fn, arg))
		lost_all();
}

static void submit_direct(enum gop_kind kind, unsigned flags, uint64_t sector, uint32_t n)
{
	static const enum td_op ops[] = {[GOP_READ] = TD_READ,
					 [GOP_WRITE] = TD_WRITE,
					 [GOP_ZERO] = TD_WRITE_ZEROES,
					 [GOP_DISCARD] = TD_DISCARD,
					 [GOP_FLUSH] = TD_FLUSH};
	struct direct *d = NULL;
	size_t len = (size_t)n * SECTOR, i;

	for (unsigned k = 0; k < DIRECT_MAX && !d; k++)
		d = H.direct[k].busy ? NULL : &H.direct[k];
	if (!d)
		return;
	i = new_gop(kind, flags, sector, n);
	*d = (struct direct){.busy = true, .gop = i, .owner = H.serving};
	d->req = (struct td_req){.op = ops[kind],
				 .flags = (flags & GOP_FUA ? TD_FUA : 0) |
					  (flags & GOP_UNMAP ? TD_UNMAP : 0),
				 .off = sector * SECTOR,
				 .len = len,
				 .done = direct_done};
	if (kind == GOP_WRITE || kind == GOP_READ) {
		d->mem = aligned_alloc(4096, (len + 4095) / 4096 * 4096);
		if (kind == GOP_WRITE)
			fill(d->mem, i);
		else
			memset(d->mem, 0xdd, len);
		d->iov = (struct iovec){d->mem, len};
		d->req.iov = &d->iov;
		d->req.iovcnt = 1;
	}
	run(direct_go, d);
}

static void submit_ring(const struct event *e, enum gop_kind kind)
{
	struct ring *ring = H.ring[e->ring % H.h->rings];
	unsigned flags = e->flags | (e->kind == H_BARRIER ? GOP_BARRIER : 0);
	uint32_t n = e->n < 80 ? e->n : 80;
	unsigned char *data;
	uint8_t what;
	size_t i;

	if (!ring_room(ring))
		return;
	if (H.h->rings > 1)
		flags &= ~(unsigned)GOP_RING; /* nothing is in order with what is on another */
	i = new_gop(kind, flags, e->sector, n);
	what = flags & GOP_BARRIER                           ? BLKIF_WRITE_BARRIER
	       : kind == GOP_FLUSH || (flags & GOP_PREFLUSH) ? BLKIF_FLUSH_DISKCACHE
	       : kind == GOP_READ                            ? BLKIF_READ
							     : BLKIF_WRITE;
	data = ring_build(ring, i, n, NULL);
	if (kind == GOP_READ)
		memset(data, 0xdd, (size_t)n * SECTOR);
	else
		fill(data, i);
	ring_put(ring, i, what, e->sector);
	ring_push(ring);
}

/* --- processes
 * ------------------------------------------------------------------------------------------------------------
 */

static void changed(struct vbd *v)
{
}

static void birth(void *arg)
{
	struct life *l = calloc(1, sizeof *l);

	l->loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_POLL);
	stand_in_start(&l->home, l->loop, &H.sim, H.h->lanes);
	H.life[process_current()] = l;
}

static int new_process(void)
{
	unsigned i = 0;

	while ((int)i == H.giver || (int)i == H.serving)
		i++;
	process_new(i);
	process_run(i, birth, NULL);
	return (int)i;
}

/* A process has ended: its clients never hear of what they had asked. */
static void drop_clients(int of)
{
	for (unsigned i = 0; i < DIRECT_MAX; i++)
		if (H.direct[i].busy && H.direct[i].owner == of) {
			free(H.direct[i].mem);
			H.direct[i].busy = false;
			H.outstanding--;
		}
}

/* The process that serves is gone: its clients by NBD with it; a guest's rings stay. */
static void lost_all(void)
{
	say("it is dead, before: %s", H.r->last ? H.r->last : "a kill");
	H.r->n.deaths++;
	H.sim.who = (unsigned)H.serving;
	sim_death(&H.sim, (unsigned)H.serving, true);
	process_end((unsigned)H.serving);
	drop_clients(H.serving);
	H.life[H.serving] = NULL;
	H.serving = NOBODY;
	H.between |= H.busy;
	H.busy = H.working = H.starting = false;
	H.die_in = 0;
	H.dead = H.open;
	if (H.r->bad.rule)
		return;
	{
		struct pages files[SIM_FILES];
		char text[200];

		for (unsigned i = 0; i < H.sim.nfiles; i++)
			files[i] = H.sim.file[i].now;
		if (!H.lost && host_check(H.r, H.r->clock, H.spec, files, text, sizeof text))
			blame("I5", text);
	}
}

static void kill_it(void)
{
	H.r->last = NULL;
	lost_all();
}

static void step_main(void *arg)
{
	struct life *l = H.life[H.serving];
	bool moved = false;

	for (uint64_t n = rng_below(&H.rng, 4); n; n--) {
		clock_advance(TURN);
		ev_run(l->loop, EVRUN_NOWAIT);
	}
	while (rng_chance(&H.rng, 60) && stand_in_mail(&H.rng))
		moved = true;
	while (rng_chance(&H.rng, H.h->eager) && H.sim.nrunning) {
		happens("the disk has done an operation");
		sim_step(&H.sim);
		moved = true;
	}
	l->idle = !moved;
}

/* One step of the process that serves; true: something moved. */
static bool step(void)
{
	if (H.serving == NOBODY)
		return false;
	run(step_main, NULL);
	return H.serving != NOBODY && !H.life[H.serving]->idle;
}

static void let(unsigned n)
{
	while (n-- && H.serving != NOBODY)
		step();
}

static bool wait_for(bool (*done)(void), const char *what)
{
	unsigned bored = 0;
	char text[200];

	while (H.serving != NOBODY && !done()) {
		bored = step() ? 0 : bored + 1;
		if (bored > 40)
			clock_advance(BORED);
		if (bored > BORED_MAX) {
			snprintf(text, sizeof text,
				 "%s: it hangs: %u requests are not answered, %u operations run",
				 what, H.outstanding, H.sim.nrunning);
			blame("I6", text);
			return false;
		}
	}
	return H.serving != NOBODY;
}

static bool op_done(void)
{
	return !H.busy;
}

static bool drained(void)
{
	return !H.outstanding;
}

/* --- operations on a fiber
 * ------------------------------------------------------------------------------------------------
 */

static void fiber_main(void *arg)
{
	void (*fn)(struct vbd * v);

	memcpy(&fn, arg, sizeof fn);
	fn(H.life[process_current()]->v);
	H.busy = false;
}

static void start_fiber(void *arg)
{
	td_fiber_start(H.life[process_current()]->loop, fiber_main, arg);
}

/* Begins it in the process that serves; op_done() tells of its end, or its death. */
static void begin(void (*fn)(struct vbd *v))
{
	static LAB void (*doing)(struct vbd * v) = NULL;

	H.busy = true;
	H.rc = 0;
	H.err.code = 0;
	doing = fn;
	run(start_fiber, &doing);
}

/* The same, to its end; false: it died. */
static bool perform(void (*fn)(struct vbd *v), const char *what)
{
	begin(fn);
	return wait_for(op_done, what);
}

static void spec_of(unsigned file, char *buf, size_t len)
{
	snprintf(buf, len, "%s:%s", H.r->format->type, H.r->template->name[file]);
}

static int marker_of(int minor)
{
	char path[4200], pid[] = "4194304\n"; /* nobody's */
	int fd;

	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && write(fd, pid, sizeof pid - 1) > 0)
		flock(fd, LOCK_EX | LOCK_NB);
	return fd;
}

static void connect_rings(struct vbd *v, unsigned how)
{
	struct td_xport *x[HISTORY_RINGS];
	struct blkif_params p[HISTORY_RINGS];

	for (unsigned i = 0; i < H.h->rings && !H.rc; i++) {
		H.rc = ring_reach(H.ring[i], &x[i], &H.err);
		ring_params(i, H.h->persistent, &p[i]);
	}
	if (!H.rc && H.h->rings)
		H.rc = vbd_connect(v, x, H.h->rings, "mem", p, how, &H.err);
}

static struct vbd *make_disk(int minor)
{
	struct life *l = H.life[process_current()];

	l->v = vbd_new(&l->home, minor, marker_of(minor), changed);
	return l->v;
}

/*
 * The disk is about to be opened in that mode; done: it is.  When what an unsafe time has left
 * could not be made durable, the disk is open, but promises nothing for it and fails each flush.
 */
static void note_mode(const struct td_cache_mode *mode, const struct vbd *open)
{
	bool done = open && !open->cache.sticky;

	if (mode->drop_flush && !H.unsafe && !done) {
		H.unsafe = true;
		H.unsafe_from = H.r->clock;
	} else if (!mode->drop_flush && H.unsafe && done) {
		H.unsafe = false;
		if (H.r->nunsafe == HOST_UNSAFE - 1)
			abort();
		H.r->unsafe[H.r->nunsafe].from = H.unsafe_from;
		H.r->unsafe[H.r->nunsafe++].to = H.r->clock;
	}
}

static void do_open(struct vbd *none)
{
	char spec[160];
	struct vbd *v = make_disk(H.minor);

	spec_of(H.want_spec, spec, sizeof spec);
	note_mode(H.want.mode, NULL);
	H.rc = vbd_open(v, spec, &H.want, &H.err);
	if (!H.rc)
		note_mode(H.want.mode, v);
	if (!H.rc)
		connect_rings(v, 0);
}

/* As tap-ctl revive does it: what the record says. */
static void do_revive(struct vbd *none)
{
	struct vbd_options o = {.mode = NULL};
	struct vbd_past past = {0};
	char path[4200];
	json_t *rec;

	td_ctl_disk_path(H.minor, path);
	rec = json_load_file(path, 0, NULL);
	if (!rec) {
		H.rc = td_fail(&H.err, ENODEV, "there is no record");
		return;
	}
	H.rc = ctl_get_options(rec, &o, &H.err);
	if (H.rc < 0)
		return;
	o.key = H.opt.key;
	past = ctl_get_past(rec);
	H.rc = vbd_reopen(make_disk(H.minor), json_string_value(json_object_get(rec, "args")), &o,
			  &past, &H.err);
	H.past = past;
	json_decref(rec);
	if (!H.rc)
		connect_rings(H.life[process_current()]->v, VBD_TAKE_OVER);
}

static void do_pause(struct vbd *v)
{
	size_t i;
	int was = process_lab();

	i = gtrace_add(&H.r->guest, (struct gop){.kind = GOP_SETTLE,
						 .issue = tick(),
						 .ack = NEVER,
						 .flags = v->opt.mode->drop_flush ? GOP_VOID : 0});
	process_back(was);
	H.rc = vbd_pause(v, 0, &H.err);
	if (!H.rc) {
		H.paused = true;
		H.r->guest.op[i].ack = tick();
		H.r->guest.op[i].status = vbd_state(v) & TD_STATE_FAILED ? -EIO : 0;
	}
	say("paused: %d %s", H.rc, H.rc ? H.err.text : "");
}

static void do_unpause(struct vbd *v)
{
	char spec[160];

	spec_of(H.want_spec, spec, sizeof spec);
	note_mode(H.want.mode, NULL);
	H.starting = true;
	H.rc = vbd_unpause(v, spec, &H.want, &H.err);
	H.starting = false;
	if (!H.rc) {
		note_mode(H.want.mode, v);
		H.paused = false;
		H.opt = H.want;
		H.spec = H.want_spec;
	}
	say("unpaused: %d %s", H.rc, H.rc ? H.err.text : H.want.mode->name);
}

static void do_close(struct vbd *v)
{
	size_t i;
	int was = process_lab(), failed = vbd_state(v) & TD_STATE_FAILED ? -EIO : 0;
	bool paused = !v->leaf; /* then it was flushed, or not, when it was paused */

	i = gtrace_add(&H.r->guest, (struct gop){.kind = GOP_SETTLE,
						 .issue = tick(),
						 .ack = NEVER,
						 .flags = v->opt.mode->drop_flush ? GOP_VOID : 0});
	process_back(was);
	H.rc = vbd_close(v, true, 0, &H.err);
	if (!paused && !(H.rc == -ENOSPC && !failed)) {
		H.r->guest.op[i].ack = tick();
		H.r->guest.op[i].status = failed ? failed : H.rc;
	}
	H.gone |= failed || H.rc < 0; /* it was told */
	say("closed: %d %s", H.rc, H.rc ? H.err.text : "");
}

static void do_give(struct vbd *v)
{
	H.rc = vbd_give(v, &H.began, &H.err);
	H.past = (struct vbd_past){
		.paused = !v->going, .sectors = v->disk.sectors, .sticky = v->cache.sticky};
}

/* As the operation adopt. */
static void do_adopt(struct vbd *none)
{
	char spec[160];
	struct vbd *v = make_disk(H.minor);

	spec_of(H.spec, spec, sizeof spec);
	H.rc = vbd_reopen(v, spec, &H.opt, &H.past, &H.err);
	for (unsigned i = 0; i < H.h->rings && !H.rc; i++) {
		struct blkif_params p;
		struct td_xport *x;

		H.rc = ring_reach(H.ring[i], &x, &H.err);
		ring_params(i, H.h->persistent, &p);
		if (!H.rc)
			H.rc = vbd_connect(v, &x, 1, "mem", &p, VBD_BESIDE | VBD_TAKE_OVER, &H.err);
	}
}

static void do_take_back(struct vbd *v)
{
	vbd_take_back(v);
}

static void do_taken(struct vbd *v)
{
	vbd_taken(v, 4194304);
}

static void do_grow(struct vbd *v)
{
	H.rc = vbd_resize(v, &H.err);
}

/* --- events
 * ---------------------------------------------------------------------------------------------------------------
 */

static bool alive(void)
{
	return H.serving != NOBODY;
}

/* No operation is at work any more; false: it is dead. */
static bool at_rest(void)
{
	return alive() && wait_for(op_done, "an operation");
}

static struct vbd_options options_for(unsigned mode)
{
	struct vbd_options o = H.opt;

	if (mode < 5)
		o.mode = td_cache_mode_find(history_modes[mode]);
	return o;
}

static void verify(void);

static bool excused(void)
{
	return H.tampered || H.sim.nfired > H.nfaults || H.sim.hard;
}

/* One that is wanted and cannot be had. */
static void refused(const char *what)
{
	char text[300];

	H.r->n.refused++;
	say("%s is refused: %s", what, H.err.text);
	snprintf(text, sizeof text, "%s is refused: %.250s", what, H.err.text);
	if (!excused())
		blame("I5", text);
	if (alive()) {
		bool dead = H.dead;

		kill_it();
		H.dead = dead;
	}
	H.nfaults = H.sim.nfired;
	H.lost |= H.tampered;
}

static void open_first(void)
{
	H.serving = new_process();
	H.sim.who = (unsigned)H.serving;
	if (!perform(do_open, "opening"))
		return;
	if (H.rc < 0) {
		refused("opening");
		return;
	}
	H.open = true;
	H.dead = H.paused = H.between = false;
	H.opt = H.want;
	H.spec = H.want_spec;
	H.failed_at = NEVER;
	H.gone |= H.sim.sync_failed && strcmp(H.r->format->type, "aio") != 0;
	if (H.sim.sync_failed && H.r->clock < H.r->doubt)
		H.r->doubt = H.r->clock; /* whoever opens it anew says that it has been checked */
}

static bool recorded(void)
{
	char path[4200];

	return !td_ctl_disk_path(H.minor, path) && !access(path, F_OK);
}

static void create(unsigned mode)
{
	if (alive() || !H.dead || H.h->rings || H.lost)
		return;
	tc_marker_sweep(H.minor, false);
	H.minor++;
	H.want = options_for(mode);
	H.want_spec = H.spec;
	open_first();
}

static void revive(bool check)
{
	if (alive() || !H.dead || H.lost)
		return;
	if (!H.h->rings && !recorded()) {
		create(5); /* it was tidied away, or had just been closed: then nothing is lost */
		if (check)
			verify();
		return;
	}
	H.serving = new_process();
	H.sim.who = (unsigned)H.serving;
	if (!perform(do_revive, "reviving"))
		return;
	if (H.rc < 0) {
		refused("a successor");
		return;
	}
	H.r->n.revived++;
	H.dead = false;
	if (!H.between && H.paused != !H.life[H.serving]->v->leaf)
		blame("I9", H.paused ? "a disk that was paused goes on after a death"
				     : "a disk that was not paused is, after a death");
	H.between = false;
	H.paused = !H.life[H.serving]->v->leaf;
	say("revived%s, mode %s", H.paused ? ", paused" : "", H.life[H.serving]->v->opt.mode->name);
	/* what was on its way, the record tells */
	note_mode(H.life[H.serving]->v->opt.mode, H.paused ? NULL : H.life[H.serving]->v);
	H.opt = H.life[H.serving]->v->opt;
	for (unsigned i = 0; i < H.r->template->n; i++)
		if (!strcmp(strchr(H.life[H.serving]->v->spec, ':') + 1, H.r->template->name[i]))
			H.spec = i;
	if (check)
		verify();
}

/* Another tapdisk, another number. */
static void other(const struct event *e)
{
	struct vbd_options was = H.opt;
	bool paused = H.paused, dead = H.dead;
	unsigned spec = H.spec;
	uint32_t failed_at = H.failed_at;
	int minor = H.minor;

	if (alive() || !H.dead || H.lost || H.h->rings)
		return;
	H.minor = 40;
	H.want = was;
	H.want_spec = spec;
	say("another opens it");
	open_first();
	if (alive()) {
		if (e->sector + e->n <= H.r->guest.sectors)
			submit_direct(GOP_WRITE, 0, e->sector, e->n);
		if (wait_for(drained, "another's write") && perform(do_close, "another's closing"))
			kill_it();
		H.dead = dead;
	}
	H.r->n.deaths--;
	H.minor = minor;
	H.opt = was;
	H.paused = paused;
	H.spec = spec;
	H.open = true;
	H.dead = true;
	H.failed_at = failed_at;
}

static void tamper(bool gone)
{
	char path[4200];
	int fd;

	if (alive() || !H.dead || td_ctl_redo_path(H.minor, path))
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	H.tampered = true;
	if (gone)
		unlink(path);
	else if (pwrite(fd, "XXXX", 4, 0) != 4)
		abort();
	close(fd);
}

static void unpause(const struct event *e)
{
	unsigned snap = H.spec;

	if (!at_rest() || !H.paused)
		return;
	/* nobody takes a snapshot of a disk that has failed */
	for (unsigned i = 0; e->other && !H.sim.sync_failed && i < H.r->template->n; i++)
		if (strstr(H.r->template->name[i], "/snap"))
			snap = i;
	H.want = options_for(e->arg);
	H.want_spec = snap;
	if (H.h->rings && H.want.mode->advertise_flush && !H.opt.mode->advertise_flush)
		H.want.mode = H.opt.mode; /* refused, and rightly */
	H.r->n.pauses++;
	begin(do_unpause);
}

static void pause_it(void)
{
	if (at_rest() && H.open && !H.paused)
		begin(do_pause);
}

static void run_in(int i, void (*fn)(struct vbd *v), const char *what)
{
	int was = H.serving;

	H.serving = i;
	perform(fn, what);
	H.serving = was;
}

/* The new one is dead, or is now. */
static void take_back(void)
{
	if (alive())
		kill_it();
	H.serving = H.giver;
	H.giver = NOBODY;
	H.sim.who = (unsigned)H.serving;
	H.r->n.taken_back++;
	H.dead = false;
	say("the old one takes it back");
	if (!perform(do_take_back, "taking back"))
		return;
	H.paused = !H.life[H.serving]->v->leaf;
	say("it goes on%s", H.paused ? ", paused" : "");
}

static void upgrade(void)
{
	int old;

	if (!at_rest() || !H.open || H.giver != NOBODY)
		return;
	H.die_in = 0; /* what dies from here on is the new one, or is said to be the old */
	if (!perform(do_give, "giving"))
		return;
	if (H.rc < 0) {
		say("it is not given: %s", H.err.text);
		return;
	}
	H.r->n.upgrades++;
	old = H.giver = H.serving;
	H.serving = NOBODY;
	H.serving = new_process();
	H.sim.who = (unsigned)H.serving;
	(void)old;
	begin(do_adopt);
}

/* The adoption has ended, or the adopter has. */
static void look_at_trial(void)
{
	if (H.giver == NOBODY)
		return;
	if (!alive()) {
		take_back();
		return;
	}
	if (!H.busy && H.rc < 0) {
		say("it is not taken: %s", H.err.text);
		take_back();
	} else if (!H.busy) {
		H.paused = !H.life[H.serving]->v->leaf;
	}
}

static void end_old(void)
{
	int old = H.giver;

	H.giver = NOBODY;
	drop_clients(old);
	process_end((unsigned)old);
	H.life[old] = NULL;
}

static void end_trial(const struct event *e)
{
	if (H.giver == NOBODY)
		return;
	if (at_rest() && !H.rc && e->other) {
		say("the old one has died");
		end_old();
	} else if (alive() && !H.rc && !e->arg) {
		unsigned die_in = H.die_in;

		H.die_in = 0;
		run_in(H.giver, do_taken, "the end of the old one");
		H.die_in = die_in;
		end_old();
		say("the trial has ended well");
	} else {
		take_back();
	}
}

static void reopen(unsigned mode)
{
	if (H.h->rings || !H.open || H.giver != NOBODY || !at_rest() ||
	    (H.paused && H.outstanding) || !wait_for(drained, "the clients' end"))
		return;
	if (H.sim.fault.kind == SIM_ENOSPC || H.sim.fault.kind == SIM_TRUNCATE_SPACE)
		H.sim.fault.kind = SIM_NONE; /* who closes a disk that has no space is told that
						something is lost, or not even that (unsafe) */
	if (!perform(do_close, "closing"))
		return;
	H.open = false;
	kill_it();
	H.r->n.deaths--;
	H.want = options_for(mode);
	H.want_spec = H.spec;
	open_first();
}

static void grow(void)
{
	struct sim_file *f = &H.sim.file[H.spec];
	size_t i;

	if (!at_rest() || H.paused || H.giver != NOBODY || H.r->ngrown == HOST_GROWN)
		return;
	H.r->guest.sectors += HOST_GROWS;
	i = flog_begin(&H.r->log, (struct fop){.kind = FOP_TRUNC,
					       .file = H.spec,
					       .off = H.r->guest.sectors * SECTOR,
					       .dsync = true,
					       .begin = tick()});
	H.r->grown[H.r->ngrown++] = H.r->clock;
	flog_end(&H.r->log, i, tick(), 0);
	pages_resize(&f->now, H.r->guest.sectors * SECTOR);
	begin(do_grow);
}

static void guest_event(const struct event *e)
{
	static const enum gop_kind kinds[] = {
		[H_WRITE] = GOP_WRITE,   [H_READ] = GOP_READ, [H_FLUSH] = GOP_FLUSH,
		[H_BARRIER] = GOP_WRITE, [H_ZERO] = GOP_ZERO, [H_DISCARD] = GOP_DISCARD};
	enum gop_kind kind = e->kind == H_BARRIER && !e->n ? GOP_FLUSH : kinds[e->kind];

	if (!H.open || e->sector + e->n > H.r->guest.sectors)
		return;
	if (e->flags & GOP_RING)
		submit_ring(e, kind);
	else if (alive() && H.giver == NOBODY && H.life[H.serving]->v && !H.dead)
		submit_direct(kind, e->flags, e->sector, e->n);
}

static void happen(const struct event *e)
{
	switch (e->kind) {
	case H_WRITE:
	case H_READ:
	case H_FLUSH:
	case H_BARRIER:
	case H_ZERO:
	case H_DISCARD:
		guest_event(e);
		break;
	case H_DRAIN:
		if (!H.busy && !H.paused && H.giver == NOBODY && alive())
			wait_for(drained, "the guest's answers");
		break;
	case H_PAUSE:
		if (H.giver == NOBODY)
			pause_it();
		break;
	case H_UNPAUSE:
		if (H.giver == NOBODY)
			unpause(e);
		break;
	case H_DIE:
		H.die_in = alive() ? e->after : 0;
		break;
	case H_REVIVE:
		revive(e->check);
		break;
	case H_CREATE:
		create(e->arg);
		break;
	case H_OTHER:
		other(e);
		break;
	case H_LIST:
		if (!alive())
			tc_marker_sweep(H.minor, false);
		break;
	case H_TAMPER:
		tamper(e->arg);
		break;
	case H_UPGRADE:
		upgrade();
		break;
	case H_TRIAL:
		end_trial(e);
		break;
	case H_FAULT:
		H.sim.fault = e->fault;
		H.sim.ncalls = H.sim.nreads = H.sim.nwrites = H.sim.nsyncs = H.sim.nopens =
			H.sim.nsizes = H.sim.ntruncates = 0;
		break;
	case H_REOPEN:
		reopen(e->arg);
		break;
	case H_GROW:
		grow();
		break;
	case H_LET:
	case H_KINDS:
		break;
	}
}

/* --- a run
 * ----------------------------------------------------------------------------------------------------------------
 */

#define VERIFY_MOST 64u

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Reads all that anybody has written: what was answered is there. */
static void verify(void)
{
	uint64_t *at;
	size_t n = 0, all = 0, nops = H.r->guest.nops;

	if (!alive() || H.paused || H.dead || H.giver != NOBODY || H.r->bad.rule)
		return;
	for (size_t i = 0; i < nops; i++)
		all += H.r->guest.op[i].kind != GOP_READ ? H.r->guest.op[i].n : 0;
	at = malloc((all + 1) * sizeof *at);
	for (size_t i = 0; i < nops; i++)
		for (uint32_t k = 0; H.r->guest.op[i].kind != GOP_READ && k < H.r->guest.op[i].n;
		     k++)
			at[n++] = H.r->guest.op[i].sector + k;
	qsort(at, n, sizeof *at, by_value);
	for (size_t i = 0; i < n && alive() && !H.r->bad.rule;) {
		size_t to = i;
		uint32_t len;

		while (to + 1 < n && at[to + 1] <= at[to] + 1 && at[to + 1] - at[i] < VERIFY_MOST)
			to++;
		len = (uint32_t)(at[to] - at[i] + 1);
		submit_direct(GOP_READ, 0, at[i], len);
		for (unsigned busy = 0; alive() && !H.r->bad.rule;) {
			busy = 0;
			for (unsigned d = 0; d < DIRECT_MAX; d++)
				busy += H.direct[d].busy;
			if (busy < 8)
				break;
			step();
		}
		i = to + 1;
	}
	free(at);
	if (alive() && !H.r->bad.rule)
		wait_for(drained, "reading all");
}

static void start_trace(void)
{
	struct host_run *r = H.r;

	r->guest.sectors = r->format->sectors;
	r->guest.seed = r->history->seed;
	r->guest.initial = r->format->initial;
	r->guest.initial_every = r->format->initial_every;
}

static void forget_files(void)
{
	char path[4200];

	for (int minor = 0; minor <= H.minor; minor++) {
		td_ctl_record_sweep(minor);
		snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor);
		unlink(path);
	}
	td_ctl_record_sweep(40);
	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-40", td_ctl_dir());
	unlink(path);
}

static void end_all(void)
{
	for (unsigned i = 0; i < PROCESSES; i++)
		if ((int)i == H.serving || (int)i == H.giver) {
			if ((int)i == H.serving)
				sim_death(&H.sim, i, true);
			process_end(i);
		}
	for (unsigned i = 0; i < DIRECT_MAX; i++)
		if (H.direct[i].busy)
			free(H.direct[i].mem);
	forget_files();
	sim_free(&H.sim);
}

/* All that is not answered yet is, by a successor if need be; and all is read. */
static void finale(void)
{
	const struct event same = {.kind = H_UNPAUSE, .arg = 5};

	H.die_in = 0;
	H.sim.fault = (struct sim_fault){0};
	look_at_trial();
	for (unsigned tries = 0; tries < 6 && !H.r->bad.rule && !H.lost; tries++) {
		if (H.giver != NOBODY)
			end_trial(&(struct event){.kind = H_TRIAL, .arg = H.h->seed % 2});
		if (!alive() && H.dead)
			revive(false);
		if (alive() && at_rest() && H.paused && !H.r->bad.rule) {
			unpause(&same);
			wait_for(op_done, "resuming");
			if (alive() && H.rc < 0 && !excused())
				refused("going on");
		}
		if (alive() && !H.paused && H.giver == NOBODY)
			break;
	}
	if (!alive() || H.paused || H.r->bad.rule)
		return;
	if (wait_for(drained, "the end"))
		verify();
}

static struct ring *the_ring(unsigned i)
{
	static LAB struct ring *rings[HISTORY_RINGS] = {NULL};

	if (!rings[i]) {
		rings[i] = ring_new(NULL, on_notify, NULL);
		ring_owner(rings[i], rings[i]);
	}
	ring_reset(rings[i]);
	return rings[i];
}

void host_run(struct host_run *r)
{
	const struct history *h = r->history;

	memset(&H, 0, sizeof H);
	H.r = r;
	H.h = h;
	H.serving = H.giver = NOBODY;
	H.failed_at = r->doubt = NEVER;
	H.rng = rng_seed(h->seed, 'r');
	crash_redo_bytes = h->redo_bytes;
	start_trace();
	sim_init(&H.sim, NULL, &r->clock, &r->log, h->seed);
	H.sim.off_align = r->format->align;
	H.sim.event = happens;
	process_called = happens;
	for (unsigned i = 0; i < r->template->n; i++)
		sim_add(&H.sim, r->template->name[i], &r->template->file[i],
			r->template->blockdev[i]);
	for (unsigned i = 0; i < h->rings; i++) {
		H.ring[i] = the_ring(i);
	}
	H.want = H.opt = (struct vbd_options){
		.mode = td_cache_mode_find(r->mode), .unsafe = true, .key = r->template->key};
	open_first();
	for (unsigned i = 0; i < h->n && !r->bad.rule; i++) {
		char words[200];

		if (h->left_out[i])
			continue;
		H.rng = rng_seed(h->ev[i].seed, 'r');
		H.sim.rng = rng_seed(h->ev[i].seed, 'd');
		if (r->verbose) {
			history_words(&h->ev[i], words, sizeof words);
			say("event %u: %s", i, words);
		}
		happen(&h->ev[i]);
		look_at_trial();
		let(h->ev[i].let);
		look_at_trial();
	}
	r->end = r->clock;
	if (H.unsafe) {
		r->unsafe[r->nunsafe].from = H.unsafe_from;
		r->unsafe[r->nunsafe++].to = NEVER;
	}
	if (!r->bad.rule)
		finale();
	r->leaf = H.spec;
	r->n.faults = H.sim.nfired;
	r->guest.hard_fault = H.sim.hard;
	end_all();
}

bool host_promised(const struct host_run *r, uint32_t at)
{
	if (at >= r->doubt)
		return false;
	for (unsigned i = 0; i < r->nunsafe; i++)
		if (at >= r->unsafe[i].from && at <= r->unsafe[i].to)
			return false;
	return true;
}

void host_run_free(struct host_run *r)
{
	gtrace_free(&r->guest);
	flog_free(&r->log);
}

int host_check(const struct host_run *r, uint32_t at, unsigned leaf, const struct pages *files,
	       char *text, size_t len)
{
	int rc = image_check(r->format->type, &files[leaf], text, len);

	if (!rc && !leaf && !strcmp(r->format->type, "qcow2"))
		rc = bitmap_check(&files[leaf], &r->guest, at, text, len);
	return rc;
}

/* OpenSSL keeps what it has found out for the whole program: its memory is nobody's who may die. */
int CRYPTO_set_mem_functions(void *(*get)(size_t n, const char *file, int line),
			     void *(*more)(void *p, size_t n, const char *file, int line),
			     void (*put)(void *p, const char *file, int line))
	__attribute__((weak));

static void *crypto_get(size_t n, const char *file, int line)
{
	int was = process_lab();
	void *p = malloc(n);

	process_back(was);
	return p;
}

static void *crypto_more(void *p, size_t n, const char *file, int line)
{
	int was = process_lab();

	p = realloc(p, n);
	process_back(was);
	return p;
}

static void crypto_put(void *p, const char *file, int line)
{
	free(p);
}

void host_init(void)
{
	if (CRYPTO_set_mem_functions)
		CRYPTO_set_mem_functions(crypto_get, crypto_more, crypto_put);
	process_init();
}

/* tap-ctl's, for its markers: does a log of changes hold anything?  (One that is there, where the
 * library cannot tell.) */
int tc_log_waits(int minor);
int tc_settle(int minor, bool give_up, struct td_err *err);
int td_redo_waits(const char *path) __attribute__((weak));

int tc_log_waits(int minor)
{
	char path[4200];

	if (td_ctl_redo_path(minor, path))
		return 0;
	return td_redo_waits ? td_redo_waits(path) : !access(path, F_OK);
}

int tc_settle(int minor, bool give_up, struct td_err *err)
{
	return td_fail(err, ENOSYS, "the lab does not free a minor");
}

int tc_put_line(const char *text, struct td_err *err)
{
	return 0;
}
