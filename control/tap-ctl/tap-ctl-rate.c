/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tap-ctl/tap-ctl-rate.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/json-get.h"

struct bucket {
	json_int_t end, count;
};

const json_t *tc_rate_before(const struct tc_rows *rows, const json_t *row)
{
	for (size_t i = 0; i < rows->n; i++)
		if (td_json_number(rows->row[i], "pid", 0) == td_json_number(row, "pid", 0) &&
		    json_object_get(rows->row[i], "minor") &&
		    td_json_number(rows->row[i], "minor", 0) == td_json_number(row, "minor", 0))
			return rows->row[i];
	return NULL;
}

static const json_t *kind_of(const json_t *row, const char *kind)
{
	return json_object_get(json_object_get(json_object_get(row, "stats"), "requests"), kind);
}

/* now - before, bucket by bucket; both are in ascending order, and a bucket once there stays.
 * *total: of all of them. */
static struct bucket *difference(const json_t *now, const json_t *before, size_t *n,
				 json_int_t *total)
{
	struct bucket *d = calloc(json_array_size(now) + 1, sizeof *d);
	size_t i, j = 0;
	const json_t *b;

	*n = 0;
	*total = 0;
	json_array_foreach (now, i, b) {
		json_int_t end = json_integer_value(json_array_get(b, 0)),
			   count = json_integer_value(json_array_get(b, 1));
		const json_t *old = json_array_get(before, j);

		if (old && json_integer_value(json_array_get(old, 0)) == end) {
			count -= json_integer_value(json_array_get(old, 1));
			j++;
		}
		if (!d || count <= 0)
			continue;
		d[(*n)++] = (struct bucket){end, count};
		*total += count;
	}
	return d;
}

static json_int_t percentile(const struct bucket *d, size_t n, json_int_t total, double part)
{
	json_int_t rank = (json_int_t)((double)total * part), seen = 0;

	if ((double)rank < (double)total * part || !rank)
		rank++;
	for (size_t i = 0; i < n; i++) {
		seen += d[i].count;
		if (seen >= rank)
			return d[i].end;
	}
	return 0;
}

static json_t *kind_rate(const json_t *now, const json_t *before, double seconds)
{
	json_int_t done = td_json_number(now, "completed", 0) -
			  td_json_number(before, "completed", 0),
		   total;
	json_t *j, *lat = json_object_get(now, "latency_ns");
	struct bucket *d;
	size_t n;

	if (done < 0) /* it was closed and opened again in between */
		return kind_rate(now, NULL, seconds);
	j = json_pack(
		"{s:f, s:f, s:I}", "per_s", (double)done / seconds, "bytes_per_s",
		(double)(td_json_number(now, "sectors", 0) - td_json_number(before, "sectors", 0)) *
			512 / seconds,
		"errors", td_json_number(now, "errors", 0) - td_json_number(before, "errors", 0));
	d = difference(json_object_get(now, "histogram"), json_object_get(before, "histogram"), &n,
		       &total);
	if (done && total)
		json_object_set_new(j, "latency_ns",
				    json_pack("{s:I, s:I, s:I, s:I}", "mean",
					      (td_json_number(lat, "sum", 0) -
					       td_json_number(json_object_get(before, "latency_ns"),
							      "sum", 0)) /
						      done,
					      "p50", percentile(d, n, total, 0.5), "p99",
					      percentile(d, n, total, 0.99), "p99.9",
					      percentile(d, n, total, 0.999)));
	free(d);
	return j;
}

/* Requests that had to wait for the disk's limit. */
static double waits(const json_t *stats, const json_t *before, double seconds)
{
	json_int_t now = td_json_number(json_object_get(stats, "limit"), "waits", 0),
		   then = before ? td_json_number(json_object_get(json_object_get(before, "stats"),
								  "limit"),
						  "waits", 0)
				 : now;

	return (double)(now >= then ? now - then : now) / seconds;
}

json_t *tc_rate(const json_t *row, const json_t *before, double seconds)
{
	static const char *const kinds[] = {"read", "write", "flush", "discard"},
				 *const same[] = {"pid",   "minor", "args",
						  "state", "mode",  "reason"};
	const json_t *stats = json_object_get(row, "stats"),
		     *ring = json_object_get(stats, "xenbus");
	json_t *j = json_object();
	char guest[48];

	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		if (json_object_get(row, same[i]))
			json_object_set(j, same[i], json_object_get(row, same[i]));
	if (ring) {
		snprintf(guest, sizeof guest, "%lld/%lld",
			 (long long)td_json_number(ring, "domid", 0),
			 (long long)td_json_number(ring, "devid", 0));
		json_object_set_new(j, "guest", json_string(guest));
	}
	json_object_set_new(
		j, "queue",
		json_integer(td_json_number(json_object_get(stats, "queue"), "now", 0)));
	json_object_set_new(j, "limit_waits_per_s", json_real(waits(stats, before, seconds)));
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		json_object_set_new(
			j, kinds[i],
			kind_rate(kind_of(row, kinds[i]),
				  before ? kind_of(before, kinds[i]) : kind_of(row, kinds[i]),
				  seconds));
	return j;
}
