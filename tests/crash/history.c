/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const history_modes[5] = {"none", "writeback", "writethrough", "directsync", "unsafe"};

const char *const history_kinds[H_KINDS] = {
	"write",   "read",    "flush", "barrier", "zero",   "discard", "let",  "drain",
	"pause",   "unpause", "die",   "revive",  "create", "other",   "list", "tamper",
	"upgrade", "trial",   "fault", "grow",    "reopen", "commit",  "query"};

/* clang-format off */
const char *const sim_fault_names[SIM_KINDS] = {
	"nothing", "EIO", "ENOSPC", "EINTR", "EAGAIN", "a short read", "a short write", "ESTALE",
	"a failing sync", "a failing open", "a failing look at the size", "a failing truncate",
	"a truncate without space", "ENOSPC, and no record"};
/* clang-format on */

/* What kinds a history has, beside the guest's: each is in some histories and not in others, so
 * that none drowns the others. */
struct taste {
	unsigned special; /* percent of the events */
	unsigned weight[H_KINDS];
	bool fua;     /* percent of writes */
	unsigned few; /* places; 0: anywhere */
};

static struct taste draw_taste(struct rng *r, const struct history *h, const struct history_disk *d)
{
	static const unsigned likely[H_KINDS] = {
		[H_PAUSE] = 30, [H_UNPAUSE] = 30, [H_DIE] = 70,    [H_UPGRADE] = 30,
		[H_FAULT] = 30, [H_GROW] = 20,    [H_REOPEN] = 30, [H_LIST] = 20,
		[H_TAMPER] = 5, [H_OTHER] = 12,   [H_COMMIT] = 90, [H_QUERY] = 50};
	struct taste t = {.special = 6 + (unsigned)rng_below(r, 22),
			  .fua = rng_chance(r, 50),
			  .few = (unsigned)rng_below(r, 4)};

	for (unsigned k = 0; k < (d->commits ? H_KINDS : H_COMMIT); k++)
		if (rng_chance(r, likely[k]))
			t.weight[k] = 1 + (unsigned)rng_below(r, 8);
	if (t.weight[H_PAUSE])
		t.weight[H_UNPAUSE] = t.weight[H_PAUSE];
	if (h->rings)
		t.weight[H_REOPEN] = 0;
	if (!d->grows)
		t.weight[H_GROW] = 0;
	if (d->joins)
		t.weight[H_FAULT] += 2;
	t.weight[H_TRIAL] = t.weight[H_UPGRADE];
	if (t.weight[H_DIE]) {
		t.weight[H_REVIVE] = t.weight[H_DIE];
		t.weight[H_CREATE] = !h->rings && rng_chance(r, 40) ? 3 : 0;
	} else {
		t.weight[H_LIST] = t.weight[H_TAMPER] = t.weight[H_OTHER] = 0;
	}
	return t;
}

static enum event_kind draw_special(struct rng *r, const struct taste *t)
{
	uint64_t all = 0, dice;

	for (unsigned k = 0; k < H_KINDS; k++)
		all += t->weight[k];
	dice = rng_below(r, all);
	for (unsigned k = 0; all && k < H_KINDS; k++) {
		if (dice < t->weight[k])
			return (enum event_kind)k;
		dice -= t->weight[k];
	}
	return H_LET;
}

static void draw_place(struct rng *r, const struct history *h, const struct history_disk *d,
		       const struct taste *t, struct event *e)
{
	uint64_t last, edge = d->disk.edge, at;

	e->n = rng_chance(r, 25)   ? 8
	       : rng_chance(r, 12) ? 1 + (uint32_t)rng_below(r, 40)
				   : 1 + (uint32_t)rng_below(r, 9);
	last = d->disk.sectors - e->n;
	if (h->n && rng_chance(r, 35)) { /* where somebody has been */
		const struct event *o = &h->ev[rng_below(r, h->n)];

		at = o->sector + rng_below(r, 3);
		at -= at ? rng_below(r, 2) : 0;
	} else if (t->few) {
		at = rng_below(r, t->few) * edge * (1 + rng_below(r, 2)) + rng_below(r, 24);
	} else {
		at = rng_below(r, d->disk.sectors / edge + 1) * edge + rng_below(r, 12);
		at -= at > 6 ? 6 : at;
	}
	e->sector = at < last ? at : last;
}

static void draw_guest(struct rng *r, const struct history *h, const struct history_disk *d,
		       const struct taste *t, struct event *e)
{
	unsigned dice = (unsigned)rng_below(r, 100);

	draw_place(r, h, d, t, e);
	e->kind = dice < 62   ? H_WRITE
		  : dice < 74 ? H_FLUSH
		  : dice < 82 ? H_READ
		  : dice < 86 ? H_BARRIER
		  : dice < 91 ? H_ZERO
		  : dice < 94 ? H_DISCARD
		  : dice < 97 ? H_DRAIN
			      : H_LET;
	e->ring = (unsigned)rng_below(r, h->rings ? h->rings : 1);
	e->flags = h->rings && rng_chance(r, 85) ? GOP_RING : 0;
	if (e->kind == H_ZERO || e->kind == H_DISCARD || !h->rings)
		e->flags = 0;
	if (e->kind == H_WRITE && t->fua && !e->flags && rng_chance(r, 40))
		e->flags |= GOP_FUA;
	if ((e->kind == H_ZERO || e->kind == H_DISCARD) && rng_chance(r, 40))
		e->flags |= (rng_chance(r, 50) ? GOP_FUA : 0) |
			    (e->kind == H_ZERO && rng_chance(r, 50) ? GOP_UNMAP : 0);
	if ((e->kind == H_ZERO || e->kind == H_DISCARD) && rng_chance(r, 50) &&
	    d->disk.edge <= 512) {
		e->n = d->disk.edge;
		e->sector = e->sector / e->n * e->n;
	}
	if (e->kind == H_WRITE && e->flags == GOP_RING && rng_chance(r, 8))
		e->flags |= GOP_PREFLUSH;
	if (e->kind == H_BARRIER && !(e->flags & GOP_RING))
		e->kind = H_FLUSH;
	if (e->kind == H_BARRIER && rng_chance(r, 50))
		e->n = 0;
	if (e->kind == H_FLUSH)
		e->n = 0;
	if (!e->n)
		e->sector = 0;
}

static struct sim_fault draw_fault(struct rng *r, bool joins)
{
	static const enum sim_fault_kind kinds[] = {
		SIM_SYNC,        SIM_SYNC,       SIM_SYNC,           SIM_EIO,
		SIM_ENOSPC,      SIM_ENOSPC,     SIM_EINTR,          SIM_EAGAIN,
		SIM_SHORT_WRITE, SIM_SHORT_READ, SIM_TRUNCATE_SPACE, SIM_OPEN};

	if (joins && rng_chance(r, 70))
		return (struct sim_fault){rng_chance(r, 50) ? SIM_ENOSPC : SIM_RECORD,
					  1 + (uint32_t)rng_below(r, 4),
					  1 + (uint32_t)rng_below(r, 3)};
	return (struct sim_fault){kinds[rng_below(r, sizeof kinds / sizeof *kinds)],
				  1 + (uint32_t)rng_below(r, 4), 1 + (uint32_t)rng_below(r, 3)};
}

static void draw(struct rng *r, struct history *h, const struct history_disk *d,
		 const struct taste *t, struct event *e)
{
	*e = (struct event){.let = (unsigned)rng_below(r, 5)};
	if (rng_chance(r, t->special))
		e->kind = draw_special(r, t);
	else
		draw_guest(r, h, d, t, e);
	e->other = rng_chance(r, 30);
	e->check = rng_chance(r, 50);
	e->after = rng_chance(r, 30) ? 1 + (unsigned)rng_below(r, 6)
				     : 1 + (unsigned)rng_below(r, rng_chance(r, 50) ? 40 : 150);
	e->seed = rng_next(r);
	switch (e->kind) {
	case H_UNPAUSE:
		e->arg = rng_chance(r, 50) ? 5 : (unsigned)rng_below(r, 5);
		break;
	case H_REOPEN:
	case H_CREATE:
		e->arg = rng_chance(r, 50) ? 5 : (unsigned)rng_below(r, 5);
		break;
	case H_TRIAL:
		e->arg = rng_chance(r, 60);
		e->other = rng_chance(r, 15);
		break;
	case H_OTHER:
		draw_place(r, h, d, t, e);
		break;
	case H_FAULT:
		e->fault = draw_fault(r, d->joins);
		break;
	case H_TAMPER:
		e->arg = (unsigned)rng_below(r, 2);
		break;
	default:
		break;
	}
}

/* What most often follows, so that not each death is followed by silence. */
static bool draw_sequel(struct rng *r, const struct taste *t, const struct event *last,
			struct event *e)
{
	enum event_kind next = H_LET;

	if (last->kind == H_PAUSE)
		next = H_UNPAUSE;
	else if (last->kind == H_UPGRADE)
		next = H_TRIAL;
	else if (last->kind == H_DIE || last->kind == H_LIST || last->kind == H_OTHER ||
		 last->kind == H_TAMPER)
		next = H_REVIVE;
	if (next == H_LET || !t->weight[next] || !rng_chance(r, 25))
		return false;
	e->kind = next;
	e->arg = next == H_UNPAUSE ? rng_chance(r, 50) ? 5 : (unsigned)rng_below(r, 5)
				   : rng_chance(r, 60);
	e->n = 0;
	return true;
}

void history_draw(struct history *h, const struct history_disk *d, uint64_t seed)
{
	static const unsigned redo[] = {0x700, 0x1800, 0x8000};
	struct rng r = rng_seed(seed, 'h');
	unsigned n = 6 + (unsigned)rng_below(&r, rng_chance(&r, 25) ? HISTORY_MAX - 6 : 34),
		 since = 0;
	struct taste t;

	memset(h, 0, sizeof *h);
	h->seed = seed;
	h->rings = rng_chance(&r, 35)   ? 0
		   : rng_chance(&r, 60) ? 1
					: 2 + (unsigned)rng_below(&r, HISTORY_RINGS - 1);
	h->lanes = h->rings > 1 && rng_chance(&r, 80) ? 1 + (unsigned)rng_below(&r, 2) : 0;
	h->eager = 20 + (unsigned)rng_below(&r, 75);
	h->redo_bytes = redo[rng_below(&r, 3)];
	h->persistent = rng_chance(&r, 30);
	t = draw_taste(&r, h, d);
	while (h->n < n) {
		struct event *e = &h->ev[h->n];

		draw(&r, h, d, &t, e);
		for (unsigned back = 1; back <= 4 && back <= h->n; back++)
			if (draw_sequel(&r, &t, e - back, e))
				break;
		if (e->kind == H_DIE && since < 3)
			e->kind = H_LET;
		if (d->never[e->kind])
			e->kind = H_LET;
		since = e->kind == H_DIE ? 0 : since + 1;
		h->n++;
	}
}

/* --- in words --- */

static const char *mode_word(unsigned arg)
{
	return arg < 5 ? history_modes[arg] : "the same";
}

static void guest_words(const struct event *e, char *buf, size_t len)
{
	static const char *const kinds[] = {[H_WRITE] = "writes",  [H_READ] = "reads",
					    [H_FLUSH] = "flushes", [H_BARRIER] = "sends a barrier",
					    [H_ZERO] = "zeroes",   [H_DISCARD] = "discards"};
	char where[64] = "", how[32] = " by NBD";

	if (e->n)
		snprintf(where, sizeof where, " sectors %llu+%u", (unsigned long long)e->sector,
			 e->n);
	if (e->flags & GOP_RING)
		snprintf(how, sizeof how, " on ring %u", e->ring);
	snprintf(buf, len, "the guest %s%s%s%s%s%s", kinds[e->kind], where, how,
		 e->flags & GOP_FUA ? ", durably" : "",
		 e->flags & GOP_PREFLUSH ? ", after a flush" : "",
		 e->flags & GOP_UNMAP ? ", giving the space back" : "");
}

void history_words(const struct event *e, char *buf, size_t len)
{
	switch (e->kind) {
	case H_WRITE:
	case H_READ:
	case H_FLUSH:
	case H_BARRIER:
	case H_ZERO:
	case H_DISCARD:
		guest_words(e, buf, len);
		break;
	case H_LET:
		snprintf(buf, len, "it goes on");
		break;
	case H_DRAIN:
		snprintf(buf, len, "the guest waits for its answers");
		break;
	case H_PAUSE:
		snprintf(buf, len, "pause");
		break;
	case H_UNPAUSE:
		snprintf(buf, len, "unpause, cache mode: %s%s", mode_word(e->arg),
			 e->other ? ", the image: the snapshot, if there is one" : "");
		break;
	case H_DIE:
		snprintf(buf, len,
			 "the tapdisk is to die at the %u. thing that it does from now on",
			 e->after);
		break;
	case H_REVIVE:
		snprintf(buf, len, "if it is dead, it gets a successor%s",
			 e->check ? "; all is read" : "");
		break;
	case H_CREATE:
		snprintf(buf, len, "if it is dead, the image is opened anew, cache mode: %s",
			 mode_word(e->arg));
		break;
	case H_OTHER:
		snprintf(buf, len,
			 "if it is dead, another opens the image, writes sectors %llu+%u, and "
			 "closes it",
			 (unsigned long long)e->sector, e->n);
		break;
	case H_LIST:
		snprintf(buf, len, "tap-ctl list");
		break;
	case H_TAMPER:
		snprintf(buf, len, "if it is dead, its log of changes %s",
			 e->arg ? "is lost" : "is of another version");
		break;
	case H_UPGRADE:
		snprintf(buf, len, "the disk is given to a new process, on trial");
		break;
	case H_TRIAL:
		snprintf(buf, len, "the trial ends%s",
			 e->other ? ": the old process has died"
			 : e->arg ? " badly: the new process is killed"
				  : " well");
		break;
	case H_FAULT:
		snprintf(buf, len, "from now on: %s, at the %u. call that can, %u times",
			 sim_fault_names[e->fault.kind], e->fault.k, e->fault.times);
		break;
	case H_GROW:
		snprintf(buf, len, "the image is made larger");
		break;
	case H_REOPEN:
		snprintf(buf, len, "closed, and opened in mode %s", mode_word(e->arg));
		break;
	case H_COMMIT:
		snprintf(buf, len, "an image is committed%s",
			 e->check   ? "; until it is over"
			 : e->other ? ", slowly"
				    : "");
		break;
	case H_QUERY:
		snprintf(buf, len, "the commit is asked after%s",
			 e->other ? ", and cancelled" : "");
		break;
	case H_KINDS:
		break;
	}
}

void history_parts(const struct history *h, char *buf, size_t len)
{
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < h->n && at + 16 < len; i++) {
		unsigned to = i;

		if (!h->left_out[i])
			continue;
		while (to + 1 < h->n && h->left_out[to + 1])
			to++;
		at += (size_t)snprintf(buf + at, len - at, to > i ? "%s%u-%u" : "%s%u",
				       at ? "," : "", i, to);
		i = to;
	}
}

bool history_leave_out(struct history *h, const char *parts)
{
	while (*parts) {
		char *end;
		unsigned long from = strtoul(parts, &end, 10), to = from;

		if (end == parts)
			return false;
		if (*end == '-')
			to = strtoul(end + 1, &end, 10);
		for (unsigned long i = from; i <= to && i < HISTORY_MAX; i++)
			h->left_out[i] = true;
		parts = *end == ',' ? end + 1 : end;
		if (*end && *end != ',')
			return false;
	}
	return true;
}
