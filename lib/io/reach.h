/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which files an image may name.  An image names its parent and its data file, and it may come from
 * a stranger; a file that it names is opened only where the host allows it.
 *
 * RW1 Where: in the leaf's own directory, in the host's parent-dirs, or below one of them.  The
 *    directory is opened as the host names it; the file is looked up from its descriptor, without
 *    leaving the directory, and the file is then opened by the descriptor that was found: a path is
 *    never walked twice.  A link in the directory that leads elsewhere is followed only into
 *    another of these directories.  /dev is an exception, since links there are the host's own:
 *    from /dev/VG/LV to ../dm-N, for block devices alone.
 * RW2 Which: those that `parents' accepts.  By default a parent must be known by a uuid that the
 *    image remembers, which no stranger can guess, or it must be frozen: nobody may write it, as is
 *    true of a file without any write permission, or of a read-only device.  A disk in use is
 *    neither.
 * RW3 A file that is not accepted is not locked: so an image cannot keep the owner of another image
 *    from writing it.
 */
#ifndef TD_LIB_REACH_H
#define TD_LIB_REACH_H

#include <stdbool.h>
#include <sys/stat.h>

#include "td/log.h"

struct td_reach {
	char *own;  /* the leaf's directory, as the host names it; NULL: none */
	char *real; /* and without links; or, of an LVM volume, "/dev/mapper/VG-", with which its
		       neighbours' names begin */
	const char *dirs;    /* parent-dirs: absolute, colons between; or NULL */
	const char *parents; /* what td_reach_parents_valid() lets pass; NULL: "frozen" */
	/* the data file that the host has named for this disk; NULL: it has none */
	const char *data;
	long uid;                  /* the leaf's owner; -1: it is not known */
	bool known;                /* the file to be opened is known by its uuid */
	const unsigned char *uuid; /* of 16 bytes, of the VHD that is looked for; or NULL */
};

/*
 * Does both for a process that may open no file itself, by what the host has told to another one.
 * As td_reach_open(), and td_reach_may() is not asked; write: the file is opened for more than
 * reading.  NULL: it is done here.
 */
extern int (*td_reach_find)(const char *path, const unsigned char *uuid, bool write,
			    struct td_err *err);

/*
 * For a leaf called path.  May block.  0 or -ENOMEM.  The strings that it is given are kept by
 * reference.  After it, td_reach_fini().
 */
int td_reach_init(struct td_reach *r, const char *path, const char *dirs, const char *parents);
void td_reach_fini(struct td_reach *r);

/* no, or, with colons between: frozen, same-uid, absolute paths of images or of directories. */
bool td_reach_parents_valid(const char *parents);

/* Is path (resolved, see lib/path.h) in or below one of these directories?  By its text. */
bool td_reach_has(const struct td_reach *r, const char *path);

/* Opens path with O_PATH as RW1 says.  May block.  The descriptor, or -errno with text. */
int td_reach_open(const struct td_reach *r, const char *path, struct td_err *err);

/* The same by hand, as on a kernel without openat2 (before Linux 5.6); for tests. */
int td_reach_walk(int dir, const char *name);

/*
 * For tools that make a file a parent: takes its write permissions away, so that RW2 lets it pass;
 * those of a device stay.  Root may write the file all the same, and so may anybody who is given
 * the permissions back.  0 or -errno.
 */
int td_reach_freeze(const char *path);

/* RW2, for the file with descriptor fd, called path.  May block.  0 or -errno with text. */
int td_reach_may(const struct td_reach *r, int fd, const char *path, struct td_err *err);

#endif
