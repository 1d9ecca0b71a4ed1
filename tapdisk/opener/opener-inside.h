/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the opener's files share, beside opener-rights.h. */
#ifndef TAPDISK_OPENER_INSIDE_H
#define TAPDISK_OPENER_INSIDE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* --- opener-named.c: what the host has named; any thread; nothing is ever forgotten --- */

struct named {
	struct named *next;
	bool image;  /* and not a file beside one, or a socket */
	bool writes; /* not read-only; atomic */
	char path[];
};

const struct named *named_first(void); /* the last that was named */
void named_add(const char *path, bool image, bool writes);
bool named_has(const char *path);
bool named_is_beside(const char *path); /* in the directory of a cluster's configuration */
bool named_writes(const char *path);    /* has it, for writing too */
bool named_has_minor(long minor);
bool named_settles(long minor); /* its log is to be applied, which a dead tapdisk has left */
bool named_keeper(pid_t pid);   /* a minor that is given back gets its name */
bool named_has_device(unsigned domid, unsigned devid);
bool named_has_devices(void);
/* The guest whose devices are the only ones that are connected; -1: none, or several. */
int named_only_domain(void);
bool named_stands_on(long minor); /* parent-disk: another tapdisk's */
bool named_commits(void);         /* a live commit was asked for */
bool named_remote(void);          /* a disk on other hosts */
pid_t named_successor(void);

/* What a disk's record says; the openers alone write them. */
void named_learn_record(const char *path);

/* Does a record say nothing but what was named?  opener-record.c asks. */
bool named_covers(const json_t *record);

/* --- opener-seen.c: parents that were granted --- */

void seen_add(int fd, const char *path);
bool seen_has(const struct stat *st);
bool seen_is_path(const char *path);
/* Calls fn with each, until it says true, which is the result. */
bool seen_any(bool (*fn)(const struct stat *st, const char *path, void *arg), void *arg);

/* --- opener-seal.c --- */

/* The minor was named, and its marker names this tapdisk; under the seal that stays so. */
bool seal_is_ours(long minor);

/* --- opener-places.c: names that need none to be named --- */

/* What remains of path below dir; NULL: it is not there. */
const char *place_below(const char *path, const char *dir);
/* PREFIX<number> and then nothing, or a dot: the number; else -1. */
long place_number(const char *name, const char *prefix, const char **rest);
/* The minor whose file it is, whoever has that; -1: none's, or named by the tapdisk's own pid. */
long place_minor(const char *path);
bool place_is_own_marker(const char *path);
bool place_is_own(const char *path); /* a file of this tapdisk, or of one of its minors */
/* its sockets and counters, to be looked at and removed */
bool place_is_successors(const char *path);
long place_flushes(const char *path); /* the minor whose flushes it counts; -1: none */
bool place_is_disk_link(const char *target, const char *path);
bool place_is_record(const char *path);
bool place_is_record_beneath(const char *path); /* of a disk that one of ours stands on */
bool place_is_log(const char *path);            /* of any disk */
bool place_is_marker(const char *path);         /* or the directory of markers, or that above */
bool place_is_for_all(const char *path);
bool place_has_libraries(const char *path); /* where every user may read them */
bool place_is_for_remote(const char *path); /* of disks on other hosts */
/* The directory below which such a path with ".." in it is looked up; NULL: nowhere. */
const char *place_with_dots(const char *path, const char **rest);

extern pid_t opener_for; /* the tapdisk */

#endif
