/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/stats.h"

/* The first keys are what clients of the older tap-ctl parse, in its order and spelling; what follows them is ours. */

static json_t *image_json(const struct td_image *i)
{
	return json_pack("{s:s, s:[I,I], s:[I,I], s:{s:i, s:s, s:{}}}", "name", i->path, "hits", (json_int_t)i->n.hits[0],
			 (json_int_t)i->n.hits[1], "fail", (json_int_t)i->n.fail[0], (json_int_t)i->n.fail[1], "driver", "type",
			 i->driver->type, "name", i->driver->name, "status");
}

static json_t *images_json(const struct vbd *v)
{
	json_t *a = json_array();

	for (const struct td_image *i = v->leaf; i; i = i->backing)
		json_array_append_new(a, image_json(i));
	return a;
}

static json_t *ring_json(const struct blkif *b)
{
	const struct blkif_params *p = blkif_params(b);
	const struct blkif_stats *n = blkif_stats(b);

	return json_pack("{s:s, s:i, s:i, s:[I,I], s:[I,I], s:{s:I, s:I, s:I}, s:i, s:s}", "pool", "td-xenblkif", "domid", p->domid,
			 "devid", (int)p->devid, "reqs", (json_int_t)n->taken, (json_int_t)n->answered, "kicks", (json_int_t)n->kicks_in,
			 (json_int_t)n->kicks_out, "errors", "failed", (json_int_t)n->errors, "msg", (json_int_t)n->malformed, "copy",
			 (json_int_t)n->copy_errors, "ring_pages", (int)p->pages, "abi", blkif_abi_name(p->abi));
}

static json_t *cache_json(const struct vbd *v)
{
	const struct cache *c = &v->cache;

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "mode", v->opt.mode->name, "reads", (json_int_t)c->n.reads, "writes",
			 (json_int_t)c->n.writes, "flushes", (json_int_t)c->n.flushes, "barriers", (json_int_t)c->n.barriers, "syncs",
			 (json_int_t)c->n.syncs, "flush_failed", c->sticky != 0, "no_space", c->out_of_space);
}

static json_t *engine_json(const struct td_io *io)
{
	const struct td_io_counters *n = &io->n;

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "name", io->ops->name, "commits", (json_int_t)n->commits, "reads",
			 (json_int_t)n->reads, "writes", (json_int_t)n->writes, "durable_writes", (json_int_t)n->durable_writes,
			 "fdatasyncs", (json_int_t)n->syncs);
}

json_t *stats_json(const struct vbd *v)
{
	unsigned long long secs[2] = {0, 0};
	json_t *j;

	if (v->leaf) {
		secs[0] = v->leaf->n.hits[0];
		secs[1] = v->leaf->n.hits[1];
	}
	j = json_pack("{s:s, s:[I,I], s:o, s:i, s:i, s:i, s:s}", "name", v->spec ? v->spec : "", "secs", (json_int_t)secs[0],
		      (json_int_t)secs[1], "images", images_json(v), "FIXME_enospc_redirect_count", 0, "nbd_mirror_failed", 0,
		      "reqs_outstanding", (int)(v->cache.active), "read_caching", "false");
	if (!j)
		return NULL;
	if (vbd_ring(v))
		json_object_set_new(j, "xenbus", ring_json(vbd_ring(v)));
	if (v->spec)
		json_object_set_new(j, "cache", cache_json(v));
	if (v->cache.io)
		json_object_set_new(j, "engine", engine_json(v->cache.io));
	return j;
}
