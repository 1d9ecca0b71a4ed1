/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* K8 and K10: copies of changes that the server has acknowledged, and that no flush has covered
 * yet. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "drivers/nbd/nbd.h"

#define GIVE_BACK (1u << 20) /* bytes: as much is worth a system call */

/* Memory is taken where it is touched. */
int nbdc_keep_open(struct nbdc_keep *k)
{
	void *p = mmap(NULL, NBD_KEEP_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	k->entry = calloc(NBD_KEEP_ENTRIES, sizeof *k->entry);
	if (!k->entry) {
		munmap(p, NBD_KEEP_BYTES);
		return -ENOMEM;
	}
	k->data = p;
	return 0;
}

void nbdc_keep_close(struct nbdc_keep *k)
{
	if (k->data)
		munmap(k->data, NBD_KEEP_BYTES);
	free(k->entry);
	*k = (struct nbdc_keep){0};
}

static uint64_t bytes_of(uint16_t type, uint32_t len)
{
	return type == NBD_CMD_WRITE ? len : 0;
}

bool nbdc_keep_reserve(struct nbdc_keep *k, uint16_t type, uint32_t len)
{
	uint64_t used = k->data_end - k->data_first + k->reserved_bytes,
		 bytes = bytes_of(type, len);

	if (!k->data)
		return true;
	if (k->end - k->first + k->reserved >= NBD_KEEP_ENTRIES || used + bytes > NBD_KEEP_BYTES)
		return false;
	k->reserved++;
	k->reserved_bytes += bytes;
	return true;
}

void nbdc_keep_forget(struct nbdc_keep *k, const struct nbdc_cmd *cmd)
{
	if (!k->data)
		return;
	assert(k->reserved);
	k->reserved--;
	k->reserved_bytes -= bytes_of(cmd->type, cmd->len);
}

bool nbdc_keep_add(struct nbdc_keep *k, const struct nbdc_cmd *cmd, uint16_t flags, bool durable)
{
	if (!k->data)
		return false;
	nbdc_keep_forget(k, cmd);
	if (durable && k->first == k->end)
		return false; /* nothing older could be written over it */
	k->entry[k->end++ % NBD_KEEP_ENTRIES] = (struct nbdc_kept){.off = cmd->off,
								   .at = k->data_end,
								   .len = cmd->len,
								   .type = cmd->type,
								   .flags = flags};
	return cmd->type == NBD_CMD_WRITE;
}

void nbdc_keep_data(struct nbdc_keep *k, const struct iovec *v)
{
	const char *from = v->iov_base;
	size_t len = v->iov_len;

	assert(k->data_end - k->data_first + len <= NBD_KEEP_BYTES);
	while (len) {
		size_t at = k->data_end % NBD_KEEP_BYTES;
		size_t n = len < NBD_KEEP_BYTES - at ? len : NBD_KEEP_BYTES - at;

		memcpy(k->data + at, from, n);
		from += n;
		len -= n;
		k->data_end += n;
		k->touched += n;
	}
}

/* It begins anew at its start, in memory that it has touched already. */
static void begin_anew(struct nbdc_keep *k)
{
	if (k->touched > GIVE_BACK) {
		madvise(k->data, NBD_KEEP_BYTES, MADV_FREE);
		k->touched = 0;
	}
	k->data_first = k->data_end = 0;
}

void nbdc_keep_flushed(struct nbdc_keep *k, uint64_t mark)
{
	if (!k->data || mark <= k->first)
		return;
	assert(mark <= k->end);
	k->first = mark;
	k->data_first = mark == k->end ? k->data_end : k->entry[mark % NBD_KEEP_ENTRIES].at;
	if (mark == k->end)
		begin_anew(k);
}

bool nbdc_keep_is_half(const struct nbdc_keep *k)
{
	return k->data_end - k->data_first >= NBD_KEEP_BYTES / 2 ||
	       k->end - k->first >= NBD_KEEP_ENTRIES / 2;
}

const struct nbdc_kept *nbdc_keep_next(const struct nbdc_keep *k, struct iovec iov[2])
{
	const struct nbdc_kept *e;
	size_t at, len;

	if (k->next == k->end)
		return NULL;
	e = &k->entry[k->next % NBD_KEEP_ENTRIES];
	len = bytes_of(e->type, e->len);
	at = e->at % NBD_KEEP_BYTES;
	iov[0] =
		(struct iovec){k->data + at, len < NBD_KEEP_BYTES - at ? len : NBD_KEEP_BYTES - at};
	iov[1] = (struct iovec){k->data, len - iov[0].iov_len};
	return e;
}
