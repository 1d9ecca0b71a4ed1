/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * OP5: a call that changes a minor's files is made under the seal of its marker (lib/marker.h), and
 * what it may is judged by the marker's text.  A successor writes its name there under the seal: a
 * call for a dead tapdisk has ended by then, or is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "lib/marker.h"
#include "tapdisk/opener/opener-inside.h"
#include "tapdisk/opener/opener-job.h"

bool seal_is_ours(long minor)
{
	bool ours, settles = named_settles(minor);
	int fd = named_has_minor(minor) ? td_marker_open((int)minor) : -EACCES;

	if (fd < 0)
		return fd == -ENOENT && settles;
	/* a dead tapdisk's, whose log is applied: nobody has it */
	ours = td_marker_names(fd, opener_for) || (settles && !flock(fd, LOCK_SH | LOCK_NB));
	close(fd);
	return ours;
}

static int take_one(struct job *j, long minor)
{
	int fd = td_marker_open((int)minor), rc;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd; /* nobody has it, and by its text nobody may */
	for (int i = 0;; i++) {
		rc = td_marker_seal(fd, 1);
		if (rc != -EBUSY || i == TD_MARKER_PATIENCE)
			break;
		if (job_is_late(j) || job_is_orphan(j))
			break;
	}
	if (rc < 0)
		close(fd);
	else
		j->seal[j->nseals++] = fd;
	return rc;
}

int seal_take(struct job *j, long first, long other)
{
	long low;
	int rc = 0;

	if (other == first)
		other = -1;
	/* in one order, as others may want both, too */
	low = other < 0 || (first >= 0 && first < other) ? first : other;
	if (low >= 0)
		rc = take_one(j, low);
	if (!rc && first >= 0 && other >= 0)
		rc = take_one(j, low == first ? other : first);
	return rc;
}

void seal_drop(struct job *j)
{
	while (j->nseals > 0)
		close(j->seal[--j->nseals]);
}
