/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk's log of changed blocks, in some of the histories, judged by its bytes alone (I10): a
 * change that was answered well has its bits there, whatever dies afterwards; and on a raw disk no
 * change is even given to the image without them.  What a power cut may take along,
 * changed-check.h says.
 */
#include "tests/crash/host-inside.h"

#include <stdlib.h>
#include <string.h>

#include "lib/changed-log.h"
#include "lib/io/file.h"
#include "tests/crash/changed-check.h"

static uint64_t log_sectors(const struct format *f)
{
	return f->sectors + HOST_GROWN * HOST_GROWS;
}

void host_changed_add(struct template *t, const struct format *f)
{
	if (!f->joins) /* which does not go together */
		template_add_log(t, log_sectors(f));
}

static int file_of_log(const struct template *t)
{
	for (unsigned i = 0; i < t->n; i++)
		if (!strcmp(t->name[i], CHANGED_NAME))
			return (int)i;
	return -1;
}

/* Bits for what the disk had at first: of what it has grown by, only what a pause has seen. */
static bool has_bits(uint64_t off, uint64_t len)
{
	const struct pages *log = &H.sim.file[file_of_log(H.r->template)].now;
	uint64_t blocks = (H.r->format->sectors * SECTOR + CHANGED_BLOCK - 1) / CHANGED_BLOCK;
	uint8_t byte;

	for (uint64_t b = off / CHANGED_BLOCK;
	     len && b <= (off + len - 1) / CHANGED_BLOCK && b < blocks; b++) {
		pages_read(log, CHANGED_HEADER + b / 8, &byte, 1);
		if (!(byte >> b % 8 & 1))
			return false;
	}
	return true;
}

static bool is_change(const struct td_iop *op)
{
	return op->op == TD_IO_WRITE || op->op == TD_IO_ZERO || op->op == TD_IO_PUNCH ||
	       op->op == TD_IO_DISCARD;
}

/* An operation is given to the disk, which does it now or later, or when the process is dead. */
static void on_given(const struct td_iop *op)
{
	int was;

	if (op->op == TD_IO_CALL || op->file->fd == file_of_log(H.r->template) || !is_change(op) ||
	    (unsigned)op->file->fd + 1 == H.sim.spared) /* a mirror's copy */
		return;
	was = process_lab();
	if (!has_bits(op->off, op->len))
		host_blame("I10", "a change is given to the image, and its bits are not in the log "
				  "of changed blocks");
	process_back(was);
}

void host_changed_begin(void)
{
	/* none of those that host.sh and bugs keep: they are to stay as they were */
	H.logged = H.r->logged = H.h->seed % 5 % 2 == 1 && file_of_log(H.r->template) >= 0;
	if (!H.logged)
		return;
	strcpy(H.want.changed, CHANGED_NAME);
	strcpy(H.opt.changed, CHANGED_NAME);
	if (!strcmp(H.r->format->type, "aio"))
		H.sim.given = on_given;
}

void host_changed_answered(const struct gop *op)
{
	int was;

	if (!H.logged || op->status ||
	    (op->kind != GOP_WRITE && op->kind != GOP_ZERO && op->kind != GOP_DISCARD))
		return;
	was = process_lab();
	if (!has_bits(op->sector * SECTOR, (uint64_t)op->n * SECTOR))
		host_blame("I10", "a change was answered, and its bits are not in the log of "
				  "changed blocks");
	process_back(was);
}

int host_changed_check(const struct host_run *r, uint32_t at, const struct pages *files, char *text,
		       size_t len)
{
	return !r->logged ? 0
			  : changed_check(&files[file_of_log(r->template)], log_sectors(r->format),
					  &r->guest, r->format->sectors, at, text, len);
}
