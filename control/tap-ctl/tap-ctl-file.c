/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Is the image of a disk that file?  By its number, since a file has several names. */
#include "control/tap-ctl/tap-ctl-rows.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "td/ctl.h"

void tc_file_id(const char *path, char id[TC_FILE_ID])
{
	struct stat st;

	*id = 0;
	if (stat(path, &st) < 0)
		return;
	if (S_ISBLK(st.st_mode))
		snprintf(id, TC_FILE_ID, "b%llu", (unsigned long long)st.st_rdev);
	else
		snprintf(id, TC_FILE_ID, "%llu:%llu", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino);
}

bool tc_is_file(const json_t *disk, const char *id)
{
	const char *its = json_string_value(json_object_get(disk, "file")),
		   *args = json_string_value(json_object_get(disk, "args")),
		   *colon = args ? strchr(args, ':') : NULL;
	json_int_t state = json_integer_value(json_object_get(disk, "state"));
	char now[TC_FILE_ID];

	if (!its || !*id || strcmp(its, id) != 0)
		return false;
	if (!(state & TD_STATE_PAUSED) && !json_is_true(json_object_get(disk, "paused")))
		return true;
	/* the same numbers, so it is not on a store that hangs while id's does not */
	tc_file_id(colon ? colon + 1 : "", now);
	return !strcmp(now, id);
}
