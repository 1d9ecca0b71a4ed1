/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record says how a disk is open, in a file that outlives the process (disk<minor> in the
 * control directory), so that a successor opens the same image in the same way (tap-ctl revive).
 * It is written when a disk is opened, paused or resumed, and when a flush of it has failed; it is
 * removed when the disk is closed.  A thread beside the one that serves writes it, as that may take
 * long, and one version after the other.  Keys are in no file: the user who revives an encrypted
 * disk gives its key.  One JSON object:
 *
 *   args, options, read_only, name   as the control operation open takes them
 *   encrypted: bool                  it is open with a key
 *   paused: bool, sectors            the image is closed; the guest knows the disk with that size
 *   sticky: errno                    a flush failed: writes and flushes go on failing
 *   born: text, file: text           which opening of a disk this is, and which file; for who
 *                                    stands on it (tapdisk/parent-disk.h)
 *   beneath: {born, file, args}      the disk that it stands on; absent: none
 *   mirror_failed: bool              stays until the disk gets another (tapdisk/mirror/mirror.h)
 *   redirected: bool                 the leaf is full, and the mirror has what follows; absent: no
 *   mirror_server: [n, n]            which process has the mirror's copy; absent: not known
 *   log: the host's boot             there is a redo log (G6 of lib/redo.h); "": none
 *   commit: {image, parent, state,   a live commit, under way or over (struct vbd_job_was);
 *            text, error, lost, at,  absent: none
 *            done, all, rate}
 */
#ifndef TAPDISK_RECORD_H
#define TAPDISK_RECORD_H

#include <jansson.h>

#include "tapdisk/vbd/vbd.h"

bool record_log(const json_t *past); /* does it tell of a log, of this boot of the host? */
void record_job(const json_t *past, struct vbd_job_was *out); /* its live commit */
/* which opening it is, what it stands on, and who has its mirror's copy */
void record_identity(const json_t *past, struct vbd_past *out);
json_t *record_json(const struct vbd *v); /* NULL: the image's name is no text */
/* On a fiber: 0 when the file says what is true now, or there is none, as a name is no text; or
 * -errno, logged, and it says what it said. */
int record_write(struct vbd *v);
/* The same, where what it said is not true any more and would mislead a successor: rather than that
 * it is removed, so that there is none.  -errno: neither could be done, and it misleads. */
int record_renew(struct vbd *v);
/* The same, begun from anywhere, where nobody waits for it. */
void record_soon(struct vbd *v);
/* On a fiber: what others have begun to write is written. */
void record_settle(struct vbd *v);
void record_remove(struct vbd *v); /* on a fiber */

/* What stands there.  What it does not say stays as it was; spec: to be freed.  0, or -errno with
 * nothing changed. */
struct vbd_recorded {
	char *spec;
	struct vbd_options opt;
	struct vbd_past past;
};
int record_read(int minor, struct vbd_recorded *out);

#endif
