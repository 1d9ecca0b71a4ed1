/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a tapdisk is in the sandbox, what it has there, and what is its own. */
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include "tests/support/test-sandbox.h"

static void *nothing(void *arg)
{
	return arg;
}

static int thread(void)
{
	pthread_t t;

	return pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL) ? -1 : 0;
}

static int stay_on_a_processor(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	return sched_setaffinity(0, sizeof one, &one);
}

static int unix_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : close(fd);
}

static int raise_limit(void)
{
	struct rlimit r = {1 << 20, RLIM_INFINITY};

	return setrlimit(RLIMIT_CORE, &r);
}

static int has_capabilities(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long cap;
	int extra = 0, seen = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Cap%*3s: %llx", &cap) == 1) {
			extra |= cap != 0;
			seen++;
		}
	return extra || seen < 5 ? 0 : -1;
}

static long namespace_of(pid_t pid, const char *what)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, what);
	return stat(path, &st) ? -1 : (long)st.st_ino;
}

/* Seen from outside: its namespaces, its root and its mounts; and where it was nothing is left. */
START_TEST(nothing_of_the_host_is_left_to_it)
{
	static const char *const own[] = {"ipc", "mnt"};
	struct td_err err = {0};
	char path[64], c;
	int sv[2], mounts = 0;
	pid_t pid;
	FILE *f;

	conf("sandbox = yes\n");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	pid = fork();
	if (!pid) {
		close(sv[0]);
		_exit(sandbox_enter(1, &err) || write(sv[1], "", 1) != 1 || read(sv[1], &c, 1));
	}
	close(sv[1]);
	ck_assert_int_eq(read(sv[0], &c, 1), 1);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_ne(namespace_of(pid, own[i]), namespace_of(getpid(), own[i]));
		ck_assert_int_ne(namespace_of(pid, own[i]), -1);
	}
	snprintf(path, sizeof path, "/proc/%d/mounts", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(path, sizeof path, f))
		mounts += strchr(path, '\n') != NULL;
	fclose(f);
	ck_assert_int_eq(mounts, 1);
	snprintf(path, sizeof path, "test-sandbox.d/.root.%d", (int)pid);
	ck_assert(access(path, F_OK) < 0);
	close(sv[0]);
	ck_assert_int_eq(waitpid(pid, &mounts, 0), pid);
	ck_assert_int_eq(mounts, 0);
	ck_assert_int_eq(access("test-sandbox.d/tapdisk", F_OK), 0);
}
END_TEST

START_TEST(what_a_tapdisk_needs_is_there)
{
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(own_files), DONE);
	ck_assert_int_eq(inside(thread), DONE);
	ck_assert_int_eq(inside(stay_on_a_processor), DONE);
	ck_assert_int_eq(inside(unix_socket), DONE);
	ck_assert_int_eq(inside(is_whole), DONE);
	ck_assert_int_eq(inside(raise_limit), REFUSED);
	ck_assert_int_eq(inside(has_capabilities), REFUSED);
}
END_TEST

static uint32_t first_user;

static int user_is_own(void)
{
	uint32_t want = first_user ? first_user + (uint32_t)getpid() : 0, id[8] = {0};
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	int groups = -1;

	while (f && fgets(line, sizeof line, f)) {
		sscanf(line, "Uid: %u %u %u %u", &id[0], &id[1], &id[2], &id[3]);
		sscanf(line, "Gid: %u %u %u %u", &id[4], &id[5], &id[6], &id[7]);
		if (!strncmp(line, "Groups:", 7))
			groups = line[strspn(line + 7, "\t\n ") + 7] != 0;
	}
	for (int i = 0; i < 8; i++)
		if (id[i] != want)
			return -1;
	return first_user && groups ? -1 : 0;
}

static int fails_with(const char *text)
{
	struct td_err err = {0};

	conf(text);
	return sandbox_enter(1, &err) == -EINVAL && strstr(err.text, "user ids") ? 0 : -1;
}

START_TEST(its_user_id_is_its_own)
{
	if (geteuid())
		return; /* it stays what it is */
	setgroups(2, (const gid_t[]){0, 6});
	first_user = 0x7f000000;
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(user_is_own), DONE);
	ck_assert_int_eq(inside(own_files), DONE);
	first_user = 500000;
	conf("sandbox = yes\nsandbox-uids = 500000\n");
	ck_assert_int_eq(inside(user_is_own), DONE);
	first_user = 0;
	conf("sandbox = yes\nsandbox-uids = no\n");
	ck_assert_int_eq(inside(user_is_own), DONE);
	ck_assert_int_eq(inside(is_whole), DONE);
	ck_assert_int_eq(fails_with("sandbox-uids = 0\n"), 0);
	ck_assert_int_eq(fails_with("sandbox-uids = 4294967295\n"), 0);
	ck_assert_int_eq(fails_with("sandbox-uids = yes\n"), 0);
	ck_assert_int_eq(fails_with("sandbox-uids = -1\n"), 0);
}
END_TEST

START_TEST(a_word_that_is_neither_is_an_error)
{
	struct td_err err = {0};

	conf("sandbox = maybe\n");
	ck_assert_int_eq(sandbox_enter(1, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "yes or no"));
	ck_assert_str_eq(sandbox_state(), "no");
	conf("sandbox = no\n");
	ck_assert_int_eq(sandbox_enter(1, &err), 0);
	ck_assert_str_eq(sandbox_state(), "no");
	unlink("test-sandbox.conf");
}
END_TEST

static int is_off_with_a_reason(void)
{
	return strcmp(sandbox_state(), "no: a build with sanitizers") ? -1 : 0;
}

START_TEST(it_is_on_unless_the_host_says_no)
{
	conf("");
	ck_assert_int_eq(inside(FILTERS ? is_whole : is_off_with_a_reason), DONE);
	if (FILTERS)
		ck_assert_int_eq(inside(run_program), -SIGSYS);
}
END_TEST

static void add(Suite *s)
{
	SUITE_ADD(s, it_is_on_unless_the_host_says_no);
	SUITE_ADD(s, a_word_that_is_neither_is_an_error);
	if (!FILTERS)
		return;
	SUITE_ADD(s, what_a_tapdisk_needs_is_there);
	SUITE_ADD(s, its_user_id_is_its_own);
	SUITE_ADD(s, nothing_of_the_host_is_left_to_it);
}

int main(void)
{
	return sandbox_main("sandbox", false, add);
}
