/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/stack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fiber/fiber.h"
#include "tapdisk/chain.h"
#include "tapdisk/vbd/vbd.h"
#include "tests/crash/changed-check.h"
#include "tests/crash/clock.h"
#include "td/ctl.h"
#include "tests/crash/ring.h"

#define TURN       0.0002 /* s on the lab's clock that a turn of the loop takes */
#define BORED      0.25   /* s that it jumps when nothing can happen before a timer */
#define BORED_MAX  2000   /* of these in a row, and it hangs */
#define DIRECT_MAX 32     /* requests beside the ring at once */

static struct ev_loop *loop;

/* A request beside the ring, as another frontend brings it to the cache layer. */
struct direct {
	struct td_req req;
	struct iovec iov;
	unsigned char *mem;
	size_t gop;
	bool busy;
	struct machine *m;
};

struct machine {
	struct run *r;
	struct sim sim;
	struct queue queue;
	struct vbd *v;
	struct ring *ring;
	struct rng rng;
	struct direct direct[DIRECT_MAX];
	unsigned next, outstanding;
	bool pausing, ring_on;
	struct vbd_options opt;
	struct td_err err;
	int rc; /* of the operation on a fiber */
	bool fiber_done;
};

static uint32_t tick(struct machine *m)
{
	return m->r->clock++;
}

static void turn(void)
{
	clock_advance(TURN);
	ev_run(loop, EVRUN_NOWAIT);
}

/* --- the guest --- */

static void answered(struct machine *m, size_t i, int status)
{
	struct gop *op = &m->r->guest.op[i];

	op->ack = tick(m);
	op->status = status;
	m->outstanding--;
}

static void check_read(struct machine *m, size_t i, const void *data)
{
	struct verdict v;

	if (m->r->guest.op[i].status || m->r->read.rule)
		return;
	judge_read(&m->r->guest, i, data, &v);
	if (v.rule)
		m->r->read = v;
}

/* In the moment of the notification: what the guest has been told counts from here on. */
static void on_notify(void *arg)
{
	struct machine *m = arg;
	size_t i;
	int status;

	while (ring_reap(m->ring, &i, &status)) {
		answered(m, i, status);
		if (m->r->guest.op[i].kind == GOP_READ && !status)
			check_read(m, i, ring_data(m->ring, i, m->r->guest.op[i].n));
		ring_release(m->ring, i);
	}
}

static void direct_done(struct td_req *req, int err)
{
	struct direct *d = td_entry(req, struct direct, req);
	struct machine *m = d->m;
	struct gop *op = &m->r->guest.op[d->gop];

	/* not offered: it has done nothing */
	if (err == -EOPNOTSUPP && (op->kind == GOP_DISCARD || op->kind == GOP_ZERO)) {
		op->n = 0;
		op->kind = GOP_READ;
		err = 0;
	}
	answered(m, d->gop, err);
	free(d->mem);
	d->mem = NULL;
	d->busy = false;
}

static void fill(struct machine *m, unsigned char *buf, size_t gop)
{
	const struct gop *op = &m->r->guest.op[gop];

	for (uint32_t k = 0; k < op->n; k++)
		sector_fill(buf + (size_t)k * SECTOR, m->r->guest.seed, (uint32_t)gop + 1,
			    op->sector + k);
}

static struct direct *direct_slot(struct machine *m)
{
	for (unsigned i = 0; i < DIRECT_MAX; i++)
		if (!m->direct[i].busy)
			return &m->direct[i];
	return NULL;
}

static void submit_direct(struct machine *m, struct direct *d, size_t i)
{
	static const enum td_op ops[] = {[GOP_WRITE] = TD_WRITE,
					 [GOP_ZERO] = TD_WRITE_ZEROES,
					 [GOP_DISCARD] = TD_DISCARD,
					 [GOP_FLUSH] = TD_FLUSH};
	const struct gop *op = &m->r->guest.op[i];
	size_t len = (size_t)op->n * SECTOR, skew = rng_chance(&m->rng, 30) ? 8 : 0;

	*d = (struct direct){.busy = true, .gop = i, .m = m};
	d->req = (struct td_req){.op = ops[op->kind],
				 .flags = (op->flags & GOP_FUA ? TD_FUA : 0) |
					  (op->flags & GOP_UNMAP ? TD_UNMAP : 0),
				 .off = op->sector * SECTOR,
				 .len = len,
				 .done = direct_done};
	if (op->kind == GOP_WRITE) {
		d->mem = aligned_alloc(4096, (len + skew + 4095) / 4096 * 4096);
		fill(m, d->mem + skew, i);
		d->iov = (struct iovec){d->mem + skew, len};
		d->req.iov = &d->iov;
		d->req.iovcnt = 1;
	}
	cache_submit(&m->v->cache, &d->req);
}

static void submit_ring(struct machine *m, size_t i)
{
	const struct gop *op = &m->r->guest.op[i];
	uint8_t what = op->flags & GOP_BARRIER                               ? BLKIF_WRITE_BARRIER
		       : op->kind == GOP_FLUSH || (op->flags & GOP_PREFLUSH) ? BLKIF_FLUSH_DISKCACHE
		       : op->kind == GOP_READ                                ? BLKIF_READ
									     : BLKIF_WRITE;
	unsigned char *data = ring_build(m->ring, i, op->n, m->r->work->ragged ? &m->rng : NULL);

	if (op->kind == GOP_READ)
		memset(data, 0xdd, (size_t)op->n * SECTOR);
	else
		fill(m, data, i);
	ring_put(m->ring, i, what, op->sector);
}

/* --- the disk's life --- */

static void open_main(void *arg)
{
	struct machine *m = arg;
	char spec[128];

	snprintf(spec, sizeof spec, "%s:%s", m->r->format->type, m->r->template->name[0]);
	m->rc = vbd_open(m->v, spec, &m->opt, &m->err);
	if (!m->rc)
		m->rc = ring_connect(m->ring, m->v, m->r->seed % 3 == 0, &m->err);
	m->fiber_done = true;
}

static void pause_main(void *arg)
{
	struct machine *m = arg;
	size_t i = gtrace_add(&m->r->guest,
			      (struct gop){.kind = GOP_SETTLE, .issue = tick(m), .ack = NEVER});

	if (vbd_pause(m->v, 0, &m->err) == 0) {
		m->r->guest.op[i].ack = tick(m);
		m->r->guest.op[i].status = vbd_state(m->v) & TD_STATE_FAILED ? -EIO : 0;
	}
	m->err.code = 0;
	/* without options the log of changed blocks would end */
	for (int tries = 0;
	     tries < 5 && vbd_unpause(m->v, NULL, m->r->logged ? &m->opt : NULL, &m->err) < 0;
	     tries++)
		m->err.code = 0; /* a fault may hit the open; the next one does not */
	m->pausing = false;
}

static void close_main(void *arg)
{
	struct machine *m = arg;
	struct td_err err = {0};
	size_t i = gtrace_add(&m->r->guest,
			      (struct gop){.kind = GOP_SETTLE, .issue = tick(m), .ack = NEVER});
	int rc, failed = vbd_state(m->v) & TD_STATE_FAILED ? -EIO : 0;

	if (m->ring_on)
		vbd_disconnect(m->v, 1, 1, &err);
	rc = vbd_close(m->v, true, 0, &err);
	m->fiber_done = true;
	if (rc == -ENODEV && m->rc)
		return; /* the opening was made to fail */
	if (rc == -ENOSPC && !failed && sim_no_space(&m->sim))
		return; /* nobody waits for space to close: it says that it has promised nothing */
	m->r->guest.op[i].ack = tick(m);
	/* of an earlier failure one has been told */
	m->r->guest.op[i].status = failed ? failed : rc;
}

/* Runs fn on a fiber to its end, the disk completing whatever it has. */
static bool on_fiber(struct sim *sim, void (*fn)(void *arg), void *arg, bool *done)
{
	*done = false;
	if (td_fiber_start(loop, fn, arg) < 0)
		return false;
	for (unsigned bored = 0; !*done;) {
		turn();
		if (sim_step(sim))
			bored = 0;
		else if (++bored > 20)
			clock_advance(BORED);
		if (bored > BORED_MAX)
			return false;
	}
	return true;
}

static void changed(struct vbd *v)
{
}

/* --- a run --- */

/* The next of the plan goes out, if it can. */
static bool issue(struct machine *m)
{
	const struct plan *p = &m->r->work->op[m->next];
	struct direct *d = NULL;
	size_t i;

	if (m->next == m->r->work->n || m->outstanding >= m->r->work->depth ||
	    ((p->flags & PLAN_DRAIN) && m->outstanding))
		return false;
	if (p->flags & PLAN_PAUSE) {
		m->next++;
		if (!m->pausing) {
			m->pausing = true;
			td_fiber_start(loop, pause_main, m);
		}
		return true;
	}
	if ((p->flags & GOP_RING) ? !ring_room(m->ring) : !(d = direct_slot(m)))
		return false;
	m->next++;
	i = gtrace_add(&m->r->guest, (struct gop){.kind = p->kind,
						  .flags = p->flags & 0xffu,
						  .sector = p->sector,
						  .n = p->n,
						  .issue = tick(m),
						  .ack = NEVER});
	m->outstanding++;
	if (d)
		submit_direct(m, d, i);
	else
		submit_ring(m, i);
	return true;
}

static bool step(struct machine *m)
{
	bool moved = false;

	if (rng_chance(&m->rng, 50)) {
		for (uint64_t burst = 1 + rng_below(&m->rng, 6); burst && issue(m); burst--)
			moved = true;
		ring_push(m->ring);
	}
	for (uint64_t n = rng_below(&m->rng, 4); n; n--)
		turn();
	while (rng_chance(&m->rng, m->r->work->eager) && sim_step(&m->sim))
		moved = true;
	return moved;
}

static void work(struct machine *m)
{
	unsigned bored = 0;

	while (m->next < m->r->work->n || m->outstanding || m->pausing) {
		bored = step(m) ? 0 : bored + 1;
		if (bored > 40)
			clock_advance(BORED);
		if (bored > BORED_MAX) {
			m->r->read.rule = "I6";
			snprintf(m->r->read.text, sizeof m->r->read.text,
				 "it hangs: %u requests are not answered, %u operations run%s",
				 m->outstanding, m->sim.nrunning,
				 m->pausing ? ", a pause does not end" : "");
			return;
		}
	}
}

static void make_options(struct machine *m)
{
	m->opt = (struct vbd_options){.mode = td_cache_mode_find(m->r->mode),
				      .unsafe = true,
				      .report_enospc = m->r->report_enospc};
	if (m->r->logged)
		strcpy(m->opt.changed, CHANGED_NAME);
}

static void add_files(struct sim *s, const struct template *t, const struct pages *files)
{
	for (unsigned i = 0; i < t->n; i++)
		sim_add(s, t->name[i], &files[i], t->blockdev[i]);
}

static void start_guest(struct run *r)
{
	r->guest.sectors = r->format->sectors;
	r->guest.seed = r->seed;
	r->guest.initial = r->format->initial;
	r->guest.initial_every = r->format->initial_every;
	r->guest.promise_each = td_cache_mode_find(r->mode)->fua_every_write;
}

/* One that hangs cannot be taken apart: it is left as it is, and reported. */
static void finish(struct machine *m)
{
	if (m->r->read.rule && !strcmp(m->r->read.rule, "I6"))
		return;
	if (!on_fiber(&m->sim, close_main, m, &m->fiber_done)) {
		m->r->read = (struct verdict){.rule = "I6", .text = "closing hangs"};
		return;
	}
	vbd_free(m->v);
	ring_free(m->ring);
	m->r->nfired = m->sim.nfired;
	m->r->guest.hard_fault = m->sim.hard || (m->r->report_enospc && sim_no_space(&m->sim));
	sim_free(&m->sim);
}

int stack_run(struct run *r)
{
	struct machine *m = calloc(1, sizeof *m);
	int rc;

	if (!loop)
		loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_POLL);
	if (!m || !loop)
		abort();
	m->r = r;
	m->rng = rng_seed(r->seed, 'r');
	start_guest(r);
	sim_init(&m->sim, loop, &r->clock, &r->log, r->seed);
	m->sim.off_align = r->format->align;
	m->sim.fault = r->fault;
	add_files(&m->sim, r->template, r->template->file);
	m->queue = (struct queue){.loop = loop, .direct = m->sim.io, .buffered = m->sim.io};
	m->v = vbd_new(&m->queue, 0, -1, changed);
	m->ring = ring_new(loop, on_notify, m);
	make_options(m);
	if (!on_fiber(&m->sim, open_main, m, &m->fiber_done)) {
		r->read = (struct verdict){.rule = "I6", .text = "opening hangs"};
		return 0;
	}
	rc = m->rc;
	m->ring_on = !rc;
	if (!rc)
		work(m);
	else if (!m->sim.nfired)
		fprintf(stderr, "%s, %s: %s\n", r->format->name, r->mode, m->err.text);
	m->err.code = 0;
	finish(m);
	rc = rc && r->nfired ? 0 : rc; /* made to fail */
	if (!r->read.rule || strcmp(r->read.rule, "I6"))
		free(m);
	return rc;
}

void run_free(struct run *r)
{
	gtrace_free(&r->guest);
	flog_free(&r->log);
}

/* --- after the cut --- */

#define READ_MOST 64u /* sectors */

struct reopen {
	struct left *l;
	struct sim sim;
	struct td_err err;
	int rc;
	bool done;
};

struct sync_read {
	struct td_req req;
	struct td_fiber *fiber;
	bool done;
	int err;
};

static void read_done(struct td_req *req, int err)
{
	struct sync_read *s = td_entry(req, struct sync_read, req);

	s->done = true;
	s->err = err;
	td_fiber_wake(s->fiber);
}

static int read_image(struct td_image *image, struct td_io *io, void *buf, uint64_t sector,
		      uint32_t n)
{
	struct iovec iov = {buf, (size_t)n * SECTOR};
	struct sync_read s = {.fiber = td_fiber_self()};

	s.req = (struct td_req){.op = TD_READ,
				.off = sector * SECTOR,
				.len = iov.iov_len,
				.iov = &iov,
				.iovcnt = 1,
				.done = read_done,
				.io = io};
	td_submit(image, &s.req);
	while (!s.done)
		td_fiber_wait();
	return s.err;
}

static int read_all(struct reopen *o, struct td_image *image)
{
	static unsigned char buf[READ_MOST * SECTOR] __attribute__((aligned(4096)));
	struct left *l = o->l;

	for (size_t i = 0; i < l->n;) {
		uint32_t n = 1;
		int rc;

		while (i + n < l->n && n < READ_MOST && l->sector[i + n] == l->sector[i] + n)
			n++;
		memset(buf, 0xdd, (size_t)n * SECTOR);
		rc = read_image(image, o->sim.io, buf, l->sector[i], n);
		if (rc < 0) {
			snprintf(l->text, sizeof l->text, "sectors %llu+%u cannot be read: %s",
				 (unsigned long long)l->sector[i], n, strerror(-rc));
			return rc;
		}
		for (uint32_t k = 0; k < n; k++)
			l->tag[i + k] =
				sector_tag(buf + (size_t)k * SECTOR, l->seed, l->sector[i + k]);
		i += n;
	}
	return 0;
}

static void reopen_main(void *arg)
{
	struct reopen *o = arg;
	struct left *l = o->l;
	struct td_image *leaf;
	char spec[128];

	snprintf(spec, sizeof spec, "%s:%s", l->type ? l->type : l->format->type,
		 l->template->name[0]);
	o->rc = chain_open(
		spec,
		&(struct td_how){.flags = td_cache_mode_find(l->mode)->file_flags & TD_FILE_DIRECT,
				 .key = &l->template->key},
		o->sim.io, &leaf, &o->err);
	if (o->rc < 0) {
		snprintf(l->text, sizeof l->text, "it does not open: %.250s", o->err.text);
	} else {
		if (leaf->info.size / SECTOR != l->sectors) {
			snprintf(l->text, sizeof l->text, "it has %llu sectors, not %llu",
				 (unsigned long long)leaf->info.size / SECTOR,
				 (unsigned long long)l->sectors);
			o->rc = -EINVAL;
		} else {
			o->rc = read_all(o, leaf);
		}
		chain_close(leaf);
	}
	o->done = true;
}

int stack_reopen(struct left *l)
{
	static struct reopen o;

	if (!loop)
		loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_POLL);
	o.l = l;
	o.err.code = 0;
	o.rc = 0;
	sim_init(&o.sim, loop, &l->clock, l->log, l->seed);
	o.sim.off_align = l->format->align;
	add_files(&o.sim, l->template, l->files);
	if (!on_fiber(&o.sim, reopen_main, &o, &o.done)) {
		snprintf(l->text, sizeof l->text, "opening it hangs");
		return -ETIMEDOUT;
	}
	sim_free(&o.sim);
	return o.rc;
}

void stack_verbose(void)
{
	td_log_open("tapdisk", 1);
	td_log_level(LOG_DEBUG);
}
