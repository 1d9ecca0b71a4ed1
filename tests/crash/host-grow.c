/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The image made larger: a raw one under its guest, any other while the disk is paused, by our own
 * tools, whose changes are durable together (tests/unit/test-vhd-resize cuts the tool itself). */
#include "tests/crash/host-inside.h"

#include <stdlib.h>
#include <string.h>

static size_t changes_begin(struct fop op)
{
	op.file = H.spec;
	op.dsync = true;
	op.begin = H.r->clock;
	return flog_begin(&H.r->log, op);
}

void host_grow(void)
{
	struct sim_file *f = &H.sim.file[H.spec];
	size_t i;

	if (!host_at_rest() || H.paused || H.giver != NOBODY || H.r->ngrown == HOST_GROWN)
		return;
	H.r->guest.sectors += H.r->grows;
	i = changes_begin((struct fop){.kind = FOP_TRUNC, .off = H.r->guest.sectors * SECTOR});
	host_tick();
	H.r->grown[H.r->ngrown++] = H.r->clock;
	flog_end(&H.r->log, i, host_tick(), 0);
	pages_resize(&f->now, H.r->guest.sectors * SECTOR);
	host_begin(host_do_grow);
}

/* What the tool made of the file, as operations that begin at one event and end at the next. */
static void log_changes(const struct pages *before, const struct pages *after)
{
	unsigned char was[PAGE], is[PAGE];
	size_t first = H.r->log.nops;

	if (before->size != after->size)
		changes_begin((struct fop){.kind = FOP_TRUNC, .off = after->size});
	for (uint64_t off = 0; off < after->size; off += PAGE) {
		size_t len = after->size - off < PAGE ? (size_t)(after->size - off) : PAGE;
		unsigned char *data;

		pages_read(before, off, was, PAGE);
		pages_read(after, off, is, PAGE);
		if (!memcmp(was, is, len))
			continue;
		data = malloc(len);
		memcpy(data, is, len);
		changes_begin(
			(struct fop){.kind = FOP_WRITE, .off = off, .len = len, .data = data});
	}
	host_tick();
	H.r->grown[H.r->ngrown++] = H.r->clock;
	for (size_t i = first; i < H.r->log.nops; i++)
		flog_end(&H.r->log, i, H.r->clock, (int64_t)H.r->log.op[i].len);
	host_tick();
}

/* One image, on a file, without a key or a bitmap that the tools mind. */
static bool can_grow(void)
{
	const struct template *t = H.r->template;

	for (unsigned i = 0; i < t->n; i++)
		if (i != H.spec && strcmp(t->name[i], "/sim/changes") != 0)
			return false;
	return !t->blockdev[H.spec] && !t->key.len && !H.logged;
}

void host_grow_paused(void)
{
	struct sim_file *f = &H.sim.file[H.spec];
	const struct vbd *v = H.life[H.serving]->v;
	unsigned mib = (unsigned)((H.r->guest.sectors + H.r->grows) / 2048);
	const char *type = H.r->format->type;
	struct pages after;
	char cmd[80];

	if (H.r->ngrown == HOST_GROWN || !can_grow() || v->log_waits || H.sim.sync_failed)
		return;
	if (!strcmp(type, "vhd"))
		snprintf(cmd, sizeof cmd, "$VHD_UTIL resize -n leaf -s %u -j journal", mib);
	else if (!strcmp(type, "qcow2"))
		snprintf(cmd, sizeof cmd, "$TD_QCOW resize leaf %uM", mib);
	else
		return;
	if (format_change(&f->now, cmd, &after) < 0) {
		host_say("not made larger: %s", cmd);
		return;
	}
	host_say("made larger: %u MiB", mib);
	log_changes(&f->now, &after);
	H.r->guest.sectors += H.r->grows;
	pages_free(&f->now);
	f->now = after;
}
