/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a tapdisk of the simulated host is asked to do with its disk, on a fiber. */
#include "tests/crash/host-inside.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "tapdisk/ctl/ctl-ops.h"
#include "tests/crash/stand-in.h"

static void spec_of(unsigned file, char *buf, size_t len)
{
	snprintf(buf, len, "%s:%s", host_type_of(H.r->format, &H.sim.file[file].now),
		 H.r->template->name[file]);
}

static int marker_of(int minor)
{
	char path[4200], pid[] = "4194304\n"; /* nobody's */
	int fd;

	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", td_ctl_dir(), minor);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && write(fd, pid, sizeof pid - 1) > 0)
		flock(fd, LOCK_EX | LOCK_NB);
	return fd;
}

static void connect_rings(struct vbd *v, unsigned how)
{
	struct td_xport *x[HISTORY_RINGS];
	struct blkif_params p[HISTORY_RINGS];

	for (unsigned i = 0; i < H.h->rings && !H.rc; i++) {
		H.rc = ring_reach(H.ring[i], &x[i], &H.err);
		ring_params(i, H.h->persistent, &p[i]);
	}
	if (!H.rc && H.h->rings)
		H.rc = vbd_connect(v, x, H.h->rings, "mem", p, how, &H.err);
}

static void changed(struct vbd *v)
{
}

static struct vbd *make_disk(int minor)
{
	struct life *l = H.life[process_current()];

	l->v = vbd_new(&l->home, minor, marker_of(minor), changed);
	return l->v;
}

/*
 * The disk is about to be opened in that mode; done: it is.  When what an unsafe time has left
 * could not be made durable, the disk is open, but promises nothing for it and fails each flush.
 */
void host_note_mode(const struct td_cache_mode *mode, const struct vbd *open)
{
	bool done = open && !open->cache.sticky;

	if (mode->drop_flush && !H.unsafe && !done) {
		H.unsafe = true;
		H.unsafe_from = H.r->clock;
	} else if (!mode->drop_flush && H.unsafe && done) {
		H.unsafe = false;
		if (H.r->nunsafe == HOST_UNSAFE - 1)
			abort();
		H.r->unsafe[H.r->nunsafe].from = H.unsafe_from;
		H.r->unsafe[H.r->nunsafe++].to = H.r->clock;
	}
}

void host_do_open(struct vbd *none)
{
	char spec[160];
	struct vbd *v = make_disk(H.minor);

	spec_of(H.want_spec, spec, sizeof spec);
	host_note_mode(H.want.mode, NULL);
	H.rc = vbd_open(v, spec, &H.want, &H.err);
	if (!H.rc)
		host_note_mode(H.want.mode, v);
	if (!H.rc)
		connect_rings(v, 0);
}

/* As tap-ctl revive does it: what the record says. */
void host_do_revive(struct vbd *none)
{
	struct vbd_options o = {.mode = NULL};
	struct vbd_past past = {0};
	char path[4200];
	json_t *rec;

	td_ctl_disk_path(H.minor, path);
	rec = json_load_file(path, 0, NULL);
	if (!rec) {
		H.rc = td_fail(&H.err, ENODEV, "there is no record");
		return;
	}
	H.rc = ctl_get_options(rec, NULL, &o, &H.err);
	if (H.rc < 0)
		return;
	o.key = H.opt.key;
	past = ctl_get_past(rec);
	H.rc = vbd_reopen(make_disk(H.minor), json_string_value(json_object_get(rec, "args")), &o,
			  &past, &H.err);
	H.past = past;
	json_decref(rec);
	if (!H.rc)
		connect_rings(H.life[process_current()]->v, VBD_TAKE_OVER);
}

void host_do_pause(struct vbd *v)
{
	size_t i;
	int was = process_lab();

	i = gtrace_add(&H.r->guest, (struct gop){.kind = GOP_SETTLE,
						 .issue = host_tick(),
						 .ack = NEVER,
						 .flags = v->opt.mode->drop_flush ? GOP_VOID : 0});
	process_back(was);
	H.rc = vbd_pause(v, 0, &H.err);
	if (!H.rc) {
		H.paused = true;
		H.r->guest.op[i].ack = host_tick();
		H.r->guest.op[i].status = vbd_state(v) & TD_STATE_FAILED ? -EIO : 0;
	}
	host_say("paused: %d %s", H.rc, H.rc ? H.err.text : "");
}

void host_do_unpause(struct vbd *v)
{
	char spec[160];

	spec_of(H.want_spec, spec, sizeof spec);
	host_note_mode(H.want.mode, NULL);
	H.starting = true;
	H.rc = vbd_unpause(v, spec, &H.want, &H.err);
	H.starting = false;
	if (!H.rc) {
		host_note_mode(H.want.mode, v);
		H.paused = false;
		H.opt = H.want;
		H.spec = H.want_spec;
		if (v->disk.sectors != H.r->guest.sectors)
			host_blame("I5", "a disk that goes on is not as large as its image");
	}
	host_say("unpaused: %d %s", H.rc, H.rc ? H.err.text : H.want.mode->name);
}

void host_do_close(struct vbd *v)
{
	size_t i;
	int was = process_lab(), failed = vbd_state(v) & TD_STATE_FAILED ? -EIO : 0;
	bool paused = !v->leaf; /* then it was flushed, or not, when it was paused */
	bool lost = vbd_lost_data(v->cache.sticky);

	i = gtrace_add(&H.r->guest, (struct gop){.kind = GOP_SETTLE,
						 .issue = host_tick(),
						 .ack = NEVER,
						 .flags = v->opt.mode->drop_flush ? GOP_VOID : 0});
	process_back(was);
	H.rc = vbd_close(v, true, 0, &H.err);
	if (lost && !H.rc)
		host_blame("I7", "a flush of the disk had failed, and closing it succeeds");
	if (!paused && !(H.rc == -ENOSPC && !failed)) {
		H.r->guest.op[i].ack = host_tick();
		H.r->guest.op[i].status = failed ? failed : H.rc;
	}
	H.gone |= failed || H.rc < 0; /* it was told */
	host_say("closed: %d %s", H.rc, H.rc ? H.err.text : "");
}

void host_do_give(struct vbd *v)
{
	H.rc = vbd_give(v, &H.began, &H.err);
	H.past = (struct vbd_past){.paused = !v->going,
				   .sectors = v->disk.sectors,
				   .sticky = v->cache.sticky,
				   .mirror_failed = v->mirror_failed,
				   .redirected = v->redirected,
				   .handed = true};
	host_commit_spec(v->spec);
	if (vbd_job_now(v))
		H.past.job = *vbd_job_now(v);
}

/* As the operation adopt. */
void host_do_adopt(struct vbd *none)
{
	char spec[160];
	struct vbd *v = make_disk(H.minor);

	spec_of(H.spec, spec, sizeof spec);
	H.rc = vbd_reopen(v, spec, &H.opt, &H.past, &H.err);
	for (unsigned i = 0; i < H.h->rings && !H.rc; i++) {
		struct blkif_params p;
		struct td_xport *x;

		H.rc = ring_reach(H.ring[i], &x, &H.err);
		ring_params(i, H.h->persistent, &p);
		if (!H.rc)
			H.rc = vbd_connect(v, &x, 1, "mem", &p, VBD_BESIDE | VBD_TAKE_OVER, &H.err);
	}
}

void host_do_take_back(struct vbd *v)
{
	vbd_take_back(v);
}

void host_do_taken(struct vbd *v)
{
	vbd_taken(v, 4194304);
}

void host_do_grow(struct vbd *v)
{
	H.rc = vbd_resize(v, &H.err);
}
