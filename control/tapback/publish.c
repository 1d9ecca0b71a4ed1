/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tapback/publish.h"

#include <errno.h>

#include "control/tapback/frontend.h"
#include "lib/json-get.h"

enum { VDISK_CDROM = 1, VDISK_REMOVABLE = 2, VDISK_READONLY = 4 }; /* of the key `info' */

/* The state goes last, and only into a directory whose state is `from': the toolstack may have
 * taken it away, or closed it. */
static int move(struct store *s, const char *dir, int from, int to)
{
	if (store_read_number(s, dir, "state", 8) != from)
		return -ESTALE;
	return store_write(s, dir, "state", "%d", to);
}

int publish_offer(struct store *s, const char *dir, int from, unsigned max_queues)
{
	int rc;

	do {
		rc = store_begin(s);
		if (rc)
			return rc;
		rc = move(s, dir, from, XB_INITWAIT);
		if (!rc)
			rc = store_write(s, dir, "max-ring-page-order", "%d", FRONTEND_MAX_ORDER);
		if (!rc && max_queues > 1)
			rc = store_write(s, dir, "multi-queue-max-queues", "%u", max_queues);
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	return rc;
}

static int write_discard(struct store *s, const char *dir, json_t *info)
{
	long long gran = td_json_number(info, "discard_granularity", 0);
	int rc = store_write(s, dir, "feature-discard", "1");

	if (!rc)
		rc = store_write(s, dir, "discard-granularity", "%lld", gran > 0 ? gran : 512);
	if (!rc)
		rc = store_write(s, dir, "discard-alignment", "0");
	return rc ? rc : store_write(s, dir, "discard-secure", "0");
}

bool publish_persistent(const struct backend *b, json_t *info)
{
	return b->direct_io_safe && td_json_true(info, "persistent");
}

static int write_disk(struct store *s, const char *dir, const struct backend *b, json_t *info,
		      bool no_barrier)
{
	const char *mode = json_string_value(json_object_get(info, "mode"));
	int flags = (b->cdrom ? VDISK_CDROM : 0) | (b->removable ? VDISK_REMOVABLE : 0) |
		    (td_json_true(info, "read_only") || b->read_only ? VDISK_READONLY : 0);
	const struct {
		const char *key;
		long long value;
	} keys[] = {
		{"feature-flush-cache", td_json_true(info, "flush")},
		{"feature-barrier", td_json_true(info, "barrier") && !no_barrier},
		{"sector-size", td_json_number(info, "sector_size", 512)},
		{"physical-sector-size", td_json_number(info, "physical_sector_size", 512)},
		{"sectors", td_json_number(info, "sectors", 0)},
		{"info", flags},
	};
	int rc = 0;

	for (unsigned i = 0; !rc && i < sizeof keys / sizeof *keys; i++)
		rc = store_write(s, dir, keys[i].key, "%lld", keys[i].value);
	if (!rc && td_json_number(info, "max_indirect_segments", 0) > 0)
		rc = store_write(s, dir, "feature-max-indirect-segments", "%lld",
				 td_json_number(info, "max_indirect_segments", 0));
	if (!rc && publish_persistent(b, info))
		rc = store_write(s, dir, "feature-persistent", "1");
	if (!rc && mode)
		rc = store_write(s, dir, "cache-mode", "%s", mode);
	if (!rc && td_json_true(info, "discard") && b->discard && !(flags & VDISK_READONLY))
		rc = write_discard(s, dir, info);
	return rc;
}

int publish_disk(struct store *s, const char *dir, const struct backend *b, json_t *info,
		 bool no_barrier)
{
	int rc;

	do {
		rc = store_begin(s);
		if (rc)
			return rc;
		rc = move(s, dir, b->state, XB_CONNECTED);
		if (!rc)
			rc = write_disk(s, dir, b, info, no_barrier);
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	return rc;
}

int publish_size(struct store *s, const char *dir, uint64_t sectors)
{
	int rc;

	do {
		rc = store_begin(s);
		if (rc)
			return rc;
		rc = move(s, dir, XB_CONNECTED, XB_CONNECTED);
		if (!rc)
			rc = store_write(s, dir, "sectors", "%llu", (unsigned long long)sectors);
		rc = store_end(s, rc);
	} while (rc == -EAGAIN);
	return rc;
}
