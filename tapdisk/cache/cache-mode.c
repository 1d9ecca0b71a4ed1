/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of cache modes. */
#include "td/cache.h"

#include <stddef.h>
#include <string.h>

#include "td/io.h"

const struct td_cache_mode td_cache_modes[] = {
	{.name = "none",
	 .file_flags = TD_FILE_DIRECT,
	 .advertise_flush = true,
	 .shareable = true,
	 .promise = "durable when a flush completes; no host cache"},
	{.name = "writethrough",
	 .fua_every_write = true,
	 .promise = "durable when a write completes; host cache for reads"},
	{.name = "writeback",
	 .advertise_flush = true,
	 .promise = "durable when a flush completes; host cache"},
	{.name = "directsync",
	 .file_flags = TD_FILE_DIRECT,
	 .fua_every_write = true,
	 .shareable = true,
	 .promise = "durable when a write completes; no host cache"},
	{.name = "unsafe",
	 .file_flags = TD_FILE_NOSYNC,
	 .advertise_flush = true,
	 .drop_flush = true,
	 .promise = "nothing: a power cut loses data"},
	{.name = NULL},
};

const struct td_cache_mode *td_cache_mode_find(const char *name)
{
	for (const struct td_cache_mode *m = td_cache_modes; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}
