/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A live commit as the disk has it (LC2 and LC4 to LC7 of tapdisk/commit.h), of qcow2 images on a
 * simulated store: which image the chain reads, in which order the names change, and who stops it
 * before it begins.  The copy is in test-commit.c.  LC7 looks at real files of the images' names.
 */
#include <sys/stat.h>

#include "drivers/qcow/qcow-image.h"
#include "lib/bytes.h"
#include "tapdisk/vbd/vbd-commit.h"
#include "tests/support/test-vbd.h"

#define SIZE (UINT64_C(4) << 20)

enum { BASE, MID, LEAF, IMAGES };

static char dir[32], path[IMAGES][64];
static struct fault_file *files[IMAGES];

static void create_main(void *arg)
{
	int i = *(int *)arg;
	struct qcow_create o = {
		.size = SIZE, .version = 3, .cluster_bits = 16, .refcount_order = 4};

	o.backing = i ? path[i - 1] : NULL;
	o.backing_format = i ? "qcow2" : NULL;
	ck_assert_msg(qcow_image_create(path[i], &o, fio.io, &err) == 0, "%s", err.text);
}

static const char *spec_of(int i)
{
	static char spec[80];

	snprintf(spec, sizeof spec, "qcow2:%s", path[i]);
	return spec;
}

static void open_disk(int i)
{
	ck_assert_int_eq(DO(.what = OPEN, .spec = spec_of(i)), 0);
	memset(&g.ring, 0, sizeof g.ring);
	g.ring.sring.req_event = g.ring.sring.rsp_event = 1;
	g.prod = g.cons = 0;
	ck_assert_int_eq(DO(.what = CONNECT), 0);
}

/* Eight sectors, on the disk that is open. */
static void guest_asks(uint8_t op, uint64_t sector)
{
	unsigned n = answers();

	put(op, sector, 1);
	for (int i = 0; i < 1000 && answers() == n; i++)
		usleep(50);
	ck_assert_uint_eq(g.cons, n + 1);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
}

static void guest_writes(uint64_t sector, char what)
{
	memset(g.page, what, sizeof g.page);
	guest_asks(BLKIF_WRITE, sector);
}

static char guest_reads(uint64_t sector)
{
	memset(g.page, '?', sizeof g.page);
	guest_asks(BLKIF_READ, sector);
	for (unsigned i = 1; i < sizeof g.page; i++)
		ck_assert_int_eq(g.page[i], g.page[0]);
	return g.page[0];
}

/* base, mid on it, and the leaf, which is open.  base holds sectors 0 and 256, mid 256 and 512, the
 * leaf 512 and 768: eight of each. */
static void begin_chain(void)
{
	static const char *const name[] = {"base", "mid", "leaf"};

	strcpy(dir, "/tmp/vbd-commit.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	begin();
	fio.grows = true;
	for (int i = 0; i < IMAGES; i++) {
		snprintf(path[i], sizeof path[i], "%s/%s", dir, name[i]);
		files[i] = fault_io_file(&fio, path[i], 0);
		on_fiber(loop, create_main, &i);
		open_disk(i);
		guest_writes((uint64_t)i * 256, name[i][0]);
		guest_writes((uint64_t)(i + 1) * 256, name[i][0]);
		if (i == LEAF)
			break;
		ck_assert_int_eq(DO(.what = DISCONNECT), 0);
		ck_assert_int_eq(DO(.what = CLOSE), 0);
	}
}

static void shows_all(void)
{
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(guest_reads((uint64_t)i * 256), "bmll"[i]);
}

static void end_chain(void)
{
	char cmd[64];

	end();
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

/* --- the job --- */

static struct vbd_job_told told;
static int result;

static void commit_main(void *arg)
{
	err.code = 0;
	result = vbd_commit(v, arg, &err);
}

/* Of mid into base. */
static int commits(uint64_t rate, bool force)
{
	struct vbd_commit c = {.image = path[MID], .rate = rate, .force = force};

	on_fiber(loop, commit_main, &c);
	return result;
}

static int query(void)
{
	err.code = 0;
	return vbd_commit_query(v, &told, &err);
}

static void await_end(void)
{
	while (vbd_job_busy(v)) {
		turns(1);
		usleep(50);
	}
}

static void cancel_main(void *arg)
{
	ck_assert_int_eq(vbd_commit_cancel(v, true, &err), 0);
}

/* The chain is leaf, mid, base, and nobody writes base. */
static void is_as_it_was(void)
{
	const struct td_image *i = v->leaf;

	for (int n = LEAF; n >= BASE; n--, i = i->backing) {
		ck_assert_ptr_nonnull(i);
		ck_assert_str_eq(i->path, path[n]);
		ck_assert_int_eq(!!(i->file_flags & TD_FILE_PARENT), n != LEAF);
		ck_assert_uint_eq(i->file_flags & TD_FILE_BENEATH, 0);
	}
	ck_assert_ptr_null(i);
}

static bool names(int child, int parent)
{
	const uint8_t *h = files[child]->data;
	uint32_t len = td_get_be32(h + QCOW_H_BACKING_LEN);

	return len == strlen(path[parent]) &&
	       !memcmp(h + td_get_be64(h + QCOW_H_BACKING_OFF), path[parent], len);
}

/* --- LC2 --- */

START_TEST(what_reads_the_parent_reads_the_one_that_is_written)
{
	struct td_image *mid, *written;
	uint64_t hits;

	begin_chain();
	mid = v->leaf->backing;
	ck_assert_int_eq(commits(1, false), 0); /* it waits for its rate after the first piece */
	written = v->job->to;
	ck_assert_ptr_eq(mid->backing, written);
	ck_assert_uint_eq(written->file_flags & TD_FILE_BENEATH, TD_FILE_BENEATH);
	hits = written->n.hits[0];
	ck_assert_int_eq(guest_reads(0), 'b');
	ck_assert_uint_eq(written->n.hits[0], hits + 8);
	shows_all();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "running");
	on_fiber(loop, cancel_main, NULL);
	is_as_it_was();
	shows_all();
	ck_assert_int_eq(query(), -ECANCELED);
	end_chain();
}
END_TEST

/* --- LC4 --- */

START_TEST(the_image_above_names_the_parent_and_the_image_itself_is_left_alone)
{
	uint8_t *was;
	uint64_t size;

	begin_chain();
	size = files[MID]->size;
	was = malloc(size);
	ck_assert_ptr_nonnull(was);
	memcpy(was, files[MID]->data, size);
	ck_assert(names(LEAF, MID));
	ck_assert_int_eq(commits(0, false), 0);
	await_end();
	ck_assert_str_eq(v->leaf->backing->path, path[BASE]);
	ck_assert(v->leaf->backing->file_flags & TD_FILE_PARENT);
	ck_assert_uint_eq(v->leaf->backing->file_flags & TD_FILE_BENEATH, 0);
	ck_assert_ptr_null(v->leaf->backing->backing);
	ck_assert(names(LEAF, BASE));
	ck_assert_uint_eq(files[MID]->size, size);
	ck_assert_mem_eq(files[MID]->data, was, size);
	free(was);
	shows_all();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "concluded");
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	open_disk(LEAF); /* by what the image itself says */
	ck_assert_str_eq(v->leaf->backing->path, path[BASE]);
	shows_all();
	end_chain();
}
END_TEST

/* Which operations of a commit, from 1 on, change the leaf or sync it. */
static unsigned changes_of_leaf(unsigned k[], unsigned max)
{
	unsigned n = 0;

	fault_io_clear(&fio);
	ck_assert_int_eq(commits(0, false), 0);
	await_end();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "concluded");
	for (unsigned i = 0; i < fio.nlog && n < max; i++)
		if (&fio.file[fio.log_file[i]] == files[LEAF] && fio.log[i].op != TD_IO_READ)
			k[n++] = i + 1;
	return n;
}

START_TEST(where_the_name_cannot_be_written_the_chain_stays_as_it_was)
{
	unsigned k[16], n;

	begin_chain();
	n = changes_of_leaf(k, 16);
	ck_assert_uint_ge(n, 2); /* the name, or the header; and a sync */
	ck_assert_uint_lt(n, 16);
	end_chain();
	for (unsigned i = 0; i < n; i++) {
		begin_chain();
		fault_io_clear(&fio);
		fault_io_rule(&fio, k[i], -EIO);
		ck_assert_int_eq(commits(0, false), 0);
		await_end();
		ck_assert_int_eq(query(), -EIO);
		is_as_it_was();
		/* whichever of the two it names */
		ck_assert(names(LEAF, MID) || names(LEAF, BASE));
		shows_all();
		end_chain();
	}
}
END_TEST

/* --- LC5, LC6 --- */

static void commit_leaf_main(void *arg)
{
	const struct vbd_commit c = {.image = path[LEAF]};

	ck_assert_int_eq(vbd_commit(v, &c, &err), 0);
}

#define SLOTS 8 /* blocks that it writes, from sector 1024 on */

/* Until the job is over the guest writes, one after the other, each time something else; so also
 * while the disk goes to rest: one operation of the store ends a turn.  is: what each block holds
 * then. */
static void write_on(char is[SLOTS])
{
	unsigned n = 0;

	fio.manual = true;
	while (vbd_job_busy(v)) {
		if (g.ring.sring.rsp_prod == g.prod) {
			is[n % SLOTS] = (char)('A' + n % 26);
			memset(g.page, is[n % SLOTS], sizeof g.page);
			put(BLKIF_WRITE, 1024 + n++ % SLOTS * 128, 1);
		}
		turns(1);
		fault_io_complete(&fio, 0);
		if (!vbd_job_busy(v))
			break;
		ck_assert_int_eq(query(), 0); /* which completes it, when it is ready */
		ck_assert_str_ne(told.status, "concluded"); /* the leaf may be needed yet */
	}
	ck_assert_uint_gt(n, SLOTS);
	fio.manual = false;
	while (fault_io_complete(&fio, 0))
		;
	while (answers() != g.prod)
		usleep(50);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
}

START_TEST(a_leaf_is_told_as_committed_when_its_parent_is_the_leaf_and_has_all_of_it)
{
	char is[SLOTS];

	begin_chain();
	on_fiber(loop, commit_leaf_main, NULL);
	write_on(is);
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "concluded");
	ck_assert_str_eq(v->leaf->path, path[MID]);
	ck_assert_str_eq(v->spec, spec_of(MID));
	ck_assert_str_eq(v->leaf->backing->path, path[BASE]);
	shows_all();
	for (unsigned i = 0; i < SLOTS; i++)
		ck_assert_int_eq(guest_reads(1024 + i * 128), is[i]);
	end_chain();
}
END_TEST

/* The tapdisk that began it has died, and its image is in the chain. */
static void reopen_main(void *arg)
{
	const struct vbd_options o = {.mode = td_cache_mode_find("writeback"), .unsafe = true};
	struct vbd_past past = {.job = {.state = VBD_JOB_RUNNING, .all = SIZE}};

	strcpy(past.job.node, path[MID]);
	snprintf(past.job.base, sizeof past.job.base, "%s", spec_of(BASE));
	err.code = 0;
	result = vbd_reopen(v, spec_of(LEAF), &o, &past, &err);
}

START_TEST(one_that_a_death_has_stopped_goes_on_and_is_not_told_as_concluded_before)
{
	begin_chain();
	ck_assert_int_eq(DO(.what = DISCONNECT), 0);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	on_fiber(loop, reopen_main, NULL);
	ck_assert_msg(result == 0, "%s", err.text);
	await_end();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "concluded");
	ck_assert_str_eq(v->leaf->backing->path, path[BASE]);
	ck_assert(names(LEAF, BASE));
	end_chain();
}
END_TEST

/* --- LC7 --- */

/* The image as a real file, so far as those who look beside it read. */
static int real_file(const char *name, int i)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, files[i]->data, files[i]->size, 0), (ssize_t)files[i]->size);
	return fd;
}

/* As a parent's, or the reader of another: in lib/io/file-lock.c. */
static int reads(const char *name)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 100};
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

static void is_refused(const char *why, bool force)
{
	unsigned char *was = malloc(files[BASE]->size);

	ck_assert_ptr_nonnull(was);
	memcpy(was, files[BASE]->data, files[BASE]->size);
	ck_assert_int_eq(commits(0, force), -EINVAL);
	ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
	ck_assert_mem_eq(files[BASE]->data, was, files[BASE]->size);
	free(was);
	is_as_it_was();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "undefined");
	shows_all();
}

/* Of the locks that this host shows, one is this disk's, which the simulated store does not take.
 */
START_TEST(who_has_the_parent_open_stops_it_before_it_begins)
{
	int held[2];

	begin_chain();
	close(real_file(path[BASE], BASE));
	held[0] = reads(path[BASE]);
	held[1] = reads(path[BASE]);
	is_refused("base is in use by another disk too, which would change, or read", false);
	is_refused("base is in use", true); /* --force is of files that nobody has open */
	close(held[1]);
	/* it was taken for our own; but it is there still when the chain's own is closed */
	is_refused("on this host or on another", false);
	close(held[0]);
	close(real_file(path[MID], MID));
	held[0] = reads(path[MID]);
	held[1] = reads(path[MID]);
	is_refused("mid is in use by another disk too", false);
	close(held[0]);
	close(held[1]);
	ck_assert_int_eq(commits(0, false), 0);
	await_end();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "concluded");
	end_chain();
}
END_TEST

START_TEST(who_names_the_parent_in_a_file_beside_stops_it)
{
	char beside[80];

	begin_chain();
	for (int i = BASE; i < IMAGES; i++)
		close(real_file(path[i], i));
	snprintf(beside, sizeof beside, "%s/beside", dir);
	close(real_file(beside, MID));
	is_refused("beside has the backing file", false);
	ck_assert_int_eq(commits(0, true), 0);
	await_end();
	ck_assert_int_eq(query(), 0);
	ck_assert_str_eq(told.status, "concluded");
	end_chain();
	begin_chain();
	for (int i = BASE; i < IMAGES; i++)
		close(real_file(path[i], i));
	ck_assert_int_eq(commits(0, false), 0); /* its own children are none */
	await_end();
	ck_assert_int_eq(query(), 0);
	end_chain();
}
END_TEST

START_TEST(the_parent_is_claimed_while_it_is_written)
{
	begin_chain();
	ck_assert_int_eq(commits(1, false), 0);
	ck_assert_uint_eq(v->job->to->file_flags & TD_FILE_CLAIM, TD_FILE_CLAIM);
	on_fiber(loop, cancel_main, NULL);
	end_chain();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd, commits");

	SUITE_ADD(s, what_reads_the_parent_reads_the_one_that_is_written);
	SUITE_ADD(s, the_image_above_names_the_parent_and_the_image_itself_is_left_alone);
	SUITE_ADD(s, where_the_name_cannot_be_written_the_chain_stays_as_it_was);
	SUITE_ADD(s, a_leaf_is_told_as_committed_when_its_parent_is_the_leaf_and_has_all_of_it);
	SUITE_ADD(s, one_that_a_death_has_stopped_goes_on_and_is_not_told_as_concluded_before);
	SUITE_ADD(s, who_has_the_parent_open_stops_it_before_it_begins);
	SUITE_ADD(s, who_names_the_parent_in_a_file_beside_stops_it);
	SUITE_ADD(s, the_parent_is_claimed_while_it_is_written);
	return suite_run(s);
}
