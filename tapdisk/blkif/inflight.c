/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/blkif/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "lib/keep.h"

#define MAGIC 0x74647232u /* tdr2: another layout gets another number */

static size_t size_for(const struct inflight_ring *ring)
{
	return sizeof(struct inflight_head) + ring->slots * sizeof(struct inflight_entry);
}

static int map_table(struct inflight *t, int fd, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	t->bytes = bytes;
	t->head = p;
	t->entry = (struct inflight_entry *)(t->head + 1);
	return 0;
}

int inflight_new(struct inflight *t, const char *path, const struct inflight_ring *ring)
{
	size_t bytes = size_for(ring);
	int fd = -1, rc;

	memset(t, 0, sizeof *t);
	if (path) {
		fd = td_keep_new(path, bytes);
		if (fd < 0)
			td_log(LOG_WARNING,
			       "cannot make %s: %s: if this process dies, no other can go on in "
			       "its place",
			       path, strerror(-fd));
		else
			t->path = strdup(path);
	}
	rc = map_table(t, fd, bytes);
	if (fd >= 0)
		close(fd);
	if (rc < 0) {
		inflight_close(t, false);
		return -ENOMEM;
	}
	t->head->entry_size = sizeof(struct inflight_entry);
	t->head->ring = *ring;
	__atomic_store_n(&t->head->magic, MAGIC, __ATOMIC_RELEASE);
	return 0;
}

static int check_table(const struct inflight *t, const char *path, const struct inflight_ring *ring,
		       struct td_err *err)
{
	if (t->head->magic != MAGIC || t->head->entry_size != sizeof(struct inflight_entry))
		return td_fail(err, EPROTO,
			       "%s was written by another version of tapdisk: its ring cannot be "
			       "taken over",
			       path);
	if (memcmp(&t->head->ring, ring, sizeof *ring))
		return td_fail(err, EPROTO,
			       "%s belongs to another ring of domain %u, device %u: it cannot be "
			       "taken over",
			       path, ring->domid, ring->devid);
	return 0;
}

int inflight_adopt(struct inflight *t, const char *path, const struct inflight_ring *ring,
		   struct td_err *err)
{
	size_t bytes = size_for(ring);
	struct stat st;
	int fd, rc;

	memset(t, 0, sizeof *t);
	fd = td_call_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return td_fail(err, -fd,
			       "nothing is left of the ring that is to be taken over: %s: %s", path,
			       strerror(-fd));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size != bytes)
		rc = td_fail(err, EPROTO,
			     "%s is not what a ring of %u slots leaves: it cannot be taken over",
			     path, ring->slots);
	else if ((rc = map_table(t, fd, bytes)) < 0)
		rc = td_fail(err, -rc, "cannot map %s: %s", path, strerror(-rc));
	close(fd);
	if (!rc)
		rc = check_table(t, path, ring, err);
	if (!rc && !(t->path = strdup(path)))
		rc = td_fail(err, ENOMEM, "out of memory for %s", path);
	if (rc < 0)
		inflight_close(t, true);
	return rc;
}

void inflight_close(struct inflight *t, bool keep)
{
	if (t->path && !keep)
		td_call_unlink(t->path);
	if (t->head)
		munmap(t->head, t->bytes);
	free(t->path);
	memset(t, 0, sizeof *t);
}

const char *inflight_layout(void)
{
	static char text[32];

	snprintf(text, sizeof text, "%08x-%zu", MAGIC, sizeof(struct inflight_entry));
	return text;
}

bool inflight_owed(const struct inflight *t, const struct inflight_entry *e, uint32_t rsp_prod)
{
	if (e->state == INFLIGHT_FREE || e->seq >= t->head->next)
		return false;
	return e->state != INFLIGHT_ANSWERING || (int32_t)(e->rsp - rsp_prod) >= 0;
}
