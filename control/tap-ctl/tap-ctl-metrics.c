/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * metrics: the counters of all disks in Prometheus' text format.  Facts: its documentation,
 * "Exposition formats" (all samples of a name stand together, after its HELP and TYPE; in a label's
 * value \, " and line feeds are escaped; a histogram's buckets add up).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-ask.h"
#include "lib/json-get.h"
#include "lib/ctl-dir.h"

/* Powers of two of ns, each of which ends one of the tapdisk's own buckets, so that nothing is
 * counted on the wrong side. */
static const unsigned char bounds[] = {14, 15, 16, 17, 18, 19, 20, 21,
				       22, 23, 24, 26, 28, 30, 32, 34};
static const char *const kinds[] = {"read", "write", "flush", "discard"};
#define KINDS (sizeof kinds / sizeof *kinds)

struct family {
	const char *name, *type, *help;
	void (*samples)(FILE *f, const struct family *m, const json_t *row);
	const char *object, *key; /* where in the row's stats the number is, for those that are a
				     number as it is; key alone: a flag of the row */
	json_int_t bits;          /* of the state, for those that are one */
};

static void put_value(FILE *f, const char *text)
{
	for (; *text; text++)
		if (*text == '\n')
			fputs("\\n", f);
		else if (*text == '\\' || *text == '"')
			fprintf(f, "\\%c", *text);
		else
			fputc(*text, f);
}

/* NAME{minor="N",disk="type:path" and leaves the braces open for more labels. */
static void put_disk(FILE *f, const char *name, const char *suffix, const json_t *row)
{
	fprintf(f, "%s%s{minor=\"%lld\",disk=\"", name, suffix,
		(long long)td_json_number(row, "minor", 0));
	put_value(f, json_string_value(json_object_get(row, "args")) ?: "");
	fputc('"', f);
}

static const json_t *kind_of(const json_t *row, size_t kind)
{
	return json_object_get(json_object_get(json_object_get(row, "stats"), "requests"),
			       kinds[kind]);
}

static void put_info(FILE *f, const struct family *m, const json_t *row)
{
	const json_t *ring = json_object_get(json_object_get(row, "stats"), "xenbus");

	put_disk(f, m->name, "", row);
	fprintf(f, ",pid=\"%lld\",mode=\"%s\"", (long long)td_json_number(row, "pid", 0),
		json_string_value(json_object_get(row, "mode")) ?: "");
	if (ring)
		fprintf(f, ",domid=\"%lld\",devid=\"%lld\"",
			(long long)td_json_number(ring, "domid", 0),
			(long long)td_json_number(ring, "devid", 0));
	fputs("} 1\n", f);
}

static void put_state(FILE *f, const struct family *m, const json_t *row)
{
	put_disk(f, m->name, "", row);
	fprintf(f, "} %d\n", (td_json_number(row, "state", 0) & m->bits) != 0);
}

static void put_flag(FILE *f, const struct family *m, const json_t *row)
{
	put_disk(f, m->name, "", row);
	fprintf(f, "} %d\n", json_is_true(json_object_get(row, m->key)));
}

static void put_size(FILE *f, const struct family *m, const json_t *row)
{
	put_disk(f, m->name, "", row);
	fprintf(f, "} %lld\n", (long long)td_json_number(row, "size", 0));
}

static void put_number(FILE *f, const struct family *m, const json_t *row)
{
	const json_t *o = json_object_get(json_object_get(row, "stats"), m->object);

	if (!o)
		return;
	put_disk(f, m->name, "", row);
	fprintf(f, "} %lld\n", (long long)td_json_number(o, m->key, 0));
}

static void put_kinds(FILE *f, const struct family *m, const json_t *row)
{
	bool bytes = !strcmp(m->key, "sectors");

	for (size_t k = 0; k < KINDS; k++) {
		if (bytes && !strcmp(kinds[k], "flush"))
			continue;
		put_disk(f, m->name, "", row);
		fprintf(f, ",op=\"%s\"} %lld\n", kinds[k],
			(long long)td_json_number(kind_of(row, k), m->key, 0) * (bytes ? 512 : 1));
	}
}

static void put_histogram(FILE *f, const struct family *m, const json_t *row)
{
	for (size_t k = 0; k < KINDS; k++) {
		const json_t *kind = kind_of(row, k), *h = json_object_get(kind, "histogram"), *b;
		json_int_t seen = 0;
		size_t i = 0;

		for (size_t n = 0; n < sizeof bounds; n++) {
			json_int_t end = (json_int_t)1 << bounds[n];

			for (; (b = json_array_get(h, i)) &&
			       json_integer_value(json_array_get(b, 0)) <= end;
			     i++)
				seen += json_integer_value(json_array_get(b, 1));
			put_disk(f, m->name, "_bucket", row);
			fprintf(f, ",op=\"%s\",le=\"%.9g\"} %lld\n", kinds[k], (double)end / 1e9,
				(long long)seen);
		}
		for (; (b = json_array_get(h, i)); i++)
			seen += json_integer_value(json_array_get(b, 1));
		put_disk(f, m->name, "_bucket", row);
		fprintf(f, ",op=\"%s\",le=\"+Inf\"} %lld\n", kinds[k], (long long)seen);
		put_disk(f, m->name, "_sum", row);
		fprintf(f, ",op=\"%s\"} %.9f\n", kinds[k],
			(double)td_json_number(json_object_get(kind, "latency_ns"), "sum", 0) /
				1e9);
		put_disk(f, m->name, "_count", row);
		fprintf(f, ",op=\"%s\"} %lld\n", kinds[k], (long long)seen);
	}
}

static const struct family families[] = {
	{"tapdisk_disk_info", "gauge",
	 "An open disk: its tapdisk, its cache mode, and the guest that has it.", put_info, NULL,
	 NULL, 0},
	{"tapdisk_disk_size_bytes", "gauge", "The disk's size.", put_size, NULL, NULL, 0},
	{"tapdisk_disk_paused", "gauge", "1 while the guest's requests are held by a pause.",
	 put_state, NULL, NULL, TD_STATE_PAUSED},
	{"tapdisk_disk_no_space", "gauge",
	 "1 while writes are held because there is no space for them.", put_state, NULL, NULL,
	 TD_STATE_NO_SPACE},
	{"tapdisk_disk_failed", "gauge",
	 "1 after a flush to disk has failed, until the disk is closed.", put_state, NULL, NULL,
	 TD_STATE_FAILED},
	{"tapdisk_disk_stalled", "gauge",
	 "1 while the store answers none of the requests that it has.", put_flag, NULL, "stalled",
	 0},
	{"tapdisk_disk_reconnecting", "gauge",
	 "1 while requests wait for an NBD server that has gone away.", put_flag, NULL,
	 "reconnecting", 0},
	{"tapdisk_requests_total", "counter", "Requests answered.", put_kinds, NULL, "completed",
	 0},
	{"tapdisk_request_errors_total", "counter", "Requests answered with an error.", put_kinds,
	 NULL, "errors", 0},
	{"tapdisk_bytes_total", "counter", "Bytes of the requests that succeeded.", put_kinds, NULL,
	 "sectors", 0},
	{"tapdisk_request_duration_seconds", "histogram",
	 "From the taking of a request to its answer.", put_histogram, NULL, NULL, 0},
	{"tapdisk_queue_depth", "gauge", "Requests taken and not answered.", put_number, "queue",
	 "now", 0},
	{"tapdisk_queue_depth_most", "gauge",
	 "The most requests that were under way at once since the disk was opened.", put_number,
	 "queue", "most", 0},
	{"tapdisk_memory_bytes", "gauge",
	 "Memory that the data of all rings of the disk's tapdisk take.", put_number, "memory",
	 "used", 0},
	{"tapdisk_memory_limit_bytes", "gauge", "The most that they may take (ring-memory).",
	 put_number, "memory", "limit", 0},
	{"tapdisk_memory_waits_total", "counter",
	 "Times that a request had to wait in its ring for that memory.", put_number, "memory",
	 "waits", 0},
	{"tapdisk_granted_pages", "gauge", "Pages of guests that the disk's tapdisk keeps mapped.",
	 put_number, "memory", "grants", 0},
	{"tapdisk_limit_waits_total", "counter",
	 "Requests that had to wait for the disk's limits (tap-ctl limit).", put_number, "limit",
	 "waits", 0},
	{"tapdisk_barriers_total", "counter", "Barriers among the requests.", put_number, "cache",
	 "barriers", 0},
	{"tapdisk_syncs_total", "counter",
	 "Flushes of the image: one may answer several of the guest.", put_number, "cache", "syncs",
	 0},
	{"tapdisk_ring_malformed_total", "counter",
	 "Requests refused because they break the ring's rules; of the guest that has it now.",
	 put_number, "xenbus_errors", "msg", 0},
};

/* What stands deeper in a row than put_number looks. */
static void flatten(json_t *row)
{
	json_t *stats = json_object_get(row, "stats"),
	       *errors = json_object_get(json_object_get(stats, "xenbus"), "errors");

	if (errors)
		json_object_set(stats, "xenbus_errors", errors);
}

static void put_all(FILE *f, const struct tc_rows *rows)
{
	fputs("# HELP tapdisk_answers Whether a tapdisk answers; one that does not has no other "
	      "numbers.\n"
	      "# TYPE tapdisk_answers gauge\n",
	      f);
	for (size_t i = 0; i < rows->n; i++)
		if (!i || td_json_number(rows->row[i], "pid", 0) !=
				  td_json_number(rows->row[i - 1], "pid", 0))
			fprintf(f, "tapdisk_answers{pid=\"%lld\"} %d\n",
				(long long)td_json_number(rows->row[i], "pid", 0),
				!json_is_false(json_object_get(rows->row[i], "answers")));
	for (size_t m = 0; m < sizeof families / sizeof *families; m++) {
		fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", families[m].name, families[m].help,
			families[m].name, families[m].type);
		for (size_t i = 0; i < rows->n; i++)
			if (json_object_get(rows->row[i], "stats"))
				families[m].samples(f, &families[m], rows->row[i]);
	}
}

static int by_pid(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	json_int_t px = td_json_number(x, "pid", 0), py = td_json_number(y, "pid", 0),
		   mx = td_json_number(x, "minor", 0), my = td_json_number(y, "minor", 0);

	return px != py ? (px > py) - (px < py) : (mx > my) - (mx < my);
}

static int finish_file(FILE *f, const char *path, struct td_err *err)
{
	bool bad = ferror(f);
	int code;

	errno = 0;
	if (fclose(f) == 0 && !bad)
		return 0;
	code = errno ? errno : EIO;
	return td_fail(err, code, "cannot write %s: %s", path, strerror(code));
}

/* A regular file: readers see the old one or the new one, never a part. */
static int replace(const char *path, const struct tc_rows *rows, struct td_err *err)
{
	char *tmp;
	int fd, ret;
	FILE *f;

	if (asprintf(&tmp, "%s.XXXXXX", path) < 0)
		return td_fail(err, ENOMEM, "out of memory");
	fd = mkstemp(tmp);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		ret = td_fail(err, errno, "cannot make a file beside %s: %s", path,
			      strerror(errno));
		if (fd >= 0)
			close(fd);
	} else {
		put_all(f, rows);
		fchmod(fd, 0644); /* the exporter that takes it up is not root */
		ret = finish_file(f, tmp, err);
		if (!ret && rename(tmp, path) < 0)
			ret = td_fail(err, errno, "cannot put %s in its place: %s", path,
				      strerror(errno));
	}
	if (ret && fd >= 0)
		unlink(tmp);
	free(tmp);
	return ret;
}

/* A FIFO, a terminal, /dev/null: it stays what it is, and gets the text.  One that nobody reads is
 * not waited for. */
static int write_into(const char *path, const struct tc_rows *rows, struct td_err *err)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	FILE *f = NULL;

	if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == 0)
		f = fdopen(fd, "w");
	if (!f) {
		td_fail(err, errno, "cannot write to %s: %s", path,
			errno == ENXIO ? "no process reads it" : strerror(errno));
		if (fd >= 0)
			close(fd);
		return -err->code;
	}
	put_all(f, rows);
	return finish_file(f, path, err);
}

static int to_file(const char *path, const struct tc_rows *rows, struct td_err *err)
{
	char *file;
	struct stat st = {};
	int ret;

	if (stat(path, &st) < 0) {
		if (errno != ENOENT || !lstat(path, &st))
			return td_fail(err, errno, "cannot write %s: %s", path,
				       S_ISLNK(st.st_mode)
					       ? "it is a symbolic link that leads nowhere"
					       : strerror(errno));
		return replace(path, rows, err);
	}
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		return write_into(path, rows, err);
	if (!S_ISREG(st.st_mode))
		return td_fail(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			       "%s is no file to put the numbers into, but a %s", path,
			       S_ISDIR(st.st_mode)   ? "directory"
			       : S_ISBLK(st.st_mode) ? "block device"
						     : "socket");
	file = realpath(path, NULL); /* a link stays, and leads to the new file */
	if (!file)
		return td_fail(err, errno, "cannot write %s: %s", path, strerror(errno));
	ret = replace(file, rows, err);
	free(file);
	return ret;
}

int tc_cmd_metrics(const struct tc_args *a, struct td_err *err)
{
	struct tc_rows rows = {};
	int ret = tc_ask_all("stats_all", -1, TD_CTL_TIMEOUT / 2, &rows, err);

	if (!ret && rows.n)
		qsort(rows.row, rows.n, sizeof *rows.row, by_pid);
	for (size_t i = 0; i < rows.n; i++)
		flatten(rows.row[i]);
	if (!ret && a->file)
		ret = to_file(a->file, &rows, err);
	else if (!ret)
		put_all(stdout, &rows);
	tc_rows_free(&rows);
	return ret;
}
