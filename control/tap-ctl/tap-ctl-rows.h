/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rows that `tap-ctl list' shows: collected from the tapdisks and the markers, sorted, filtered
 * and written.
 */
#ifndef CONTROL_TAP_CTL_ROWS_H
#define CONTROL_TAP_CTL_ROWS_H

#include "control/tap-ctl/tap-ctl.h"

/* A list of rows.  Each is an object {pid, minor, state, args, mode, reason, ring}; what is not
 * known is absent. */
struct tc_rows {
	json_t **row;
	size_t n, room;
};

/* Adds row (stolen). */
int tc_rows_add(struct tc_rows *rows, json_t *row, struct td_err *err);
void tc_rows_free(struct tc_rows *rows);

/* Drops what a's filters (pid, minor, type, file; all that are given) do not let through; then
 * sorts: disks by minor, and the tapdisks without a disk after them. */
void tc_rows_filter(struct tc_rows *rows, const struct tc_args *a);
void tc_rows_sort(struct tc_rows *rows);

/* For programs: `pid=9 minor=0 state=0 args=aio:/p', absent fields left out. */
void tc_rows_plain(const struct tc_rows *rows);
/* For people: a header and aligned columns. */
void tc_rows_table(const struct tc_rows *rows);
void tc_rows_json(const struct tc_rows *rows);

/* --- tap-ctl-file.c --- */

#define TC_FILE_ID 48

/* Which file that is, as a tapdisk's list has it (struct vbd.file); empty: none. */
void tc_file_id(const char *path, char id[TC_FILE_ID]);
/* Is the image of this disk, a row or a record, the file id?  While it is paused no file is open,
 * and the one it had may be deleted and its number another's: then it is what its path leads to
 * now. */
bool tc_is_file(const json_t *disk, const char *id);

#endif
