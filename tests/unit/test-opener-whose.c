/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a tapdisk that dies, or has given its minor away, asked of its opener is not done. */
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "lib/marker.h"
#include "tests/support/test-opener.h"

static int told[2]; /* sockets between the child and its test */

/* It has asked: it waits for the answer. */
static void wait_for_ask(pid_t pid)
{
	char path[64], text[64] = "";

	snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	while (strtol(text, NULL, 10) != SYS_ppoll) {
		FILE *f = fopen(path, "r");

		ck_assert(f && fgets(text, sizeof text, f));
		fclose(f);
		usleep(1000);
	}
}

/* --- deaths --- */

/* Gone, or a zombie of whoever reaps orphans here. */
static void wait_for_end(pid_t pid)
{
	char path[64], text[256], *at;
	bool ends = false;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	while (!ends) {
		FILE *f = fopen(path, "r");

		ends = !f || !fgets(text, sizeof text, f) ||
		       ((at = strrchr(text, ')')) && at[2] == 'Z');
		if (f)
			fclose(f);
		usleep(1000);
	}
}

static void outlive(void)
{
	int fd = open(OWN "o", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	pid_t its = opener_pid();
	char c;

	SAY(fd >= 0 && !strcmp(sandbox_state(), "yes"));
	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	SAY(open(OWN "o", O_RDWR | O_CLOEXEC) < 0 && errno == EIO);
	SAY(open(OWN "o", O_RDWR | O_CLOEXEC) < 0 && errno == EIO);
	SAY(pwrite(fd, "x", 1, 0) == 1 && !fdatasync(fd));
	SAY(strstr(sandbox_state(), "opener") && strstr(sandbox_state(), "died"));
}

START_TEST(a_tapdisk_outlives_its_opener)
{
	int sv[2];
	pid_t pid, its;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(outlive);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGKILL), 0);
	wait_for_end(its);
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	ck_assert_int_eq(status_of(pid), 0);
}
END_TEST

static void tell_and_wait(void)
{
	pid_t its = opener_pid();

	SAY(write(told[1], &its, sizeof its) == sizeof its);
	for (;;)
		poll(NULL, 0, -1);
}

/* A socket that the tapdisk had ends with it: the opener holds none. */
START_TEST(an_opener_dies_with_its_tapdisk_and_holds_nothing)
{
	int sv[2];
	pid_t pid, its;
	char c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(tell_and_wait);
	close(sv[1]);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGSTOP), 0);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(status_of(pid), -SIGKILL);
	ck_assert_int_eq(read(sv[0], &c, 1), 0);
	ck_assert_int_eq(kill(its, SIGCONT), 0);
	wait_for_end(its);
}
END_TEST

static void ask_and_wait(void)
{
	pid_t its = opener_pid();
	char c, late[64];

	SAY(write(told[1], &its, sizeof its) == sizeof its && read(told[0], &c, 1) == 1);
	mkdir(own_dir(late), 0700);
}

START_TEST(what_a_dead_tapdisk_asked_for_is_not_begun)
{
	int sv[2];
	pid_t pid, its;
	char late[64];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(ask_and_wait);
	ck_assert_int_eq(read(sv[0], &its, sizeof its), sizeof its);
	ck_assert_int_eq(kill(its, SIGSTOP), 0);
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	wait_for_ask(pid);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(status_of(pid), -SIGKILL);
	ck_assert_int_eq(kill(its, SIGCONT), 0);
	wait_for_end(its);
	snprintf(late, sizeof late, DIR_NAME "/td3-%d", (int)pid);
	ck_assert(access(late, F_OK) < 0 && errno == ENOENT);
}
END_TEST

/* --- whose a minor is (OP5) --- */

enum { ANOTHER = 0x3ffffff0 }; /* no process has this pid */

#define GONE(what) SAY((what) < 0 && (errno == EACCES || errno == ENOENT))

static int make(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

/* Detached, or handed to another tapdisk: nothing of the minor is this one's. */
static void lose_the_minor(void)
{
	static const pid_t others[] = {0, ANOTHER};
	char own[64];
	pid_t me = getpid();
	int fd = -1;

	SAY(make(OWN "kept") >= 0 && opener_mark(-1, 7, me, false) == -EBADF);
	fd = open(MARKER, O_RDONLY | O_CLOEXEC);
	SAY(fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB));
	for (int i = 0; i < 2; i++) {
		SAY(write(told[1], &others[i], sizeof *others) == sizeof *others &&
		    read(told[0], own, 1) == 1);
		REFUSED(make(OWN "a"));
		REFUSED(unlink(OWN "kept"));
		REFUSED(rename(OWN "kept", DIR_NAME "/disk7"));
		REFUSED(open(OWN "kept", O_RDWR | O_CLOEXEC));
		REFUSED(symlink("nbd2.7", DIR_NAME "/nbd1.7"));
		GONE(unlink(MARKER));
		/* its own names are */
		SAY(!mkdir(own_dir(own), 0700) && !rmdir(own));
		snprintf(own, sizeof own, DIR_NAME "/nbd%d.7", (int)me);
		SAY(!symlink("nbd2.7", own) && !unlink(own));
	}
	SAY(!opener_mark(fd, 7, me, false) && !unlink(OWN "kept") && !unlink(MARKER));
}

static void rewrite_when_told(int from)
{
	pid_t to;

	while (read(from, &to, sizeof to) == sizeof to)
		ck_assert(write_marker(to) && write(from, "", 1) == 1);
}

START_TEST(a_minor_that_is_given_away_is_not_its_own)
{
	int sv[2];
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(lose_the_minor);
	close(sv[1]);
	rewrite_when_told(sv[0]);
	ck_assert_int_eq(status_of(pid), 0);
}
END_TEST

static void make_when_told(void)
{
	char c;

	SAY(write(told[1], "", 1) == 1 && read(told[0], &c, 1) == 1);
	REFUSED(make(OWN "late"));
}

/* A successor writes its name under the seal, while the call has been judged by nobody yet. */
START_TEST(a_call_is_made_while_the_minor_is_its_own_or_not_at_all)
{
	bool dies = _i;
	int sv[2], fd;
	pid_t pid;
	char c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	told[0] = told[1] = sv[1];
	pid = start(make_when_told);
	close(sv[1]);
	ck_assert_int_eq(read(sv[0], &c, 1), 1);
	fd = open(MARKER, O_RDWR | O_CLOEXEC);
	ck_assert(fd >= 0 && !td_marker_seal(fd, 0));
	ck_assert_int_eq(write(sv[0], "", 1), 1);
	wait_for_ask(pid);
	if (dies) {
		ck_assert_int_eq(kill(pid, SIGKILL), 0);
		ck_assert_int_eq(status_of(pid), -SIGKILL);
	} else {
		ck_assert(write_marker(ANOTHER));
	}
	close(fd);
	if (!dies)
		ck_assert_int_eq(status_of(pid), 0);
	for (int i = 0; i < 100; i++) { /* an opener that made it nevertheless would by now */
		ck_assert(access(OWN "late", F_OK) < 0);
		usleep(1000);
	}
}
END_TEST

static void change_markers(void)
{
	int fd = open(MARKER, O_RDONLY | O_CLOEXEC), other;

	REFUSED(open(MARKER, O_RDWR | O_CLOEXEC));
	REFUSED(open(MARKER, O_WRONLY | O_TRUNC | O_CLOEXEC));
	REFUSED(rename(OWN "a", MARKER));
	REFUSED(chmod(MARKER, 0666));
	SAY(fd >= 0 && opener_mark(fd, 7, ANOTHER, false) == -EACCES); /* no keeper */
	SAY(opener_mark(fd, 8, getpid(), false) == -EACCES);
	other = open(DIR_NAME "/tapdisk/tapdisk-8", O_RDONLY | O_CLOEXEC);
	SAY(other >= 0 && opener_mark(other, 7, 0, false) == -ESTALE);
	SAY(opener_mark(fd, 7, 0, false) == 0);
	/* it is locked now, by what was passed; nobody else marks it */
	other = open(MARKER, O_RDONLY | O_CLOEXEC);
	SAY(other >= 0 && opener_mark(other, 7, getpid(), false) == -EWOULDBLOCK);
}

static void overtake(void)
{
	int fd = open(MARKER, O_RDONLY | O_CLOEXEC);
	char text[40] = "";

	SAY(opener_mark(fd, 7, getpid(), false) == 0 && write_marker(ANOTHER) == false);
	SAY(read(fd, text, sizeof text - 1) > 0 && atoi(text) == getpid());
}

START_TEST(the_opener_alone_writes_markers)
{
	static void (*const tries[])(void) = {change_markers, overtake};
	int fd = open(DIR_NAME "/tapdisk/tapdisk-8", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(fd >= 0 && !close(fd));
	inside(tries[_i]);
}
END_TEST

START_TEST(who_takes_a_minor_over_stands_behind_who_has_it)
{
	char text[40] = "";
	int fd;

	ck_assert(write_marker(11));
	fd = open(MARKER, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(td_marker_write(fd, 7, 12, true), 0);
	ck_assert(read(fd, text, sizeof text - 1) > 0 && !strcmp(text, "11 12\n"));
	ck_assert(td_marker_names(fd, 11) && td_marker_names(fd, 12) && !td_marker_names(fd, 1));
	ck_assert_int_eq(td_marker_write(fd, 7, 12, false), 0);
	ck_assert(!td_marker_names(fd, 11) && td_marker_names(fd, 12));
	ck_assert_int_eq(td_marker_write(fd, 7, 0, false), 0);
	ck_assert(!td_marker_names(fd, 12) && !td_marker_names(fd, 0));
	ck_assert(!unlink(MARKER) && write_marker(11));
	ck_assert_int_eq(td_marker_write(fd, 7, 12, false), -ESTALE);
	close(fd);
}
END_TEST

static void add(Suite *s)
{
	ADD(a_tapdisk_outlives_its_opener, 0, 1);
	ADD(an_opener_dies_with_its_tapdisk_and_holds_nothing, 0, 1);
	ADD(what_a_dead_tapdisk_asked_for_is_not_begun, 0, 1);
	ADD(a_minor_that_is_given_away_is_not_its_own, 0, 1);
	ADD(a_call_is_made_while_the_minor_is_its_own_or_not_at_all, 0, 2);
	ADD(the_opener_alone_writes_markers, 0, 2);
	ADD(who_takes_a_minor_over_stands_behind_who_has_it, 0, 1);
}

int main(void)
{
	return opener_main("opener-whose", add);
}
