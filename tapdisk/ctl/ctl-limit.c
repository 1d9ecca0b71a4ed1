/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's limits (tapdisk/limit.h): said by words, and shown. */
#include <errno.h>
#include <string.h>

#include "tapdisk/ctl/ctl-ops.h"
#include "tapdisk/ctl/ctl-stats.h"

static json_t *three(const uint64_t n[LIMIT_OF])
{
	return json_pack("[I,I,I]", (json_int_t)n[LIMIT_ALL], (json_int_t)n[LIMIT_READ],
			 (json_int_t)n[LIMIT_WRITE]);
}

json_t *ctl_limit_json(const struct vbd *v)
{
	const struct limit_rates *r = &v->opt.limit;
	const struct limit *l = &v->disk.rates;

	return json_pack("{s:o, s:o, s:I, s:b, s:I, s:I}", "iops", three(r->iops), "bytes",
			 three(r->bytes), "burst_ms",
			 (json_int_t)(r->burst ? r->burst : LIMIT_BURST), "on", limit_on(l),
			 "waits", (json_int_t)__atomic_load_n(&l->n.waits, __ATOMIC_RELAXED),
			 "waited_ns", (json_int_t)__atomic_load_n(&l->n.ns, __ATOMIC_RELAXED));
}

int ctl_op_limit(struct ctl_call *call, struct vbd *v, json_t *answer, struct td_err *err)
{
	const json_t *said = json_object_get(call->req, "options");
	struct limit_rates r = v->opt.limit;
	char word[64];
	const json_t *w;
	json_t *words;
	size_t i;
	int rc = 0;

	json_array_foreach (said, i, w) {
		const char *text = json_string_value(w), *eq = text ? strchr(text, '=') : NULL;

		if (!eq)
			return td_fail(err, EINVAL, "'%.100s' is not of the form key=value",
				       text ? text : "");
		rc = limit_set_word(&r, text, (size_t)(eq - text), eq + 1, err);
		if (rc < 0)
			return rc;
	}
	if (i)
		rc = vbd_limit(v, &r, err);
	if (rc < 0)
		return rc;
	words = json_array();
	for (unsigned k = 0; limit_word(&v->opt.limit, k, word); k++)
		json_array_append_new(words, json_string(word));
	json_object_set_new(answer, "words", words);
	json_object_set_new(answer, "limit", ctl_limit_json(v));
	return 0;
}
