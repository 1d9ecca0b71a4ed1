/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* top: what all disks do, again and again: on a terminal as a picture, elsewhere or with -b as lines, with --json as objects. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/tap-ctl-ask.h"
#include "control/tap-ctl-rate.h"
#include "control/tap-ctl-screen.h"
#include "lib/ctl-client.h"

#define FIRST  0.5 /* s from the first look to the second, so that one does not wait long for the first numbers */
#define SILENT 2   /* s that a tapdisk has to answer */

enum sort { BY_REQUESTS, BY_BYTES, BY_LATENCY, BY_MINOR };

struct top {
	struct tc_rows last; /* as asked for */
	double at;           /* when; CLOCK_MONOTONIC seconds */
	struct tc_rows rates;
	size_t silent;       /* tapdisks that do not answer */
	double seconds;      /* that the rates are of */
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
	return json_integer_value(json_object_get(json_object_get(json_object_get(row, kind), "latency_ns"), key));
}

static json_int_t errors(const json_t *row)
{
	return (json_int_t)(rate(row, "read", "errors") + rate(row, "write", "errors") + rate(row, "flush", "errors") +
	                    rate(row, "discard", "errors"));
}

static double weight(const json_t *row, enum sort by)
{
	json_int_t r, w;

	switch (by) {
	case BY_REQUESTS:
		return rate(row, "read", "per_s") + rate(row, "write", "per_s") + rate(row, "flush", "per_s") +
		       rate(row, "discard", "per_s");
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

static int compare(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	double wx = weight(x, sort_by), wy = weight(y, sort_by);
	json_int_t mx = json_integer_value(json_object_get(x, "minor")), my = json_integer_value(json_object_get(y, "minor"));

	return wx != wy ? (wx < wy) - (wx > wy) : (mx > my) - (mx < my);
}

/* Looks at all disks, and makes the rates since the last look. */
static int look(struct top *t, struct td_err *err)
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
		    (t->args->minor < 0 || json_integer_value(json_object_get(row, "minor")) == t->args->minor))
			ret = tc_rows_add(&t->rates, tc_rate(row, tc_rate_before(&t->last, row), t->seconds > 0 ? t->seconds : 1), err);
	}
	tc_rows_free(&t->last);
	t->last = rows;
	t->at = now;
	sort_by = t->sort;
	if (t->rates.n)
		qsort(t->rates.row, t->rates.n, sizeof *t->rates.row, compare);
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

static const char head[] = "  PID MINOR GUEST      MODE           R/s    W/s   F/s  RMB/s  WMB/s   QD  R50  R99  W50  W99  F99  ERR DISK";

static void row_text(const json_t *row, char *s, size_t size)
{
	static const struct { const char *kind, *part; } cells[] = {{"read", "p50"}, {"read", "p99"}, {"write", "p50"}, {"write", "p99"},
	                                                            {"flush", "p99"}};
	const char *guest = json_string_value(json_object_get(row, "guest")), *mode = json_string_value(json_object_get(row, "mode")),
	           *args = json_string_value(json_object_get(row, "args"));
	json_int_t state = json_integer_value(json_object_get(row, "state"));
	char time[5][16];

	for (size_t i = 0; i < 5; i++)
		time_text(latency(row, cells[i].kind, cells[i].part), time[i], sizeof time[i]);
	snprintf(s, size, "%5lld %5lld %-10.10s %-12.12s %6.0f %6.0f %5.0f %6.1f %6.1f %4lld %4s %4s %4s %4s %4s %4lld %s%s",
	         (long long)json_integer_value(json_object_get(row, "pid")), (long long)json_integer_value(json_object_get(row, "minor")),
	         guest ? guest : "-", mode ? mode : "-", rate(row, "read", "per_s"), rate(row, "write", "per_s"),
	         rate(row, "flush", "per_s"), rate(row, "read", "bytes_per_s") / 1e6, rate(row, "write", "bytes_per_s") / 1e6,
	         (long long)json_integer_value(json_object_get(row, "queue")), time[0], time[1], time[2], time[3], time[4],
	         (long long)errors(row),
	         state & TD_STATE_FAILED ? "[FAILED] " : state & TD_STATE_NO_SPACE ? "[no space] " : state & TD_STATE_PAUSED ? "[paused] " : "",
	         args ? args : "");
	for (char *p = s; *p; p++) /* a file name must not move the cursor */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
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
		snprintf(silent, sizeof silent, ", %zu tapdisk%s", t->silent, t->silent == 1 ? " does not answer" : "s do not answer");
	snprintf(s, size, "tap-ctl top %s by %s: %zu disk%s%s; %.0f reads/s, %.0f writes/s, %.1f MB/s, over %.1f s", clock, by[t->sort],
	         t->rates.n, t->rates.n == 1 ? "" : "s", silent, r, w, bytes / 1e6, t->seconds);
}

static void draw(const struct top *t)
{
	char line[4600];
	int lines, columns;

	tc_screen_size(&lines, &columns);
	tc_screen_begin();
	title(t, line, sizeof line);
	tc_screen_line(line, columns, false);
	tc_screen_line("q quit, space now, sort: r requests, b bytes, l latency, m minor", columns, false);
	tc_screen_line(head, columns, true);
	for (size_t i = 0; i < t->rates.n && (int)i < lines - 4; i++) {
		row_text(t->rates.row[i], line, sizeof line);
		tc_screen_line(line, columns, false);
	}
	tc_screen_end();
}

static int print_lines(const struct top *t, struct td_err *err)
{
	char line[4600];

	title(t, line, sizeof line);
	printf("%s\n%s\n", line, head);
	for (size_t i = 0; i < t->rates.n; i++) {
		row_text(t->rates.row[i], line, sizeof line);
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
	o = json_pack("{s:f, s:f, s:i, s:o}", "time", (double)ts.tv_sec + (double)(ts.tv_nsec / 1000000) / 1e3, "seconds", t->seconds,
	              "silent", (int)t->silent, "disks", disks);
	bad = json_dumpf(o, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
	json_decref(o);
	return bad ? td_fail(err, errno ? errno : EIO, "cannot write the numbers") : tc_put_line("", err);
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
		qsort(t->rates.row, t->rates.n, sizeof *t->rates.row, compare);
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
		ret = look(t, err);
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
		ret = look(t, err);
		if (!ret)
			ret = t->args->json ? print_json(t, err) : print_lines(t, err);
	}
	return ret;
}

int tc_cmd_top(const struct tc_args *a, struct td_err *err)
{
	struct top t = {.args = a};
	double delay = a->delay > 0 ? a->delay : 2;
	int ret = look(&t, err);

	if (!ret)
		ret = a->batch || a->json || !tc_screen_possible() ? batch(&t, delay, a->count, err) : live(&t, delay, a->count, err);
	tc_rows_free(&t.last);
	tc_rows_free(&t.rates);
	return ret;
}
