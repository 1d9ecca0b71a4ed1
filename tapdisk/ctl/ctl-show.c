/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What answers say of a disk. */
#include "tapdisk/ctl/ctl-ops.h"

#include "lib/json-get.h"

static const char *ring_state(const struct blkif *b)
{
	return blkif_is_broken(b) ? "broken" : "connected";
}

static void put_rings(json_t *o, const struct vbd *v)
{
	json_t *rings = json_array();

	td_list_each (l, &v->rings) {
		const struct blkif *b = td_entry(l, struct vbd_ring, link)->blkif;
		json_t *r = json_pack("{s:i, s:I, s:i, s:s}", "domid", blkif_params(b)->domid,
				      "devid", (json_int_t)blkif_params(b)->devid, "queue",
				      (int)blkif_params(b)->queue, "state", ring_state(b));

		if (blkif_is_broken(b))
			json_object_set_new(r, "reason", td_json_told(blkif_why(b)));
		json_array_append_new(rings, r);
	}
	json_object_set_new(o, "rings", rings);
}

/* All of them in one word. */
const char *ctl_rings_state(const struct vbd *v)
{
	const char *word = NULL;

	td_list_each (l, &v->rings) {
		const struct blkif *b = td_entry(l, struct vbd_ring, link)->blkif;

		if (!word || blkif_is_broken(b))
			word = ring_state(b);
	}
	return word;
}

void ctl_put_name(json_t *o, const struct vbd *v)
{
	if (v->opt.name[0])
		json_object_set_new(o, "name", json_string(v->opt.name));
}

void ctl_put_state(json_t *o, const struct vbd *v)
{
	const char *reason = vbd_reason(v);

	json_object_set_new(o, "minor", json_integer(v->minor));
	json_object_set_new(o, "state", json_integer(vbd_state(v)));
	if (reason)
		json_object_set_new(o, "reason", td_json_told(reason));
	if (v->stall.stalled)
		json_object_set_new(o, "stalled", json_true());
	if (v->leaf && v->leaf->away)
		json_object_set_new(o, "reconnecting", json_true());
	if (v->peers.wrong)
		json_object_set_new(o, v->peers.shared ? "peer-cut-off" : "two-primaries",
				    json_true());
	put_rings(o, v);
}

static json_int_t at_least(uint32_t bytes, uint32_t least)
{
	return bytes < least ? least : bytes;
}

void ctl_put_info(json_t *o, const struct vbd *v)
{
	const struct td_cache_mode *m = v->opt.mode;

	ctl_put_state(o, v);
	if (!v->spec)
		return;
	ctl_put_name(o, v);
	json_object_set_new(o, "args", json_string(v->spec));
	json_object_set_new(o, "mode", json_string(m->name));
	json_object_set_new(o, "promise", json_string(m->promise));
	json_object_set_new(o, "read_only", json_boolean(v->opt.read_only));
	json_object_set_new(o, "sectors", json_integer((json_int_t)v->disk.sectors));
	json_object_set_new(o, "sector_size", json_integer(options_sector(&v->opt)));
	json_object_set_new(o, "physical_sector_size",
			    json_integer(at_least(v->leaf ? v->leaf->info.physical : 512,
						  options_sector(&v->opt))));
	json_object_set_new(o, "flush", json_boolean(m->advertise_flush));
	json_object_set_new(o, "barrier", json_boolean(m->advertise_flush));
	json_object_set_new(o, "discard", json_boolean(v->disk.discard));
	if (v->disk.discard && v->leaf)
		json_object_set_new(o, "discard_granularity",
				    json_integer(at_least(v->leaf->info.discard_gran,
							  options_sector(&v->opt))));
	json_object_set_new(o, "max_ring_order", json_integer(BLKIF_MAX_RING_ORDER));
	json_object_set_new(o, "persistent", json_true());
	json_object_set_new(o, "max_indirect_segments", json_integer(BLKIF_MAX_INDIRECT));
	json_object_set_new(o, "max_queues", json_integer(BLKIF_MAX_QUEUES));
}

/* How many requests of a disk were answered; grows for as long as it works. */
json_int_t ctl_answered(const struct vbd *v)
{
	uint64_t n = v->nbd ? nbd_stats(v->nbd)->answered : 0;

	td_list_each (l, &v->rings)
		n += blkif_stats(td_entry(l, struct vbd_ring, link)->blkif).answered;
	return (json_int_t)n;
}

/* And how many wait for an answer, as the tapdisk itself has counted them: of a ring's page its
 * guest says what it likes. */
json_int_t ctl_waiting(const struct vbd *v)
{
	unsigned n = v->nbd ? nbd_inflight(v->nbd) : 0;

	td_list_each (l, &v->rings)
		n += blkif_inflight(td_entry(l, struct vbd_ring, link)->blkif);
	return n;
}
