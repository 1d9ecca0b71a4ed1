/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/bulk-guest.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tapdisk/blkif/blkif-layout.h"

struct guest_queue guest_queue[GUEST_QUEUES];
char guest_mem[GUEST_PAGES][4096] __attribute__((aligned(4096)));
enum blkif_abi guest_abi;
bool guest_refuses_pages;

static unsigned how_between, how_threads, nqueues; /* the latter two atomic */
static unsigned at_work;                           /* threads that are; atomic */

static struct guest_queue *queue_of(struct td_xport *x)
{
	return (struct guest_queue *)((char *)x - offsetof(struct guest_queue, x));
}

/* --- what changes by itself --- */

static void scribble_header(struct guest_queue *q, unsigned how, uint64_t n)
{
	uint32_t near = q->prod + (uint32_t)(n >> 40) % 8;

	if (how & SCRIBBLE_PROD && !(n & 0x700)) /* and now and then one that is none */
		q->ring.sring.req_prod = (n & 0xff800) ? near : (uint32_t)(n >> 16);
	if (how & SCRIBBLE_EVENTS && n & 0x100) {
		if (n & 0x200)
			q->ring.sring.rsp_event = (uint32_t)(n >> 32);
		else if (n & 0x400)
			q->ring.sring.req_event = (uint32_t)(n >> 32);
		else
			q->ring.sring.rsp_prod = near;
	}
}

static void scribble_slot(struct guest_queue *q, unsigned how, uint64_t n)
{
	const struct blkif_layout *l = &blkif_layouts[guest_abi];
	volatile char *slot = q->ring.bytes + blkif_slot(l, q->slots, (uint32_t)(n >> 8));
	unsigned at = l->response + (unsigned)(n >> 40) % (l->stride - l->response);

	if (how & SCRIBBLE_HEADS && n & 1)
		at = (unsigned)(n >> 40) % l->response;
	if (how & (SCRIBBLE_HEADS | SCRIBBLE_BODIES))
		slot[at] = (char)(n & 6 ? (n >> 56) & 15 : n >> 56);
}

static void scribble(unsigned how, uint64_t n, unsigned queues)
{
	struct guest_queue *q = &guest_queue[(n >> 4) % queues];

	if (!q->slots)
		return;
	if (how & SCRIBBLE_DATA && (n & 3) == 3) {
		/* of an INDIRECT's page the first segments: which is most of them */
		unsigned page = (unsigned)(n >> 8) % GUEST_PAGES;
		unsigned at =
			page < GUEST_DATA ? (unsigned)(n >> 32) % 4096 : (unsigned)(n >> 32) % 128;

		((volatile char *)guest_mem[page])[at] = (char)(n & 12 ? (n >> 56) & 15 : n >> 56);
	} else if (how & (SCRIBBLE_EVENTS | SCRIBBLE_PROD) && !(n & 0xc)) {
		scribble_header(q, how, n);
	} else {
		scribble_slot(q, how, n);
	}
}

static void *scribbler(void *arg)
{
	uint64_t n = (uint64_t)(uintptr_t)arg * 0x9e3779b97f4a7c15 + 1;

	for (;;) {
		unsigned how;

		__atomic_add_fetch(&at_work, 1, __ATOMIC_SEQ_CST);
		how = __atomic_load_n(&how_threads, __ATOMIC_SEQ_CST);
		for (int i = 0; how && i < 64; i++) {
			n ^= n << 13, n ^= n >> 7, n ^= n << 17;
			scribble(how, n * 0x2545f4914f6cdd1d, nqueues);
		}
		__atomic_sub_fetch(&at_work, 1, __ATOMIC_SEQ_CST);
		if (!how) {
			usleep(1000);
			continue;
		}
		if (!(n & 15)) /* the ring is served between two strokes, too */
			usleep(20);
	}
	return NULL;
}

void guest_scribble(unsigned how, bool between, bool threads, unsigned queues)
{
	/* none goes on as it was told before, when it gets its time again */
	__atomic_store_n(&how_threads, 0, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&at_work, __ATOMIC_SEQ_CST))
		usleep(10);
	nqueues = queues;
	how_between = between ? how : 0;
	__atomic_store_n(&how_threads, threads ? how : 0, __ATOMIC_SEQ_CST);
}

/* --- the transport --- */

static void *x_map(struct td_xport *x, const uint32_t *refs, unsigned n, struct td_err *err)
{
	queue_of(x)->ring_maps++;
	return queue_of(x)->ring.bytes;
}

static void x_unmap(struct td_xport *x, void *r, unsigned n)
{
	FUZZ_ASSERT(r == queue_of(x)->ring.bytes);
	queue_of(x)->ring_maps--;
}

static int x_bind(struct td_xport *x, uint32_t port, struct td_err *err)
{
	queue_of(x)->bound++;
	return queue_of(x)->kick;
}

static void x_unbind(struct td_xport *x)
{
	queue_of(x)->bound--;
}

static bool x_ack(struct td_xport *x)
{
	eventfd_t n;

	return eventfd_read(queue_of(x)->kick, &n) == 0;
}

static void x_notify(struct td_xport *x)
{
	queue_of(x)->notified++;
}

static void x_copy(struct td_xport *x, struct td_copy *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		FUZZ_ASSERT(c[i].off + c[i].len <= 4096);
		c[i].err = c[i].ref < GUEST_PAGES ? 0 : -EINVAL;
		if (c[i].err)
			continue;
		if (c[i].to_guest)
			memcpy(guest_mem[c[i].ref] + c[i].off, c[i].local, c[i].len);
		else
			memcpy(c[i].local, guest_mem[c[i].ref] + c[i].off, c[i].len);
	}
	for (int i = 0; how_between && i < 4; i++)
		scribble(how_between, bulk_any(), nqueues);
}

static void *x_page(struct td_xport *x, uint32_t ref)
{
	if (ref >= GUEST_PAGES || guest_refuses_pages)
		return NULL;
	queue_of(x)->page_maps++;
	return guest_mem[ref];
}

static void x_unpage(struct td_xport *x, void *page)
{
	FUZZ_ASSERT((char *)page >= guest_mem[0] && (char *)page <= guest_mem[GUEST_PAGES - 1]);
	queue_of(x)->page_maps--;
}

static void x_close(struct td_xport *x)
{
	queue_of(x)->closed++;
}

static const struct td_xport_ops ops = {"bulk",   x_map,  x_unmap, x_bind, x_unbind, x_ack,
					x_notify, x_copy, x_close, NULL,   x_page,   x_unpage};

/* --- rings --- */

void guest_start(void)
{
	pthread_t t;

	for (uintptr_t i = 0; i < bulk_scribblers; i++)
		FUZZ_ASSERT(!pthread_create(&t, NULL, scribbler, (void *)(i + 1)));
	for (int i = 0; i < GUEST_QUEUES; i++)
		FUZZ_ASSERT((guest_queue[i].kick = eventfd(0, EFD_NONBLOCK)) >= 0);
}

void guest_begin(struct guest_queue *q, unsigned pages)
{
	eventfd_t n;
	int kick = q->kick;

	eventfd_read(kick, &n);
	memset(q->ring.bytes, 0xee, (size_t)pages * 4096);
	q->ring.sring = (struct blkif_sring){.req_event = 1, .rsp_event = 1};
	q->x.ops = &ops;
	q->prod = q->cons = q->published = 0;
	q->notified = q->closed = 0;
	q->slots = blkif_slots(guest_abi, pages);
}

void guest_end(struct guest_queue *q)
{
	FUZZ_ASSERT(!q->ring_maps && !q->page_maps && !q->bound && q->closed == 1);
}
