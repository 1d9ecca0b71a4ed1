/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* By path, as root may: what the opener refuses (tests/unit/test-opener-named.c has its rules). */
#include <sys/un.h>

#include "tests/support/test-sandbox.h"

static const char secret[] = "a word in the parent's memory";
static int listener = -1;
static struct sockaddr_un name_of_listener;

static int disk_of_another(void)
{
	int fd = open(VICTIM, O_RDWR | O_CLOEXEC);

	return fd < 0 || pwrite(fd, "overwritten", 11, 0) != 11 ? -1 : 0;
}

static int look_at_another(void)
{
	return open(VICTIM, O_RDONLY | O_CLOEXEC);
}

static int delete_another(void)
{
	return unlink(VICTIM);
}

static int passwords(void)
{
	char c;
	int fd = open("/etc/shadow", O_RDONLY | O_CLOEXEC);

	return fd < 0 || read(fd, &c, 1) != 1 ? -1 : 0;
}

static int program_for_root(void)
{
	return open("test-sandbox.cron", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
}

static int control_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1
		      : connect(fd, (struct sockaddr *)&name_of_listener, sizeof name_of_listener);
}

/* A datagram names its reader without connect(). */
static int datagram(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return (int)sendto(fd, "x", 1, 0, (struct sockaddr *)&name_of_listener,
			   sizeof name_of_listener);
}

static int memory_by_path(void)
{
	char path[64], seen[sizeof secret];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/mem", (int)getppid());
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 || pread(fd, seen, sizeof seen, (off_t)(uintptr_t)secret) !=
				       (ssize_t)sizeof seen
		       ? -1
		       : 0;
}

static int settings_of_the_kernel(void)
{
	return open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC);
}

static int signal_by_descriptor(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getppid(), 0);

	return (int)syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0);
}

/* One that it has, whomever it is of. */
static int parents_pidfd;

static int signal_by_inherited_descriptor(void)
{
	return (int)syscall(SYS_pidfd_send_signal, parents_pidfd, 0, NULL, 0);
}

/* The owner's to do: a program that runs as root, with the image's bytes, for whoever is here. */
static int image_for_root(void)
{
	int fd = open("test-sandbox.image", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -1 : fchmod(fd, 04755);
}

static void listening(int type)
{
	name_of_listener =
		(struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = "test-sandbox.ctl"};
	unlink(name_of_listener.sun_path);
	listener = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(
		bind(listener, (struct sockaddr *)&name_of_listener, sizeof name_of_listener), 0);
	ck_assert(type == SOCK_DGRAM || listen(listener, 5) == 0);
}

/* When one of these comes to be let through, the manual has to say it. */
START_TEST(what_is_not_its_disks_is_refused)
{
	static int (*const tries[])(void) = {disk_of_another,      look_at_another,
					     delete_another,       passwords,
					     control_socket,       datagram,
					     program_for_root,     memory_by_path,
					     signal_by_descriptor, settings_of_the_kernel,
					     image_for_root,       signal_by_inherited_descriptor};
	int (*const try)(void) = tries[_i];
	int without;

	if (geteuid())
		return; /* all of it is root's */
	make_victim();
	listening(try == datagram ? SOCK_DGRAM : SOCK_SEQPACKET);
	parents_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(try), REFUSED);
	conf("sandbox = no\n"); /* a host may have less than others: then it is no test */
	without = inside(try);
	if (without != DONE)
		printf("try %d: this host refuses it itself\n", _i);
	close(listener);
	close(parents_pidfd);
	chmod("test-sandbox.image", 0644);
	unlink(name_of_listener.sun_path);
	unlink("test-sandbox.cron");
	unlink(VICTIM);
}
END_TEST

static void add(Suite *s)
{
	SUITE_ADD_LOOP(s, what_is_not_its_disks_is_refused, 12);
}

int main(void)
{
	return sandbox_main("sandbox-path", true, add);
}
