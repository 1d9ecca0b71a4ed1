/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/namespaces.h"

#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/ctl-dir.h"

bool namespaces_network(void)
{
	return unshare(CLONE_NEWNET) == 0;
}

bool namespaces_ipc(void)
{
	return unshare(CLONE_NEWIPC) == 0;
}

/* The directory's file system is left, and with it all others.  Not from an initramfs, which has to
 * stay: there they remain, hidden, and go when the host unmounts them. */
static bool leave_others(void)
{
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return chroot(".") == 0;
	umount2(".", MNT_DETACH);
	return chdir("/") == 0;
}

bool namespaces_root(void)
{
	const unsigned long empty = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (td_ctl_mkdirs(NULL) < 0 || unshare(CLONE_NEWNS) < 0)
		return false;
	/* what the host unmounts is unmounted here, too; nothing the other way */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return false;
	/* over a directory that is there: in these mounts alone */
	return !mount("none", td_ctl_dir(), "tmpfs", empty, "mode=0500,size=4k,nr_inodes=1") &&
	       !chdir(td_ctl_dir()) && leave_others();
}
