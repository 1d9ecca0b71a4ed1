/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk's log of changed blocks, in some of the histories, judged by its bytes alone (I10): a
 * change that was answered well has its bits there, whatever dies afterwards; and on a raw disk no
 * change is even given to the image without them.  A power cut may take bits along.
 */
#include "tests/crash/host-inside.h"

#include <stdlib.h>
#include <string.h>

#include "lib/changed-log.h"
#include "lib/io/file.h"

#define LOG_NAME "/sim/changes"

void host_changed_add(struct template *t, uint64_t sectors)
{
	uint8_t head[CHANGED_HEADER] = {0};
	uint64_t size = (sectors + HOST_GROWN * HOST_GROWS) * SECTOR;

	if (t->n == SIM_FILES)
		return;
	td_put_le64(head + CHANGED_SIZE, size);
	strcpy(t->name[t->n], LOG_NAME);
	pages_init(&t->file[t->n], CHANGED_HEADER + changed_bytes(size));
	pages_write(&t->file[t->n++], 0, head, sizeof head);
}

static int file_of_log(void)
{
	for (unsigned i = 0; i < H.sim.nfiles; i++)
		if (!strcmp(H.sim.file[i].name, LOG_NAME))
			return (int)i;
	return -1;
}

/* Bits for what the disk had at first: of what it has grown by, only what a pause has seen. */
static bool has_bits(uint64_t off, uint64_t len)
{
	const struct pages *log = &H.sim.file[file_of_log()].now;
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

	if (op->op == TD_IO_CALL || op->file->fd == file_of_log() || !is_change(op))
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
	H.logged = H.h->seed % 5 % 2 == 1 && file_of_log() >= 0;
	if (!H.logged)
		return;
	strcpy(H.want.changed, LOG_NAME);
	strcpy(H.opt.changed, LOG_NAME);
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
