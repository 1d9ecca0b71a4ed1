/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that no honest guest sends: each must be answered with an error, and the disk must serve
 * on. */
#include <stdio.h>
#include <string.h>

#include <errno.h>

#include "lib/ctl-client.h"
#include "tests/support/tdguest.h"

static const struct hostile {
	const char *name;
	uint8_t op, nr_segs, first, last;
	uint32_t ref;    /* 0: the slot's own page */
	uint64_t sector; /* from_end: sectors before the end */
	bool from_end;
	uint16_t indirect; /* segments of an INDIRECT, whose nr_segs is the inner operation; ref is
			      its page then */
} cases[] = {
	{"no-segments", BLKIF_READ, 0, 0, 7, 0, 0, false, 0},
	{"twelve-segments", BLKIF_WRITE, 12, 0, 7, 0, 0, false, 0},
	{"all-segments", BLKIF_READ, 255, 0, 7, 0, 0, false, 0},
	{"first-after-last", BLKIF_WRITE, 1, 5, 4, 0, 0, false, 0},
	{"sector-eight", BLKIF_READ, 1, 0, 8, 0, 0, false, 0},
	{"sector-255", BLKIF_WRITE, 1, 255, 255, 0, 0, false, 0},
	{"past-the-end", BLKIF_READ, 1, 0, 7, 0, 7, true, 0},
	{"write-past-the-end", BLKIF_WRITE, 1, 0, 7, 0, 1, true, 0},
	{"sector-wraps", BLKIF_WRITE, 1, 0, 7, 0, UINT64_MAX - 3, false, 0},
	{"bytes-wrap", BLKIF_READ, 1, 0, 7, 0, UINT64_MAX / 512, false, 0},
	{"bad-reference", BLKIF_WRITE, 1, 0, 7, UINT32_MAX, 0, false, 0},
	{"bad-reference-read", BLKIF_READ, 11, 0, 7, 0x7fffffff, 0, false, 0},
	{"unknown-operation", 77, 1, 0, 7, 0, 0, false, 0},
	{"indirect-of-none", BLKIF_INDIRECT, BLKIF_READ, 0, 7, 0, 0, false, 0},
	{"indirect-of-513", BLKIF_INDIRECT, BLKIF_WRITE, 0, 7, 0, 0, false, 513},
	{"indirect-of-65535", BLKIF_INDIRECT, BLKIF_READ, 0, 7, 0, 0, false, 65535},
	{"indirect-barrier", BLKIF_INDIRECT, BLKIF_WRITE_BARRIER, 0, 7, 0, 0, false, 1},
	{"indirect-indirect", BLKIF_INDIRECT, BLKIF_INDIRECT, 0, 7, 0, 0, false, 1},
	{"indirect-bad-page", BLKIF_INDIRECT, BLKIF_WRITE, 0, 7, UINT32_MAX, 0, false, 300},
	{"indirect-first-after-last", BLKIF_INDIRECT, BLKIF_WRITE, 4, 3, 0, 0, false, 300},
	{"indirect-sector-eight", BLKIF_INDIRECT, BLKIF_READ, 0, 8, 0, 0, false, 300},
	{"indirect-past-the-end", BLKIF_INDIRECT, BLKIF_WRITE, 0, 7, 0, 300 * 8 - 1, true, 300},
	{"indirect-sector-wraps", BLKIF_INDIRECT, BLKIF_READ, 0, 7, 0, UINT64_MAX - 3, false, 512},
};
#define CASES (sizeof(cases) / sizeof(*cases))

static int serves_on(struct guest *g)
{
	int rc = guest_span(g, BLKIF_WRITE, 0, 8192, 4711);

	if (!rc)
		rc = guest_span(g, BLKIF_READ, 0, 8192, 4711);
	if (rc)
		printf("the disk does not serve an honest request any more\n");
	return rc;
}

static int send(struct guest *g, const struct hostile *h)
{
	int slot = guest_slot(g), back, status;
	struct blkif_desc d = {
		.id = (uint64_t)slot, .op = h->op, .nr_segs = h->nr_segs, .handle = 1};

	d.sector = h->from_end ? g->sectors - h->sector : h->sector;
	d.nr_indirect = h->indirect;
	for (int i = 0; i < BLKIF_MAX_INDIRECT; i++)
		guest_segs(g, slot)[i] = (struct blkif_seg){
			.ref = guest_ref(g, slot), .first = h->first, .last = h->last};
	if (h->op == BLKIF_INDIRECT)
		d.page[0] = h->ref ? h->ref : guest_ref(g, slot) + g->segs;
	for (int i = 0; i < BLKIF_MAX_SEGS && h->op != BLKIF_INDIRECT; i++)
		d.seg[i] = (struct blkif_seg){.ref = h->ref ? h->ref : guest_ref(g, slot),
					      .first = h->first,
					      .last = h->last};
	guest_queue_raw(g, &d);
	guest_push(g);
	if (guest_wait(g, 10000) || !guest_reap(g, &back, &status)) {
		printf("%s: no answer\n", h->name);
		return 1;
	}
	if (back != slot || status == BLKIF_OKAY) {
		printf("%s: answered with id %d (sent %d), status %d\n", h->name, back, slot,
		       status);
		return 1;
	}
	printf("%s: status %d\n", h->name, status);
	return serves_on(g);
}

/* More requests than the ring holds: the ring is stopped, the disk and the process are not. */
static int overrun(struct guest *g)
{
	json_t *info = NULL;
	const char *state = NULL;

	g->req_prod += g->slots + 1;
	guest_push(g);
	for (int i = 0; i < 50 && (!state || strcmp(state, "broken")); i++) {
		guest_wait(g, 100);
		json_decref(info);
		info = NULL;
		if (td_ctl_call(g->pid, json_pack("{s:s,s:i}", "op", "info", "minor", g->minor),
				NULL, 0, 10, NULL, NULL, &info, NULL))
			break;
		state = json_string_value(json_object_get(
			json_array_get(json_object_get(info, "rings"), 0), "state"));
	}
	printf("overrun: ring %s\n", state ? state : "unknown");
	int rc = !state || strcmp(state, "broken");

	json_decref(info);
	return rc;
}

int tdguest_hostile(struct guest *g, const char *name)
{
	if (!strcmp(name, "list")) {
		for (unsigned i = 0; i < CASES; i++)
			puts(cases[i].name);
		puts("overrun");
		return 0;
	}
	if (!strcmp(name, "overrun"))
		return overrun(g);
	for (unsigned i = 0; i < CASES; i++)
		if (!strcmp(cases[i].name, name))
			return send(g, &cases[i]);
	fprintf(stderr, "tdguest: no case '%s': see `hostile list'\n", name);
	return 2;
}
