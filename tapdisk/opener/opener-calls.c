/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/opener/opener-calls.h"

#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "td/log.h"

/* clang-format off */
static const struct opener_call calls[] = {
	{OPENER_PARENT, "TBIIS", true, sizeof(struct td_err)},
	{OPENER_BENEATH, "TTIS", false, sizeof(struct td_err)},
	{OPENER_LISTEN, "F", true, 0},
	{OPENER_MARK, "FIII", false, 0},
	{OPENER_DIAL, "TFS", true, sizeof(struct td_err)},
	{OPENER_ALLOCATE, "FIII", false, 0},
	{OPENER_TRUNCATE, "FI", false, 0},
	{OPENER_SEEK, "FII", false, 0},
	{SYS_openat, "DPII", true, 0},
	{SYS_openat2, "DPBI", true, 0},
	{SYS_newfstatat, "DPSI", false, sizeof(struct stat)},
	{SYS_fstat, "FS", false, sizeof(struct stat)},
	{SYS_statx, "DPIIS", false, sizeof(struct statx)},
	{SYS_statfs, "PS", false, sizeof(struct statfs)},
	{SYS_faccessat, "DPI", false, 0},
	{SYS_readlinkat, "DPLI", false, 0},
	{SYS_unlinkat, "DPI", false, 0},
	{SYS_renameat, "DPDP", false, 0},
	{SYS_renameat2, "DPDPI", false, 0},
	{SYS_linkat, "DPDPI", false, 0},
	{SYS_symlinkat, "TDP", false, 0},
	{SYS_mkdirat, "DPI", false, 0},
	{SYS_fchmodat, "DPI", false, 0},
	{SYS_connect, "FBI", false, 0},
	{SYS_bind, "FBI", false, 0},
	{SYS_socket, "III", true, 0},
	{SYS_pidfd_open, "II", true, 0},
	{SYS_pidfd_send_signal, "FIII", false, 0},
#ifdef SYS_faccessat2
	{SYS_faccessat2, "DPII", false, 0},
#endif
#ifdef SYS_open /* what newer architectures do without */
	{SYS_open, "PII", true, 0},
	{SYS_stat, "PS", false, sizeof(struct stat)},
	{SYS_lstat, "PS", false, sizeof(struct stat)},
	{SYS_access, "PI", false, 0},
	{SYS_readlink, "PLI", false, 0},
	{SYS_unlink, "P", false, 0},
	{SYS_rename, "PP", false, 0},
	{SYS_link, "PP", false, 0},
	{SYS_symlink, "TP", false, 0},
	{SYS_mkdir, "PI", false, 0},
	{SYS_rmdir, "P", false, 0},
	{SYS_chmod, "PI", false, 0},
#endif
};
/* clang-format on */

const struct opener_call *opener_calls(size_t *n)
{
	*n = sizeof calls / sizeof *calls;
	return calls;
}

const struct opener_call *opener_call(long nr)
{
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (calls[i].nr == nr)
			return &calls[i];
	return NULL;
}
