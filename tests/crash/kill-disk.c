/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/kill-disk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "lib/ctl-client.h"
#include "lib/fiber/call.h"
#include "lib/fiber/fiber.h"
#include "tapdisk/parent-disk.h"
#include "tapdisk/vbd/vbd.h"
#include "td/ctl.h"

struct kill_shared *kill_shared;

#define X(name) #name,
const char *const kill_names[] = {TD_KILL_NAMES(X)};
#undef X

static const struct kill_disk *disk;
static struct queue queue;
static struct vbd *v;
static bool reopened;

/* A record is written in a thread of its own: what does not wait for it goes on meanwhile. */
static bool is_at_record(int p)
{
	return p >= TD_KILL_RECORD_BEGIN && p <= TD_KILL_RECORD_RENAMED;
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

void td_kill_at(enum td_kill_point p)
{
	if (atomic_load(&kill_shared->armed) != (int)p ||
	    atomic_fetch_sub(&kill_shared->countdown, 1) != 1)
		return;
	atomic_store(&kill_shared->armed, -1);
	atomic_store(&kill_shared->last, (int)p);
	if (is_at_record((int)p))
		usleep(atomic_load(&kill_shared->linger));
	atomic_fetch_add(&kill_shared->died_at[p], 1);
	die();
}

int td_kill_sync(int result)
{
	if (!atomic_load(&kill_shared->fail_sync))
		return result;
	errno = EIO;
	return -1;
}

/* As in a file system: what has its place keeps it. */
bool td_kill_full(int fd, uint64_t off, uint64_t end)
{
	struct stat st;

	return end > atomic_load(&kill_shared->room) && !fstat(fd, &st) &&
	       st.st_ino == atomic_load(&kill_shared->leaf) &&
	       lseek(fd, (off_t)off, SEEK_HOLE) < (off_t)end;
}

void kill_disk_fill(const char *spec, uint64_t room)
{
	struct stat st;

	if (stat(strchr(spec, ':') + 1, &st) < 0)
		abort();
	atomic_store(&kill_shared->leaf, st.st_ino);
	atomic_store(&kill_shared->room, room);
}

void kill_disk_init(void)
{
	kill_shared = mmap(NULL, sizeof *kill_shared, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (kill_shared == MAP_FAILED)
		abort();
	atomic_store(&kill_shared->armed, -1);
	atomic_store(&kill_shared->room, UINT64_MAX);
}

static void changed(struct vbd *of)
{
}

static void give_up(const char *what, const struct td_err *err)
{
	fprintf(stderr, "killlab: the tapdisk cannot %s: %s\n", what, err->text);
	_exit(1);
}

static int take_marker(struct td_err *err)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/tapdisk/tapdisk-0", td_ctl_dir());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
		td_fail(err, errno, "%s: %s", path, strerror(errno));
		give_up("lock its marker", err);
	}
	return fd;
}

/* As tap-ctl revive reads it. */
static struct vbd_past recorded(void)
{
	char path[4096];
	json_t *o = td_ctl_disk_path(0, path) ? NULL : json_load_file(path, 0, NULL);
	struct vbd_past past = {.sticky = -(int)json_integer_value(json_object_get(o, "sticky")),
				.redirected = json_is_true(json_object_get(o, "redirected"))};

	json_decref(o);
	return past;
}

bool kill_disk_redirected(void)
{
	return recorded().redirected;
}

/* In the place of tapdisk/parent-disk.c: what another tapdisk would serve is a file here. */
double parent_disk_wait = 0;

int parent_disk_open(int minor, struct parent_disk_id *id, struct td_io *io, struct td_image **out,
		     struct td_err *err)
{
	static const struct td_how how = {.flags = TD_FILE_PARENT | TD_FILE_RDONLY};
	const struct td_driver *d = td_driver_find("aio", err);

	return d ? td_image_open_how(d, disk->base, &how, io, out, err) : -err->code;
}

static void start_main(void *arg)
{
	struct vbd_past past = recorded();
	const struct guest *g = disk->guest;
	struct vbd_options o = {.mode = td_cache_mode_find(disk->mode)};
	struct blkif_params p;
	struct td_err err = {0};
	struct td_xport *x;
	int rc;

	if (disk->changed)
		snprintf(o.changed, sizeof o.changed, "%s", disk->changed);
	if (disk->secondary) {
		snprintf(o.mirror, sizeof o.mirror, "%s", disk->secondary);
		o.standby = !disk->base;
		o.parent_disk = disk->base ? 1 : 0;
	}
	memset(&p, 0, sizeof p);
	p.domid = (uint16_t)g->domid;
	p.devid = (uint32_t)g->devid;
	p.port = 1;
	p.pages = 1u << g->order;
	p.abi = g->abi;
	for (unsigned i = 0; i < p.pages; i++)
		p.refs[i] = i;
	v = vbd_new(&queue, 0, take_marker(&err), changed);
	rc = reopened ? vbd_reopen(v, disk->spec, &o, &past, &err)
		      : vbd_open(v, disk->spec, &o, &err);
	if (rc < 0)
		give_up("open its image", &err);
	if (td_xport_mem(dup(g->memfd), dup(g->kick), dup(g->call), &x, &err) < 0 ||
	    vbd_connect(v, &x, 1, "mem", &p, reopened ? VBD_TAKE_OVER : 0, &err) < 0)
		give_up("connect its guest", &err);
	atomic_store(&kill_shared->ready, true);
}

static void quit_main(void *arg)
{
	struct td_err err = {0};
	bool failed = vbd_state(v) & TD_STATE_FAILED; /* the close says so, too */

	if (vbd_disconnect(v, (unsigned)disk->guest->domid, (unsigned)disk->guest->devid, &err) < 0)
		give_up("let go of its guest", &err);
	if (vbd_close(v, true, 0, &err) < 0 && !failed)
		give_up("close its image", &err);
	_exit(0);
}

static void on_quit(struct ev_loop *loop, ev_io *w, int revents)
{
	ev_io_stop(loop, w);
	td_fiber_start(loop, quit_main, NULL);
}

pid_t kill_disk_start(const struct kill_disk *d, bool reopen)
{
	pid_t pid, parent = getpid();
	struct td_err err = {0};
	ev_io quit;

	fflush(NULL);
	atomic_store(&kill_shared->ready, false);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	setenv("TAPDISK_IO", d->engine, 1);
	disk = d;
	reopened = reopen;
	queue.loop = ev_loop_new(EVFLAG_NOENV);
	if (td_calls_start(queue.loop, &err) < 0)
		give_up("start its threads", &err);
	ev_io_init(&quit, on_quit, d->quit, EV_READ);
	ev_io_start(queue.loop, &quit);
	td_fiber_start(queue.loop, start_main, NULL);
	ev_run(queue.loop, 0);
	_exit(1);
}
