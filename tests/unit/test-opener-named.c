/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What no host has named for this tapdisk is refused. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "lib/io/reach.h"
#include "tapdisk/opener/opener-calls.h"
#include "tests/support/test-opener.h"

/* --- a tapdisk taken over --- */

static int open_by_itself(const char *path)
{
	signal(SIGSYS, SIG_DFL);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void past_the_opener(void)
{
	open_by_itself("/dev/null");
}

START_TEST(no_call_goes_past_the_opener)
{
	ck_assert_int_eq(status_of(start(past_the_opener)), -SIGSYS);
}
END_TEST

/* --- what no host has named --- */

static bool put_file(const char *path, mode_t mode)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, mode);

	return fd >= 0 && !fchmod(fd, mode) && !close(fd);
}

static void read_what_all_may(void)
{
	SAY(open("/etc/ssl/openssl.cnf", O_RDONLY | O_CLOEXEC) >= 0);
	SAY(open("/etc/ssl/certs/link", O_RDONLY | O_CLOEXEC) >= 0);
	SAY(open("/etc/ssl/certs", O_RDONLY | O_DIRECTORY | O_CLOEXEC) >= 0);
	SAY(open("/etc/ssl/certs/none", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOENT);
	REFUSED(open("/etc/ssl/private/key", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/etc/ssl/certs/to-key", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/etc/ssl/private/all", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/etc/ssl/private", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

/* Links in sysfs lead up and down, and so do names of devices. */
static void look_around_in_sysfs(void)
{
	SAY(open("/sys/dev/../block", O_RDONLY | O_DIRECTORY | O_CLOEXEC) >= 0);
	REFUSED(open("/sys/kernel/uevent_seqnum", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/sys/dev/../kernel/uevent_seqnum", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/sys/dev/../kernel", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	REFUSED(open("/sys/dev/..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	REFUSED(open("/sys/dev/../..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

START_TEST(no_way_up_leads_elsewhere)
{
	if (!access("/sys/kernel/uevent_seqnum", F_OK))
		inside(look_around_in_sysfs);
}
END_TEST

/* Where every tapdisk reads, it reads what every user may. */
START_TEST(keys_of_the_host_are_not_read)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", "/etc/ssl", "tmpfs", 0, "mode=755"))
		return; /* this test may make no mounts */
	ck_assert(!mkdir("/etc/ssl/private", 0710) && !mkdir("/etc/ssl/certs", 0755) &&
		  put_file("/etc/ssl/openssl.cnf", 0644) &&
		  put_file("/etc/ssl/private/key", 0640) &&
		  put_file("/etc/ssl/private/all", 0644) &&
		  !symlink("../openssl.cnf", "/etc/ssl/certs/link") &&
		  !symlink("../private/key", "/etc/ssl/certs/to-key"));
	inside(read_what_all_may);
}
END_TEST

static void open_what_is_not_its_own(void)
{
	static const char *const there[] = {"/etc/shadow",    "/proc/1/mem",      "/proc/self/mem",
					    "/proc/self/exe", "/dev/xen/privcmd", "/dev/mem"};
	char path[100];

	for (size_t i = 0; i < sizeof there / sizeof *there; i++)
		SAY(open(there[i], O_RDONLY | O_CLOEXEC) < 0 &&
		    (errno == EACCES || (errno == ENOENT && access(there[i], F_OK) < 0)));
	REFUSED(open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC));
	REFUSED(open(ALIEN, O_RDWR | O_CLOEXEC));
	REFUSED(open(ALIEN, O_RDONLY | O_CLOEXEC));
	REFUSED(open("../../etc/hostname", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/sys/../etc/passwd", O_RDONLY | O_CLOEXEC));
	REFUSED(open("/sys/kernel/uevent_seqnum", O_RDONLY | O_CLOEXEC));
	/* by a descriptor that is good for nothing else */
	snprintf(path, sizeof path, "/proc/self/fd/%d", open(ALIEN, O_PATH | O_CLOEXEC));
	REFUSED(open(path, O_RDONLY | O_CLOEXEC));
	REFUSED(open(path, O_RDWR | O_CLOEXEC));
	/* a link in its own directory leads nowhere */
	SAY(open(OWN "link", O_RDWR | O_CLOEXEC) < 0 && errno == ELOOP);
	SAY(open(OWN "link", O_RDWR | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == ELOOP);
}

static void make_what_is_not_its_own(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = DIR_NAME "/ctl1"};

	REFUSED(open(DIR_NAME "/disk8", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	REFUSED(open(DIR_NAME "/other", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	REFUSED(mkdir(DIR_NAME "/sub", 0700));
	/* the directories that all tapdisks have */
	SAY(mkdir(DIR_NAME, 0700) < 0 && errno == EEXIST);
	REFUSED(chmod(DIR_NAME, 0777));
	REFUSED(chmod(DIR_NAME "/tapdisk", 0777));
	REFUSED(rename(DIR_NAME "/tapdisk", OWN "a"));
	REFUSED(rmdir(DIR_NAME "/tapdisk"));
	REFUSED(unlink(ALIEN));
	REFUSED(chmod(ALIEN, 0666));
	REFUSED(rename(ALIEN, OWN "a"));
	REFUSED(link(ALIEN, DIR_NAME "/redo7.a"));
	REFUSED(symlink("/etc/shadow", OWN "b"));
	REFUSED(symlink("../nbd1.8", DIR_NAME "/nbd1.7"));
	REFUSED(bind(fd, (struct sockaddr *)&sa, sizeof sa));
	strcpy(sa.sun_path + 1, "abstract");
	sa.sun_path[0] = 0;
	REFUSED(connect(fd, (struct sockaddr *)&sa, sizeof sa));
	REFUSED(syscall(SYS_pidfd_open, getppid(), 0));
}

static void connect_to_another(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = ALIEN};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	REFUSED(connect(fd, (struct sockaddr *)&sa, sizeof sa));
}

static bool joins(const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	snprintf(sa.sun_path, sizeof sa.sun_path, DIR_NAME "/%s", name);
	rc = connect(fd, (struct sockaddr *)&sa, sizeof sa);
	close(fd);
	return !rc;
}

static void connect_to_the_disk_beneath(void)
{
	SAY(joins("nbd-ro77.9"));
	SAY(!joins("nbd77.9") && errno == EACCES);
	SAY(!joins("nbdserver77.9") && errno == EACCES);
	SAY(!joins("nbd-ro77.8") && errno == EACCES);
}

#define TRUE_RECORD "{\"args\": \"vhd:%s/" DIR_NAME "/image\", "

/* How a disk is open is what its successor believes. */
static void record_lies(void)
{
	static const char *const lies[] = {
		"\"options\": [\"data-file=/x\"]", "\"options\": [\"mirror=aio:/x\"]",
		"\"options\": [\"parent-disk=3\"]", "\"options\": [\"changed-blocks=/x\"]",
		"\"commit\": {}"};
	char text[2 * PATH_MAX];
	FILE *f;

	snprintf(text, sizeof text, TRUE_RECORD "\"options\": []}", here);
	write_file(DIR_NAME "/disk7.new", text);
	SAY(!rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
	REFUSED(open(DIR_NAME "/disk7", O_WRONLY | O_CLOEXEC));
	f = fopen(DIR_NAME "/disk7", "re");
	SAY(f && fgets(text, 10, f) && !fclose(f));
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		snprintf(text, sizeof text, TRUE_RECORD "%s}", here, lies[i]);
		write_file(DIR_NAME "/disk7.new", text);
		REFUSED(rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
	}
	write_file(DIR_NAME "/disk7.new", "{\"args\": \"aio:" ALIEN "\"}");
	REFUSED(rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
}

START_TEST(what_no_host_has_named_is_refused)
{
	static void (*const tries[])(void) = {open_what_is_not_its_own, make_what_is_not_its_own,
					      record_lies};
	int fd = open(ALIEN, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(fd >= 0 && pwrite(fd, "another's", 9, 0) == 9 && !close(fd));
	ck_assert(!symlink("../" ALIEN, OWN "link"));
	inside(tries[_i]);
	ck_assert_int_eq(access(ALIEN, F_OK), 0);
}
END_TEST

/* A disk that is open read-only: its image may be others', too. */
static void write_to_read_only(void)
{
	char text[2 * PATH_MAX];

	SAY(open(DIR_NAME "/image", O_RDONLY | O_CLOEXEC) >= 0);
	REFUSED(open(DIR_NAME "/image", O_RDWR | O_CLOEXEC));
	snprintf(text, sizeof text, TRUE_RECORD "\"read_only\": false}", here);
	write_file(DIR_NAME "/disk7.new", text);
	REFUSED(rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
	snprintf(text, sizeof text, TRUE_RECORD "\"read_only\": true}", here);
	write_file(DIR_NAME "/disk7.new", text);
	SAY(!rename(DIR_NAME "/disk7.new", DIR_NAME "/disk7"));
}

START_TEST(an_image_of_a_read_only_disk_is_not_written)
{
	int fd = open(DIR_NAME "/image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(fd >= 0 && !close(fd));
	read_only = true;
	inside(write_to_read_only);
	read_only = false;
}
END_TEST

START_TEST(nobody_is_called_whom_no_host_has_named)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = ALIEN};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	inside(connect_to_another);
	close(fd);
}
END_TEST

START_TEST(a_disk_beneath_is_reached_where_it_takes_no_writes)
{
	static const char *const names[] = {"nbd-ro77.9", "nbd77.9", "nbdserver77.9", "nbd-ro77.8"};
	int fd[4];

	for (int i = 0; i < 4; i++) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};

		snprintf(sa.sun_path, sizeof sa.sun_path, DIR_NAME "/%s", names[i]);
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(fd[i], (struct sockaddr *)&sa, sizeof sa), 0);
		ck_assert_int_eq(listen(fd[i], 1), 0);
	}
	inside(connect_to_the_disk_beneath);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
}
END_TEST

/* --- parents --- */

static int grant(const char *name, bool write)
{
	char path[PATH_MAX + 100];
	struct td_err err = {0};
	int fd;

	snprintf(path, sizeof path, "%s/" DIR_NAME "/%s", here, name);
	fd = td_reach_find(path, NULL, write, &err);
	errno = fd < 0 ? -fd : 0;
	SAY(fd >= 0 || err.text[0]);
	return fd;
}

static void find_parents(void)
{
	char path[64];
	int fd;

	REFUSED(grant("open", false));
	REFUSED(grant("../" ALIEN, false));
	REFUSED(open(DIR_NAME "/frozen", O_RDONLY | O_CLOEXEC)); /* not before it was granted */
	fd = grant("frozen", false);
	SAY(fd >= 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	SAY(open(path, O_RDONLY | O_CLOEXEC) >= 0 &&
	    open(DIR_NAME "/frozen", O_RDONLY | O_CLOEXEC) >= 0);
	if (commits) {
		SAY(grant("frozen", true) >= 0 && open(path, O_RDWR | O_CLOEXEC) >= 0);
		REFUSED(grant("open", true));
	} else {
		REFUSED(grant("frozen", true));
		REFUSED(open(path, O_RDWR | O_CLOEXEC));
		REFUSED(open(DIR_NAME "/frozen", O_RDWR | O_CLOEXEC));
	}
}

START_TEST(a_parent_is_read_and_written_for_a_commit_alone)
{
	int fd = open(DIR_NAME "/frozen", O_RDWR | O_CREAT | O_CLOEXEC, 0400);

	ck_assert(fd >= 0 && !close(fd));
	fd = open(DIR_NAME "/open", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert(fd >= 0 && !close(fd));
	commits = _i;
	inside(find_parents);
	commits = false;
}
END_TEST

static void add(Suite *s)
{
	ADD(no_call_goes_past_the_opener, 0, 1);
	ADD(what_no_host_has_named_is_refused, 0, 3);
	ADD(keys_of_the_host_are_not_read, 0, 1);
	ADD(no_way_up_leads_elsewhere, 0, 1);
	ADD(an_image_of_a_read_only_disk_is_not_written, 0, 1);
	ADD(nobody_is_called_whom_no_host_has_named, 0, 1);
	ADD(a_disk_beneath_is_reached_where_it_takes_no_writes, 0, 1);
	ADD(a_parent_is_read_and_written_for_a_commit_alone, 0, 2);
}

int main(void)
{
	return opener_main("opener-named", add);
}
