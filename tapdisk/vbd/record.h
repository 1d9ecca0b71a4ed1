/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record says how a disk is open, in a file that outlives the process (disk<minor> in the
 * control directory), so that a successor opens the same image in the same way (tap-ctl revive).
 * It is written when a disk is opened, paused or resumed, and when a flush of it has failed; it is
 * removed when the disk is closed.  Keys are in no file: the user who revives an encrypted disk
 * gives its key.  One JSON object:
 *
 *   args, options, read_only, name   as the control operation open takes them
 *   encrypted: bool                  it is open with a key
 *   paused: bool, sectors            the image is closed; the guest knows the disk with that size
 *   sticky: errno                    a flush failed: writes and flushes go on failing
 *   born: text, file: text           which opening of a disk this is, and which file; for who
 * stands on it (tapdisk/parent-disk.h) beneath: {born, file, args}      the disk that it stands on;
 * absent: none mirror_failed: bool              stays until the disk gets another
 * (tapdisk/mirror.h) log: the host's boot             there is a redo log (G6 of lib/redo.h); "":
 * none commit: {image, parent, state, text, error, at, done, all, rate} a live commit, under way or
 * over (struct vbd_job_was); absent: none
 */
#ifndef TAPDISK_RECORD_H
#define TAPDISK_RECORD_H

#include <jansson.h>

#include "tapdisk/vbd/vbd.h"

bool record_log(const json_t *past); /* does it tell of a log, of this boot of the host? */
void record_job(const json_t *past, struct vbd_job_was *out); /* its live commit */
/* which opening it is, and what it stands on */
void record_identity(const json_t *past, struct vbd_past *out);
json_t *record_json(const struct vbd *v); /* NULL: the image's name is no text */
/* a failure is logged: without a record there is no successor */
void record_write(const struct vbd *v);
void record_remove(const struct vbd *v);

/* What stands there.  What it does not say stays as it was; spec: to be freed.  0, or -errno with
 * nothing changed. */
struct vbd_recorded {
	char *spec;
	struct vbd_options opt;
	struct vbd_past past;
};
int record_read(int minor, struct vbd_recorded *out);

#endif
