/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/test-ring.h"
#include "tests/support/blkif-front.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct test_guest g;
struct ev_loop *loop;
struct test_image img;
char disk[TEST_IMAGE_SECTORS * 512];
struct cache cache;
struct blkif_disk bdisk;
static struct stats stats;
struct blkif *ring;
unsigned nbroken, nidle;
unsigned polling_us, polling_idle;
bool persistent;
unsigned guest_pages = PAGES;
const struct blkif_keep *keep;

/* --- the transport --- */

static void *x_map(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *err)
{
	if (g.refuse_map) {
		td_fail(err, EFAULT, "no such grant");
		return NULL;
	}
	g.mapped++;
	return g.ring.bytes;
}

static void x_unmap(struct td_xport *x, void *r, unsigned n)
{
	ck_assert_ptr_eq(r, g.ring.bytes);
	g.mapped--;
}

static int x_bind(struct td_xport *x, uint32_t port, struct td_err *err)
{
	if (g.refuse_bind)
		return td_fail(err, ENOENT, "no such port");
	g.bound++;
	return g.kick;
}

static void x_unbind(struct td_xport *x)
{
	g.bound--;
}

static bool x_ack(struct td_xport *x)
{
	eventfd_t n;

	g.acks++;
	return eventfd_read(g.kick, &n) == 0;
}

static void x_notify(struct td_xport *x)
{
	g.notified++;
}

static void x_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	g.copies++;
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_le(c[i].off + c[i].len, 4096);
		if (c[i].ref >= guest_pages)
			c[i].err = -EINVAL;
		else if (c[i].to_guest)
			memcpy(g.mem[c[i].ref] + c[i].off, c[i].local, c[i].len);
		else
			memcpy(c[i].local, g.mem[c[i].ref] + c[i].off, c[i].len);
	}
	if (g.on_copy)
		g.on_copy();
}

static void *x_page(struct td_xport *x, uint32_t ref)
{
	if (ref >= guest_pages || g.refuse_page)
		return NULL;
	g.pages_mapped++;
	g.maps++;
	return g.mem[ref];
}

static void x_unpage(struct td_xport *x, void *page)
{
	ck_assert((char *)page >= g.mem[0] && (char *)page <= g.mem[guest_pages - 1]);
	g.pages_mapped--;
}

static void x_close(struct td_xport *x)
{
	g.closed++;
}

static const struct td_xport_ops x_ops = {"test",   x_map,  x_unmap, x_bind, x_unbind, x_ack,
					  x_notify, x_copy, x_close, NULL,   x_page,   x_unpage};

/* --- the disk --- */

static void on_broken(void *owner, const char *why)
{
	ck_assert_ptr_nonnull(strstr(why, "ring"));
	nbroken++;
}

static void on_idle(void *owner)
{
	nidle++;
}

static void nothing(struct cache *c)
{
}

/* Moves the data when the image gets a request, so that what is in the guest's pages can be looked
 * at. */
static void seen(struct test_image *t, struct td_req *r)
{
	if (r->op == TD_READ)
		memcpy(r->iov->iov_base, disk + r->off, r->len);
	else if (r->op == TD_WRITE)
		memcpy(disk + r->off, r->iov->iov_base, r->len);
}

int try_connect(enum blkif_abi abi, unsigned pages, struct td_err *err)
{
	struct blkif_params p = {.domid = 7,
				 .devid = 51712,
				 .port = 3,
				 .pages = pages,
				 .abi = abi,
				 .polling_us = polling_us,
				 .polling_idle = polling_idle,
				 .persistent = persistent};

	g.abi = abi;
	g.slots = blkif_slots(abi, pages);
	return blkif_connect(loop, &g.x, &p, keep, &bdisk, NULL, &ring, err);
}

char as_made(unsigned sector)
{
	return (char)(sector + sector * 512 % 251);
}

void begin_disk(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	test_image_open(&img, 0);
	img.seen = seen;
	img.at_once = true;
	for (size_t i = 0; i < sizeof disk; i++)
		disk[i] = (char)(i / 512 + i % 251);
	ck_assert_int_eq(disk[512], as_made(1));
	cache_init(&cache, loop, NULL);
	cache.changed = nothing;
	cache_attach(&cache, td_cache_mode_find("none"), img.image, &img.io, true);
	cache_resume(&cache);
	td_list_init(&stats.sources);
	bdisk = (struct blkif_disk){.cache = &cache,
				    .stats = &stats,
				    .sectors = TEST_IMAGE_SECTORS,
				    .broken = on_broken,
				    .idle = on_idle};
}

void begin_ring(enum blkif_abi abi, unsigned pages)
{
	memset(&g, 0, offsetof(struct test_guest, mem));
	memset(g.ring.bytes, 0xEE, sizeof g.ring.bytes);
	g.ring.sring = (struct blkif_sring){.req_event = 1, .rsp_event = 1};
	g.x.ops = &x_ops;
	g.kick = eventfd(0, EFD_NONBLOCK);
	nbroken = nidle = 0;
	ck_assert_int_eq(try_connect(abi, pages, NULL), 0);
	blkif_run(ring);
}

void begin(enum blkif_abi abi, unsigned pages)
{
	memset(g.mem, 0, sizeof g.mem);
	begin_disk();
	begin_ring(abi, pages);
}

void end_ring(void)
{
	ck_assert_uint_eq(blkif_inflight(ring), 0);
	blkif_disconnect(ring);
	ck_assert(g.mapped == 0 && g.pages_mapped == 0 && g.bound == 0 && g.closed == 1);
	close(g.kick);
}

void end_disk(void)
{
	cache_quiesce(&cache);
	cache_detach(&cache);
	cache_fini(&cache);
	test_image_close(&img);
	ev_loop_destroy(loop);
}

void end(void)
{
	end_ring();
	end_disk();
}

/* --- the frontend --- */

struct blkif_desc desc(uint8_t op, uint64_t id, uint64_t sector, unsigned segs)
{
	struct blkif_desc d = {.op = op, .id = id, .sector = sector, .nr_segs = (uint8_t)segs};

	for (unsigned i = 0; i < segs && i < BLKIF_MAX_SEGS; i++)
		d.seg[i] = (struct blkif_seg){.ref = i, .first = 0, .last = 7};
	return d;
}

void put(struct blkif_desc d)
{
	blkif_put_request(g.abi, &g.ring.sring, g.slots, g.prod++, &d);
}

void kick(void)
{
	__atomic_store_n(&g.ring.sring.req_prod, g.prod, __ATOMIC_RELEASE);
	eventfd_write(g.kick, 1);
}

void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

unsigned nresponses(void)
{
	return g.ring.sring.rsp_prod - g.cons;
}

int response(uint64_t *id, uint8_t *op)
{
	int16_t status;

	ck_assert_uint_ge(nresponses(), 1);
	blkif_get_response(g.abi, &g.ring.sring, g.slots, g.cons++, id, op, &status);
	return status;
}

int ask(struct blkif_desc d)
{
	uint64_t id;
	uint8_t op;
	int status;

	put(d);
	kick();
	turns(3);
	ck_assert_uint_eq(nresponses(), 1);
	status = response(&id, &op);
	ck_assert_uint_eq(id, d.id);
	ck_assert_uint_eq(op, d.op == BLKIF_INDIRECT ? d.nr_segs : d.op);
	return status;
}

int ask_seg(uint8_t op, uint64_t sector, unsigned first, unsigned last)
{
	struct blkif_desc d = desc(op, 1, sector, 1);

	d.seg[0].first = (uint8_t)first;
	d.seg[0].last = (uint8_t)last;
	return ask(d);
}
