/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHDs offline.  `model': random writes, snapshots, coalesces, fills, resizes and reopens against plain arrays.  `cuts': every
 * operation's writes are recorded; at each point of them the power is cut, so that what was not synced survives or not, sector by
 * sector; the image must open, pass the check, and hold what it held or was given; a resize must be revertible.
 * The seed is printed; VHD_SEED in the environment repeats it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/vhd-check.h"
#include "drivers/vhd-image.h"
#include "tests/support/suite.h"

static struct td_err err;
static char dir[64], made[512];
static unsigned long seed;
static uint64_t rng;

static uint32_t rnd(uint32_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % below;
}

#define ok(what)                                                                                                         \
	do {                                                                                                             \
		int rc_ = (what);                                                                                        \
		ck_assert_msg(rc_ >= 0, "seed %lu: %s: %d, %s", seed, #what, rc_, err.text);                             \
	} while (0)

static void setup(void)
{
	const char *s = getenv("VHD_SEED");

	/* thousands of small files: in memory, where there is any */
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/vhd-image.XXXXXX" : "/tmp/vhd-image.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	seed = s ? strtoul(s, NULL, 10) : (unsigned long)getpid() * 2654435761u % 1000000007u;
	rng = seed * 0x9e3779b97f4a7c15u + 1;
	printf("seed %lu (VHD_SEED repeats it)\n", seed);
	fflush(stdout);
}

static void teardown(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	rmdir(dir);
}

static const char *in_dir(const char *name)
{
	snprintf(made, sizeof made, "%s/%s", dir, name);
	return made;
}

/* --- checks --- */

static void no_finding(const char *what, bool fatal, void *arg)
{
	if (fatal)
		snprintf(arg, 512, "%s", what);
}

static void no_good(const char *path, void *arg)
{
}

static void check_image(const char *path, unsigned flags, const char *when)
{
	char what[512] = "";
	struct vhd_stats s;

	vhd_check(path, flags | VHD_CHECK_NO_TIME, no_finding, no_good, what, &s, NULL);
	ck_assert_msg(!*what, "seed %lu: %s: %s", seed, when, what);
}

/* The whole disk, through the chain. */
static uint8_t *content(const char *path, uint64_t *size)
{
	struct vhd_image *v;
	uint8_t *b;

	err.code = 0;
	ok(vhd_image_open(path, VHD_LOOK | VHD_CHAIN, &v, &err));
	*size = v->size;
	b = malloc(v->size);
	ck_assert_ptr_nonnull(b);
	ok(vhd_image_read(v, b, 0, v->size, &err));
	vhd_image_close(v);
	return b;
}

static void same_content(const char *path, const uint8_t *want, uint64_t size, const char *when)
{
	uint64_t got_size;
	uint8_t *got = content(path, &got_size);

	ck_assert_msg(got_size == size, "seed %lu: %s: %s has %llu bytes instead of %llu", seed, when, path, (unsigned long long)got_size,
		      (unsigned long long)size);
	for (uint64_t i = 0; i < size; i++)
		if (got[i] != want[i]) /* an assertion a byte would take minutes */
			ck_abort_msg("seed %lu: %s: %s differs at byte %llu (sector %llu): %02x instead of %02x", seed, when, path,
			      (unsigned long long)i, (unsigned long long)i / 512, got[i], want[i]);
	free(got);
}

/* Random runs of sectors, each sector with a number of its own. */
static void scribble(struct vhd_image *v, uint8_t *model, unsigned runs)
{
	static uint8_t buf[64 * 512];

	while (runs--) {
		uint64_t sectors = v->size / 512, first = rnd((uint32_t)sectors), n = 1 + rnd(rnd(4) ? 8 : 63);

		if (n > sectors - first)
			n = sectors - first;
		for (uint64_t i = 0; i < n * 512; i += 4) {
			uint32_t x = i % 512 ? (uint32_t)(first * 512 + i) : rnd(UINT32_MAX);

			memcpy(buf + i, &x, 4);
		}
		ok(vhd_image_write(v, buf, first * 512, n * 512, &err));
		if (model)
			memcpy(model + first * 512, buf, n * 512);
	}
}

static void write_some(const char *path, uint8_t *model, unsigned runs)
{
	struct vhd_image *v;

	ok(vhd_image_open(path, VHD_WRITE | VHD_CHAIN, &v, &err));
	scribble(v, model, runs);
	ok(vhd_image_flush(v, &err));
	vhd_image_close(v);
}

/* --- model --- */

#define CHAIN 6

static struct {
	char path[128];
	uint8_t *model; /* what it shows; of `size' bytes */
	uint64_t size;
} chain[CHAIN];
static int depth, names;

static void push(void)
{
	struct vhd_new n = {.path = chain[depth].path, .block_size = rnd(2) ? 4096 : 65536, .parent_as_named = true};

	snprintf(chain[depth].path, sizeof chain[depth].path, "%s/%d.vhd", dir, names++);
	chain[depth].size = depth ? chain[depth - 1].size : 512ull * (1 + rnd(1500));
	chain[depth].model = calloc(1, chain[depth].size);
	if (depth) {
		n.parent = chain[depth - 1].path;
		memcpy(chain[depth].model, chain[depth - 1].model, chain[depth].size);
	} else {
		n.size = chain[depth].size;
		n.fixed = !rnd(4);
	}
	n.table_size = rnd(2) ? 0 : chain[depth].size * 2;
	ok(vhd_create(&n, &err));
	depth++;
}

/* The leaf into its parent; then it is as if it had never been. */
static void coalesce(void)
{
	struct vhd_image *v, *to;
	uint64_t sectors;
	int leaf = depth - 1;

	ok(vhd_image_open(chain[leaf].path, VHD_READ, &v, &err));
	if (chain[leaf].size > chain[leaf - 1].size)
		ok(vhd_resize(chain[leaf - 1].path, chain[leaf].size, in_dir("journal"), &err));
	ok(vhd_image_open_parent(v, VHD_BENEATH, &to, &err));
	ok(vhd_coalesce(v, to, NULL, &sectors, &err));
	vhd_image_close(to);
	vhd_image_close(v);
	same_content(chain[leaf].path, chain[leaf].model, chain[leaf].size, "after a coalesce beneath it");
	unlink(chain[leaf].path);
	free(chain[leaf - 1].model);
	chain[leaf - 1].model = chain[leaf].model;
	chain[leaf - 1].size = chain[leaf].size;
	depth--;
}

static void resize(void)
{
	int leaf = depth - 1;
	uint64_t size = chain[leaf].size + 512ull * (1 + rnd(300));
	struct vhd_image *v;
	bool fast;

	ok(vhd_image_open(chain[leaf].path, VHD_LOOK, &v, &err));
	fast = v->footer.type != VHD_FIXED && size <= (uint64_t)v->layout.entries * v->layout.block_size && rnd(2);
	vhd_image_close(v);
	ok(vhd_resize(chain[leaf].path, size, fast ? NULL : in_dir("journal"), &err));
	ck_assert_int_lt(access(in_dir("journal"), F_OK), 0);
	chain[leaf].model = realloc(chain[leaf].model, size);
	memset(chain[leaf].model + chain[leaf].size, 0, size - chain[leaf].size);
	chain[leaf].size = size;
}

static void reparent_or_fill(void)
{
	int leaf = depth - 1;
	struct vhd_image *v;

	ok(vhd_image_open(chain[leaf].path, VHD_WRITE | VHD_CHAIN, &v, &err));
	if (rnd(2) && leaf)
		ok(vhd_reparent(v, chain[leaf - 1].path, false, &err));
	else
		ok(vhd_fill(v, NULL, &err));
	vhd_image_close(v);
}

START_TEST(model)
{
	int steps = getenv("VHD_STEPS") ? atoi(getenv("VHD_STEPS")) : 500;

	push();
	for (int step = 0; step < steps; step++) {
		uint32_t what = rnd(20);

		err.code = 0;
		if (what < 12)
			write_some(chain[depth - 1].path, chain[depth - 1].model, 1 + rnd(20));
		else if (what < 15 && depth < CHAIN)
			push();
		else if (what < 17 && depth > 1)
			coalesce();
		else if (what < 18 && chain[depth - 1].size < 4 << 20)
			resize();
		else
			reparent_or_fill();
		same_content(chain[depth - 1].path, chain[depth - 1].model, chain[depth - 1].size, "after a step");
		if (step % 8 == 0)
			check_image(chain[depth - 1].path, VHD_CHECK_PARENTS, "after a step");
	}
	while (depth--)
		free(chain[depth].model);
}
END_TEST

/* --- cuts: the system calls of one file are recorded (linked with --wrap) --- */

enum kind { WRITE, SYNC, TRUNCATE };
struct event {
	enum kind kind;
	uint64_t off, len;
	uint8_t *data;
};
static struct event *events;
static size_t nevents;
static bool recording;
static ino_t recorded;

/* The fault_at'th recorded call fails with fault_errno, or is short. */
enum { SHORT = -1 };
static unsigned fault_at, calls;
static int fault_errno;

static bool fault_now(void)
{
	return fault_at && ++calls == fault_at;
}

static bool of_interest(int fd)
{
	struct stat st;

	return recording && fstat(fd, &st) == 0 && st.st_ino == recorded;
}

static void record(enum kind kind, uint64_t off, uint64_t len, const void *data)
{
	struct event *e;

	if (nevents % 1024 == 0)
		events = realloc(events, (nevents + 1024) * sizeof *events);
	e = &events[nevents++];
	*e = (struct event){kind, off, len, NULL};
	if (data) {
		e->data = malloc(len);
		memcpy(e->data, data, len);
	}
}

ssize_t __real_pwrite(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *b, size_t n, off_t off)
{
	if (of_interest(fd)) {
		if (fault_now()) {
			if (fault_errno == SHORT)
				return __real_pwrite(fd, b, n / 2, off);
			errno = fault_errno;
			return -1;
		}
		record(WRITE, (uint64_t)off, n, b);
	}
	return __real_pwrite(fd, b, n, off);
}

ssize_t __real_pwrite64(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *b, size_t n, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *b, size_t n, off_t off)
{
	if (of_interest(fd)) {
		if (fault_now()) {
			if (fault_errno == SHORT)
				return __real_pwrite64(fd, b, n / 2, off);
			errno = fault_errno;
			return -1;
		}
		record(WRITE, (uint64_t)off, n, b);
	}
	return __real_pwrite64(fd, b, n, off);
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	if (of_interest(fd)) {
		if (fault_errno != EINTR && fault_errno != SHORT && fault_now()) {
			errno = fault_errno;
			return -1;
		}
		record(SYNC, 0, 0, NULL);
	}
	return 0; /* nobody cuts the real power */
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	return 0;
}

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size)
{
	if (of_interest(fd)) {
		if (fault_errno != EINTR && fault_errno != SHORT && fault_now()) {
			errno = fault_errno;
			return -1;
		}
		record(TRUNCATE, 0, (uint64_t)size, NULL);
	}
	return __real_ftruncate(fd, size);
}

int __real_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size)
{
	if (of_interest(fd)) {
		if (fault_errno != EINTR && fault_errno != SHORT && fault_now()) {
			errno = fault_errno;
			return -1;
		}
		record(TRUNCATE, 0, (uint64_t)size, NULL);
	}
	return __real_ftruncate64(fd, size);
}

static uint8_t *slurp(const char *path, uint64_t *len)
{
	FILE *f = fopen(path, "r");
	uint8_t *b;

	ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
	fseek(f, 0, SEEK_END);
	*len = (uint64_t)ftell(f);
	rewind(f);
	b = malloc(*len + 1);
	ck_assert_uint_eq(fread(b, 1, *len, f), *len);
	fclose(f);
	return b;
}

static void spill(const char *path, const uint8_t *b, uint64_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(b, 1, len, f), len);
	fclose(f);
}

struct disk {
	uint8_t *b;
	uint64_t len, room;
};

static void disk_apply(struct disk *d, const struct event *e, bool surely)
{
	uint64_t end = e->off + e->len;

	if (e->kind == TRUNCATE) {
		if (!surely && rnd(2))
			return;
		if (e->len > d->len)
			memset(d->b + d->len, 0, e->len - d->len);
		d->len = e->len;
		return;
	}
	if (end > d->len) { /* a file's length may survive where its data does not */
		if (!surely && !rnd(3))
			end = d->len;
		else {
			memset(d->b + d->len, 0, end - d->len);
			d->len = end;
		}
	}
	for (uint64_t at = e->off; at < e->off + e->len && at + 512 <= d->len; at += 512)
		if (surely || rnd(2))
			memcpy(d->b + at, e->data + (at - e->off), 512);
}

/* What the disk may hold when the power goes after `cut' events. */
static void disk_after(struct disk *d, const uint8_t *before, uint64_t len, size_t cut)
{
	size_t synced = 0;

	memcpy(d->b, before, len);
	d->len = len;
	for (size_t i = 0; i < cut; i++)
		if (events[i].kind == SYNC)
			synced = i;
	for (size_t i = 0; i < cut; i++)
		if (events[i].kind != SYNC)
			disk_apply(d, &events[i], i < synced);
}

static void start_recording(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	recorded = st.st_ino;
	recording = true;
	nevents = 0;
}

static void stop_recording(void)
{
	recording = false;
}

static void forget_events(void)
{
	for (size_t i = 0; i < nevents; i++)
		free(events[i].data);
	nevents = 0;
}

/* Each sector is as before or as after: both of `size' bytes. */
static void old_or_new(const char *path, const uint8_t *old, const uint8_t *new, uint64_t size, size_t cut)
{
	uint64_t got_size;
	uint8_t *got = content(path, &got_size);

	ck_assert_uint_eq(got_size, size);
	for (uint64_t s = 0; s < size; s += 512)
		if (memcmp(got + s, old + s, 512) && memcmp(got + s, new + s, 512))
			ck_abort_msg("seed %lu: cut after %zu of %zu: sector %llu is neither as before nor as after", seed, cut, nevents,
			      (unsigned long long)s / 512);
	free(got);
}

/* Cuts everywhere; `path' is put into each state and looked at, also after a repair. */
static void cut_everywhere(const char *path, const uint8_t *before, uint64_t len, const uint8_t *old, const uint8_t *new, uint64_t size)
{
	struct disk d = {.room = len};

	for (size_t i = 0; i < nevents; i++) {
		uint64_t end = events[i].kind == TRUNCATE ? events[i].len : events[i].off + events[i].len;

		d.room = end > d.room ? end : d.room;
	}
	d.b = malloc(d.room);
	for (size_t cut = 0; cut <= nevents; cut++)
		for (int again = 0; again < 2; again++) {
			disk_after(&d, before, len, cut);
			spill(path, d.b, d.len);
			old_or_new(path, old, new, size, cut);
			check_image(path, VHD_CHECK_NO_LAST | VHD_CHECK_NO_BITMAPS, "after a cut");
			err.code = 0;
			ok(vhd_repair(path, &err));
			check_image(path, 0, "after a cut and a repair");
			old_or_new(path, old, new, size, cut);
		}
	free(d.b);
}

static int change_set(struct vhd_image *v)
{
	v->footer.hidden = 1;
	return vhd_image_put_footer(v, &err);
}

static int change_write(struct vhd_image *v)
{
	static uint8_t sector[512];
	int rc = 0;

	memset(sector, 0x77, sizeof sector);
	for (uint64_t s = 0; s < v->size / 512 && !rc; s += 3)
		rc = vhd_image_write(v, sector, s * 512, 512, &err);
	return rc ? rc : vhd_image_flush(v, &err);
}

static int change_fill(struct vhd_image *v)
{
	return vhd_fill(v, NULL, &err);
}

static int change_parent(struct vhd_image *v)
{
	return vhd_reparent(v, in_dir("a.vhd"), false, &err);
}

static int change_kill(struct vhd_image *v)
{
	return vhd_kill_data(v, &err);
}

static void make_pair(char path_a[128], char path_b[128])
{
	struct vhd_new a = {.size = 300 * 512, .block_size = 4096}, b = {.block_size = 4096};

	strcpy(path_a, in_dir("a.vhd"));
	strcpy(path_b, in_dir("b.vhd"));
	a.path = b.parent = path_a;
	b.path = path_b;
	ok(vhd_create(&a, &err));
	write_some(path_a, NULL, 20);
	ok(vhd_create(&b, &err));
	write_some(path_b, NULL, 8);
}

/* A child on a parent, both with data; the child is changed, and cut. */
static void cut_change(int (*change)(struct vhd_image *v))
{
	char path_a[128], path_b[128];
	uint64_t size, len;
	uint8_t *before, *old, *new;
	struct vhd_image *v;

	make_pair(path_a, path_b);
	old = content(path_b, &size);
	before = slurp(path_b, &len);
	ok(vhd_image_open(path_b, VHD_WRITE | VHD_CHAIN, &v, &err));
	start_recording(path_b);
	ok(change(v));
	stop_recording();
	vhd_image_close(v);
	new = content(path_b, &size);
	check_image(path_b, 0, "after the change");
	cut_everywhere(path_b, before, len, old, new, size);
	forget_events();
	free(before);
	free(old);
	free(new);
}

/* One call fails: an error that says so, and a good image; what is only interrupted or short goes on. */
static bool one_fault(int (*change)(struct vhd_image *v), const char *path, const uint8_t *old, const uint8_t *new, uint64_t size)
{
	struct vhd_image *v;
	bool soft = fault_errno == EINTR || fault_errno == SHORT;
	int rc;

	err.code = 0;
	ok(vhd_image_open(path, VHD_WRITE | VHD_CHAIN, &v, &err));
	calls = 0;
	start_recording(path);
	rc = change(v);
	stop_recording();
	forget_events();
	vhd_image_close(v);
	if (calls < fault_at || soft) {
		ck_assert_msg(rc == 0, "seed %lu: call %u, errno %d: %s", seed, fault_at, fault_errno, err.text);
		same_content(path, new, size, "after a fault that is none");
	} else {
		ck_assert_int_eq(rc, -fault_errno);
		ck_assert_ptr_nonnull(strstr(err.text, path));
		old_or_new(path, old, new, size, fault_at);
		check_image(path, VHD_CHECK_NO_LAST | VHD_CHECK_NO_BITMAPS, "after a fault");
		err.code = 0;
		ok(vhd_repair(path, &err));
		check_image(path, 0, "after a fault and a repair");
		old_or_new(path, old, new, size, fault_at);
	}
	return calls >= fault_at;
}

START_TEST(faults)
{
	static int (*const changes[])(struct vhd_image *v) = {change_set, change_write, change_fill, change_parent, change_kill};
	static const int errnos[] = {EIO, ENOSPC, EINTR, SHORT};
	char path_a[128], path_b[128];
	uint64_t size, len;
	uint8_t *before, *old, *new;
	struct vhd_image *v;

	make_pair(path_a, path_b);
	old = content(path_b, &size);
	before = slurp(path_b, &len);
	for (size_t c = 0; c < sizeof changes / sizeof *changes; c++) {
		spill(path_b, before, len);
		ok(vhd_image_open(path_b, VHD_WRITE | VHD_CHAIN, &v, &err));
		ok(changes[c](v));
		vhd_image_close(v);
		new = content(path_b, &size);
		for (size_t e = 0; e < sizeof errnos / sizeof *errnos; e++) {
			bool hit = true;

			fault_errno = errnos[e];
			for (fault_at = 1; hit; fault_at += fault_at < 30 ? 1 : 7) {
				spill(path_b, before, len);
				hit = one_fault(changes[c], path_b, old, new, size);
			}
		}
		fault_at = 0;
		free(new);
	}
	free(before);
	free(old);
}
END_TEST

START_TEST(cut_set)
{
	cut_change(change_set);
}
END_TEST

START_TEST(cut_write)
{
	cut_change(change_write);
}
END_TEST

START_TEST(cut_fill)
{
	cut_change(change_fill);
}
END_TEST

START_TEST(cut_reparent)
{
	cut_change(change_parent);
}
END_TEST

START_TEST(cut_kill_data)
{
	cut_change(change_kill);
}
END_TEST

/* Under a cut coalesce the child shows the same all the time. */
START_TEST(cut_coalesce)
{
	char path_a[128], path_b[128];
	uint64_t size, len, sectors;
	uint8_t *before, *shown;
	struct vhd_image *v, *to;
	struct disk d;

	make_pair(path_a, path_b);
	shown = content(path_b, &size);
	before = slurp(path_a, &len);
	ok(vhd_image_open(path_b, VHD_READ, &v, &err));
	ok(vhd_image_open_parent(v, VHD_BENEATH, &to, &err));
	start_recording(path_a);
	ok(vhd_coalesce(v, to, NULL, &sectors, &err));
	stop_recording();
	vhd_image_close(to);
	vhd_image_close(v);
	same_content(path_a, shown, size, "the parent after a coalesce");
	d.b = malloc(len + (16 << 20));
	for (size_t cut = 0; cut <= nevents; cut++) {
		disk_after(&d, before, len, cut);
		spill(path_a, d.b, d.len);
		same_content(path_b, shown, size, "the child over a parent whose coalesce was cut");
		check_image(path_a, VHD_CHECK_NO_LAST | VHD_CHECK_NO_BITMAPS, "after a cut coalesce");
	}
	forget_events();
	free(d.b);
	free(before);
	free(shown);
}
END_TEST

/*
 * The power goes while a resize that was cut off is being reverted; what is left is reverted once more.  path is as the first cut left it;
 * every cut of the second is tried.
 */
static void cut_revert(const char *path, const char *journal, const uint8_t *j, uint64_t jlen, const uint8_t *before, uint64_t len)
{
	struct event *outer = events;
	size_t nouter = nevents;
	uint64_t cut_len, got_size;
	uint8_t *cut_before = slurp(path, &cut_len), *got;
	struct disk d = {.b = malloc((cut_len > len ? cut_len : len) + (1 << 20))};

	events = NULL;
	spill(journal, j, jlen);
	start_recording(path);
	ok(vhd_revert(path, journal, &err));
	stop_recording();
	ck_assert_uint_gt(nevents, 0);
	for (size_t cut = 0; cut <= nevents; cut++) {
		disk_after(&d, cut_before, cut_len, cut);
		spill(path, d.b, d.len);
		spill(journal, j, jlen);
		err.code = 0;
		ok(vhd_revert(path, journal, &err));
		got = slurp(path, &got_size);
		ck_assert_msg(got_size == len && !memcmp(got, before, len), "seed %lu: reverted after %zu of %zu of a revert, it is another file",
			      seed, cut, nevents);
		free(got);
	}
	forget_events();
	free(events);
	free(d.b);
	free(cut_before);
	events = outer;
	nevents = nouter;
}

/* Larger, cut, reverted: the disk of before, to the byte; and not reverted: the disk of before, or a larger one with zeroes. */
static void cut_resize(bool fixed, uint64_t from, uint64_t to)
{
	struct vhd_new a = {.size = from, .block_size = 4096, .fixed = fixed};
	char path[128], journal[128], saved[128];
	uint64_t size, len, jlen, got_size;
	uint8_t *before, *old, *j, *got;
	struct disk d;

	strcpy(path, in_dir("a.vhd"));
	strcpy(journal, in_dir("j"));
	strcpy(saved, in_dir("saved"));
	a.path = path;
	ok(vhd_create(&a, &err));
	write_some(path, NULL, 20);
	old = content(path, &size);
	before = slurp(path, &len);
	start_recording(path);
	ok(vhd_resize(path, to, journal, &err));
	stop_recording();
	check_image(path, 0, "after the resize");
	/* the journal once more, of the image as it was */
	spill(path, before, len);
	ck_assert_int_eq(vhd_resize(path, to, "/nonexistent/j", NULL), -ENOENT);
	same_content(path, old, size, "a resize whose journal cannot be written changes nothing");
	ok(vhd_journal_of(path, saved, &err));
	j = slurp(saved, &jlen);
	d.b = malloc(len + to + (1 << 20));
	for (size_t cut = 0; cut <= nevents; cut++)
		for (int again = 0; again < 3; again++) {
			disk_after(&d, before, len, cut);
			spill(path, d.b, d.len);
			if (!fixed) {
				got = content(path, &got_size);
				ck_assert_msg(got_size == from || got_size == to, "seed %lu: %llu bytes", seed, (unsigned long long)got_size);
				ck_assert_int_eq(memcmp(got, old, from), 0);
				for (uint64_t i = from; i < got_size; i++)
					if (got[i])
						ck_abort_msg("seed %lu: byte %llu of what is new is not zero", seed, (unsigned long long)i);
				free(got);
			}
			if (!again) {
				cut_revert(path, journal, j, jlen, before, len);
				spill(path, d.b, d.len);
			}
			spill(journal, j, jlen);
			err.code = 0;
			ok(vhd_revert(path, journal, &err));
			ck_assert_int_lt(access(journal, F_OK), 0);
			got = slurp(path, &got_size);
			ck_assert_msg(got_size == len && !memcmp(got, before, len), "seed %lu: reverted after %zu of %zu, it is another file", seed, cut,
				      nevents);
			free(got);
		}
	forget_events();
	free(d.b);
	free(before);
	free(old);
	free(j);
}

START_TEST(cut_resize_new_table)
{
	cut_resize(false, 100 * 512, 3000 * 512);
}
END_TEST

START_TEST(cut_resize_fast)
{
	cut_resize(false, 100 * 512, 200 * 512);
}
END_TEST

START_TEST(cut_resize_fixed)
{
	cut_resize(true, 100 * 512, 300 * 512);
}
END_TEST

/* What was written since the resize was cut is not undone. */
static void use_and_revert(bool fixed)
{
	struct vhd_new a = {.size = 100 * 512, .block_size = 4096, .fixed = fixed, .replace = true};
	char path[128], journal[128];

	strcpy(path, in_dir("a.vhd"));
	strcpy(journal, in_dir("j"));
	a.path = path;
	ok(vhd_create(&a, &err));
	ok(vhd_journal_of(path, journal, &err));
	ok(vhd_resize(path, 3000 * 512, in_dir("j2"), &err));
	write_some(path, NULL, 50);
	ck_assert_int_eq(vhd_revert(path, journal, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "would lose data"));
	check_image(path, 0, "a refused revert");
	unlink(journal);
	err.code = 0;
}

START_TEST(revert_after_use)
{
	use_and_revert(false);
	use_and_revert(true);
}
END_TEST

#define ADD(test)                                                                                                        \
	do {                                                                                                             \
		TCase *tc_ = tcase_create(#test);                                                                        \
		tcase_set_timeout(tc_, SUITE_PATIENCE);                                                                  \
		tcase_add_checked_fixture(tc_, setup, teardown);                                                         \
		tcase_add_test(tc_, test);                                                                               \
		suite_add_tcase(s, tc_);                                                                                 \
	} while (0)

int main(void)
{
	Suite *s = suite_create("vhd-image");

	ADD(model);
	ADD(cut_set);
	ADD(cut_write);
	ADD(cut_fill);
	ADD(cut_reparent);
	ADD(cut_kill_data);
	ADD(cut_coalesce);
	ADD(faults);
	ADD(cut_resize_new_table);
	ADD(cut_resize_fast);
	ADD(cut_resize_fixed);
	ADD(revert_after_use);
	return suite_run(s);
}
