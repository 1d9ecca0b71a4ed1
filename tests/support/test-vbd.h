/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk, two guests of it, and the operations on it, each on a fiber; for tests of its life on a
 * simulated store. */
#ifndef TESTS_TEST_VBD_H
#define TESTS_TEST_VBD_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/fiber/fiber.h"
#include "tapdisk/vbd/vbd.h"
#include "td/ctl.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/blkif-front.h"

#define SECTORS 2048

static struct ev_loop *loop;
static struct fault_io fio;
static struct fault_file *file;
static struct queue queue;
static struct vbd *v;
static struct td_err err;
static unsigned nchanged;

/* --- a guest --- */

/* Two of them; the tests speak as the one that is `me'. */
static struct guest {
	struct td_xport x;
	union {
		struct blkif_sring sring;
		char bytes[4096];
	} ring;
	char page[4096];
	int kick;
	unsigned closed;
	uint32_t prod, cons;
	int last; /* status of the last response */
} gs[2], *me = gs;
#define g (*me)

static inline struct guest *of(struct td_xport *x)
{
	return td_entry(x, struct guest, x);
}

static inline void *x_map(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *e)
{
	return of(x)->ring.bytes;
}

static inline void x_unmap(struct td_xport *x, void *r, unsigned n)
{
}

static inline int x_bind(struct td_xport *x, uint32_t port, struct td_err *e)
{
	return of(x)->kick;
}

static inline void x_unbind(struct td_xport *x)
{
}

static inline bool x_ack(struct td_xport *x)
{
	eventfd_t n;

	return eventfd_read(of(x)->kick, &n) == 0;
}

static inline void x_notify(struct td_xport *x)
{
}

static inline void x_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (c[i].to_guest)
			memcpy(of(x)->page + c[i].off, c[i].local, c[i].len);
		else
			memcpy(c[i].local, of(x)->page + c[i].off, c[i].len);
}

static inline void x_close(struct td_xport *x)
{
	of(x)->closed++;
}

static const struct td_xport_ops x_ops = {"test",   x_map,  x_unmap, x_bind, x_unbind, x_ack,
					  x_notify, x_copy, x_close, NULL,   NULL,     NULL};

static inline void put(uint8_t op, uint64_t sector, unsigned segs)
{
	struct blkif_desc d = {.op = op, .sector = sector, .nr_segs = (uint8_t)segs};

	d.seg[0].last = 7;
	blkif_put_request(BLKIF_NATIVE, &g.ring.sring, 32, g.prod++, &d);
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
	eventfd_write(g.kick, 1);
}

/* A write of so many sectors from the page's beginning. */
static inline void put_write(uint64_t sector, unsigned sectors)
{
	struct blkif_desc d = {.op = BLKIF_WRITE, .sector = sector, .nr_segs = 1};

	d.seg[0].last = (uint8_t)(sectors - 1);
	blkif_put_request(BLKIF_NATIVE, &g.ring.sring, 32, g.prod++, &d);
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
	eventfd_write(g.kick, 1);
}

static inline void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

/* Takes what is there: the number of responses so far. */
static inline unsigned answers(void)
{
	turns(8);
	while (g.cons != g.ring.sring.rsp_prod) {
		uint64_t id;
		uint8_t op;
		int16_t status;

		blkif_get_response(BLKIF_NATIVE, &g.ring.sring, 32, g.cons++, &id, &op, &status);
		g.last = status;
	}
	g.ring.sring.rsp_event = g.cons + 1;
	return g.cons;
}

/* --- operations, each on a fiber --- */

struct call {
	enum { OPEN, CLOSE, FORCE, PAUSE, UNPAUSE, RESIZE, CONNECT, DISCONNECT } what;
	const char *spec, *mode, *changed;
	bool read_only, beside, shared;
	unsigned sector_size;
	int timeout, request_timeout, rc;
	unsigned domid, ring;
	unsigned order; /* when it ended; 0: not yet */
};

static unsigned nended;

static inline void run_call(void *arg)
{
	struct call *c = arg;
	struct vbd_options o = {.mode = td_cache_mode_find(c->mode ? c->mode : "writeback"),
				.unsafe = true,
				.read_only = c->read_only,
				.shared = c->shared,
				.sector_size = c->sector_size,
				.request_timeout = c->request_timeout};
	struct blkif_params p;
	struct td_err e;

	if (c->changed)
		strcpy(o.changed, c->changed);
	e.code = 0;
	e.text[0] = 0;
	memset(&p, 0, sizeof p);
	p.domid = (uint16_t)c->domid;
	p.queue = c->ring;
	p.pages = 1;
	switch (c->what) {
	case OPEN:
		c->rc = vbd_open(v, c->spec ? c->spec : "aio:disk", &o, &e);
		break;
	case CLOSE:
	case FORCE:
		c->rc = vbd_close(v, c->what == FORCE, c->timeout, &e);
		break;
	case PAUSE:
		c->rc = vbd_pause(v, c->timeout, &e);
		break;
	case UNPAUSE:
		c->rc = vbd_unpause(v, c->spec, c->mode ? &o : NULL, &e);
		break;
	case RESIZE:
		c->rc = vbd_resize(v, &e);
		break;
	case CONNECT:
		c->rc = vbd_connect(v, &(struct td_xport *){&g.x}, 1, "mem", &p, c->beside, &e);
		break;
	case DISCONNECT:
		c->rc = vbd_disconnect(v, c->domid, 0, &e);
		break;
	}
	c->order = ++nended;
	if (c->rc < 0) {
		ck_assert_int_eq(e.code, -c->rc); /* every error has its text */
		ck_assert(e.text[0]);
	}
	err = e;
}

static inline void begin_call(struct call *c)
{
	ck_assert_int_eq(td_fiber_start(loop, run_call, c), 0);
}

static inline int end_call(struct call *c)
{
	for (int i = 0; !c->order; i++) {
		ev_run(loop, EVRUN_NOWAIT);
		usleep(i > 100 && !c->order ? 50 : 0);
	}
	return c->rc;
}

static inline int run(struct call c)
{
	begin_call(&c);
	return end_call(&c);
}

#define DO(...) run((struct call){__VA_ARGS__})

static inline void changed(struct vbd *vbd)
{
	nchanged++;
}

static inline void begin(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	fault_io_new(&fio, loop, 512, 512);
	file = fault_io_file(&fio, "disk", SECTORS * 512);
	queue = (struct queue){.loop = loop, .buffered = fio.io};
	v = vbd_new(&queue, 5, -1, changed);
	memset(gs, 0, sizeof gs);
	for (me = gs + 2; me-- > gs;) {
		g.x.ops = &x_ops;
		g.kick = eventfd(0, EFD_NONBLOCK);
		g.ring.sring.req_event = g.ring.sring.rsp_event = 1;
	}
	me = gs;
	nended = nchanged = 0;
}

static inline void begin_connected(void)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
}

static inline void end(void)
{
	fio.manual = false;
	fault_io_clear(&fio);
	if (v->spec)
		DO(.what = FORCE);
	ck_assert(!vbd_busy(v));
	ck_assert_uint_eq(vbd_state(v), TD_STATE_CLOSED);
	vbd_free(v);
	queue.buffered = NULL;
	queue_fini(&queue);
	turns(2);
	fault_io_free(&fio);
	ev_loop_destroy(loop);
	close(gs[0].kick);
	close(gs[1].kick);
}

/* --- a disk with a marker, and so with records, in a control directory of its own --- */

#define MINOR 5

static char control_dir[64];

static inline void begin_marked(void)
{
	char path[128];
	int marker;

	strcpy(control_dir, "/tmp/test-vbd.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(control_dir));
	ck_assert_int_eq(setenv("TAPDISK_CONTROL_DIR", control_dir, 1), 0);
	begin();
	vbd_free(v);
	snprintf(path, sizeof path, "%s/marker", control_dir);
	marker = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(marker, 0);
	v = vbd_new(&queue, MINOR, marker, changed);
}

static inline void end_marked(void)
{
	char cmd[128];

	end();
	snprintf(cmd, sizeof cmd, "rm -rf %s", control_dir);
	ck_assert_int_eq(system(cmd), 0);
}

#endif
