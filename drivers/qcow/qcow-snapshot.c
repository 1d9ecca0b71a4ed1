/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The directory of internal snapshots: read, and each entry's L1 table checked to lie within the
 * file. */
#include <errno.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-check.h"

#define FIXED     40
#define EXTRA_MAX 1024

static void text(char *to, size_t room, const uint8_t *p, size_t len)
{
	if (len >= room)
		len = room - 1;
	memcpy(to, p, len);
	to[len] = 0;
}

/* One entry of at most 40 + 1024 + 2 * 65535 bytes, at *at of the file. */
static int read_one(struct td_file *file, const struct qcow_header *h, uint64_t *at, uint8_t *buf,
		    struct qcow_snapshot *s, struct td_err *err)
{
	uint32_t extra, id, name;
	uint64_t len;
	int rc = td_file_rw(file, TD_IO_READ, buf, *at, FIXED, TD_IO_EOF_ZERO);

	if (rc)
		return rc;
	id = td_get_be16(buf + 12);
	name = td_get_be16(buf + 14);
	extra = td_get_be32(buf + 36);
	*s = (struct qcow_snapshot){.l1_off = td_get_be64(buf),
				    .l1_size = td_get_be32(buf + 8),
				    .seconds = td_get_be32(buf + 16),
				    .nanoseconds = td_get_be32(buf + 20),
				    .clock = td_get_be64(buf + 24),
				    .state_size = td_get_be32(buf + 32),
				    .icount = UINT64_MAX};
	if (extra > EXTRA_MAX || s->l1_size > QCOW_L1_MAX / 8 ||
	    (s->l1_off & (qcow_cluster(h) - 1)) || s->l1_off > file->st.size ||
	    (uint64_t)s->l1_size * 8 > file->st.size - s->l1_off)
		return td_fail(err, EINVAL,
			       "%s: an internal snapshot's entry makes no sense (L1 table of %u "
			       "entries at %#llx)",
			       file->path, s->l1_size, (unsigned long long)s->l1_off);
	len = extra + id + name;
	rc = td_file_rw(file, TD_IO_READ, buf, *at + FIXED, len, TD_IO_EOF_ZERO);
	if (rc)
		return rc;
	if (extra >= 8)
		s->state_size = td_get_be64(buf);
	if (extra >= 16)
		s->disk_size = td_get_be64(buf + 8);
	if (extra >= 24)
		s->icount = td_get_be64(buf + 16);
	text(s->id, sizeof s->id, buf + extra, id);
	text(s->name, sizeof s->name, buf + extra + id, name);
	*at += td_round_up(FIXED + len, 8);
	return 0;
}

int qcow_snapshots(struct td_file *file, const struct qcow_header *h, struct qcow_snapshot **out,
		   uint64_t *end, struct td_err *err)
{
	struct qcow_snapshot *s = calloc(h->nsnapshots ? h->nsnapshots : 1, sizeof *s);
	uint8_t *buf = malloc(EXTRA_MAX + 2 * 65536);
	uint64_t at = h->snapshots_off;
	int rc = s && buf ? 0 : -ENOMEM;

	for (uint32_t i = 0; !rc && i < h->nsnapshots; i++) {
		rc = at < file->st.size
			     ? read_one(file, h, &at, buf, &s[i], err)
			     : td_fail(err, EINVAL,
				       "%s: its internal snapshots go beyond the end of the file",
				       file->path);
	}
	free(buf);
	if (rc) {
		free(s);
		return td_fail(err, -rc, "cannot read the internal snapshots of %s: %s", file->path,
			       strerror(-rc));
	}
	*out = s;
	*end = at - h->snapshots_off;
	return 0;
}
