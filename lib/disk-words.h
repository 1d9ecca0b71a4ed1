/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of single disks that their toolstack cannot pass: in files *.conf in two directories.
 * The first belongs to toolstacks and is lost at a reboot; the second is the administrator's.
 *
 *   [/srv/a.img]          the image; below /dev any name of the device
 *   cache = writethrough  as after -o, until the next image
 *
 * Only the first directory that names an image counts for it.  Two files of one directory that give
 * an image different options are an error: nothing is guessed.
 */
#ifndef TD_LIB_DISK_WORDS_H
#define TD_LIB_DISK_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "td/log.h"

/* Both directories, with a colon between, instead of /run/tapdisk/disks.d and
 * SYSCONFDIR/tapdisk/disks.d. */
#define TD_DISKS_ENV "TAPDISK_DISKS"

#define TD_DISK_WORDS 2048 /* bytes of the words of one image */

enum { TD_DISKS_RUN, TD_DISKS_ADMIN, TD_DISKS_DIRS };

/* One of the directories; 0 or -ENAMETOOLONG. */
int td_disks_dir(int which, char *out, size_t size);

/* Is there any such directory?  Never waits. */
bool td_disks_any(void);

/*
 * The words of the image at an absolute path: "key=value\n" each; "": there are none.  file
 * (PATH_MAX bytes): where they are.  It looks at the image: in a worker thread.  0, or -errno with
 * file and line.
 */
int td_disk_words(const char *path, char words[TD_DISK_WORDS], char *file, struct td_err *err);

/* Calls fn for each image of a file, with its words.  0 or -errno with text. */
int td_disks_read(const char *file, void (*fn)(const char *image, const char *words, void *arg),
		  void *arg, struct td_err *err);

#endif
