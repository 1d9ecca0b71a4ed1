/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/dir.h"

#include <ftw.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

static char dir[256];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static void remove_all(void)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/td-fuzz.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	FUZZ_ASSERT(mkdtemp(dir));
	setenv("TAPDISK_CONTROL_DIR", dir, 1);
	atexit(remove_all);
	return dir;
}
