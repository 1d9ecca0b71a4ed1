/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* top: what all disks do, again and again: on a terminal as a picture, elsewhere or with -b as
 * lines, with --json as objects. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-ask.h"
#include "control/tap-ctl/tap-ctl-rate.h"
#include "control/tap-ctl/tap-ctl-screen.h"
#include "lib/ctl-dir.h"
#include "lib/output.h"

/* s from the first look to the second, so that one does not wait long for the first numbers */
#define FIRST  0.5
#define SILENT 2 /* s that a tapdisk has to answer */

enum sort { BY_REQUESTS, BY_BYTES, BY_LATENCY, BY_MINOR };

struct top {
	struct tc_rows last; /* as asked for */
	double at;           /* when; CLOCK_MONOTONIC seconds */
	struct tc_rows rates;
	size_t silent;  /* tapdisks that do not answer */
	double seconds; /* that the rates are of */
	enum sort sort;
	const struct tc_args *args;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double rate(const json_t *row, const char *kind, const char *key)
{
	return json_number_value(json_object_get(json_object_get(row, kind), key));
}

static json_int_t latency(const json_t *row, const char *kind, const char *key)
{
	return json_integer_value(
		json_object_get(json_object_get(json_object_get(row, kind), "latency_ns"), key));
}

static json_int_t errors(const json_t *row)
{
	return (json_int_t)(rate(row, "read", "errors") + rate(row, "write", "errors") +
			    rate(row, "flush", "errors") + rate(row, "discard", "errors"));
}

static double weight(const json_t *row, enum sort by)
{
	json_int_t r, w;

	switch (by) {
	case BY_REQUESTS:
		return rate(row, "read", "per_s") + rate(row, "write", "per_s") +
		       rate(row, "flush", "per_s") + rate(row, "discard", "per_s");
	case BY_BYTES:
		return rate(row, "read", "bytes_per_s") + rate(row, "write", "bytes_per_s");
	case BY_LATENCY:
		r = latency(row, "read", "p99");
		w = latency(row, "write", "p99");
		return (double)(r > w ? r : w);
	default:
		return 0;
	}
}

static enum sort sort_by; /* qsort has no argument for it */

static int compare_rows(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	double wx = weight(x, sort_by), wy = weight(y, sort_by);
	json_int_t mx = json_integer_value(json_object_get(x, "minor")),
		   my = json_integer_value(json_object_get(y, "minor"));

	return wx != wy ? (wx < wy) - (wx > wy) : (mx > my) - (mx < my);
}

/* Looks at all disks, and makes the rates since the last look. */
static int sample(struct top *t, struct td_err *err)
{
	struct tc_rows rows = {};
	double now = now_s();
	int ret = tc_ask_all("stats_all", t->args->pid, SILENT, &rows, err);

	if (ret) {
		tc_rows_free(&rows);
		return ret;
	}
	tc_rows_free(&t->rates);
	t->rates = (struct tc_rows){};
	t->silent = 0;
	t->seconds = t->at ? now - t->at : 0;
	for (size_t i = 0; i < rows.n && !ret; i++) {
		const json_t *row = rows.row[i];

		t->silent += json_is_false(json_object_get(row, "answers"));
		if (json_object_get(row, "stats") &&
		    (t->args->minor < 0 ||
		     json_integer_value(json_object_get(row, "minor")) == t->args->minor))
			ret = tc_rows_add(&t->rates,
					  tc_rate(row, tc_rate_before(&t->last, row),
						  t->seconds > 0 ? t->seconds : 1),
					  err);
	}
	tc_rows_free(&t->last);
	t->last = rows;
	t->at = now;
	sort_by = t->sort;
	if (t->rates.n)
		qsort(t->rates.row, t->rates.n, sizeof *t->rates.row, compare_rows);
	return ret;
}

/* Four figures at most, with a unit: 950u, 1.2m, 15m, 3.4s; - for none. */
static const char *time_text(json_int_t ns, char *s, size_t size)
{
	static const char units[] = "num";
	double v = (double)ns;
	unsigned i = 0;

	while (i < 3 && v >= 999.5) {
		v /= 1000;
		i++;
	}
	if (!ns)
		snprintf(s, size, "-");
	else
		snprintf(s, size, v < 9.95 && i ? "%.1f%c" : "%.0f%c", v, i < 3 ? units[i] : 's');
	return s;
}

/*
 * The columns before the disk's name.  Where they leave less than NAME_LEAST for that, those with
 * the highest `goes' go first: what one looks for on a narrow terminal is which disk is slow.
 */
#define NAME_LEAST 14

/* clang-format off */
enum {
	PID, MINOR, GUEST, MODE, READS, WRITES, FLUSHES, READ_MB, WRITE_MB, DEPTH, R50, R99, W50, W99,
	F99, ERRORS, COLUMNS
};
/* clang-format on */

static const struct {
	const char *head;
	int width; /* below 0: from the left */
	int goes;  /* 0: never */
} columns[COLUMNS] = {
	[PID] = {"PID", 5, 4},     [MINOR] = {"MINOR", 5, 0},   [GUEST] = {"GUEST", -10, 5},
	[MODE] = {"MODE", -12, 6}, [READS] = {"R/s", 6, 0},     [WRITES] = {"W/s", 6, 0},
	[FLUSHES] = {"F/s", 5, 2}, [READ_MB] = {"RMB/s", 6, 1}, [WRITE_MB] = {"WMB/s", 6, 1},
	[DEPTH] = {"QD", 4, 0},    [R50] = {"R50", 4, 3},       [R99] = {"R99", 4, 0},
	[W50] = {"W50", 4, 3},     [W99] = {"W99", 4, 0},       [F99] = {"F99", 4, 0},
	[ERRORS] = {"ERR", 4, 0},
};

static int taken(int keep)
{
	int n = 0;

	for (int c = 0; c < COLUMNS; c++)
		if (columns[c].goes < keep)
			n += abs(columns[c].width) + 1;
	return n;
}

/* Columns that go at `keep' or later are left out. */
static int keep_for(int width)
{
	int keep = 7;

	while (keep > 1 && width - taken(keep) < NAME_LEAST)
		keep--;
	return keep;
}

static void put_cell(char *s, size_t size, int c, int keep, const char *text)
{
	size_t at = strlen(s);
	int width = columns[c].width;

	if (columns[c].goes < keep)
		snprintf(s + at, size - at, width < 0 ? "%-*.*s " : "%*.*s ", abs(width),
			 width < 0 ? -width : 32, text);
}

static void head_text(int keep, char *s, size_t size)
{
	*s = 0;
	for (int c = 0; c < COLUMNS; c++)
		put_cell(s, size, c, keep, columns[c].head);
	snprintf(s + strlen(s), size - strlen(s), "DISK");
}

static void put_figure(char *s, size_t size, int c, int keep, int decimals, double v)
{
	char text[32];

	snprintf(text, sizeof text, "%.*f", decimals, v);
	put_cell(s, size, c, keep, text);
}

static void put_time(char *s, size_t size, int c, int keep, const json_t *row, const char *kind,
		     const char *part)
{
	char text[32];

	put_cell(s, size, c, keep, time_text(latency(row, kind, part), text, sizeof text));
}

static void row_text(const json_t *row, int keep, char *s, size_t size)
{
	const char *guest = json_string_value(json_object_get(row, "guest")),
		   *mode = json_string_value(json_object_get(row, "mode")),
		   *args = json_string_value(json_object_get(row, "args"));
	json_int_t state = json_integer_value(json_object_get(row, "state"));

	*s = 0;
	put_figure(s, size, PID, keep, 0, (double)json_integer_value(json_object_get(row, "pid")));
	put_figure(s, size, MINOR, keep, 0,
		   (double)json_integer_value(json_object_get(row, "minor")));
	put_cell(s, size, GUEST, keep, guest ? guest : "-");
	put_cell(s, size, MODE, keep, mode ? mode : "-");
	put_figure(s, size, READS, keep, 0, rate(row, "read", "per_s"));
	put_figure(s, size, WRITES, keep, 0, rate(row, "write", "per_s"));
	put_figure(s, size, FLUSHES, keep, 0, rate(row, "flush", "per_s"));
	put_figure(s, size, READ_MB, keep, 1, rate(row, "read", "bytes_per_s") / 1e6);
	put_figure(s, size, WRITE_MB, keep, 1, rate(row, "write", "bytes_per_s") / 1e6);
	put_figure(s, size, DEPTH, keep, 0,
		   (double)json_integer_value(json_object_get(row, "queue")));
	put_time(s, size, R50, keep, row, "read", "p50");
	put_time(s, size, R99, keep, row, "read", "p99");
	put_time(s, size, W50, keep, row, "write", "p50");
	put_time(s, size, W99, keep, row, "write", "p99");
	put_time(s, size, F99, keep, row, "flush", "p99");
	put_figure(s, size, ERRORS, keep, 0, (double)errors(row));
	snprintf(s + strlen(s), size - strlen(s), "%s%s",
		 state & TD_STATE_FAILED                                            ? "[FAILED] "
		 : state & TD_STATE_NO_SPACE                                        ? "[no space] "
		 : state & TD_STATE_PAUSED                                          ? "[paused] "
		 : json_number_value(json_object_get(row, "limit_waits_per_s")) > 0 ? "[limited] "
										    : "",
		 args ? args : "");
	td_output_line(s); /* a file name must not move the cursor */
}

static void title(const struct top *t, char *s, size_t size)
{
	static const char *const by[] = {"requests", "bytes", "p99", "minor"};
	double r = 0, w = 0, bytes = 0;
	time_t now = time(NULL);
	struct tm tm;
	char clock[16], silent[48] = "";

	for (size_t i = 0; i < t->rates.n; i++) {
		r += rate(t->rates.row[i], "read", "per_s");
		w += rate(t->rates.row[i], "write", "per_s");
		bytes += weight(t->rates.row[i], BY_BYTES);
	}
	localtime_r(&now, &tm);
	strftime(clock, sizeof clock, "%H:%M:%S", &tm);
	if (t->silent)
		snprintf(silent, sizeof silent, ", %zu tapdisk%s", t->silent,
			 t->silent == 1 ? " does not answer" : "s do not answer");
	snprintf(s, size,
		 "tap-ctl top %s by %s: %zu disk%s%s; %.0f reads/s, %.0f writes/s, %.1f MB/s, over "
		 "%.1f s",
		 clock, by[t->sort], t->rates.n, t->rates.n == 1 ? "" : "s", silent, r, w,
		 bytes / 1e6, t->seconds);
}

static void draw(const struct top *t)
{
	char line[4600];
	int lines, width, keep;

	tc_screen_size(&lines, &width);
	keep = keep_for(width);
	tc_screen_begin();
	title(t, line, sizeof line);
	tc_screen_line(line, width, false);
	tc_screen_line("q quit, space now, sort: r requests, b bytes, l latency, m minor", width,
		       false);
	head_text(keep, line, sizeof line);
	tc_screen_line(line, width, true);
	for (size_t i = 0; i < t->rates.n && (int)i < lines - 4; i++) {
		row_text(t->rates.row[i], keep, line, sizeof line);
		tc_screen_line(line, width, false);
	}
	tc_screen_end();
}

static int print_lines(const struct top *t, struct td_err *err)
{
	char line[4600];
	int keep = keep_for(INT_MAX);

	title(t, line, sizeof line);
	puts(line);
	head_text(keep, line, sizeof line);
	puts(line);
	for (size_t i = 0; i < t->rates.n; i++) {
		row_text(t->rates.row[i], keep, line, sizeof line);
		puts(line);
	}
	return tc_put_line("", err);
}

static int print_json(const struct top *t, struct td_err *err)
{
	json_t *disks = json_array(), *o;
	struct timespec ts;
	int bad;

	clock_gettime(CLOCK_REALTIME, &ts);
	for (size_t i = 0; i < t->rates.n; i++)
		json_array_append(disks, t->rates.row[i]);
	o = json_pack("{s:f, s:f, s:i, s:o}", "time",
		      (double)ts.tv_sec + (double)(ts.tv_nsec / 1000000) / 1e3, "seconds",
		      t->seconds, "silent", (int)t->silent, "disks", disks);
	bad = json_dumpf(o, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
	json_decref(o);
	return bad ? td_fail(err, errno ? errno : EIO, "cannot write to standard output: %s",
			     strerror(errno ? errno : EIO))
		   : tc_put_line("", err);
}

/* False: the end. */
static bool key(struct top *t, int c)
{
	switch (c) {
	case 'r':
		t->sort = BY_REQUESTS;
		break;
	case 'b':
		t->sort = BY_BYTES;
		break;
	case 'l':
		t->sort = BY_LATENCY;
		break;
	case 'm':
		t->sort = BY_MINOR;
		break;
	case 'q':
	case 'Q':
	case -2:
		return false;
	}
	sort_by = t->sort;
	if (t->rates.n)
		qsort(t->rates.row, t->rates.n, sizeof *t->rates.row, compare_rows);
	return true;
}

static int live(struct top *t, double delay, int count, struct td_err *err)
{
	int ret = tc_screen_open(err), c = 0;
	double until;

	for (int shown = 0; !ret && (count < 1 || shown < count); shown++) {
		for (until = t->at + (shown ? delay : FIRST); now_s() < until;) {
			draw(t);
			c = tc_screen_wait(until - now_s() > 0 ? until - now_s() : 0);
			if (!key(t, c))
				goto out;
			if (c == ' ')
				break;
		}
		ret = sample(t, err);
	}
	if (!ret)
		draw(t);
out:
	tc_screen_close();
	return ret;
}

static int batch(struct top *t, double delay, int count, struct td_err *err)
{
	int ret = 0;

	for (int shown = 0; !ret && (count < 1 || shown < count); shown++) {
		double left = t->at + delay - now_s();

		if (left > 0)
			poll(NULL, 0, (int)(left * 1000) + 1);
		ret = sample(t, err);
		if (!ret)
			ret = t->args->json ? print_json(t, err) : print_lines(t, err);
	}
	return ret;
}

int tc_cmd_top(const struct tc_args *a, struct td_err *err)
{
	struct top t = {.args = a};
	double delay = a->delay > 0 ? a->delay : 2;
	int ret = sample(&t, err);

	if (!ret)
		ret = a->batch || a->json || !tc_screen_possible() ? batch(&t, delay, a->count, err)
								   : live(&t, delay, a->count, err);
	tc_rows_free(&t.last);
	tc_rows_free(&t.rates);
	return ret;
}
