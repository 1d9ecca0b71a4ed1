/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (fd >= 0)
		close(fd);
	out[n > 0 ? n : 0] = 0;
	out[strcspn(out, "\n")] = 0;
	return n > 0;
}

/* Its letter in /proc/PID/task/TID/stat; 0 when it is gone.  name: at least 32 bytes. */
static char state_of(pid_t pid, pid_t tid, char *name)
{
	char path[64], line[512], *from, *to;

	snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	if (!read_file(path, line, sizeof line) || !(from = strchr(line, '(')) ||
	    !(to = strrchr(line, ')')) || to[1] != ' ')
		return 0;
	*to = 0;
	snprintf(name, 32, "%s", from + 1);
	return to[2];
}

static void place_of(pid_t pid, pid_t tid, char *place, size_t size)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/task/%d/wchan", (int)pid, (int)tid);
	if (!read_file(path, place, size) || !strcmp(place, "0"))
		snprintf(place, size, "a place that it does not name");
}

bool td_proc_stopped(pid_t pid)
{
	char name[32], state = state_of(pid, pid, name);

	return state == 'T' || state == 't';
}

/* The first thread that the kernel holds, and how many more. */
static bool held(pid_t pid, char *text, size_t size)
{
	char path[64], name[32], first[32], place[128];
	unsigned n = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		pid_t tid = (pid_t)atoi(e->d_name);

		if (tid <= 0 || state_of(pid, tid, name) != 'D' || n++)
			continue;
		strcpy(first, name);
		place_of(pid, tid, place, sizeof place);
	}
	if (dir)
		closedir(dir);
	if (n == 1)
		snprintf(text, size, "its thread %s waits in the kernel, in %s", first, place);
	else if (n)
		snprintf(text, size, "%u of its threads wait in the kernel, %s in %s", n, first,
			 place);
	return n > 0;
}

void td_proc_waits(pid_t pid, char *text, size_t size)
{
	char name[32], place[128], state = state_of(pid, pid, name);

	text[0] = 0;
	if (state == 'T')
		snprintf(text, size, "it is stopped (kill -CONT %d lets it go on)", (int)pid);
	else if (state == 't')
		snprintf(text, size, "a debugger has stopped it");
	else if (!state || held(pid, text, size))
		return;
	else if (state == 'R')
		snprintf(text, size, "its main thread is running");
	else {
		place_of(pid, pid, place, sizeof place);
		snprintf(text, size, "its main thread sleeps, in %s", place);
	}
}
