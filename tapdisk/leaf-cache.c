/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/leaf-cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "lib/fiber/await.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

#define GRAIN 16                   /* changes under way are counted by 64 KiB, */
#define SLOTS 256                  /* and places of the disk share a count */
#define LOOK  UINT64_C(1000000000) /* ns (LF4) */

/* A read that was sent down, or its data, on the way into the leaf. */
struct kept {
	struct td_list link; /* leaf_cache.reading, then .waiting; or .spare */
	struct td_req read;
	struct td_req *reader; /* whose read it is */
	uint64_t off, len;
	void *data;
	bool stale; /* a change has come (LF2), or it is not to be kept */
};

struct leaf_cache {
	struct td_image *leaf, *image; /* image: this one, beneath the leaf */
	struct td_gate gate, *next;    /* next: of changed blocks, or NULL */
	struct td_list reading, waiting, spare;
	struct td_list held; /* changes that wait for the write under way */
	struct kept *writing;
	struct td_req *mine; /* the write that is under way, as the gate has seen it */
	bool passing;        /* the next change that the gate sees is that */
	bool fiber;          /* it runs */
	size_t memory;       /* bytes of data that wait */
	bool room;
	uint64_t looked; /* ns; 0: never */
	unsigned under_way[SLOTS], wide;
	void (*idle)(void *owner);
	void *owner;
	struct leaf_cache_stats n;
};

/* The driver's private part: the image is made before the rest is. */
struct place {
	struct leaf_cache *cache;
};

static bool overlap(const struct kept *k, uint64_t off, uint64_t len)
{
	return off < k->off + k->len && k->off < off + len;
}

/* --- changes under way --- */

static bool is_wide(uint64_t off, uint64_t len)
{
	return ((off + len - 1) >> GRAIN) - (off >> GRAIN) >= SLOTS;
}

static void count(struct leaf_cache *l, uint64_t off, uint64_t len, int by)
{
	if (is_wide(off, len)) {
		l->wide += (unsigned)by;
		return;
	}
	for (uint64_t g = off >> GRAIN; g <= (off + len - 1) >> GRAIN; g++)
		l->under_way[g % SLOTS] += (unsigned)by;
}

/* When in doubt: yes. */
static bool changing(const struct leaf_cache *l, uint64_t off, uint64_t len)
{
	if (l->wide || is_wide(off, len))
		return true;
	for (uint64_t g = off >> GRAIN; g <= (off + len - 1) >> GRAIN; g++)
		if (l->under_way[g % SLOTS])
			return true;
	return false;
}

static void outdate(struct td_list *list, uint64_t off, uint64_t len)
{
	td_list_each (i, list) {
		struct kept *k = td_entry(i, struct kept, link);

		if (overlap(k, off, len))
			k->stale = true;
	}
}

/* --- the gate --- */

static bool gate_holds(struct td_gate *g, struct td_req *req)
{
	struct leaf_cache *l = td_entry(g, struct leaf_cache, gate);

	if (l->passing) {
		l->passing = false;
		l->mine = req;
		return false;
	}
	count(l, req->off, req->len, 1);
	outdate(&l->reading, req->off, req->len);
	outdate(&l->waiting, req->off, req->len);
	if (l->writing && overlap(l->writing, req->off, req->len)) {
		td_list_add(&l->held, &req->link);
		return true;
	}
	return l->next && l->next->holds(l->next, req);
}

static void go_on_with_held(struct leaf_cache *l)
{
	struct td_list *i;

	while ((i = td_list_pop(&l->held))) {
		struct td_req *req = td_entry(i, struct td_req, link);

		if (!l->next || !l->next->holds(l->next, req))
			td_pass(req);
	}
}

static void passed(struct td_gate *g, const struct td_req *req)
{
	struct leaf_cache *l = td_entry(g, struct leaf_cache, gate);

	if (req == l->mine)
		l->mine = NULL;
	else
		count(l, req->off, req->len, -1);
}

/* LF5 */
static bool lets(const struct td_gate *g, uint64_t off, uint64_t len)
{
	return false;
}

/* --- into the leaf --- */

struct look {
	const char *path;
};

static long look_run(void *arg)
{
	const struct look *look = arg;
	struct statvfs fs;
	struct stat st;

	if (stat(look->path, &st) < 0 || statvfs(look->path, &fs) < 0)
		return 0;
	return !S_ISREG(st.st_mode) || (uint64_t)fs.f_bavail * fs.f_frsize >= LEAF_CACHE_ROOM;
}

static void look_for_room(struct leaf_cache *l)
{
	struct look look = {l->leaf->path};
	uint64_t now = td_clock();

	if (l->looked && now - l->looked < LOOK)
		return;
	l->room = td_await_call(l->leaf->io, look_run, &look);
	l->looked = now;
}

static void spare(struct leaf_cache *l, struct kept *k)
{
	if (k->data)
		l->memory -= k->len;
	free(k->data);
	k->data = NULL;
	td_list_add(&l->spare, &k->link);
}

static void write_one(struct leaf_cache *l, struct kept *k)
{
	struct iovec iov = {k->data, k->len};
	int rc;

	if (k->stale || !l->room || changing(l, k->off, k->len)) {
		l->n.left_out += k->len / 512;
		return;
	}
	l->writing = k;
	l->passing = true;
	rc = td_await_request(l->leaf, l->leaf->io, TD_WRITE, 0, k->off, k->len, &iov, 1);
	l->writing = NULL;
	go_on_with_held(l);
	if (rc < 0)
		l->room = false; /* LF3: until the next look */
	*(rc < 0 ? &l->n.left_out : &l->n.kept) += k->len / 512;
}

/* Runs as long as there is something to write. */
static void write_waiting(void *arg)
{
	struct leaf_cache *l = arg;
	struct td_list *i;

	td_fiber_wait_for(0); /* not within the completion of the read */
	while (!td_list_empty(&l->waiting)) {
		look_for_room(l);
		i = td_list_pop(&l->waiting);
		write_one(l, td_entry(i, struct kept, link));
		spare(l, td_entry(i, struct kept, link));
	}
	l->fiber = false;
	l->idle(l->owner);
}

/* --- from beneath --- */

static void copy(void *to, const struct td_req *req)
{
	for (int i = 0; i < req->iovcnt; i++)
		to = mempcpy(to, req->iov[i].iov_base, req->iov[i].iov_len);
}

/* Whether the data wait now. */
static bool keep(struct leaf_cache *l, struct kept *k)
{
	if (k->stale || l->memory + k->len > LEAF_CACHE_MEMORY)
		return false;
	if (posix_memalign(&k->data, 4096, k->len)) {
		k->data = NULL;
		return false;
	}
	l->memory += k->len;
	copy(k->data, &k->read);
	td_list_add(&l->waiting, &k->link);
	return true;
}

static void start(struct leaf_cache *l)
{
	struct td_list *i;

	if (l->fiber)
		return;
	l->fiber = true;
	if (!td_fiber_start(l->leaf->io->loop, write_waiting, l))
		return;
	l->fiber = false;
	while ((i = td_list_pop(&l->waiting)))
		spare(l, td_entry(i, struct kept, link));
}

static void on_read(struct td_req *req, int err)
{
	struct kept *k = td_entry(req, struct kept, read);
	struct leaf_cache *l = ((struct place *)k->reader->image->priv)->cache;
	struct td_req *reader = k->reader;
	bool kept;

	td_list_del(&k->link);
	kept = !err && keep(l, k);
	if (!kept) {
		if (!err)
			l->n.left_out += k->len / 512;
		spare(l, k);
	}
	if (kept)
		start(l);
	td_req_done(reader, err);
}

static struct kept *get(struct leaf_cache *l)
{
	struct td_list *i = td_list_pop(&l->spare);

	return i ? td_entry(i, struct kept, link) : malloc(sizeof(struct kept));
}

static void lc_submit(struct td_image *image, struct td_req *req)
{
	struct leaf_cache *l = ((struct place *)image->priv)->cache;
	struct kept *k = get(l);

	if (!k) {
		td_req_done(req, -ENOMEM);
		return;
	}
	*k = (struct kept){.reader = req, .off = req->off, .len = req->len};
	k->stale = changing(l, req->off, req->len);
	k->read = (struct td_req){.op = TD_READ,
				  .off = req->off,
				  .len = req->len,
				  .iov = req->iov,
				  .iovcnt = req->iovcnt,
				  .io = req->io,
				  .done = on_read};
	td_list_add(&l->reading, &k->link);
	td_submit(image->backing, &k->read);
}

/* --- comes and goes --- */

static int lc_open(struct td_image *image, struct td_err *err)
{
	return 0;
}

static void lc_close(struct td_image *image)
{
	struct leaf_cache *l = ((struct place *)image->priv)->cache;
	struct td_list *i;

	assert(td_list_empty(&l->reading) && td_list_empty(&l->waiting) && !l->fiber);
	while ((i = td_list_pop(&l->spare)))
		free(td_entry(i, struct kept, link));
	free(l);
}

/* It holds nothing itself. */
static int lc_extents(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		      int max)
{
	out[0] = (struct td_extent){off, len, TD_EXTENT_PARENT};
	return 1;
}

/* No type that a disk could be opened with: `tap-ctl stats' shows it. */
static const struct td_driver lc_driver = {
	.name = "lc",
	.type = 11,
	.priv_size = sizeof(struct place),
	.open = lc_open,
	.close = lc_close,
	.submit = lc_submit,
	.extents = lc_extents,
};

int leaf_cache_open(struct td_image *leaf, void (*idle)(void *owner), void *owner,
		    struct leaf_cache **out, struct td_err *err)
{
	struct td_how how = {.flags = TD_FILE_PARENT | TD_FILE_RDONLY};
	struct td_image *below = leaf->backing;
	struct leaf_cache *l;
	int rc;

	*out = NULL;
	if (!below || (leaf->file_flags & TD_FILE_RDONLY))
		return 0;
	l = calloc(1, sizeof *l);
	if (!l)
		return td_fail(err, ENOMEM, "%s: out of memory", leaf->path);
	rc = td_image_open_how(&lc_driver, leaf->path, &how, below->io, &l->image, err);
	if (rc < 0) {
		free(l);
		return rc;
	}
	((struct place *)l->image->priv)->cache = l;
	l->leaf = leaf;
	l->idle = idle;
	l->owner = owner;
	td_list_init(&l->reading);
	td_list_init(&l->waiting);
	td_list_init(&l->spare);
	td_list_init(&l->held);
	l->image->info = below->info;
	l->image->backing = below;
	leaf->backing = l->image;
	l->gate = (struct td_gate){.holds = gate_holds, .lets = lets, .passed = passed};
	l->next = leaf->gate;
	leaf->gate = &l->gate;
	*out = l;
	return 0;
}

bool leaf_cache_busy(const struct leaf_cache *l)
{
	return l && (l->fiber || !td_list_empty(&l->reading));
}

struct leaf_cache_stats leaf_cache_stats(const struct leaf_cache *l)
{
	return l->n;
}
