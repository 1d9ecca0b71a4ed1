/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a tapdisk: it gets a signal right after it has said something, so that it dies or
 * hangs at that point on any machine. SIGNAL_AFTER is "SIGNAL N", after its Nth message (the first
 * tells who started it that it listens), or "SIGNAL disk", after the first message that it sends
 * when a disk's marker bears its pid.  "SIGNAL /FILE": before the first answer on a control socket
 * for which that file is there.  While $FAIL_SYNC is there, each fdatasync fails with EIO; while
 * $NO_KILL is, a signal to another process with EPERM.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool has_disk(void)
{
	char pattern[4096];
	bool mine = false;
	glob_t found;

	snprintf(pattern, sizeof pattern, "%s/tapdisk/tapdisk-*", getenv("TAPDISK_CONTROL_DIR"));
	if (glob(pattern, 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		FILE *f = fopen(found.gl_pathv[i], "re");
		int pid;

		mine = mine || (f && fscanf(f, "%d", &pid) == 1 && pid == getpid());
		if (f)
			fclose(f);
	}
	globfree(&found);
	return mine;
}

static bool answers(int fd)
{
	int type = 0;

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) &&
	       type == SOCK_SEQPACKET;
}

int fdatasync(int fd)
{
	static int (*next)(int);
	const char *file = getenv("FAIL_SYNC");

	if (file && !access(file, F_OK)) {
		errno = EIO;
		return -1;
	}
	if (!next)
		next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	return next(fd);
}

long syscall(long nr, ...)
{
	static long (*next)(long, ...);
	const char *file = nr == SYS_pidfd_send_signal ? getenv("NO_KILL") : NULL;
	long a[6];
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (file && !access(file, F_OK)) {
		errno = EPERM;
		return -1;
	}
	if (!next)
		next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	return next(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	static ssize_t (*next)(int, const struct msghdr *, int);
	static int said;
	const char *what = getenv("SIGNAL_AFTER"), *when = what ? strchr(what, ' ') : NULL;
	ssize_t n;

	if (!next)
		next = (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
	if (when && when[1] == '/' && answers(fd) && !access(when + 1, F_OK))
		raise(atoi(what)); /* kill(2) is not for a tapdisk in its sandbox */
	n = next(fd, msg, flags);
	if (when && when[1] != '/' && n >= 0 &&
	    (strcmp(when, " disk") ? ++said == atoi(when) : has_disk()))
		raise(atoi(what)); /* kill(2) is not for a tapdisk in its sandbox */
	return n;
}
