/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A secondary that is a part of the disk (MI9 and MI10 of tapdisk/mirror/mirror.h), on the
 * simulated host: its leaf becomes full, and the record that the secondary has taken its place
 * sometimes cannot be written.  What was answered is read after each death, as of any disk.  After
 * a power cut the secondary has all of it: one that is read beneath the leaf has what the leaf has,
 * and one that stands by is looked at as it stands upon the leaf.
 */
#include "tests/crash/host-inside.h"

#include <errno.h>
#include <string.h>

#include "drivers/drivers.h"
#include "tapdisk/parent-disk.h"

#define COPY "/sim/copy"
#define BASE "/sim/base"

unsigned host_joined_leaf(const struct host_run *r)
{
	unsigned i = 0;

	while (i + 1 < r->template->n && strcmp(r->template->name[i], COPY))
		i++;
	return i;
}

static int on_open(const char *path)
{
	const char *name = strstr(path, "/disk"), *end = strstr(path, ".new");

	return name && end && name < end && sim_no_record(&H.sim) ? ENOSPC : 0;
}

void host_joined_begin(void)
{
	const struct format *f = H.r->format;

	process_refuses = f->joins ? on_open : NULL;
	if (!f->joins)
		return;
	H.sim.fills = 1; /* the leaf */
	strcpy(H.want.mirror, "qcow2:" COPY);
	H.want.standby = f->joins == JOINS_STANDBY;
	H.want.parent_disk = f->joins == JOINS_READ;
	H.opt = H.want;
}

void host_joined_end(void)
{
	const struct vbd *v = host_alive() ? H.life[H.serving]->v : NULL;

	if (v && v->redirected)
		host_say("its leaf was full");
}

/* In the place of tapdisk/parent-disk.c: what another tapdisk would serve is a file here. */
double parent_disk_wait = 0;

int parent_disk_open(int minor, struct parent_disk_id *id, struct td_io *io, struct td_image **out,
		     struct td_err *err)
{
	static const struct td_how how = {.flags = TD_FILE_PARENT | TD_FILE_RDONLY};
	const struct td_driver *d = td_driver_find("aio", err);

	return d ? td_image_open_how(d, BASE, &how, io, out, err) : -err->code;
}
