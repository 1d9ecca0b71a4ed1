/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tapdisk/stats/: what is counted is what was done, and other programs read the same. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/shm-dir.h"
#include "tapdisk/stats/stats.h"
#include "tests/support/suite.h"

static char base[] = "/tmp/td-stats.XXXXXX", mine[64];

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(base));
	setenv(TD_CTL_DIR_ENV, base, 1);
	snprintf(mine, sizeof mine, "%s/td3-%d", base, (int)getpid());
}

static void teardown(void)
{
	ck_assert_int_eq(rmdir(base), 0); /* nothing is left */
}

/* What libxenstat reads. */
static struct td_shm_counters read_back(const char *name)
{
	struct td_shm_counters c;
	char path[128];
	int fd;

	snprintf(path, sizeof path, "%s/%s", mine, name);
	fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(read(fd, &c, sizeof c), sizeof c);
	close(fd);
	return c;
}

START_TEST(every_time_is_in_a_bucket_that_ends_within_a_sixteenth)
{
	uint64_t ns = 1, x = 88172645463325252u, last = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		ck_assert_uint_gt(histogram_end(i), last);
		ck_assert_uint_eq(histogram_index(last), i);
		ck_assert_uint_eq(histogram_index(histogram_end(i) - 1), i);
		last = histogram_end(i);
	}
	ck_assert_uint_eq(last, (uint64_t)1 << 40);
	for (unsigned i = 0; i < 100000; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		ns = x >> (24 + i % 40);
		ck_assert_uint_gt(histogram_end(histogram_index(ns)), ns);
		ck_assert_uint_le(histogram_end(histogram_index(ns)), ns + ns / 16 + 64);
	}
	ck_assert_uint_eq(histogram_index(UINT64_MAX), HIST_BUCKETS - 1);
}
END_TEST

START_TEST(percentiles_are_those_of_a_sorted_list)
{
	static struct histogram h;
	static const double parts[] = {0.5, 0.99, 0.999};

	ck_assert_uint_eq(histogram_percentile(&h, 0.5), 0);
	for (unsigned i = 1; i <= 10000; i++)
		histogram_add(&h, i * 1000ull);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t exact = (uint64_t)(parts[i] * 10000 + 0.5) * 1000,
			 got = histogram_percentile(&h, parts[i]);

		ck_assert_msg(got >= exact && got <= exact + exact / 16 + 64, "p%g: %llu",
			      parts[i] * 100, (unsigned long long)got);
	}
	ck_assert_uint_eq(histogram_percentile(&h, 1), 10000000);
	ck_assert_uint_eq(h.max, 10000000);
	memset(&h, 0, sizeof h);
	histogram_add(&h, 5000);
	ck_assert_uint_eq(histogram_percentile(&h, 0.001), 5000);
}
END_TEST

START_TEST(what_is_counted_is_what_others_read)
{
	static struct stats s;
	struct stats_source ring, nbd;
	struct td_shm_counters c;

	stats_open(&s, 7);
	stats_source_open(&ring, &s, "vbd-3-51712");
	stats_source_open(&nbd, &s, NULL);
	for (int i = 0; i < 3; i++)
		stats_begin(&ring, TD_READ);
	stats_begin(&ring, TD_WRITE);
	stats_begin(&ring, TD_FLUSH);
	stats_taken(&ring);
	stats_begin(&nbd, TD_WRITE);
	stats_taken(&nbd);
	stats_publish(&ring);
	c = read_back("vbd-3-51712");
	ck_assert(c.version == 1 && c.outstanding == 5 && c.read.submitted == 3 &&
		  c.read.completed == 0 && c.write.submitted == 1);
	stats_end(&ring, TD_READ, 4096, 2000, 0);
	stats_end(&ring, TD_READ, 512, 3000, 0);
	stats_end(&ring, TD_READ, 4096, 9000, -EIO);
	stats_end(&ring, TD_WRITE, 8192, 4000, 0);
	stats_end(&ring, TD_FLUSH, 0, 70000, -EIO);
	stats_end(&nbd, TD_WRITE, 1024, 5000, 0);
	stats_publish(&ring);
	c = read_back("vbd-3-51712");
	ck_assert(c.outstanding == 0 && c.io_errors == 2 && c.flags == 0);
	ck_assert(c.read.submitted == 3 && c.read.completed == 3 && c.read.sectors == 9 &&
		  c.read.ticks == 14);
	ck_assert(c.write.submitted == 1 && c.write.completed == 1 && c.write.sectors == 16 &&
		  c.write.ticks == 4);
	c = read_back("vdi-7");
	ck_assert(c.version == 1 && c.write.submitted == 2 && c.write.completed == 2 &&
		  c.write.sectors == 18 && c.write.ticks == 9);
	ck_assert(s.tally.most == 6 && s.tally.depth[2] == 6);
	ck_assert(stats_sum(&s, STATS_FLUSH).errors == 1 &&
		  s.tally.took[STATS_FLUSH].max == 70000 && stats_sum(&s, STATS_READ).errors == 1);
	stats_source_close(&nbd);
	stats_source_close(&ring);
	/* what a guest did is not forgotten with it */
	ck_assert(stats_sum(&s, STATS_WRITE).sectors == 18 && stats_sum(&s, STATS_READ).done == 3 &&
		  s.tally.took[STATS_READ].max == 9000);
	ck_assert_int_eq(access(mine, F_OK), 0);
	stats_close(&s);
	ck_assert_int_eq(access(mine, F_OK), -1);
}
END_TEST

START_TEST(a_directory_of_somebody_else_is_not_used)
{
	static struct stats s;
	struct stats_source ring;
	char trap[64];

	/* a symbolic link, and a directory that others may write to */
	snprintf(trap, sizeof trap, "%s/elsewhere", base);
	ck_assert_int_eq(mkdir(trap, 0700), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(i ? mkdir(mine, 0700) : symlink(trap, mine), 0);
		if (i)
			ck_assert_int_eq(chmod(mine, 0777), 0);
		stats_open(&s, 1);
		stats_source_open(&ring, &s, "vbd-1-1");
		stats_begin(&ring, TD_READ);
		stats_end(&ring, TD_READ, 512, 1, 0);
		stats_publish(&ring);
		/* counted all the same */
		ck_assert(!ring.shm.at && !s.shm.at && stats_sum(&s, STATS_READ).done == 1);
		stats_source_close(&ring);
		stats_close(&s);
		ck_assert_int_eq(i ? rmdir(mine) : unlink(mine), 0);
	}
	ck_assert_int_eq(rmdir(trap), 0); /* empty still */
}
END_TEST

START_TEST(the_queues_of_a_device_show_in_one_file_whichever_closes_first)
{
	static struct stats s;
	struct stats_source *q[2] = {calloc(1, sizeof **q), calloc(1, sizeof **q)};

	stats_open(&s, 7);
	for (int i = 0; i < 2; i++) {
		stats_source_open(q[i], &s, "vbd-3-51712");
		stats_begin(q[i], TD_READ);
	}
	stats_publish(q[1]);
	ck_assert(read_back("vbd-3-51712").outstanding == 2);
	for (int i = 0; i < 2; i++)
		stats_end(q[i], TD_READ, 512, 1, 0);
	stats_source_close(q[0]);
	free(q[0]);
	stats_begin(q[1], TD_READ);
	stats_publish(q[1]);
	ck_assert(read_back("vbd-3-51712").outstanding == 1);
	stats_end(q[1], TD_READ, 512, 1, 0);
	stats_source_close(q[1]);
	free(q[1]);
	ck_assert_int_eq(stats_sum(&s, STATS_READ).done, 3);
	stats_close(&s);
}
END_TEST

START_TEST(what_a_dead_process_of_the_same_pid_left_is_taken_over)
{
	static struct stats s;
	char path[128];
	int fd;

	ck_assert_int_eq(mkdir(mine, 0700), 0);
	snprintf(path, sizeof path, "%s/vdi-1", mine);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	stats_open(&s, 1);
	ck_assert_ptr_nonnull(s.shm.at);
	stats_close(&s);
	ck_assert_int_eq(access(mine, F_OK), -1);
}
END_TEST

START_TEST(a_sweep_takes_the_dead_alone)
{
	static struct stats s;
	pid_t dead = fork();
	char path[128];

	if (!dead) {
		stats_open(&s, 1);
		_exit(s.shm.at ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(dead, &(int){0}, 0), dead);
	prctl(PR_SET_NAME, "tapdisk"); /* as which we are alive */
	stats_open(&s, 2);
	td_shm_path(dead, path, sizeof path);
	ck_assert_int_eq(access(path, F_OK), 0);
	td_shm_sweep(0);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_uint_eq(read_back("vdi-2").version, 1);
	stats_close(&s);
}
END_TEST

static void device_at(char path[128])
{
	snprintf(path, 128, "%s/vbd3-3-51712", base);
}

START_TEST(a_device_is_announced_with_its_counters_and_goes_with_them)
{
	static struct stats s;
	struct stats_source *q[2] = {calloc(1, sizeof **q), calloc(1, sizeof **q)};
	char path[128];
	struct stat st;

	device_at(path);
	stats_open(&s, 7);
	ck_assert_int_eq(access(path, F_OK), -1);
	for (int i = 0; i < 2; i++)
		stats_source_open(q[i], &s, "vbd-3-51712");
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISDIR(st.st_mode) && (st.st_mode & 07777) == 0700);
	stats_source_close(q[0]);
	ck_assert_int_eq(access(path, F_OK), 0); /* another of its queues */
	stats_source_close(q[1]);
	ck_assert_int_eq(access(path, F_OK), -1);
	free(q[0]);
	free(q[1]);
	stats_close(&s);
}
END_TEST

/* A process that has served the device and was killed. */
static pid_t dead_server(void)
{
	static struct stats s;
	struct stats_source ring;
	pid_t dead = fork();

	if (!dead) {
		stats_open(&s, 1);
		stats_source_open(&ring, &s, "vbd-3-51712");
		_exit(ring.shm.at ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(dead, &(int){0}, 0), dead);
	return dead;
}

START_TEST(a_device_of_a_dead_process_is_swept_with_its_counters)
{
	pid_t dead = dead_server();
	char path[128];

	device_at(path);
	ck_assert_int_eq(access(path, F_OK), 0);
	td_shm_sweep(dead);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(a_device_that_has_a_successor_is_made_anew_and_outlives_a_late_sweep)
{
	static struct stats s;
	struct stats_source ring;
	pid_t dead = dead_server();
	char path[128], owner[160];

	device_at(path);
	snprintf(owner, sizeof owner, "%s/%d", path, (int)dead);
	ck_assert_int_eq(access(owner, F_OK), 0);
	stats_open(&s, 2);
	stats_source_open(&ring, &s, "vbd-3-51712");
	ck_assert_int_eq(access(owner, F_OK), -1);
	td_shm_sweep(dead);
	ck_assert_int_eq(access(path, F_OK), 0);
	stats_source_close(&ring);
	ck_assert_int_eq(access(path, F_OK), -1);
	stats_close(&s);
}
END_TEST

START_TEST(a_device_that_was_never_signed_is_swept_and_made)
{
	static struct stats s;
	struct stats_source ring;
	pid_t dead = dead_server();
	char path[128], owner[160];

	/* killed between the two */
	device_at(path);
	snprintf(owner, sizeof owner, "%s/%d", path, (int)dead);
	ck_assert_int_eq(unlink(owner), 0);
	td_shm_sweep(dead);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	stats_open(&s, 2);
	stats_source_open(&ring, &s, "vbd-3-51712");
	snprintf(owner, sizeof owner, "%s/%d", path, (int)getpid());
	ck_assert_int_eq(access(owner, F_OK), 0);
	stats_source_close(&ring);
	stats_close(&s);
}
END_TEST

START_TEST(a_directory_in_a_devices_place_that_is_not_ours_stays)
{
	static struct stats s;
	struct stats_source ring;
	char path[128], trap[64], file[96];

	device_at(path);
	snprintf(trap, sizeof trap, "%s/elsewhere", base);
	snprintf(file, sizeof file, "%s/file", trap);
	ck_assert_int_eq(mkdir(trap, 0700), 0);
	ck_assert_int_eq(mkdir(file, 0700), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(i ? mkdir(path, 0700) : symlink(trap, path), 0);
		if (i)
			ck_assert_int_eq(chmod(path, 0777), 0);
		stats_open(&s, 1);
		stats_source_open(&ring, &s, "vbd-3-51712");
		ck_assert_ptr_nonnull(ring.shm.at); /* the counters are there all the same */
		stats_source_close(&ring);
		stats_close(&s);
		ck_assert_int_eq(i ? rmdir(path) : unlink(path), 0);
	}
	ck_assert_int_eq(rmdir(file), 0);
	ck_assert_int_eq(rmdir(trap), 0);
}
END_TEST

static void add(Suite *s, const char *name, const TTest *test)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test);
	suite_add_tcase(s, tc);
}

#define ADD(test) add(s, #test, test)

int main(void)
{
	Suite *s = suite_create("stats");

	ADD(every_time_is_in_a_bucket_that_ends_within_a_sixteenth);
	ADD(percentiles_are_those_of_a_sorted_list);
	ADD(what_is_counted_is_what_others_read);
	ADD(a_directory_of_somebody_else_is_not_used);
	ADD(the_queues_of_a_device_show_in_one_file_whichever_closes_first);
	ADD(what_a_dead_process_of_the_same_pid_left_is_taken_over);
	ADD(a_sweep_takes_the_dead_alone);
	ADD(a_device_is_announced_with_its_counters_and_goes_with_them);
	ADD(a_device_of_a_dead_process_is_swept_with_its_counters);
	ADD(a_device_that_has_a_successor_is_made_anew_and_outlives_a_late_sweep);
	ADD(a_device_that_was_never_signed_is_swept_and_made);
	ADD(a_directory_in_a_devices_place_that_is_not_ours_stays);
	return suite_run(s);
}
