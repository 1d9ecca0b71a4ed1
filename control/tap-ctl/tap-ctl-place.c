/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a process stands among the others: its cgroups, its priorities, its processors.  A
 * successor that an administrator's shell or a package's script has started must not be counted,
 * limited or ended with that.  What the host does not allow is left as it is.
 */
#include "control/tap-ctl/tap-ctl.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IOPRIO_OF_A_PROCESS 1 /* ioprio_get(2), ioprio_set(2) */

static bool put_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");
	bool done;

	if (!f)
		return false;
	done = fputs(text, f) >= 0;
	return fclose(f) == 0 && done;
}

/* One line of /proc/PID/cgroup: NUMBER:CONTROLLERS:PATH; of version 2, 0::PATH. */
static void enter_cgroup(pid_t now, char *line)
{
	char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL,
	     file[PATH_MAX], pid[16];

	if (!path)
		return;
	*path++ = 0;
	names++;
	path[strcspn(path, "\n")] = 0;
	if (!strncmp(names, "name=", 5))
		names += 5;
	snprintf(pid, sizeof pid, "%d", (int)now);
	snprintf(file, sizeof file, "/sys/fs/cgroup/%s%s/cgroup.procs", names, path);
	if (!put_text(file, pid) && !*names) { /* both versions mounted side by side */
		snprintf(file, sizeof file, "/sys/fs/cgroup/unified%s/cgroup.procs", path);
		put_text(file, pid);
	}
}

static void enter_cgroups(pid_t now, pid_t old)
{
	char name[64], line[PATH_MAX];
	FILE *f;

	snprintf(name, sizeof name, "/proc/%d/cgroup", (int)old);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof line, f))
		enter_cgroup(now, line);
	if (f)
		fclose(f);
}

static void copy_oom_score(pid_t now, pid_t old)
{
	char from[64], to[64], text[16];
	FILE *f;

	snprintf(from, sizeof from, "/proc/%d/oom_score_adj", (int)old);
	snprintf(to, sizeof to, "/proc/%d/oom_score_adj", (int)now);
	f = fopen(from, "re");
	if (f && fgets(text, sizeof text, f))
		put_text(to, text);
	if (f)
		fclose(f);
}

void tc_place_like(pid_t now, pid_t old)
{
	long io = syscall(SYS_ioprio_get, IOPRIO_OF_A_PROCESS, old);
	cpu_set_t cpus;

	enter_cgroups(now, old);
	copy_oom_score(now, old);
	setpriority(PRIO_PROCESS, (id_t)now, getpriority(PRIO_PROCESS, (id_t)old));
	if (io >= 0)
		syscall(SYS_ioprio_set, IOPRIO_OF_A_PROCESS, now, io);
	if (!sched_getaffinity(old, sizeof cpus, &cpus))
		sched_setaffinity(now, sizeof cpus, &cpus);
}
