/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tap-ctl/tap-ctl-rows.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/output.h"

int tc_rows_add(struct tc_rows *rows, json_t *row, struct td_err *err)
{
	if (rows->n == rows->room) {
		size_t room = rows->room ? 2 * rows->room : 32;
		json_t **more = realloc(rows->row, room * sizeof *more);

		if (!more) {
			json_decref(row);
			return td_fail(err, ENOMEM, "out of memory");
		}
		rows->row = more;
		rows->room = room;
	}
	rows->row[rows->n++] = row;
	return 0;
}

void tc_rows_free(struct tc_rows *rows)
{
	while (rows->n)
		json_decref(rows->row[--rows->n]);
	free(rows->row);
}

/* aio and raw are one type. */
static bool same_type(const char *want, const char *args, size_t len)
{
	if (!strcmp(want, "raw"))
		want = "aio";
	if (len == 3 && !strncmp(args, "raw", 3))
		args = "aio";
	return strlen(want) == len && !strncmp(want, args, len);
}

/* The image that -f names: as it was given, from here, where its links lead, and which file that
 * is. */
struct wanted {
	char *from_here, *real, id[TC_FILE_ID];
};

static void wanted_find(struct wanted *w, const char *file)
{
	*w = (struct wanted){};
	if (!file)
		return;
	w->from_here = tc_absolute(file);
	w->real = realpath(file, NULL);
	tc_file_id(file, w->id);
}

static bool wanted_is(const struct wanted *w, const char *file, const char *path, const json_t *row)
{
	return !strcmp(path, file) || (w->from_here && !strcmp(path, w->from_here)) ||
	       (w->real && !strcmp(path, w->real)) || tc_is_file(row, w->id);
}

static bool row_passes(const json_t *row, const struct tc_args *a, const struct wanted *w)
{
	const json_t *pid = json_object_get(row, "pid"), *minor = json_object_get(row, "minor");
	const char *args = json_string_value(json_object_get(row, "args")),
		   *colon = args ? strchr(args, ':') : NULL;
	const char *name = json_string_value(json_object_get(row, "name"));

	if (a->pid >= 0 && (!pid || json_integer_value(pid) != a->pid))
		return false;
	if (a->minor >= 0 && (!minor || json_integer_value(minor) != a->minor))
		return false;
	if (a->type && (!colon || !same_type(a->type, args, colon - args)))
		return false;
	if (a->name && (!name || strcmp(name, a->name)))
		return false;
	return !a->file || (colon && wanted_is(w, a->file, colon + 1, row));
}

void tc_rows_filter(struct tc_rows *rows, const struct tc_args *a)
{
	struct wanted w;
	size_t kept = 0;

	wanted_find(&w, a->file);
	for (size_t i = 0; i < rows->n; i++) {
		if (row_passes(rows->row[i], a, &w))
			rows->row[kept++] = rows->row[i];
		else
			json_decref(rows->row[i]);
	}
	rows->n = kept;
	free(w.from_here);
	free(w.real);
}

static json_int_t row_key(const json_t *row, const char *name)
{
	const json_t *v = json_object_get(row, name);

	return v ? json_integer_value(v) : INT_MAX;
}

static int row_cmp(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	json_int_t kx = row_key(x, "minor"), ky = row_key(y, "minor");

	if (kx == ky) {
		kx = row_key(x, "pid");
		ky = row_key(y, "pid");
	}
	return (kx > ky) - (kx < ky);
}

void tc_rows_sort(struct tc_rows *rows)
{
	if (rows->n)
		qsort(rows->row, rows->n, sizeof *rows->row, row_cmp);
}

void tc_rows_plain(const struct tc_rows *rows)
{
	for (size_t i = 0; i < rows->n; i++) {
		const json_t *v, *row = rows->row[i];
		const char *sep = "";

		if ((v = json_object_get(row, "pid"))) {
			printf("pid=%lld", (long long)json_integer_value(v));
			sep = " ";
		}
		if ((v = json_object_get(row, "minor"))) {
			printf("%sminor=%lld", sep, (long long)json_integer_value(v));
			sep = " ";
		}
		if ((v = json_object_get(row, "state")))
			printf("%sstate=%#llx", sep, (unsigned long long)json_integer_value(v));
		if ((v = json_object_get(row, "args")) && json_is_string(v)) {
			printf(" args=");
			td_output_text(stdout, json_string_value(v));
		}
		putchar('\n');
	}
}

enum { COL_PID, COL_MINOR, COL_STATE, COL_CACHE, COL_RING, COLS };

struct cells {
	char text[COLS][24];
};

static void cell_number(char *cell, size_t size, const json_t *v, const char *fmt)
{
	if (v)
		snprintf(cell, size, !strcmp(fmt, "x") ? "%#llx" : "%lld",
			 (long long)json_integer_value(v));
	else
		snprintf(cell, size, "-");
}

static void cell_text(char *cell, size_t size, const json_t *v)
{
	snprintf(cell, size, "%s", json_is_string(v) ? json_string_value(v) : "-");
}

static void table_cells(const json_t *row, struct cells *c)
{
	cell_number(c->text[COL_PID], sizeof c->text[0], json_object_get(row, "pid"), "d");
	cell_number(c->text[COL_MINOR], sizeof c->text[0], json_object_get(row, "minor"), "d");
	cell_number(c->text[COL_STATE], sizeof c->text[0], json_object_get(row, "state"), "x");
	cell_text(c->text[COL_CACHE], sizeof c->text[0], json_object_get(row, "mode"));
	cell_text(c->text[COL_RING], sizeof c->text[0], json_object_get(row, "ring"));
}

static void table_line(const struct cells *c, const size_t *width)
{
	printf("%*s  %*s  %*s", (int)width[COL_PID], c->text[COL_PID], (int)width[COL_MINOR],
	       c->text[COL_MINOR], (int)width[COL_STATE], c->text[COL_STATE]);
	printf("  %-*s  %-*s  ", (int)width[COL_CACHE], c->text[COL_CACHE], (int)width[COL_RING],
	       c->text[COL_RING]);
}

static void widen(const struct cells *c, size_t *width)
{
	for (int i = 0; i < COLS; i++)
		if (strlen(c->text[i]) > width[i])
			width[i] = strlen(c->text[i]);
}

void tc_rows_table(const struct tc_rows *rows)
{
	const struct cells head = {{"PID", "MINOR", "STATE", "CACHE", "RING"}};
	size_t width[COLS] = {};
	struct cells c;

	widen(&head, width);
	for (size_t i = 0; i < rows->n; i++) {
		table_cells(rows->row[i], &c);
		widen(&c, width);
	}
	table_line(&head, width);
	puts("IMAGE");
	for (size_t i = 0; i < rows->n; i++) {
		const char *args = json_string_value(json_object_get(rows->row[i], "args"));
		const char *reason = json_string_value(json_object_get(rows->row[i], "reason"));

		table_cells(rows->row[i], &c);
		table_line(&c, width);
		td_output_text(stdout, args ? args : "-");
		if (reason && *reason) {
			printf("  (");
			td_output_text(stdout, reason);
			putchar(')');
		}
		putchar('\n');
	}
}

void tc_rows_json(const struct tc_rows *rows)
{
	printf("[");
	for (size_t i = 0; i < rows->n; i++) {
		fputs(i ? ",\n " : "", stdout);
		json_dumpf(rows->row[i], stdout, JSON_PRESERVE_ORDER);
	}
	printf("]\n");
}
