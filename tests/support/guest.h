/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A blkif frontend over the memory transport: what a guest's driver does, for tests and benches.
 *
 * A request is built in a slot, which has g->max_bytes of data at guest_data(); its id is the
 * slot's number.  One thread.
 */
#ifndef TESTS_GUEST_H
#define TESTS_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "tapdisk/blkif/blkif-abi.h"
#include "td/log.h"

/* the most that one request carries, without indirect segments */
#define GUEST_BYTES     (BLKIF_MAX_SEGS * 4096u)
#define GUEST_BYTES_MAX (BLKIF_MAX_INDIRECT * 4096u) /* and with as many as there may be */

/* What a guest may ask for beyond the least. */
struct guest_how {
	enum blkif_abi abi;
	unsigned order;  /* of the ring's pages */
	unsigned segs;   /* in a request, up to BLKIF_MAX_INDIRECT; 0: BLKIF_MAX_SEGS */
	bool persistent; /* the pages may be used without a copy, at any time until the disconnect
			  */
	bool says_polling, says_idle; /* it asks for this: */
	unsigned polling_us;          /* how long the tapdisk stays awake for it, */
	unsigned polling_idle;        /* if so many percent of the host are idle */
};

struct guest {
	pid_t pid; /* the tapdisk's */
	int minor, domid, devid;
	struct guest_how how;
	enum blkif_abi abi;
	unsigned order, slots;
	uint64_t sectors; /* the disk's size, 512 bytes each */
	unsigned segs; /* the most in one request; beyond BLKIF_MAX_SEGS it goes as an INDIRECT */
	unsigned max_bytes;
	int memfd, kick, call;
	char *mem;
	size_t bytes;
	uint32_t data_page; /* the first page of slot 0's data; a slot's last page is for indirect
			       segments */
	struct blkif_sring *ring;
	uint32_t req_prod, rsp_cons;    /* ours; the ring's req_prod follows at guest_push */
	uint16_t idle[BLKIF_MAX_SLOTS]; /* a stack of slots that are not in flight */
	unsigned idle_n;
	FILE *trace; /* NULL, or where each request is logged as it goes out and as its response is
			seen; see guest_trace */
	struct guest_sent {
		uint8_t op;
		uint64_t sector;
	} sent[BLKIF_MAX_SLOTS];          /* by slot, for the trace */
	uint16_t queued[BLKIF_MAX_SLOTS]; /* slots that go out with the next guest_push */
	unsigned queued_n;
};

/* Connects as domain 1, device `devid'.  0 or -errno; on failure nothing is left open. */
int guest_connect(struct guest *g, pid_t pid, int minor, int devid, enum blkif_abi abi,
		  unsigned order, struct td_err *err);
int guest_connect_how(struct guest *g, pid_t pid, int minor, int devid, const struct guest_how *how,
		      struct td_err *err);
/* One that is not connected: the caller brings its ring (one queue) to a tapdisk. */
int guest_new(struct guest *g, int minor, int devid, const struct guest_how *how,
	      struct td_err *err);
/* Gives the ring of a tapdisk that died to another, which has its minor; with what is in flight.
 * May run beside the ring's thread. */
int guest_take_over(struct guest *g, pid_t pid, struct td_err *err);
/* Asks the tapdisk to let go, unless it is gone, and frees. */
void guest_disconnect(struct guest *g);

/* The same with a device of n rings, BLKIF_MAX_QUEUES at most: g[i] is queue i, with memory of its
 * own. */
int guest_connect_queues(struct guest *g, unsigned n, pid_t pid, int minor, int devid,
			 const struct guest_how *how, struct td_err *err);
int guest_take_over_queues(struct guest *g, unsigned n, pid_t pid, struct td_err *err);
void guest_disconnect_queues(struct guest *g, unsigned n);

int guest_slot(struct guest *g); /* a slot to build in; -1 when all are in flight */
void *guest_data(struct guest *g, int slot);
uint32_t guest_ref(struct guest *g, int slot); /* grant of its first page; the others follow */

/*
 * Logs to f, by CLOCK_REALTIME, which is strace's clock: "TIME pushed SLOT OP SECTOR" before a
 * request is visible to the tapdisk, and "TIME answered SLOT OP STATUS" after its response was
 * seen.  f stays the caller's.
 */
void guest_trace(struct guest *g, FILE *f);

/* where guest_queue puts indirect ones: the page after the data */
struct blkif_seg *guest_segs(struct guest *g, int slot);

/* Puts a request on the ring; bytes <= g->max_bytes, a multiple of 512.  Goes out with guest_push.
 */
void guest_queue(struct guest *g, int slot, uint8_t op, uint64_t sector, unsigned bytes);
/* The same with a descriptor as it is; d->id is to be a slot. */
void guest_queue_raw(struct guest *g, const struct blkif_desc *d);
void guest_push(struct guest *g); /* wakes the backend if it asked for it */

/* Takes one response: its slot (free again) and status.  False when there is none now. */
bool guest_reap(struct guest *g, int *slot, int *status);
/* Waits for a response: 0, -ETIMEDOUT. */
int guest_wait(struct guest *g, int timeout_ms);
/* The same, but looks for us microseconds before it sleeps, as a guest does whose idle CPU polls.
 */
int guest_wait_awake(struct guest *g, unsigned us, int timeout_ms);

/* One request from start to end with nothing else in flight: a BLKIF_ status, or -ETIMEDOUT. */
int guest_do(struct guest *g, uint8_t op, uint64_t sector, void *buf, unsigned bytes);

/* Data that says where it belongs: every 8 bytes differ by seed and place.  check: offset of the
 * first wrong byte, or -1. */
void guest_fill(void *buf, uint64_t sector, unsigned bytes, uint64_t seed);
long guest_check(const void *buf, uint64_t sector, unsigned bytes, uint64_t seed);

#endif
