/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/ctl/ctl-stats.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/io/budget.h"
#include "lib/json-get.h"
#include "tapdisk/cache/lane.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tapdisk/vbd/vbd.h"

/* The first keys are what clients of the older tap-ctl parse, in its order and spelling; what
 * follows them is ours. */

/* A read that an image sends down is a hit of the one below, not of its own. */
static uint64_t read_here(const struct td_image *i, const struct lane_count *n)
{
	uint64_t all = i->n.hits[0] + n->hits[0], below = i->backing ? i->backing->n.hits[0] : 0;

	if (i->backing && !strcmp(i->driver->name, "lc"))
		return all;
	return all > below ? all - below : 0;
}

static json_t *image_json(const struct td_image *i, const struct lane_count *n)
{
	return json_pack("{s:s, s:[I,I], s:[I,I], s:{s:i, s:s, s:{}}}", "name", i->path, "hits",
			 (json_int_t)read_here(i, n), (json_int_t)(i->n.hits[1] + n->hits[1]),
			 "fail", (json_int_t)(i->n.fail[0] + n->fail[0]),
			 (json_int_t)(i->n.fail[1] + n->fail[1]), "driver", "type", i->driver->type,
			 "name", i->driver->name, "status");
}

static json_t *images_json(const struct vbd *v)
{
	struct lane_count n = lanes_count(&v->cache); /* the leaf's, all of them */
	json_t *a = json_array();

	const struct td_image *top =
		mirror_is_redirected(v->mirror) ? mirror_copy(v->mirror) : v->leaf;

	for (const struct td_image *i = top; i; i = i->backing, n = (struct lane_count){0}) {
		json_array_append_new(a, image_json(i, &n));
		if (i == v->leaf && v->mirror && !v->mirror_failed && !mirror_part(v->mirror))
			json_array_append_new(
				a, image_json(mirror_copy(v->mirror), &(struct lane_count){0}));
	}
	return a;
}

static json_t *mirror_json(const struct vbd *v)
{
	struct mirror_stats n = v->mirror ? mirror_stats(v->mirror) : (struct mirror_stats){0};
	const char *why = v->mirror ? mirror_why(v->mirror) : NULL;
	json_t *j = json_pack("{s:s, s:b, s:b, s:i, s:I}", "args", v->opt.mirror, "failed",
			      v->mirror_failed, "redirected", v->redirected, "under_way",
			      (int)n.under_way, "waited", (json_int_t)n.waited);

	if (why)
		json_object_set_new(j, "reason", td_json_told(why));
	return j;
}

/* The first device's, all its queues together. */
static json_t *ring_json(const struct vbd *v)
{
	const struct blkif_params *p = blkif_params(vbd_ring(v));
	struct blkif_stats sum = {}, *n = &sum;
	unsigned queues = 0;

	td_list_each (l, &v->rings) {
		const struct blkif *b = td_entry(l, struct vbd_ring, link)->blkif;
		struct blkif_stats now = blkif_stats(b), *one = &now;

		if (blkif_params(b)->domid != p->domid || blkif_params(b)->devid != p->devid)
			continue;
		sum.taken += one->taken;
		sum.answered += one->answered;
		sum.kicks_in += one->kicks_in;
		sum.kicks_out += one->kicks_out;
		sum.errors += one->errors;
		sum.malformed += one->malformed;
		sum.copy_errors += one->copy_errors;
		sum.indirect += one->indirect;
		sum.polled += one->polled;
		sum.mapped += one->mapped;
		queues++;
	}
	return json_pack("{s:s, s:i, s:i, s:[I,I], s:[I,I], s:{s:I, s:I, s:I}, s:i, s:i, s:s, s:I, "
			 "s:I, s:I}",
			 "pool", "td-xenblkif", "domid", p->domid, "devid", (int)p->devid, "reqs",
			 (json_int_t)n->taken, (json_int_t)n->answered, "kicks",
			 (json_int_t)n->kicks_in, (json_int_t)n->kicks_out, "errors", "failed",
			 (json_int_t)n->errors, "msg", (json_int_t)n->malformed, "copy",
			 (json_int_t)n->copy_errors, "queues", (int)queues, "ring_pages",
			 (int)p->pages, "abi", blkif_abi_name(p->abi), "indirect",
			 (json_int_t)n->indirect, "polled", (json_int_t)n->polled, "mapped",
			 (json_int_t)n->mapped);
}

static json_t *nbd_json(const struct nbd *n)
{
	const struct nbd_stats *s = nbd_stats(n);

	return json_pack("{s:i, s:I, s:[I,I], s:I, s:I}", "clients", (int)nbd_clients(n),
			 "clients_so_far", (json_int_t)s->clients, "reqs", (json_int_t)s->taken,
			 (json_int_t)s->answered, "errors", (json_int_t)s->errors, "dropped",
			 (json_int_t)s->dropped);
}

static json_t *cache_json(const struct vbd *v)
{
	const struct cache *c = &v->cache;
	struct lane_count n = lanes_count(c);

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:[I,I]}", "mode",
			 v->opt.mode->name, "reads", (json_int_t)(c->n.reads + n.requests[0]),
			 "writes", (json_int_t)(c->n.writes + n.requests[1]), "flushes",
			 (json_int_t)c->n.flushes, "barriers", (json_int_t)c->n.barriers, "syncs",
			 (json_int_t)c->n.syncs, "flush_failed", c->sticky != 0, "no_space",
			 c->out_of_space, "in_threads", (json_int_t)n.requests[0],
			 (json_int_t)n.requests[1]);
}

static json_t *engine_json(const struct td_io *io)
{
	const struct td_io_counters *n = &io->n;

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "name", io->ops->name, "commits",
			 (json_int_t)n->commits, "reads", (json_int_t)n->reads, "writes",
			 (json_int_t)n->writes, "durable_writes", (json_int_t)n->durable_writes,
			 "fdatasyncs", (json_int_t)n->syncs, "merged", (json_int_t)n->merged);
}

/* Of each ring that a thread of its own serves. */
static json_t *threads_json(const struct vbd *v)
{
	json_t *a = json_array();

	td_list_each (l, &v->rings) {
		const struct vbd_ring *r = td_entry(l, struct vbd_ring, link);
		struct lane_stats n;

		if (!r->lane)
			continue;
		n = lane_stats(r->lane);
		json_array_append_new(a, json_pack("{s:i, s:[I,I], s:I}", "queue",
						   (int)blkif_params(r->blkif)->queue, "fast",
						   (json_int_t)n.fast[0], (json_int_t)n.fast[1],
						   "through_main", (json_int_t)n.slow));
	}
	return a;
}

static json_t *kind_json(const struct stats *s, const struct stats_tally *t, unsigned kind,
			 bool full)
{
	const struct stats_count n = stats_sum(s, kind);
	const struct histogram *h = &t->took[kind];
	json_t *j = json_pack(
		"{s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I}}", "submitted",
		(json_int_t)(n.done + n.under_way), "completed", (json_int_t)n.done, "errors",
		(json_int_t)n.errors, "sectors", (json_int_t)n.sectors, "latency_ns", "sum",
		(json_int_t)n.ns, "mean", (json_int_t)(n.done ? n.ns / n.done : 0), "p50",
		(json_int_t)histogram_percentile(h, 0.5), "p99",
		(json_int_t)histogram_percentile(h, 0.99), "p99.9",
		(json_int_t)histogram_percentile(h, 0.999), "max", (json_int_t)h->max);
	json_t *buckets;

	if (!j || !full)
		return j;
	buckets = json_array();
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		if (h->bucket[i])
			json_array_append_new(buckets,
					      json_pack("[I,I]", (json_int_t)histogram_end(i),
							(json_int_t)h->bucket[i]));
	json_object_set_new(j, "histogram", buckets);
	return j;
}

static json_t *requests_json(const struct stats *s, const struct stats_tally *t, bool full)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "read", kind_json(s, t, STATS_READ, full), "write",
			 kind_json(s, t, STATS_WRITE, full), "flush",
			 kind_json(s, t, STATS_FLUSH, full), "discard",
			 kind_json(s, t, STATS_DISCARD, full));
}

static json_t *queue_json(const struct stats *s, const struct stats_tally *t)
{
	unsigned last = STATS_DEPTHS;
	json_t *depths = json_array();

	while (last && !t->depth[last - 1])
		last--;
	for (unsigned i = 0; i < last; i++)
		json_array_append_new(depths, json_integer((json_int_t)t->depth[i]));
	return json_pack("{s:i, s:i, s:o}", "now", (int)stats_under_way(s), "most", (int)t->most,
			 "depths", depths);
}

/* Of the whole process: what the data of all its rings take. */
static json_t *memory_json(void)
{
	const struct td_budget *m = &blkif_memory;

	return json_pack("{s:I, s:I, s:I, s:I}", "used",
			 (json_int_t)__atomic_load_n(&m->used, __ATOMIC_RELAXED), "limit",
			 (json_int_t)__atomic_load_n(&m->limit, __ATOMIC_RELAXED), "waits",
			 (json_int_t)__atomic_load_n(&m->waits, __ATOMIC_RELAXED), "grants",
			 (json_int_t)blkif_grants());
}

/* Does the host's page cache serve reads, of a parent or of the leaf?  With parents-cache, a chain
 * without parents counts as well: it is what its next snapshot gets. */
static bool reads_are_cached(const struct vbd *v)
{
	const struct td_image *i = v->leaf;

	if (!v->spec || !(v->opt.mode->file_flags & TD_FILE_DIRECT))
		return v->spec;
	if (!v->opt.parents_cache || !i || (!i->backing && !v->opt.read_only))
		return v->opt.parents_cache;
	for (; i; i = i->backing)
		if (!(i->file_flags & TD_FILE_DIRECT))
			return true;
	return false;
}

/* Sectors that were written to a standby. */
static json_int_t redirected(const struct vbd *v)
{
	return mirror_is_redirected(v->mirror) && mirror_part(v->mirror) == MIRROR_STANDBY
		       ? (json_int_t)mirror_copy(v->mirror)->n.hits[1]
		       : 0;
}

json_t *ctl_stats_json(const struct vbd *v, bool full)
{
	const struct stats *s = &v->stats;
	struct stats_count n[2] = {stats_sum(s, STATS_READ), stats_sum(s, STATS_WRITE)};
	struct stats_tally *t = stats_tally_all(s);
	json_t *j;

	if (!t)
		return NULL;
	j = json_pack("{s:s, s:[I,I], s:o, s:I, s:i, s:i, s:s}", "name", v->spec ? v->spec : "",
		      "secs", (json_int_t)n[0].sectors, (json_int_t)n[1].sectors, "images",
		      images_json(v), "FIXME_enospc_redirect_count", redirected(v),
		      "nbd_mirror_failed", v->mirror_failed, "reqs_outstanding",
		      (int)stats_under_way(s), "read_caching",
		      reads_are_cached(v) ? "true" : "false");
	if (!j) {
		free(t);
		return NULL;
	}
	if (vbd_ring(v))
		json_object_set_new(j, "xenbus", ring_json(v));
	if (v->nbd && v->spec)
		json_object_set_new(j, "nbd", nbd_json(v->nbd));
	if (v->spec) {
		json_object_set_new(j, "requests", requests_json(s, t, full));
		json_object_set_new(j, "queue", queue_json(s, t));
		json_object_set_new(j, "cache", cache_json(v));
		json_object_set_new(j, "limit", ctl_limit_json(v));
		if (v->kept)
			json_object_set_new(
				j, "leaf_cache",
				json_pack("{s:I, s:I}", "kept",
					  (json_int_t)leaf_cache_stats(v->kept).kept, "left_out",
					  (json_int_t)leaf_cache_stats(v->kept).left_out));
		if (v->opt.mirror[0])
			json_object_set_new(j, "mirror", mirror_json(v));
		if (v->changes)
			json_object_set_new(j, "changed_blocks",
					    json_pack("{s:s, s:I}", "log", v->opt.changed, "set",
						      (json_int_t)changed_count(v->changes)));
	}
	if (v->cache.io)
		json_object_set_new(j, "engine", engine_json(v->cache.io));
	if (!td_list_empty(&v->cache.lanes))
		json_object_set_new(j, "threads", threads_json(v));
	json_object_set_new(j, "memory", memory_json());
	json_object_set_new(j, "sandbox", json_string(sandbox_state()));
	json_object_set_new(j, "uid", json_integer(geteuid()));
	free(t);
	return j;
}
