/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The heads of structured replies: what they may say at all (K1). */
#include <errno.h>
#include <stddef.h>

#include "drivers/nbd/nbd.h"

/* Bytes behind the head that tell what follows; -1: a type that is not known. */
static int inner_of(uint16_t type)
{
	switch (type) {
	case NBD_CHUNK_NONE:
		return 0;
	case NBD_CHUNK_DATA:
		return 8;
	case NBD_CHUNK_HOLE:
		return 12;
	case NBD_CHUNK_STATUS:
		return 4;
	default:
		return type & NBD_CHUNK_IS_ERROR ? 6 : -1;
	}
}

static bool may_be(const struct nbdc_chunk *c, uint32_t len, uint32_t inner)
{
	switch (c->type) {
	case NBD_CHUNK_NONE:
		return !len && c->flags & NBD_CHUNK_DONE;
	case NBD_CHUNK_DATA:
		return len > inner;
	case NBD_CHUNK_HOLE:
		return len == inner && c->n;
	case NBD_CHUNK_STATUS:
		return len >= inner + 8 && !((len - inner) % 8);
	default: /* with a text, and a place where it failed */
		return len >= inner && len <= inner + NBD_CHUNK_TEXT_MAX && c->n;
	}
}

int nbdc_chunk_parse(const uint8_t *p, unsigned have, struct nbdc_chunk *c)
{
	uint32_t len;
	int inner;

	if (have < NBD_CHUNK_SIZE)
		return 0;
	*c = (struct nbdc_chunk){
		.flags = nbd_get16(p + 4), .type = nbd_get16(p + 6), .cookie = nbd_get64(p + 8)};
	len = nbd_get32(p + 16);
	inner = inner_of(c->type);
	if (inner < 0 || len < (uint32_t)inner)
		return -EPROTO;
	if (have < NBD_CHUNK_SIZE + (unsigned)inner)
		return 0;
	p += NBD_CHUNK_SIZE;
	if (c->type == NBD_CHUNK_DATA || c->type == NBD_CHUNK_HOLE)
		c->off = nbd_get64(p);
	if (c->type == NBD_CHUNK_HOLE)
		c->n = nbd_get32(p + 8);
	else if (inner == 4 || inner == 6)
		c->n = nbd_get32(p);
	c->body = len - (uint32_t)inner;
	return may_be(c, len, (uint32_t)inner) ? NBD_CHUNK_SIZE + inner : -EPROTO;
}

bool nbdc_chunk_fits(const struct nbdc_chunk *c, const struct nbdc_cmd *cmd)
{
	uint64_t len = c->type == NBD_CHUNK_HOLE ? c->n : c->body;

	return cmd->type == NBD_CMD_READ && c->off >= cmd->off && c->off - cmd->off <= cmd->len &&
	       len <= cmd->len - (c->off - cmd->off) && len <= cmd->len - cmd->got;
}
