/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's life (the diagram at the top of tapdisk/vbd.c), with a ring and without, on a simulated store and on real files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/fiber.h"
#include "tapdisk/vbd.h"
#include "td/ctl.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

#define SECTORS 2048

static struct ev_loop *loop;
static struct fault_io fio;
static struct fault_file *file;
static struct queue queue;
static struct vbd *v;
static struct td_err err;
static unsigned nchanged;

/* --- a guest -------------------------------------------------------------------------------------------------------- */

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

static struct guest *of(struct td_xport *x)
{
	return td_entry(x, struct guest, x);
}

static void *x_map(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *e)
{
	return of(x)->ring.bytes;
}

static void x_unmap(struct td_xport *x, void *r, unsigned n)
{
}

static int x_bind(struct td_xport *x, uint32_t port, struct td_err *e)
{
	return of(x)->kick;
}

static void x_unbind(struct td_xport *x)
{
}

static bool x_ack(struct td_xport *x)
{
	eventfd_t n;

	return eventfd_read(of(x)->kick, &n) == 0;
}

static void x_notify(struct td_xport *x)
{
}

static void x_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (c[i].to_guest)
			memcpy(of(x)->page + c[i].off, c[i].local, c[i].len);
		else
			memcpy(c[i].local, of(x)->page + c[i].off, c[i].len);
}

static void x_close(struct td_xport *x)
{
	of(x)->closed++;
}

static const struct td_xport_ops x_ops = {"test", x_map, x_unmap, x_bind, x_unbind, x_ack, x_notify, x_copy, x_close, NULL, NULL, NULL};

static void put(uint8_t op, uint64_t sector, unsigned segs)
{
	struct blkif_desc d = {.op = op, .sector = sector, .nr_segs = (uint8_t)segs};

	d.seg[0].last = 7;
	blkif_put_request(BLKIF_NATIVE, &g.ring.sring, 32, g.prod++, &d);
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
	eventfd_write(g.kick, 1);
}

static void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

/* Takes what is there: the number of responses so far. */
static unsigned answers(void)
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

/* --- operations, each on a fiber ------------------------------------------------------------------------------------ */

struct call {
	enum { OPEN, CLOSE, FORCE, PAUSE, UNPAUSE, RESIZE, CONNECT, DISCONNECT } what;
	const char *spec, *mode;
	bool read_only, beside;
	int timeout, request_timeout, rc;
	unsigned domid, ring;
	unsigned order; /* when it ended; 0: not yet */
};

static unsigned nended;

static void run_call(void *arg)
{
	struct call *c = arg;
	struct vbd_options o = {.mode = td_cache_mode_find(c->mode ? c->mode : "writeback"), .unsafe = true, .read_only = c->read_only,
				.request_timeout = c->request_timeout};
	struct blkif_params p;
	struct td_err e;

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

static void begin_call(struct call *c)
{
	ck_assert_int_eq(td_fiber_start(loop, run_call, c), 0);
}

static int end_call(struct call *c)
{
	for (int i = 0; !c->order; i++) {
		ev_run(loop, EVRUN_NOWAIT);
		usleep(i > 100 && !c->order ? 50 : 0);
	}
	return c->rc;
}

static int run(struct call c)
{
	begin_call(&c);
	return end_call(&c);
}

#define DO(...) run((struct call){__VA_ARGS__})

static void changed(struct vbd *vbd)
{
	nchanged++;
}

static void begin(void)
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

static void begin_connected(void)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
}

static void end(void)
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

/* --- states --------------------------------------------------------------------------------------------------------- */

START_TEST(states_are_those_that_clients_know)
{
	begin();
	ck_assert_uint_eq(vbd_state(v), 0x2);
	ck_assert_int_eq(DO(.what = CLOSE), -ENODEV);
	ck_assert_int_eq(DO(.what = PAUSE), -ENODEV);
	ck_assert_int_eq(DO(.what = UNPAUSE), -ENODEV);
	ck_assert_int_eq(DO(.what = RESIZE), -ENODEV);
	ck_assert_int_eq(DO(.what = CONNECT), -ENODEV);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_int_eq(DO(.what = OPEN), -EALREADY);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = OPEN), -EALREADY);
	ck_assert_uint_eq(vbd_state(v), 0x2a);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:gone"), -ENOENT);
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert_str_eq(v->spec, "aio:disk");
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:other"), -EBUSY);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2);
	end();
}
END_TEST

START_TEST(an_open_that_fails_leaves_the_disk_closed)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:gone"), -ENOENT);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "bogus:disk"), -ENOENT);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "rbd:disk"), -ENOSYS);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "disk"), -EINVAL);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:"), -EINVAL);
	fault_io_file(&fio, "odd", 1000);
	fault_io_file(&fio, "empty", 0);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:odd"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "multiple of 512"));
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:empty"), -EINVAL);
	ck_assert_uint_eq(vbd_state(v), 0x2);
	ck_assert(!vbd_busy(v));
	end();
}
END_TEST

START_TEST(a_paused_disk_can_be_closed)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	end();
}
END_TEST

START_TEST(the_mode_decides_what_a_close_flushes)
{
	static const struct { const char *mode; bool ro; unsigned syncs; } t[] = {
		{"writeback", false, 1}, {"writethrough", false, 1}, {"unsafe", false, 0}, {"writeback", true, 0}};

	for (unsigned i = 0; i < 4; i++) {
		begin();
		ck_assert_int_eq(DO(.what = OPEN, .mode = t[i].mode, .read_only = t[i].ro), 0);
		fault_io_clear(&fio);
		ck_assert_int_eq(DO(.what = CLOSE), 0);
		ck_assert_uint_eq(fio.nlog, t[i].syncs);
		end();
	}
}
END_TEST

/* --- pause ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_pause_waits_for_the_image_and_loses_nothing)
{
	struct call pause = {.what = PAUSE};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 1);
	begin_call(&pause);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	turns(5);
	ck_assert_uint_eq(pause.order, 0);
	fault_io_complete(&fio, 0);
	turns(5);
	ck_assert_uint_eq(fio.log[fio.nlog - 1].op, TD_IO_SYNC); /* what was written is durable before the image is closed */
	ck_assert_uint_eq(pause.order, 0);
	fault_io_complete(&fio, 0);
	ck_assert_int_eq(end_call(&pause), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	fio.manual = false;
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(a_pause_that_takes_too_long_is_called_off)
{
	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	turns(3);
	ck_assert_int_eq(DO(.what = PAUSE, .timeout = 1), -ETIMEDOUT);
	ck_assert_uint_eq(vbd_state(v), 0);
	put(BLKIF_READ, 8, 1);
	turns(3);
	ck_assert_uint_eq(fio.nrunning, 2); /* the ring goes on */
	fault_io_complete(&fio, 1);
	fault_io_complete(&fio, 0);
	ck_assert_uint_eq(answers(), 2);
	end();
}
END_TEST

START_TEST(paused_the_disk_may_change_its_image_but_not_shrink_under_a_guest)
{
	begin_connected();
	fault_io_file(&fio, "small", SECTORS * 256);
	fault_io_file(&fio, "large", SECTORS * 1024);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "cannot shrink"));
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:large"), 0);
	ck_assert_uint_eq(v->disk.sectors, SECTORS * 2);
	ck_assert_str_eq(v->spec, "aio:large");
	put(BLKIF_READ, SECTORS * 2 - 8, 1);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), 0); /* nobody knows it larger */
	end();
}
END_TEST

START_TEST(an_unpause_keeps_a_disk_read_only)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .read_only = true), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writethrough"), 0);
	ck_assert(v->disk.read_only && v->opt.read_only);
	ck_assert_str_eq(v->cache.mode->name, "writethrough");
	end();
}
END_TEST

START_TEST(a_failed_flush_lasts_over_a_pause_and_not_over_a_close)
{
	begin_connected();
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	ck_assert_uint_eq(vbd_state(v), TD_STATE_FAILED);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "flush"));
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a | TD_STATE_FAILED);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_ptr_null(vbd_reason(v));
	end();
}
END_TEST

START_TEST(a_last_flush_that_fails_is_told_to_who_closes)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = CLOSE), -EIO);
	ck_assert_ptr_nonnull(strstr(err.text, "flush"));
	ck_assert_uint_eq(vbd_state(v), 0x2); /* closed all the same */
	ck_assert_int_eq(DO(.what = OPEN), 0);
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -EIO);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a | TD_STATE_FAILED);
	end();
}
END_TEST

START_TEST(a_guest_that_was_told_of_no_cache_is_not_given_one)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .mode = "writethrough"), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writeback"), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "no cache"));
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_str_eq(v->opt.mode->name, "writethrough");
	/* the other way is a stronger promise */
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writeback"), 0);
	memset(&g.ring, 0, sizeof g.ring);
	g.prod = g.cons = 0;
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .mode = "writethrough"), 0);
	end();
}
END_TEST

START_TEST(a_store_that_does_not_answer_is_told_of)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .request_timeout = 3600), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert_ptr_null(vbd_reason(v)); /* at rest */
	fio.manual = true;
	put(BLKIF_READ, 0, 1);
	turns(3);
	nchanged = 0;
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert(!v->stall.stalled);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert(v->stall.stalled && nchanged == 1);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "does not answer"));
	ck_assert_uint_eq(answers(), 0); /* told, and nothing given up */
	/* one comes back, and another is under way: slow is not stalled */
	put(BLKIF_READ, 8, 1);
	turns(3);
	fault_io_complete(&fio, 0);
	ev_invoke(loop, &v->stall.timer, EV_TIMER);
	ck_assert(!v->stall.stalled && nchanged == 2);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert(!ev_is_active(&v->stall.timer)); /* nothing wakes a paused disk */
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert(ev_is_active(&v->stall.timer));
	end();
}
END_TEST

/* --- guests --------------------------------------------------------------------------------------------------------- */

START_TEST(one_guest_at_a_time_and_only_it_lets_go)
{
	begin_connected();
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3), -EBUSY);
	ck_assert_uint_eq(g.closed, 1); /* taken over also on failure */
	ck_assert_int_eq(DO(.what = DISCONNECT, .domid = 3), -ENOENT);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(g.closed, 2);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	memset(&g.ring, 0, sizeof g.ring);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	g.prod = g.cons = 0;
	ck_assert_int_eq(DO(.what = CONNECT), 0); /* a guest may come while it is paused */
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 1);
	end();
}
END_TEST

START_TEST(a_further_queue_comes_once)
{
	setenv("TAPDISK_THREADS", "1", 1);
	begin_connected();
	me++;
	ck_assert_int_eq(DO(.what = CONNECT, .ring = 1, .beside = true), 0);
	me--;
	ck_assert_int_eq(DO(.what = CONNECT, .ring = 1, .beside = true), -EBUSY);
	ck_assert(strstr(err.text, "has queue 1 of device 0 already"));
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	me++;
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 1);
	me--;
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	end();
}
END_TEST

START_TEST(a_guest_and_its_stub_domain_use_one_disk)
{
	begin_connected();
	me = gs + 1;
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3, .beside = true), 0);
	for (me = gs; me < gs + 2; me++) {
		put(BLKIF_WRITE, 0, 1);
		ck_assert_uint_eq(answers(), 1);
		ck_assert_int_eq(g.last, BLKIF_OKAY);
	}
	/* held and run together */
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	for (me = gs; me < gs + 2; me++) {
		put(BLKIF_READ, 0, 1);
		ck_assert_uint_eq(answers(), 1);
	}
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	for (me = gs; me < gs + 2; me++)
		ck_assert_uint_eq(answers(), 2);
	/* one goes, the disk is still in use */
	me = gs;
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(gs[0].closed, 1);
	ck_assert_uint_eq(gs[1].closed, 0);
	ck_assert_int_eq(DO(.what = CLOSE, .timeout = 1), -EBUSY);
	me = gs + 1;
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3, .beside = true), -EBUSY); /* not twice */
	ck_assert_int_eq(DO(.what = FORCE), 0);
	ck_assert_uint_eq(gs[1].closed, 2);
	end();
}
END_TEST

START_TEST(a_guest_that_leaves_a_paused_disk_takes_nothing_of_the_others)
{
	struct call pause = {.what = PAUSE};

	begin_connected();
	me = gs + 1;
	ck_assert_int_eq(DO(.what = CONNECT, .domid = 3, .beside = true), 0);
	fio.manual = true;
	for (me = gs; me < gs + 2; me++)
		put(BLKIF_WRITE_BARRIER, 8, 1); /* one is under way, the other held behind it */
	turns(3);
	begin_call(&pause);
	turns(3);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_int_eq(end_call(&pause), 0);
	me = gs;
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 1);
	me = gs + 1;
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(a_read_only_disk_has_as_many_guests_as_want_it)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .read_only = true), 0);
	for (me = gs; me < gs + 2; me++) {
		ck_assert_int_eq(DO(.what = CONNECT, .domid = (unsigned)(me - gs) + 7), 0);
		put(BLKIF_READ, 0, 1);
		ck_assert_uint_eq(answers(), 1);
	}
	me = gs;
	end();
}
END_TEST

START_TEST(a_medium_is_taken_out_and_another_put_in)
{
	struct call pause = {.what = PAUSE};

	begin();
	fault_io_file(&fio, "small", SECTORS * 256);
	ck_assert_int_eq(DO(.what = OPEN, .read_only = true), 0);
	ck_assert_int_eq(DO(.what = CONNECT), 0);
	/* one is under way, another is asked for meanwhile: it may not reach what is not there any more */
	fio.manual = true;
	put(BLKIF_READ, SECTORS - 8, 1);
	turns(3);
	begin_call(&pause);
	turns(3);
	put(BLKIF_READ, SECTORS - 8, 1);
	fio.manual = false;
	fault_io_complete(&fio, 0);
	ck_assert_int_eq(end_call(&pause), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "empty:drive"), 0);
	ck_assert_uint_eq(v->disk.sectors, 0);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	put(BLKIF_FLUSH_DISKCACHE, 0, 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:small"), 0);
	put(BLKIF_READ, 0, 1);
	ck_assert_uint_eq(answers(), 5);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

START_TEST(a_close_waits_a_moment_for_the_guest_and_then_refuses)
{
	struct call close = {.what = CLOSE, .timeout = 100}, leave = {.what = DISCONNECT};

	begin_connected();
	ck_assert_int_eq(DO(.what = CLOSE, .timeout = 1), -EBUSY);
	ck_assert_uint_eq(vbd_state(v), 0);
	begin_call(&close);
	turns(2);
	ck_assert(!close.order && vbd_busy(v));
	begin_call(&leave);
	ck_assert_int_eq(end_call(&close), 0);
	ck_assert_uint_eq(leave.order, 1 + 3);
	end();
}
END_TEST

START_TEST(force_closes_under_a_guest_when_the_image_is_done)
{
	struct call close = {.what = FORCE};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_WRITE_BARRIER, 8, 1);
	put(BLKIF_READ, 16, 1);
	turns(3);
	begin_call(&close);
	turns(3);
	ck_assert_uint_eq(close.order, 0);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_int_eq(end_call(&close), 0);
	ck_assert_uint_eq(answers(), 3); /* each has an answer, if an error */
	ck_assert_int_eq(g.closed, 1);
	end();
}
END_TEST

/* Linux's blkfront closes with requests in the ring, and sends those that wait behind them when the answers come. */
START_TEST(a_guest_that_leaves_in_the_middle_of_work_gets_every_answer)
{
	struct call leave = {.what = DISCONNECT};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	turns(3);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_READ, 16, 1); /* pushed, and not seen yet */
	begin_call(&leave);
	turns(3);
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_uint_eq(answers(), 3);
	put(BLKIF_WRITE, 24, 1);
	turns(3);
	while (fault_io_complete(&fio, 0))
		;
	fio.manual = false;
	ck_assert_int_eq(end_call(&leave), 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	end();
}
END_TEST

/* the same of a disk that cannot serve it: errors, but answers */
START_TEST(a_guest_that_leaves_a_paused_disk_gets_every_answer)
{
	begin_connected();
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_READ, 8, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	end();
}
END_TEST

START_TEST(a_guest_leaves_a_paused_disk)
{
	struct call pause = {.what = PAUSE};

	begin_connected();
	fio.manual = true;
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_WRITE_BARRIER, 8, 1);
	put(BLKIF_READ, 16, 1);
	turns(3);
	begin_call(&pause);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	ck_assert_int_eq(end_call(&pause), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 3);
	ck_assert_int_eq(g.last, BLKIF_ERROR);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	end();
}
END_TEST

START_TEST(a_guest_leaves_a_disk_without_space)
{
	begin_connected();
	fault_io_clear(&fio);
	for (unsigned k = 1; k < 50; k++)
		fault_io_rule(&fio, k, -ENOSPC);
	put(BLKIF_WRITE, 0, 1);
	put(BLKIF_WRITE, 8, 1);
	put(BLKIF_WRITE_BARRIER, 16, 1);
	put(BLKIF_WRITE, 24, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_uint_eq(vbd_state(v), TD_STATE_NO_SPACE);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "no space"));
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_uint_eq(answers(), 4);
	ck_assert_uint_eq(vbd_state(v) & ~(unsigned)TD_STATE_FAILED, 0);
	end();
}
END_TEST

START_TEST(a_pause_without_space_holds_the_writes_and_goes_on)
{
	begin_connected();
	fault_io_clear(&fio);
	fault_io_rule(&fio, 1, -ENOSPC);
	put(BLKIF_WRITE, 0, 1);
	ck_assert_uint_eq(answers(), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a | TD_STATE_NO_SPACE);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_uint_eq(vbd_state(v), 0);
	end();
}
END_TEST

START_TEST(a_guest_that_breaks_the_ring_shows_and_can_be_removed)
{
	begin_connected();
	nchanged = 0;
	g.ring.sring.req_prod = 1000;
	eventfd_write(g.kick, 1);
	turns(3);
	ck_assert_uint_eq(nchanged, 1);
	ck_assert_ptr_nonnull(strstr(vbd_reason(v), "more requests"));
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_ptr_null(vbd_reason(v));
	end();
}
END_TEST

/* --- the rest ------------------------------------------------------------------------------------------------------- */

START_TEST(a_resize_grows)
{
	begin_connected();
	nchanged = 0;
	ck_assert_int_eq(DO(.what = RESIZE), 0);
	ck_assert(nchanged == 0 && v->disk.sectors == SECTORS);
	ck_assert_int_eq(fio.io->ops->truncate(fio.io, (int)(file - fio.file), SECTORS * 1024 + 100), 0);
	put(BLKIF_READ, SECTORS, 1);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_ERROR); /* not before it is told */
	ck_assert_int_eq(DO(.what = RESIZE), 0);
	ck_assert(nchanged == 1 && v->disk.sectors == SECTORS * 2);
	put(BLKIF_READ, SECTORS, 1);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_int_eq(fio.io->ops->truncate(fio.io, (int)(file - fio.file), SECTORS * 512), 0);
	ck_assert_int_eq(DO(.what = RESIZE), -EINVAL);
	ck_assert_uint_eq(v->disk.sectors, SECTORS * 2);
	end();
}
END_TEST

START_TEST(operations_at_once_run_one_after_the_other)
{
	struct call c[] = {{.what = OPEN}, {.what = PAUSE}, {.what = UNPAUSE}, {.what = OPEN}, {.what = PAUSE}, {.what = CLOSE},
			   {.what = CLOSE}, {.what = OPEN}, {.what = RESIZE}, {.what = PAUSE}};
	static const int rc[] = {0, 0, 0, -EALREADY, 0, 0, -ENODEV, 0, 0, 0};
	unsigned n = sizeof c / sizeof *c;

	for (int round = 0; round < 20; round++) {
		begin();
		for (unsigned i = 0; i < n; i++)
			begin_call(&c[i]);
		for (unsigned i = 0; i < n; i++) {
			ck_assert_int_eq(end_call(&c[i]), rc[i]);
			ck_assert_uint_eq(c[i].order, i + 1);
			c[i].order = 0;
		}
		ck_assert_uint_eq(vbd_state(v), 0x2a);
		end();
	}
}
END_TEST

START_TEST(pauses_at_random_under_load_answer_every_write)
{
	unsigned n = 0;

	srand(11);
	begin_connected();
	fio.reorder = true;
	for (unsigned round = 0; round < 400; round++) {
		for (unsigned i = (unsigned)rand() % 8; i && g.prod - g.cons < 32; i--, n++)
			put(rand() % 6 ? BLKIF_WRITE : rand() % 2 ? BLKIF_FLUSH_DISKCACHE : BLKIF_WRITE_BARRIER, (unsigned)rand() % 2000, 1);
		turns(rand() % 4);
		if (rand() % 3 == 0) {
			ck_assert_int_eq(DO(.what = PAUSE), 0);
			turns(rand() % 3);
			ck_assert_int_eq(DO(.what = UNPAUSE), 0);
		}
		answers();
		ck_assert_int_eq(g.last, BLKIF_OKAY);
	}
	for (int i = 0; i < 100; i++)
		answers();
	ck_assert_uint_eq(g.cons, n);
	end();
}
END_TEST

/* The same life on real files, with the engines that go with them. */
START_TEST(a_life_on_a_real_file)
{
	char path[] = "test-vbd.XXXXXX", spec[64];
	int fd = mkstemp(path), tries = 0;
	char *back = malloc(4096);

	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	snprintf(spec, sizeof spec, "raw:%s", path);
	for (const struct td_cache_mode *m = td_cache_modes; m->name; m++) {
		begin();
		fault_io_free(&fio);
		queue.buffered = NULL;
		int rc = DO(.what = OPEN, .spec = spec, .mode = m->name);
		if (rc == -EINVAL && (m->file_flags & TD_FILE_DIRECT)) {
			ck_assert_ptr_nonnull(strstr(err.text, "O_DIRECT"));
			goto next; /* a file system without it */
		}
		ck_assert_int_eq(rc, 0);
		ck_assert_int_eq(DO(.what = CONNECT), 0);
		memset(g.page, 'a' + tries, 4096);
		put(BLKIF_WRITE, 64, 1);
		while (!answers())
			usleep(1000);
		ck_assert_int_eq(DO(.what = PAUSE), 0);
		put(BLKIF_FLUSH_DISKCACHE, 0, 0);
		ck_assert_int_eq(DO(.what = UNPAUSE), 0);
		while (answers() < 2)
			usleep(1000);
		ck_assert(g.cons == 2 && g.last == BLKIF_OKAY);
		ck_assert_int_eq(pread(fd, back, 4096, 32768), 4096);
		ck_assert_mem_eq(back, g.page, 4096);
		tries++;
next:
		if (v->spec)
			ck_assert_int_eq(DO(.what = FORCE), 0);
		vbd_free(v);
		queue_fini(&queue);
		ev_loop_destroy(loop);
		close(g.kick);
	}
	ck_assert_int_ge(tries, 3);
	free(back);
	close(fd);
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd");

	SUITE_ADD(s, states_are_those_that_clients_know);
	SUITE_ADD(s, an_open_that_fails_leaves_the_disk_closed);
	SUITE_ADD(s, a_paused_disk_can_be_closed);
	SUITE_ADD(s, the_mode_decides_what_a_close_flushes);
	SUITE_ADD(s, a_pause_waits_for_the_image_and_loses_nothing);
	SUITE_ADD(s, a_pause_that_takes_too_long_is_called_off);
	SUITE_ADD(s, paused_the_disk_may_change_its_image_but_not_shrink_under_a_guest);
	SUITE_ADD(s, an_unpause_keeps_a_disk_read_only);
	SUITE_ADD(s, a_failed_flush_lasts_over_a_pause_and_not_over_a_close);
	SUITE_ADD(s, a_last_flush_that_fails_is_told_to_who_closes);
	SUITE_ADD(s, one_guest_at_a_time_and_only_it_lets_go);
	SUITE_ADD(s, a_guest_that_was_told_of_no_cache_is_not_given_one);
	SUITE_ADD(s, a_store_that_does_not_answer_is_told_of);
	SUITE_ADD(s, a_further_queue_comes_once);
	SUITE_ADD(s, a_guest_and_its_stub_domain_use_one_disk);
	SUITE_ADD(s, a_guest_that_leaves_a_paused_disk_takes_nothing_of_the_others);
	SUITE_ADD(s, a_read_only_disk_has_as_many_guests_as_want_it);
	SUITE_ADD(s, a_medium_is_taken_out_and_another_put_in);
	SUITE_ADD(s, a_close_waits_a_moment_for_the_guest_and_then_refuses);
	SUITE_ADD(s, force_closes_under_a_guest_when_the_image_is_done);
	SUITE_ADD(s, a_guest_that_leaves_in_the_middle_of_work_gets_every_answer);
	SUITE_ADD(s, a_guest_that_leaves_a_paused_disk_gets_every_answer);
	SUITE_ADD(s, a_guest_leaves_a_paused_disk);
	SUITE_ADD(s, a_guest_leaves_a_disk_without_space);
	SUITE_ADD(s, a_pause_without_space_holds_the_writes_and_goes_on);
	SUITE_ADD(s, a_guest_that_breaks_the_ring_shows_and_can_be_removed);
	SUITE_ADD(s, a_resize_grows);
	SUITE_ADD(s, operations_at_once_run_one_after_the_other);
	SUITE_ADD(s, pauses_at_random_under_load_answer_every_write);
	SUITE_ADD(s, a_life_on_a_real_file);
	return suite_run(s);
}
