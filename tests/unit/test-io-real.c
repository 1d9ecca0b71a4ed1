/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engines on real files. */
#include <dirent.h>

#include "tests/support/test-io.h"

static char path[64];
static bool direct;

static void open_real(void *arg)
{
	struct td_err err = {0};

	ck_assert_msg(td_file_open(io, path, *(unsigned *)arg | (direct ? TD_FILE_DIRECT : 0), &f,
				   &err) == 0,
		      "%s", err.text);
}

/* In the build directory, whose file system is a disk's; false where it has no O_DIRECT. */
static bool begin_real(const char *engine, bool want_direct, unsigned flags)
{
	int fd;

	strcpy(path, "test-io.XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 4 << 20), 0);
	close(fd);
	fd = want_direct ? open(path, O_RDWR | O_DIRECT) : 0;
	if (fd < 0) {
		unlink(path);
		return false;
	}
	if (fd)
		close(fd);
	direct = want_direct;
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, engine, direct, &io, NULL), 0);
	on_fiber(loop, open_real, &flags);
	mem = aligned_alloc(4096, 4 << 20);
	return true;
}

/* Whether the kernel (and this build) has io_uring; without it the others stand in, and have their
 * own tests. */
static bool has_uring(void)
{
	struct td_io *probe = NULL;
	struct td_err err = {0};
	bool yes;

	loop = ev_loop_new(EVFLAG_AUTO);
	yes = !td_io_new(loop, "io_uring", true, &probe, &err) &&
	      !strcmp(probe->ops->name, "io_uring");
	td_io_free(probe);
	ev_loop_destroy(loop);
	return yes;
}

static void end_real(void)
{
	on_fiber(loop, close_it, NULL);
	ck_assert_uint_eq(io->inflight, 0);
	td_io_free(io);
	ev_loop_destroy(loop);
	free(mem);
	unlink(path);
}

static void many_at_once(void)
{
	static struct op o[MANY];
	uint64_t before = io->n.commits;

	for (unsigned i = 0; i < MANY; i++) {
		memset(mem + i * 4096, (int)i, 4096);
		start(&o[i], TD_IO_WRITE, mem + i * 4096, (MANY - 1 - i) * 4096, 4096, 0);
	}
	for (unsigned i = 0; i < MANY; i++)
		ck_assert_int_eq(run(&o[i]), 0);
	/* all that the kernel has room for goes in one; of the rest each may, on a slow disk, have
	 * to wait for a place of its own */
	if (!strcmp(io->ops->name, "io_uring") && !(f->flags & TD_FILE_DIRECT))
		/* writes into the host's cache are not the ring's */
		ck_assert_uint_eq(io->n.commits, before);
	else
		ck_assert_uint_ge(io->n.commits, before + 1);
	ck_assert_uint_le(io->n.commits, before + 1 + MANY - ROOM);
	memset(mem, 0xFF, MANY * 4096);
	ck_assert_int_eq(once(TD_IO_READ, mem, 0, MANY * 4096, 0), 0);
	for (unsigned i = 0; i < MANY; i++)
		ck_assert(mem[i * 4096] == (char)(MANY - 1 - i) &&
			  mem[i * 4096 + 4095] == (char)(MANY - 1 - i));
}

static void one_turn_one_commit(void)
{
	struct op o[20];
	uint64_t before = io->n.commits;

	for (unsigned i = 0; i < 20; i++)
		start(&o[i], TD_IO_READ, mem, 0, 4096, 0);
	for (unsigned i = 0; i < 20; i++)
		run(&o[i]);
	ck_assert_uint_eq(io->n.commits, before + 1);
}

static void punch(void)
{
	struct stat st[2];
	int err;

	memset(mem, 0x44, 1 << 20);
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 1 << 20, TD_IO_DSYNC), 0);
	ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), 0);
	ck_assert_int_eq(stat(path, &st[0]), 0);
	err = once(TD_IO_PUNCH, NULL, 4096, (1 << 20) - 8192, 0);
	if (err == -EOPNOTSUPP)
		return;
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(once(TD_IO_READ, mem, 0, 1 << 20, 0), 0);
	ck_assert(mem[4095] == 0x44 && mem[4096] == 0 && mem[(1 << 20) - 4097] == 0 &&
		  mem[(1 << 20) - 4096] == 0x44);
	ck_assert_int_eq(stat(path, &st[1]), 0);
	ck_assert_int_lt(st[1].st_blocks, st[0].st_blocks);
	ck_assert_int_eq(st[1].st_size, st[0].st_size);
}

static void real_engine(const char *engine, bool want_direct)
{
	if (!begin_real(engine, want_direct, 0))
		return;
	many_at_once();
	one_turn_one_commit();
	ck_assert_int_eq(once(TD_IO_WRITE, mem, 8192, 4096, TD_IO_DSYNC), 0);
	ck_assert_int_eq(once(TD_IO_SYNC, NULL, 0, 0, 0), 0);
	ck_assert(io->n.syncs == 1 && io->n.durable_writes == 1);
	ck_assert_int_eq(once(TD_IO_READ, mem, 4 << 20, 4096, 0), -EIO);
	ck_assert_int_eq(once(TD_IO_READ, mem, 4 << 20, 4096, TD_IO_EOF_ZERO), 0);
	ck_assert_int_eq(mem[17], 0);
	punch();
	end_real();
}

static void seen_without_the_loop(const char *engine)
{
	struct op o[3];

	if (!begin_real(engine, true, 0))
		return;
	td_io_peek_begin(io);
	td_io_peek_begin(io);
	td_io_peek_end(io);
	for (unsigned i = 0; i < 3; i++)
		start(&o[i], TD_IO_READ, mem + i * 4096, i * 4096, 4096, 0);
	ev_run(loop, EVRUN_NOWAIT); /* the commit */
	while (!o[0].done || !o[1].done || !o[2].done)
		td_io_peek(io);
	ck_assert(!o[0].err && !o[1].err && !o[2].err && !td_io_peek(io));
	td_io_peek_end(io);
	ck_assert_int_eq(once(TD_IO_READ, mem, 0, 4096, 0), 0); /* and again by the loop */
	end_real();
}

START_TEST(completions_are_seen_without_the_loop)
{
	seen_without_the_loop("libaio");
	if (has_uring())
		seen_without_the_loop("io_uring");
}
END_TEST

START_TEST(libaio_on_a_direct_file)
{
	real_engine("libaio", true);
}
END_TEST

START_TEST(threads_on_a_buffered_file)
{
	real_engine("threads", false);
}
END_TEST

START_TEST(io_uring_on_either)
{
	if (!has_uring())
		return;
	real_engine("io_uring", true);
	real_engine("io_uring", false);
}
END_TEST

/* What other processes share must not have a dead one's requests land on it: it goes by threads,
 * which die with their process. */
START_TEST(io_uring_has_only_files_that_are_locked)
{
	static const struct {
		unsigned flags;
		bool ring;
	} kind[] = {{0, true},
		    {TD_FILE_RDONLY, false},
		    {TD_FILE_PARENT, false},
		    {TD_FILE_SHARED, false},
		    {TD_FILE_BENEATH, false}};

	for (unsigned i = 0; has_uring() && i < sizeof kind / sizeof *kind; i++) {
		uint64_t before;

		ck_assert(begin_real("io_uring", false, kind[i].flags));
		before = io->n.commits;
		ck_assert_int_eq(once(TD_IO_READ, mem, 0, 4096, 0), 0);
		/* system calls to the ring */
		ck_assert_uint_eq(io->n.commits - before, kind[i].ring);
		end_real();
	}
}
END_TEST

/* A new block's write is one that the kernel may have to block for: io_uring has it all the same,
 * and holds nothing up. */
START_TEST(a_write_of_a_new_block_is_right_behind_each_engine)
{
	static const char *const engines[] = {"libaio", "io_uring", "threads"};

	for (unsigned e = 0; e < 3; e++) {
		static struct op o[16];

		if (!strcmp(engines[e], "io_uring") && !has_uring())
			continue;
		if (!begin_real(engines[e], true, 0))
			return;
		memset(mem, (int)e + 1, 1 << 20);
		for (unsigned i = 0; i < 16; i++) /* beyond the end, too */
			start(&o[i], TD_IO_WRITE, mem + i * 65536, (4 << 20) - 65536 + i * 131072,
			      65536, TD_IO_NEW);
		for (unsigned i = 0; i < 16; i++)
			ck_assert_int_eq(run(&o[i]), 0);
		memset(mem, 0xFF, 65536);
		ck_assert_int_eq(once(TD_IO_READ, mem, (4 << 20) - 65536 + 15 * 131072, 65536, 0),
				 0);
		ck_assert(mem[0] == (char)(e + 1) && mem[65535] == (char)(e + 1));
		end_real();
	}
}
END_TEST

START_TEST(room_is_asked_for_behind_each_engine)
{
	static const char *const engines[] = {"libaio", "io_uring", "threads"};

	td_root_allocate = give_room;
	for (unsigned e = 0; e < 3; e++) {
		if (!strcmp(engines[e], "io_uring") && !has_uring())
			continue;
		if (!begin_real(engines[e], true, 0))
			break;
		rooms = 0;
		memset(mem, 7, 8192);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 4096, 8192, TD_IO_ROOM), 0);
		ck_assert_uint_eq(rooms, 1);
		ck_assert_uint_eq(room_off, 4096);
		ck_assert_uint_eq(room_len, 8192);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 4096, 8192, 0), 0);
		ck_assert_uint_eq(rooms, 1);
		end_real();
	}
	td_root_allocate = NULL;
}
END_TEST

START_TEST(engines_of_the_other_kind_work_too)
{
	real_engine("libaio", false);
	real_engine("threads", true);
}
END_TEST

START_TEST(the_engine_follows_from_the_kind_of_file)
{
	bool uring = has_uring();

	if (begin_real(NULL, true, 0)) {
		ck_assert_str_eq(io->ops->name, "libaio");
		end_real();
	}
	ck_assert(begin_real(NULL, false, 0));
	ck_assert_str_eq(io->ops->name, uring ? "io_uring" : "threads");
	end_real();
}
END_TEST

/* The kernel refuses these before they are under way: io_submit stops there, and the ones behind it
 * must go on. */
static void refused_among_good(const char *engine)
{
	struct op o[9], again;

	ck_assert(begin_real(engine, false, TD_FILE_RDONLY));
	for (unsigned i = 0; i < 9; i++)
		start(&o[i], i % 3 == 1 ? TD_IO_WRITE : TD_IO_READ, mem, i * 4096, 4096, 0);
	for (unsigned i = 0; i < 9; i++)
		ck_assert_int_eq(run(&o[i]), i % 3 == 1 ? -EBADF : 0);
	/* more than threads are there for, in two goes */
	for (unsigned i = 0; i < 1000; i++) {
		start(&o[i % 9], TD_IO_WRITE, mem, i * 4096, 4096, TD_IO_NEW);
		if (i % 9 == 8)
			for (unsigned k = 0; k < 9; k++)
				ck_assert_int_eq(run(&o[k]), -EBADF);
	}
	ck_assert_int_eq(run(&o[0]), -EBADF);
	start(&again, TD_IO_READ, mem, 0, 4096, 0); /* they hold no place in the kernel */
	ck_assert_int_eq(run(&again), 0);
	end_real();
}

START_TEST(what_the_kernel_refuses_fails_alone)
{
	refused_among_good("libaio");
	refused_among_good("threads");
	if (has_uring())
		refused_among_good("io_uring");
}
END_TEST

static sem_t others_are_done;

static long slow_call(struct td_iop *op)
{
	return sem_wait(&others_are_done);
}

START_TEST(a_slow_call_holds_nothing_else_up)
{
	static const char *const engines[] = {"libaio", "threads", "io_uring"};

	for (unsigned i = 0; i < (has_uring() ? 3 : 2); i++) {
		struct op slow, warm, o;

		sem_init(&others_are_done, 0, 0);
		ck_assert(begin_real(engines[i], false, 0));
		once(TD_IO_PUNCH, NULL, 0, 4096, 0); /* one thread is there, and idle */
		slow = (struct op){.iop = {.op = TD_IO_CALL,
					   .call = slow_call,
					   .done = op_done,
					   .data = &slow}};
		td_iop_queue(io, &slow.iop);
		ev_run(loop, EVRUN_NOWAIT); /* it is on its way, the thread not yet awake perhaps */
		start(&warm, TD_IO_PUNCH, NULL, 0, 4096, 0);
		start(&o, TD_IO_READ, mem, 0, 4096, 0);
		run(&o);
		run(&warm);
		ck_assert_int_eq(slow.done, 0);
		sem_post(&others_are_done);
		run(&slow);
		end_real();
	}
}
END_TEST

static const char *const all_engines[] = {"libaio", "threads", "io_uring"};

/* The workers' threads, by their name. */
static unsigned count_workers(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/task");

	ck_assert_ptr_nonnull(d);
	for (struct dirent *e; (e = readdir(d));) {
		char name[300], text[32] = "";
		FILE *comm;

		snprintf(name, sizeof name, "/proc/self/task/%s/comm", e->d_name);
		comm = fopen(name, "r");
		n += comm && fgets(text, sizeof text, comm) && !strcmp(text, "tapdisk-io\n");
		if (comm)
			fclose(comm);
	}
	closedir(d);
	return n;
}

/* A thread submits several, and waits for none. */
START_TEST(writes_of_new_blocks_share_threads)
{
	static struct op o[200]; /* more than are in the kernel at once, and than batches hold */

	if (!begin_real("libaio", true, 0))
		return;
	for (unsigned i = 0; i < 16; i++)
		start(&o[i], TD_IO_WRITE, mem, i * 8192, 4096, TD_IO_NEW);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_int_eq(run(&o[i]), 0);
	ck_assert_uint_le(count_workers(), 4); /* one more has opened the file */
	for (unsigned i = 0; i < 200; i++) {
		memset(mem + i * 4096, (int)i + 1, 4096);
		start(&o[i], TD_IO_WRITE, mem + i * 4096, i * 8192, 4096, TD_IO_NEW);
	}
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(run(&o[i]), 0);
	for (unsigned i = 0; i < 200; i++) {
		ck_assert_int_eq(once(TD_IO_READ, mem, i * 8192, 4096, 0), 0);
		ck_assert(mem[0] == (char)(i + 1) && mem[4095] == (char)(i + 1));
	}
	end_real();
}
END_TEST

static unsigned nread;

static void read_again(struct td_iop *op, int err)
{
	ck_assert_int_eq(err, 0);
	if (++nread < 20000)
		td_iop_queue(io, op);
}

/* More of them than the kernel is given at once. */
START_TEST(reads_without_end_hold_no_write_of_a_new_block_up)
{
	static struct td_iop reads[300];
	static struct iovec to[300];
	static struct op o;

	if (!begin_real("libaio", true, 0))
		return;
	nread = 0;
	for (unsigned i = 0; i < 300; i++) {
		to[i] = (struct iovec){mem + 8192 + i * 4096, 4096};
		reads[i] = (struct td_iop){.op = TD_IO_READ,
					   .file = f,
					   .off = i * 8192,
					   .len = 4096,
					   .iov = &to[i],
					   .iovcnt = 1,
					   .done = read_again};
		td_iop_queue(io, &reads[i]);
	}
	while (nread < 1000)
		ev_run(loop, EVRUN_ONCE);
	start(&o, TD_IO_WRITE, mem, 3 << 20, 4096, TD_IO_NEW);
	ck_assert_int_eq(run(&o), 0);
	ck_assert_uint_lt(nread, 20000);
	while (io->inflight)
		ev_run(loop, EVRUN_ONCE);
	end_real();
}
END_TEST

/* They would only wait for each other there. */
START_TEST(writes_to_the_page_cache_of_one_file_are_one_threads)
{
	for (unsigned e = 1; e < (has_uring() ? 3 : 2); e++) { /* libaio's are the kernel's */
		static struct op o[16];

		ck_assert(begin_real(all_engines[e], false, 0));
		memset(mem, (int)e + 1, 16 * 4096);
		for (unsigned i = 0; i < 16; i++)
			start(&o[i], TD_IO_WRITE, mem + i * 4096, i * 8192, 4096, 0);
		for (unsigned i = 0; i < 16; i++)
			ck_assert_int_eq(run(&o[i]), 0);
		ck_assert_uint_le(count_workers(), 2);
		memset(mem, 0, 4096);
		ck_assert_int_eq(once(TD_IO_READ, mem, 15 * 8192, 4096, 0), 0);
		ck_assert(mem[0] == (char)(e + 1) && mem[4095] == (char)(e + 1));
		for (unsigned i = 0; i < 16; i++) /* each of these waits for the store by itself */
			start(&o[i], TD_IO_WRITE, mem, i * 8192, 4096, TD_IO_DSYNC);
		for (unsigned i = 0; i < 16; i++)
			ck_assert_int_eq(run(&o[i]), 0);
		ck_assert_uint_gt(count_workers(), 2);
		end_real();
	}
}
END_TEST

/* --- near --- */

static struct {
	int cpu, cpus; /* where it was made, and where its thread may be */
} made;

static long look_around(struct td_iop *op)
{
	cpu_set_t may;

	made.cpu = sched_getcpu();
	made.cpus = sched_getaffinity(0, sizeof may, &may) ? 0 : CPU_COUNT(&may);
	return 0;
}

/* One turn of the loop; was it done in that? */
static bool near_in_a_turn(struct op *o, long (*call)(struct td_iop *op))
{
	*o = (struct op){.iop = {.op = TD_IO_CALL,
				 .flags = TD_IO_NEAR,
				 .call = call,
				 .done = op_done,
				 .data = o}};
	td_iop_queue(io, &o->iop);
	ev_run(loop, EVRUN_NOWAIT);
	return o->done;
}

/* Once in several: others may have the processor, and the scheduler may move either. */
START_TEST(what_is_near_is_done_on_this_processor_in_this_turn)
{
	for (unsigned e = 0; e < (has_uring() ? 3 : 2); e++) {
		bool there = false;
		struct op o;

		ck_assert(begin_real(all_engines[e], false, 0));
		for (int i = 0; i < 5000 && !there; i++) {
			int cpu = sched_getcpu();

			there = near_in_a_turn(&o, look_around) && made.cpu == cpu &&
				made.cpus == 1;
			ck_assert_int_eq(run(&o), 0);
			if (!there)
				usleep(1000);
		}
		ck_assert_msg(there, "%s", all_engines[e]);
		end_real();
	}
}
END_TEST

START_TEST(what_is_near_and_waits_holds_nothing_else_up)
{
	for (unsigned e = 0; e < (has_uring() ? 3 : 2); e++) {
		struct op slow, o;

		sem_init(&others_are_done, 0, 0);
		ck_assert(begin_real(all_engines[e], false, 0));
		ck_assert(!near_in_a_turn(&slow, slow_call));
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 0, 4096, 0), 0);
		start(&o, TD_IO_READ, mem, 0, 4096, 0);
		ck_assert_int_eq(run(&o), 0);
		ck_assert_int_eq(slow.done, 0);
		sem_post(&others_are_done);
		ck_assert_int_eq(run(&slow), 0); /* and the loop is woken for it */
		memset(mem, 9, 4096);
		ck_assert_int_eq(once(TD_IO_WRITE, mem, 4096, 4096, TD_IO_NEAR), 0);
		memset(mem, 0, 4096);
		ck_assert_int_eq(once(TD_IO_READ, mem, 4096, 4096, 0), 0);
		ck_assert(mem[0] == 9 && mem[4095] == 9);
		end_real();
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("io-real");

	SUITE_ADD(s, completions_are_seen_without_the_loop);
	SUITE_ADD(s, libaio_on_a_direct_file);
	SUITE_ADD(s, threads_on_a_buffered_file);
	SUITE_ADD(s, io_uring_on_either);
	SUITE_ADD(s, io_uring_has_only_files_that_are_locked);
	SUITE_ADD(s, a_write_of_a_new_block_is_right_behind_each_engine);
	SUITE_ADD(s, room_is_asked_for_behind_each_engine);
	SUITE_ADD(s, engines_of_the_other_kind_work_too);
	SUITE_ADD(s, the_engine_follows_from_the_kind_of_file);
	SUITE_ADD(s, what_the_kernel_refuses_fails_alone);
	SUITE_ADD(s, a_slow_call_holds_nothing_else_up);
	SUITE_ADD(s, writes_of_new_blocks_share_threads);
	SUITE_ADD(s, reads_without_end_hold_no_write_of_a_new_block_up);
	SUITE_ADD(s, writes_to_the_page_cache_of_one_file_are_one_threads);
	SUITE_ADD(s, what_is_near_is_done_on_this_processor_in_this_turn);
	SUITE_ADD(s, what_is_near_and_waits_holds_nothing_else_up);
	return suite_run(s);
}
