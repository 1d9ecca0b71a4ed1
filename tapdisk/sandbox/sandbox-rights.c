/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* B1, B8, and where B6 fails: root's capabilities and id, and a root directory. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "tapdisk/sandbox/sandbox-inside.h"

void sandbox_bound(uint32_t keep)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap >= 32 || !(keep & 1u << cap))
			/* without the right to, there are none to drop */
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

bool sandbox_drop(uint32_t keep)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};

	if (syscall(SYS_capget, &h, d) < 0)
		return false;
	for (int i = 0; i < 2; i++) {
		d[i].permitted &= i ? 0 : keep;
		d[i].effective &= d[i].permitted;
		d[i].inheritable = 0;
	}
	return syscall(SYS_capset, &h, d) == 0;
}

bool sandbox_user(uint32_t id)
{
	return geteuid() == 0 && !setgroups(0, NULL) && !setresgid(id, id, id) &&
	       !setresuid(id, id, id);
}

bool sandbox_empty_root(void)
{
	char path[PATH_MAX];
	int fd, ok;

	snprintf(path, sizeof path, "%s/.root.%d", td_ctl_dir(), (int)getpid());
	if (td_ctl_mkdirs(NULL) < 0 || (mkdir(path, 0500) < 0 && errno != EEXIST))
		return false;
	fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	rmdir(path);
	ok = fd >= 0 && !fchdir(fd) && !chroot(".");
	if (fd >= 0)
		close(fd);
	return ok;
}
