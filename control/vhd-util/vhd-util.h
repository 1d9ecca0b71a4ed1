/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of vhd-util share. */
#ifndef CONTROL_VHD_UTIL_H
#define CONTROL_VHD_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "td/log.h"

struct vu_opt {
	char letter;
	const char *name; /* long, or NULL */
	const char *arg;  /* what the help calls its value; NULL: it takes none */
	const char *help;
};

/* What was given: val[letter] is its value, or "" of one that takes none; NULL: not given. */
struct vu_args {
	const char *val[128];
	char **rest; /* of a command that takes names */
	int nrest;
	bool json;
};

struct vu_cmd {
	const char *name, *summary;
	const struct vu_opt *opts; /* ends with letter == 0 */
	const char *need;          /* letters that must be given */
	bool names;                /* takes names behind the options */
	int (*run)(const struct vu_args *a, struct td_err *err);
};

extern const struct vu_cmd vu_cmds[]; /* ends with name == NULL */

/* Parses argv (argv[0] is the command's name); 1: the help was asked for and given. */
int vu_parse(const struct vu_cmd *cmd, int argc, char **argv, struct vu_args *a,
	     struct td_err *err);
void vu_usage(bool to_stderr);

/* The value of option `letter' as a number of at most max; the default when it is not given. */
int vu_number(const struct vu_args *a, char letter, uint64_t max, uint64_t *v, struct td_err *err);
/* The same in MiB: *v is in bytes. */
int vu_mib(const struct vu_args *a, char letter, uint64_t *v, struct td_err *err);
/* Bytes to stdout. */
int vu_put(const void *buf, size_t len, struct td_err *err);

int vu_create(const struct vu_args *a, struct td_err *err);
int vu_snapshot(const struct vu_args *a, struct td_err *err);
int vu_query(const struct vu_args *a, struct td_err *err);
int vu_read(const struct vu_args *a, struct td_err *err);
int vu_set(const struct vu_args *a, struct td_err *err);
int vu_check(const struct vu_args *a, struct td_err *err);
int vu_repair(const struct vu_args *a, struct td_err *err);
int vu_resize(const struct vu_args *a, struct td_err *err);
int vu_revert(const struct vu_args *a, struct td_err *err);
int vu_fill(const struct vu_args *a, struct td_err *err);
int vu_coalesce(const struct vu_args *a, struct td_err *err);
int vu_modify(const struct vu_args *a, struct td_err *err);
/* -EBUSY with text unless parent is among those of path, which is in use. */
int vu_only_down(const char *path, const char *parent, struct td_err *err);
/* Is it the leaf of a disk with leaf-cache=yes?  vhd-util-relink.c. */
bool vu_only_caches(const char *path);

/* modify -p of an image that is in use, when busy says who has it; vhd-util-relink.c. */
int vu_relink(const char *path, const char *parent, bool raw, struct td_err *busy,
	      struct td_err *err);
int vu_scan(const struct vu_args *a, struct td_err *err);
int vu_key(const struct vu_args *a, struct td_err *err);
int vu_copy(const struct vu_args *a, struct td_err *err);

#endif
