/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/campaign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/changed-check.h"
#include "tests/crash/disk.h"

#define ALL_SUBSETS  12  /* units in doubt up to which every subset is built */
#define SOME_SUBSETS 33  /* built at random beyond that */
#define RECUTS       2   /* recoveries of recoveries */
#define FAULT_KS     600 /* of one kind in one run, at most */
#define SHOWN        3   /* violations told in full */

const char *const fault_names[SIM_IMAGE_KINDS] = {
	"none",   "EIO",  "ENOSPC", "EINTR", "EAGAIN",   "short-read",     "short-write",
	"ESTALE", "sync", "open",   "size",  "truncate", "truncate-ENOSPC"};

void campaign_replay(const struct campaign *c, char *buf, size_t len)
{
	char fault[64] = "";

	if (c->fault.kind)
		snprintf(fault, sizeof fault, " --fault %s:%u:%u%s", fault_names[c->fault.kind],
			 c->fault.k, c->fault.times, c->report_enospc ? " --report-enospc" : "");
	snprintf(buf, len,
		 "gdb --args tests/crash/crashlab --format %s --mode %s --%s %llu --cuts %u%s",
		 c->format->name, c->mode, c->what, (unsigned long long)c->at, c->cuts_per_run,
		 fault);
}

/* --- telling --- */

static void print_line(const char *text, void *arg)
{
	printf("    %s\n", text);
}

/* The operations on files that carried this sector's data, wherever in the image they put it. */
static void print_file_history(const struct run *r, uint64_t sector, uint32_t at)
{
	for (size_t i = 0; i < r->log.nops; i++) {
		const struct fop *op = &r->log.op[i];
		char what[64];

		if (op->begin >= at)
			break;
		if (op->kind == FOP_SYNC) {
			if (op->end < at)
				printf("    file %u: fdatasync, from %u to %u%s\n", op->file,
				       op->begin, op->end, op->res < 0 ? " (failed)" : "");
			continue;
		}
		for (uint64_t o = 0; op->kind == FOP_WRITE && op->data && o + SECTOR <= op->len;
		     o += SECTOR) {
			uint32_t tag = sector_tag(op->data + o, r->guest.seed, sector);

			if (tag == TAG_TORN || tag == TAG_ZERO || tag == TAG_FILLED)
				continue;
			printf("    file %u: write%s at byte %llu of %s, begun at %u, %s\n",
			       op->file, op->dsync ? " (durable)" : "",
			       (unsigned long long)(op->off + o), judge_tag(tag, what, sizeof what),
			       op->begin,
			       op->end < at ? op->res < 0 ? "failed" : "ended" : "under way");
		}
	}
}

static void violation(struct campaign *c, const struct run *r, const struct verdict *v, uint32_t at,
		      long cut)
{
	char replay[256];

	if (c->violations++ >= SHOWN && !c->verbose)
		return;
	campaign_replay(c, replay, sizeof replay);
	printf("VIOLATION %s: %s, cache=%s, %s %llu, cut %ld at event %u, sector %llu: %s\n",
	       v->rule, c->format->name, c->mode, c->what, (unsigned long long)c->at, cut, at,
	       (unsigned long long)v->sector, v->text);
	judge_history(&r->guest, v->sector, at, print_line, NULL);
	print_file_history(r, v->sector, at);
	if (cut >= 0)
		printf("  replay: %s --cut %ld\n", replay, cut);
	else
		printf("  replay: %s\n", replay);
	fflush(stdout);
}

/* --- one disk after one cut --- */

struct exam {
	struct campaign *c;
	const struct run *r;
	struct judge *judge;
	uint32_t at; /* event of the cut in the run */
	long cut;    /* its number */
	unsigned unit;
	uint32_t *tag;
};

static void blame(struct verdict *v, const char *rule, const char *text)
{
	v->rule = rule;
	v->sector = 0;
	snprintf(v->text, sizeof v->text, "%s", text);
}

/* QEMU has to read what our driver read; or, where that is too much to ask, what may be there. */
static void compare(struct exam *e, const uint64_t *sector, const uint32_t *theirs, size_t n,
		    struct verdict *v)
{
	char text[128];

	if (e->c->format->qemu_differs) {
		judge_cut(e->judge, e->at, sector, theirs, n, v);
		if (v->rule) {
			snprintf(text, sizeof text, "qemu-img: %.100s", v->text);
			memcpy(v->text, text, sizeof text);
		}
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (theirs[i] != e->tag[i]) {
			blame(v, "I5", "another program reads something else than our driver");
			v->sector = sector[i];
			return;
		}
}

static void ask_qemu(struct exam *e, const struct pages *files, const uint64_t *sector, size_t n,
		     struct verdict *v)
{
	struct campaign *c = e->c;
	char text[256];
	uint32_t *theirs;
	int rc;

	if (!c->qemu_every || !(c->format->qemu || c->format->other) || c->cuts % c->qemu_every)
		return;
	theirs = malloc((n + 1) * sizeof *theirs);
	if (!theirs)
		abort();
	rc = format_qemu(c->format, &c->template, files, sector, theirs, n, e->r->guest.seed, text,
			 sizeof text);
	if (rc >= 0)
		c->qemu++;
	if (rc > 0)
		blame(v, "I5", text);
	else if (!rc)
		compare(e, sector, theirs, n, v);
	free(theirs);
}

static bool examine(struct exam *e, const struct pages *files, unsigned depth, struct rng *rng);

/* The recovery wrote: it is cut in the middle too. */
static bool examine_recovery(struct exam *e, const struct pages *files, struct flog *log,
			     uint32_t clock, unsigned depth, struct rng *rng)
{
	struct campaign *c = e->c;
	struct pages out[DISK_FILES];
	struct fate fate = {.how = rng_chance(rng, 50) ? FATE_UNITS : FATE_OPS,
			    .percent = (unsigned)rng_below(rng, 101),
			    .rng = rng_seed(rng_next(rng), 'f')};
	struct disk d;
	bool good;

	disk_init(&d, log, e->unit, files, c->template.blockdev, c->template.n);
	disk_to(&d, (uint32_t)rng_below(rng, clock + 1));
	disk_build(&d, &fate, out);
	good = examine(e, out, depth + 1, rng);
	for (unsigned i = 0; i < c->template.n; i++)
		pages_free(&out[i]);
	disk_free(&d);
	return good;
}

/* Opens what is left, reads, judges.  False: a violation. */
static bool examine(struct exam *e, const struct pages *files, unsigned depth, struct rng *rng)
{
	struct campaign *c = e->c;
	struct flog log = {0};
	struct verdict v = {0};
	size_t n;
	const uint64_t *sector = judge_sectors(e->judge, &n);
	struct left l = {.format = c->format,
			 .template = &c->template,
			 .files = files,
			 .mode = c->mode,
			 .seed = e->r->guest.seed,
			 .sectors = c->format->sectors,
			 .sector = sector,
			 .n = n,
			 .tag = e->tag,
			 .log = &log};
	char text[200];
	bool good;

	c->cuts++;
	if (stack_reopen(&l) < 0) {
		c->dead |= strstr(l.text, "hangs") != NULL;
		blame(&v, c->dead ? "I6" : "I5", l.text);
	} else {
		judge_cut(e->judge, e->at, sector, e->tag, n, &v);
	}
	if (!v.rule && e->r->logged &&
	    changed_check(&files[c->changes], c->format->sectors, &e->r->guest, c->format->sectors,
			  e->at, text, sizeof text))
		blame(&v, "I10", text);
	if (!v.rule)
		ask_qemu(e, files, sector, n, &v);
	if (v.rule)
		violation(c, e->r, &v, e->at, e->cut);
	good = !v.rule;
	if (good && log.nops && depth < RECUTS)
		good = examine_recovery(e, files, &log, l.clock, depth, rng);
	flog_free(&log);
	return good;
}

static bool examine_fate(struct exam *e, const struct disk *d, struct fate *fate, struct rng *rng)
{
	struct pages out[DISK_FILES];
	bool good;

	disk_build(d, fate, out);
	good = examine(e, out, 0, rng);
	for (unsigned i = 0; i < d->nfiles; i++)
		pages_free(&out[i]);
	return good;
}

static struct fate random_fate(struct rng *r)
{
	static const unsigned percents[] = {5, 30, 50, 70, 95};
	struct fate f = {.percent = percents[rng_below(r, 5)], .rng = rng_seed(rng_next(r), 'f')};
	unsigned dice = (unsigned)rng_below(r, 10);

	f.how = dice == 0 ? FATE_NONE : dice == 1 ? FATE_ALL : dice < 6 ? FATE_UNITS : FATE_OPS;
	return f;
}

/* --- the cuts of a run --- */

/* What the run itself has shown, before any cut. */
static bool judge_run(struct campaign *c, const struct run *r)
{
	struct verdict v = r->read;

	if (v.rule && !strcmp(v.rule, "I6"))
		c->dead = true;
	if (!v.rule)
		judge_answers(&r->guest, &v);
	if (v.rule)
		violation(c, r, &v, r->clock, -1);
	return !v.rule;
}

static void exam_init(struct exam *e, struct campaign *c, const struct run *r, unsigned unit)
{
	size_t n;

	*e = (struct exam){.c = c, .r = r, .judge = judge_new(&r->guest), .unit = unit};
	judge_sectors(e->judge, &n);
	e->tag = malloc((n + 1) * sizeof *e->tag);
	if (!e->tag)
		abort();
}

static void exam_fini(struct exam *e)
{
	judge_free(e->judge);
	free(e->tag);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

#define CUTS_MAX 1000

/* Anywhere, or just after an answer, when a promise is fresh. */
static uint32_t pick_cut(const struct run *r, struct rng *rng)
{
	const struct gop *op = r->guest.nops ? &r->guest.op[rng_below(rng, r->guest.nops)] : NULL;

	if (op && op->ack != NEVER && rng_chance(rng, 40))
		return op->ack + 1;
	return (uint32_t)rng_below(rng, r->clock + 1);
}

/* At random places, in order; the last is the end. */
static bool cut_at_random(struct campaign *c, const struct run *r, unsigned ncuts)
{
	struct rng rng = rng_seed(r->seed, 'c');
	unsigned unit = rng_chance(&rng, 50) ? 512 : 4096;
	uint32_t at[CUTS_MAX];
	struct exam e;
	struct disk d;
	bool good = true;

	for (unsigned i = 0; i < ncuts; i++)
		at[i] = pick_cut(r, &rng);
	at[ncuts - 1] = r->clock;
	qsort(at, ncuts, sizeof *at, by_value);
	exam_init(&e, c, r, unit);
	disk_init(&d, &r->log, unit, c->template.file, c->template.blockdev, c->template.n);
	for (unsigned i = 0; i < ncuts && good && !c->dead; i++) {
		struct rng own = rng_seed(r->seed * 1000 + i, 'x');
		struct fate fate = random_fate(&own);

		if (c->only_cut >= 0 && c->only_cut != (long)i)
			continue;
		disk_to(&d, at[i]);
		e.at = at[i];
		e.cut = (long)i;
		good = examine_fate(&e, &d, &fate, &own);
	}
	disk_free(&d);
	exam_fini(&e);
	return good;
}

/* Every subset of what is in doubt at `at' (or many, where there are too many). */
static bool cut_in_every_way(struct exam *e, struct disk *d, uint32_t at, long *cut)
{
	struct campaign *c = e->c;
	struct rng rng = rng_seed(e->r->seed + at, 'e');
	struct fate fate = {.how = FATE_MASK, .rng = rng};
	uint64_t subsets = 1;
	bool good = true;

	disk_to(d, at);
	e->at = at;
	for (uint64_t i = 0; i < subsets && good && !c->dead; i++, (*cut)++) {
		fate.mask = subsets == SOME_SUBSETS ? rng_next(&rng) : i;
		e->cut = *cut;
		if (c->only_cut < 0 || c->only_cut == *cut || !i)
			good = examine_fate(e, d, &fate, &rng);
		if (!i && fate.ndecided) /* how many there are shows in the first */
			subsets = fate.ndecided <= ALL_SUBSETS ? UINT64_C(1) << fate.ndecided
							       : SOME_SUBSETS;
	}
	return good;
}

/*
 * Before each event of the disk, and at the end.  Between two of them the disk stays as it is and
 * the guest is promised more and more: what holds at the last moment has held all the time.
 */
static bool cut_everywhere(struct campaign *c, const struct run *r)
{
	struct exam e;
	struct disk d;
	bool good = true;
	long cut = 0;

	exam_init(&e, c, r, 512);
	disk_init(&d, &r->log, 512, c->template.file, c->template.blockdev, c->template.n);
	for (size_t i = 0; i <= r->log.nevents && good && !c->dead; i++)
		good = cut_in_every_way(&e, &d, i < r->log.nevents ? r->log.event[i].at : r->clock,
					&cut);
	disk_free(&d);
	exam_fini(&e);
	return good;
}

/* --- campaigns --- */

static struct work_disk work_disk(const struct campaign *c)
{
	return (struct work_disk){
		.sectors = c->format->sectors, .edge = c->format->edge, .extras = true};
}

static void digest(struct campaign *c, const struct run *r)
{
	uint64_t h = c->digest;

	for (size_t i = 0; i < r->guest.nops; i++)
		h = mix64(h ^ r->guest.op[i].issue ^ (uint64_t)r->guest.op[i].ack << 32 ^
			  (uint64_t)(unsigned)r->guest.op[i].status << 20);
	for (size_t i = 0; i < r->log.nops; i++)
		h = mix64(h ^ r->log.op[i].begin ^ (uint64_t)r->log.op[i].end << 32 ^
			  r->log.op[i].off ^ r->log.op[i].len << 20);
	c->digest = h;
}

static bool run_and_cut(struct campaign *c, const struct work *w, uint64_t seed, unsigned ncuts)
{
	struct run r = {.format = c->format,
			.template = &c->template,
			.mode = c->mode,
			.seed = seed,
			.work = w,
			.fault = c->fault,
			.report_enospc = c->report_enospc,
			.logged = c->changes >= 0 && seed % 7 % 3 == 2};
	bool good;

	if (stack_run(&r) < 0) {
		blame(&r.read, "I5", "the fresh image does not open");
		violation(c, &r, &r.read, 0, -1);
		c->dead = true;
		return false;
	}
	c->runs++;
	digest(c, &r);
	c->faults += r.nfired;
	good = judge_run(c, &r);
	if (!c->dead && (good || !c->stop))
		good = (ncuts ? cut_at_random(c, &r, ncuts) : cut_everywhere(c, &r)) && good;
	if (!c->dead)
		run_free(&r);
	c->fault.times = c->fault.times ? c->fault.times : 1;
	return good;
}

static bool go_on(const struct campaign *c, bool good)
{
	return !c->dead && (good || !c->stop);
}

bool campaign_random(struct campaign *c, uint64_t seed)
{
	struct work_disk d = work_disk(c);
	struct work w;

	c->at = seed;
	c->what = "seed";
	c->fault = (struct sim_fault){0};
	work_random(&w, &d, seed);
	return go_on(c, run_and_cut(c, &w, seed, c->cuts_per_run));
}

bool campaign_exhaustive(struct campaign *c, uint64_t n)
{
	struct work_disk d = work_disk(c);
	struct work w;

	c->at = n;
	c->what = "sequence";
	c->fault = (struct sim_fault){0};
	work_sequence(&w, &d, (unsigned)(n / 2), n % 2);
	return go_on(c, run_and_cut(c, &w, n, 0));
}

bool campaign_one_fault(struct campaign *c, uint64_t seed)
{
	struct work_disk d = work_disk(c);
	struct work w;
	uint64_t before = c->faults;
	bool good;

	c->at = seed;
	c->what = "seed";
	work_random(&w, &d, seed);
	w.n = w.n < 20 ? w.n : 20;
	good = go_on(c, run_and_cut(c, &w, seed, c->cuts_per_run < 6 ? c->cuts_per_run : 6));
	if (c->faults == before)
		c->fault.kind = SIM_NONE; /* a pass without it */
	return good;
}

bool campaign_faults(struct campaign *c, uint64_t seed)
{
	struct rng r = rng_seed(seed, 'k');

	for (unsigned kind = SIM_EIO; kind < SIM_IMAGE_KINDS; kind++) {
		c->report_enospc =
			(kind == SIM_ENOSPC || kind == SIM_TRUNCATE_SPACE) && rng_chance(&r, 30);
		c->fault = (struct sim_fault){kind, 0, 1 + (uint32_t)rng_below(&r, 3)};
		for (uint32_t k = 1; k <= FAULT_KS && c->fault.kind; k++) {
			c->fault.k = k;
			if (!campaign_one_fault(c, seed))
				return false;
		}
	}
	c->report_enospc = false;
	c->fault = (struct sim_fault){0};
	return true;
}
