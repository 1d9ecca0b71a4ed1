/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "tests/support/blkif-front.h"

#define CALL_TIMEOUT 30    /* s */
#define DO_TIMEOUT   60000 /* ms */

static void release(struct guest *g)
{
	if (g->mem)
		munmap(g->mem, g->bytes);
	if (g->memfd >= 0)
		close(g->memfd);
	if (g->kick >= 0)
		close(g->kick);
	if (g->call >= 0)
		close(g->call);
}

static int make_memory(struct guest *g, struct td_err *err)
{
	g->data_page = 1u << g->order;
	g->bytes = ((size_t)g->data_page + (size_t)g->slots * (g->segs + 1)) * 4096;
	g->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->memfd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (g->kick < 0 || g->call < 0 || g->memfd < 0 ||
	    ftruncate(g->memfd, (off_t)g->bytes) < 0 ||
	    fcntl(g->memfd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return td_fail(err, errno, "cannot make the guest's memory: %s", strerror(errno));
	g->mem = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->memfd, 0);
	if (g->mem == MAP_FAILED) {
		g->mem = NULL;
		return td_fail(err, errno, "cannot map the guest's memory: %s", strerror(errno));
	}
	g->ring = (struct blkif_sring *)g->mem;
	g->ring->req_event = g->ring->rsp_event = 1;
	for (unsigned i = 0; i < g->slots; i++)
		g->idle[g->idle_n++] = (uint16_t)(g->slots - 1 - i);
	return 0;
}

static json_t *describe(const struct guest *g)
{
	json_t *refs = json_array();

	for (unsigned i = 0; i < 1u << g->order; i++)
		json_array_append_new(refs, json_integer(i));
	return json_pack("{s:o,s:i}", "refs", refs, "port", 1);
}

static int ask_connect(struct guest *g, unsigned n, bool take_over, struct td_err *err)
{
	json_t *queues = json_array(), *info = NULL, *req;
	int fds[3 * BLKIF_MAX_QUEUES], rc;

	for (unsigned i = 0; i < n; i++) {
		json_array_append_new(queues, describe(&g[i]));
		memcpy(&fds[3 * i], (int[]){g[i].memfd, g[i].kick, g[i].call}, 3 * sizeof fds[0]);
	}
	req = json_pack("{s:s,s:i,s:i,s:i,s:s,s:o,s:s,s:b,s:b}", "op", "connect", "minor", g->minor,
			"domid", g->domid, "devid", g->devid, "transport", "mem", "queues", queues,
			"abi", blkif_abi_name(g->abi), "take-over", take_over, "persistent",
			g->how.persistent);
	if (g->how.says_polling)
		json_object_set_new(req, "polling-duration", json_integer(g->how.polling_us));
	if (g->how.says_polling || g->how.says_idle)
		json_object_set_new(req, "polling-idle-threshold",
				    json_integer(g->how.polling_idle));
	rc = td_ctl_call(g->pid, req, fds, (int)(3 * n), CALL_TIMEOUT, NULL, NULL, NULL, err);
	if (!rc)
		rc = td_ctl_call(g->pid, json_pack("{s:s,s:i}", "op", "info", "minor", g->minor),
				 NULL, 0, CALL_TIMEOUT, NULL, NULL, &info, err);
	for (unsigned i = 0; !rc && i < n; i++)
		g[i].sectors = (uint64_t)json_integer_value(json_object_get(info, "sectors"));
	json_decref(info);
	return rc;
}

int guest_new(struct guest *g, int minor, int devid, const struct guest_how *how,
	      struct td_err *err)
{
	unsigned segs = how->segs ? how->segs : BLKIF_MAX_SEGS;

	*g = (struct guest){.minor = minor,
			    .domid = 1,
			    .devid = devid,
			    .how = *how,
			    .abi = how->abi,
			    .order = how->order,
			    .memfd = -1,
			    .kick = -1,
			    .call = -1,
			    .slots = blkif_slots(how->abi, 1u << how->order),
			    .segs = segs,
			    .max_bytes = segs * 4096};
	return make_memory(g, err);
}

int guest_connect_queues(struct guest *g, unsigned n, pid_t pid, int minor, int devid,
			 const struct guest_how *how, struct td_err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < n; i++)
		g[i] = (struct guest){.memfd = -1, .kick = -1, .call = -1};
	for (unsigned i = 0; !rc && i < n; i++) {
		rc = guest_new(&g[i], minor, devid, how, err);
		g[i].pid = pid;
	}
	if (!rc)
		rc = ask_connect(g, n, false, err);
	for (unsigned i = 0; rc && i < n; i++)
		release(&g[i]);
	return rc;
}

int guest_connect_how(struct guest *g, pid_t pid, int minor, int devid, const struct guest_how *how,
		      struct td_err *err)
{
	return guest_connect_queues(g, 1, pid, minor, devid, how, err);
}

int guest_connect(struct guest *g, pid_t pid, int minor, int devid, enum blkif_abi abi,
		  unsigned order, struct td_err *err)
{
	return guest_connect_how(g, pid, minor, devid,
				 &(struct guest_how){.abi = abi, .order = order}, err);
}

int guest_take_over_queues(struct guest *g, unsigned n, pid_t pid, struct td_err *err)
{
	for (unsigned i = 0; i < n; i++)
		g[i].pid = pid;
	return ask_connect(g, n, true, err);
}

int guest_take_over(struct guest *g, pid_t pid, struct td_err *err)
{
	return guest_take_over_queues(g, 1, pid, err);
}

void guest_disconnect_queues(struct guest *g, unsigned n)
{
	td_ctl_call(g->pid,
		    json_pack("{s:s,s:i,s:i,s:i}", "op", "disconnect", "minor", g->minor, "domid",
			      g->domid, "devid", g->devid),
		    NULL, 0, CALL_TIMEOUT, NULL, NULL, NULL, NULL);
	for (unsigned i = 0; i < n; i++)
		release(&g[i]);
}

void guest_disconnect(struct guest *g)
{
	guest_disconnect_queues(g, 1);
}

int guest_slot(struct guest *g)
{
	return g->idle_n ? g->idle[--g->idle_n] : -1;
}

uint32_t guest_ref(struct guest *g, int slot)
{
	return g->data_page + (uint32_t)slot * (g->segs + 1);
}

void *guest_data(struct guest *g, int slot)
{
	return g->mem + (size_t)guest_ref(g, slot) * 4096;
}

static unsigned fill_segs(struct blkif_seg *seg, uint32_t ref, unsigned bytes)
{
	unsigned n = 0;

	for (; bytes; n++) {
		unsigned len = bytes < 4096 ? bytes : 4096;

		seg[n] = (struct blkif_seg){.ref = ref + n, .last = (uint8_t)(len / 512 - 1)};
		bytes -= len;
	}
	return n;
}

struct blkif_seg *guest_segs(struct guest *g, int slot)
{
	return (struct blkif_seg *)(void *)(g->mem + (size_t)(guest_ref(g, slot) + g->segs) * 4096);
}

void guest_queue(struct guest *g, int slot, uint8_t op, uint64_t sector, unsigned bytes)
{
	struct blkif_desc d = {
		.id = (uint64_t)slot, .sector = sector, .op = op, .handle = (uint16_t)g->devid};

	if (bytes <= GUEST_BYTES) {
		d.nr_segs = (uint8_t)fill_segs(d.seg, guest_ref(g, slot), bytes);
	} else {
		d.op = BLKIF_INDIRECT;
		d.nr_segs = op;
		d.page[0] = guest_ref(g, slot) + g->segs;
		d.nr_indirect = (uint16_t)fill_segs(guest_segs(g, slot), guest_ref(g, slot), bytes);
	}
	guest_queue_raw(g, &d);
}

void guest_queue_raw(struct guest *g, const struct blkif_desc *d)
{
	if (g->trace) {
		g->sent[d->id] = (struct guest_sent){
			.op = d->op == BLKIF_INDIRECT ? d->nr_segs : d->op, .sector = d->sector};
		g->queued[g->queued_n++] = (uint16_t)d->id;
	}
	blkif_put_request(g->abi, g->ring, g->slots, g->req_prod++, d);
}

void guest_trace(struct guest *g, FILE *f)
{
	g->trace = f;
	g->queued_n = 0;
}

static void trace(const struct guest *g, const char *what, unsigned slot, long long value)
{
	static const char *const ops[] = {"READ",  "WRITE",    "BARRIER",
					  "FLUSH", "RESERVED", "DISCARD"};
	const struct guest_sent *s = &g->sent[slot];
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	fprintf(g->trace, "%lld.%09ld %s %u %s %lld\n", (long long)ts.tv_sec, ts.tv_nsec, what,
		slot, s->op < sizeof(ops) / sizeof(*ops) ? ops[s->op] : "ODD", value);
}

void guest_push(struct guest *g)
{
	uint32_t old = g->ring->req_prod;

	for (unsigned i = 0; i < g->queued_n; i++)
		trace(g, "pushed", g->queued[i], (long long)g->sent[g->queued[i]].sector);
	g->queued_n = 0;
	__atomic_store_n(&g->ring->req_prod, g->req_prod, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index is out before req_event is read */
	if (g->req_prod - g->ring->req_event < g->req_prod - old)
		eventfd_write(g->kick, 1);
}

bool guest_reap(struct guest *g, int *slot, int *status)
{
	uint64_t id;
	uint8_t op;
	int16_t s;

	if (__atomic_load_n(&g->ring->rsp_prod, __ATOMIC_ACQUIRE) == g->rsp_cons)
		return false;
	blkif_get_response(g->abi, g->ring, g->slots, g->rsp_cons++, &id, &op, &s);
	*slot = (int)id;
	*status = s;
	if (g->trace)
		trace(g, "answered", (unsigned)id, s);
	g->idle[g->idle_n++] = (uint16_t)id;
	return true;
}

int guest_wait(struct guest *g, int timeout_ms)
{
	struct pollfd p = {.fd = g->call, .events = POLLIN};
	eventfd_t n;

	for (;;) {
		g->ring->rsp_event = g->rsp_cons + 1;
		__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the wish is out before the last look */
		if (g->ring->rsp_prod != g->rsp_cons)
			return 0;
		if (poll(&p, 1, timeout_ms) == 0)
			return -ETIMEDOUT;
		eventfd_read(g->call, &n);
	}
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int guest_wait_awake(struct guest *g, unsigned us, int timeout_ms)
{
	for (uint64_t end = now_us() + us; now_us() < end;)
		if (__atomic_load_n(&g->ring->rsp_prod, __ATOMIC_ACQUIRE) != g->rsp_cons)
			return 0;
	return guest_wait(g, timeout_ms);
}

int guest_do(struct guest *g, uint8_t op, uint64_t sector, void *buf, unsigned bytes)
{
	int slot = guest_slot(g), status = 0, rc;

	if (buf && op != BLKIF_READ)
		memcpy(guest_data(g, slot), buf, bytes);
	guest_queue(g, slot, op, sector, bytes);
	guest_push(g);
	rc = guest_wait(g, DO_TIMEOUT);
	if (rc)
		return rc;
	guest_reap(g, &slot, &status);
	if (buf && op == BLKIF_READ)
		memcpy(buf, guest_data(g, slot), bytes);
	return status;
}

static uint64_t word(uint64_t sector, unsigned i, uint64_t seed)
{
	uint64_t x = (sector * 64 + i % 64 + 1) * 0x9e3779b97f4a7c15 ^ seed * 0xc2b2ae3d27d4eb4f;

	return x ^ x >> 29;
}

void guest_fill(void *buf, uint64_t sector, unsigned bytes, uint64_t seed)
{
	for (unsigned i = 0; i < bytes / 8; i++) {
		uint64_t w = word(sector + i / 64, i, seed);

		memcpy((char *)buf + i * 8, &w, 8);
	}
}

long guest_check(const void *buf, uint64_t sector, unsigned bytes, uint64_t seed)
{
	for (unsigned i = 0; i < bytes / 8; i++) {
		uint64_t w = word(sector + i / 64, i, seed);

		if (memcmp((const char *)buf + i * 8, &w, 8))
			return (long)i * 8;
	}
	return -1;
}
