/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirror of a raw disk on the simulated host, judged by the bytes of its copy (I12): a mirror
 * that is told as whole lacks nothing that was answered, whatever fails, dies, is paused or
 * upgraded; and what fails at the copy is not the guest's (which sim.spared tells I7).  Who names
 * a mirror has copied the disk to it before: here too.
 */
#include "tests/crash/host-inside.h"

#include <stdlib.h>
#include <string.h>

#define COPY "/sim/copy"

void host_mirror_add(struct template *t, const struct format *f)
{
	if (!f->mirrored || t->n == SIM_FILES)
		return;
	pages_init(&t->file[t->n], f->sectors * SECTOR);
	strcpy(t->name[t->n++], COPY);
}

static struct sim_file *copy_file(void)
{
	for (unsigned i = 0; i < H.sim.nfiles; i++)
		if (!strcmp(H.sim.file[i].name, COPY))
			return &H.sim.file[i];
	return NULL;
}

void host_mirror_begin(void)
{
	if (!H.r->format->mirrored)
		return;
	H.sim.spared = (unsigned)(copy_file() - H.sim.file) + 1;
	snprintf(H.want.mirror, sizeof H.want.mirror, "aio:%s", COPY);
	snprintf(H.opt.mirror, sizeof H.opt.mirror, "aio:%s", COPY);
}

/* Nobody has the disk open, and somebody is about to open it with a new mirror. */
void host_mirror_copy(void)
{
	static LAB unsigned char buf[PAGE];
	struct sim_file *copy = copy_file(), *leaf = &H.sim.file[H.spec];

	if (!copy || !H.r->format->mirrored)
		return;
	pages_resize(&copy->now, leaf->now.size);
	for (uint64_t off = 0; off < leaf->now.size; off += PAGE) {
		size_t n = leaf->now.size - off < PAGE ? (size_t)(leaf->now.size - off) : PAGE;

		pages_read(&leaf->now, off, buf, n);
		pages_write(&copy->now, off, buf, n);
	}
}

/* Somebody unpauses it: with the mirror as it is, with none from now on, or with a new one. */
void host_mirror_unpause(const struct event *e)
{
	const struct vbd *v = H.life[H.serving]->v;

	if (!H.r->format->mirrored)
		return;
	strcpy(H.want.mirror, v->opt.mirror);
	H.want.mirror_said = false;
	if (e->kind != H_UNPAUSE || e->after % 6 > 1)
		return;
	H.want.mirror_said = true;
	H.want.mirror[0] = 0;
	if (e->after % 6)
		return;
	snprintf(H.want.mirror, sizeof H.want.mirror, "aio:%s", COPY);
	host_mirror_copy();
}

/* Is one told as whole? */
static bool is_whole(const struct vbd *v)
{
	return v && v->opt.mirror[0] && !v->mirror_failed;
}

/* The copy as a read of it at this moment would find it. */
static void look(uint64_t sector, uint32_t n)
{
	unsigned char *data;
	struct verdict bad;
	size_t i;
	uint32_t at = host_tick();

	if (!n || H.r->bad.rule)
		return;
	data = malloc((size_t)n * SECTOR);
	pages_read(&copy_file()->now, sector * SECTOR, data, (size_t)n * SECTOR);
	i = gtrace_add(&H.r->guest, (struct gop){.kind = GOP_READ,
						 .sector = sector,
						 .n = n,
						 .issue = at,
						 .ack = host_tick()});
	judge_read(&H.r->guest, i, data, &bad);
	if (bad.rule) {
		host_blame("I12", bad.text);
		H.r->bad.sector = bad.sector;
	}
	free(data);
}

void host_mirror_answered(size_t gop)
{
	const struct gop *op = &H.r->guest.op[gop];
	int was;

	if (!H.r->format->mirrored || op->status || op->kind != GOP_WRITE ||
	    !is_whole(H.life[process_current()]->v))
		return;
	was = process_lab();
	look(op->sector, op->n);
	process_back(was);
}

/* MI8: a death leaves a mirror of which nobody knows what its copy has got. */
void host_mirror_revived(const struct vbd *v)
{
	if (H.r->format->mirrored && is_whole(v) && !H.past.paused)
		host_blame("I12", "the tapdisk has died, and its mirror is told as whole");
}

/* A discard may clear on one of the two what it leaves on the other. */
static bool discarded(uint64_t sector)
{
	for (size_t i = 0; i < H.r->guest.nops; i++) {
		const struct gop *op = &H.r->guest.op[i];

		if (op->kind == GOP_DISCARD && sector - op->sector < op->n)
			return true;
	}
	return false;
}

/* Both hold the same, also where something has failed on one of them (MI2, MI4). */
static void compare(uint64_t sector, uint32_t n)
{
	unsigned char a[SECTOR], b[SECTOR];

	for (uint64_t s = sector; s < sector + n; s++) {
		pages_read(&copy_file()->now, s * SECTOR, a, SECTOR);
		pages_read(&H.sim.file[H.spec].now, s * SECTOR, b, SECTOR);
		if (memcmp(a, b, SECTOR) && !discarded(s)) {
			host_blame("I12", "a mirror is told as whole, and its copy differs");
			H.r->bad.sector = s;
			return;
		}
	}
}

/* All is answered, and the disk has all been read. */
void host_mirror_end(void)
{
	const struct vbd *v = host_alive() ? H.life[H.serving]->v : NULL;
	size_t nops = H.r->guest.nops;

	if (!H.r->format->mirrored || H.dead || !is_whole(v) || H.r->bad.rule)
		return;
	for (size_t i = 0; i < nops; i++)
		if (H.r->guest.op[i].kind != GOP_READ && H.r->guest.op[i].n) {
			look(H.r->guest.op[i].sector, H.r->guest.op[i].n);
			compare(H.r->guest.op[i].sector, H.r->guest.op[i].n);
		}
	H.r->n.mirrors++;
}
