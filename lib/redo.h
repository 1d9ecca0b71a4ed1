/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a format knows of its image that the file does not: metadata that is in memory and waits for a commit.  A guest's flush writes it
 * down, and a power cut before that loses what was never promised; but a process that dies alone must lose nothing that was answered,
 * since its guest lives on.  So each change of such metadata stands in a log in memory that outlives the process, from before the
 * answer of the request that needs it until a commit has it in the file.  Who opens the image in the dead one's place applies it first.
 *
 * E1 a record is whole before it counts; a change is recorded before its request is answered, or (the log is full, or there could be none)
 *    the request is answered after a commit
 * E2 a record stays until a commit that began after it was made has succeeded
 * E3 records are applied in the order in which they were made; the first of two waves (what others refer to: counts of references)
 *    is durable before the second, and the data before both, as in a commit
 * E4 a record that was made after one that found no room may refer to that: it counts only when a commit has taken in what was missed.
 *    Until then (missed()) whatever may need it is answered after a commit too, be it a write to what a missed change has made room for
 *
 * Two halves: a commit freezes the one that is written to, and goes on in the other; the frozen one is emptied when it succeeds.  When it
 * fails, the next freezes nothing, and what it has covered of the half that is written to is passed over from then on.
 * A log that has missed something is applied to a file that a commit may have changed in part: who puts into it what was there before
 * (a count of nought, and then of one again) has to have a commit in between.
 * Home thread only.  NULL as a log is fine everywhere: nobody takes the place of such a process.
 */
#ifndef TD_LIB_REDO_H
#define TD_LIB_REDO_H

#include "td/io.h"

#ifndef TD_REDO_BYTES /* tests/crash/hostlab has less, so that it is soon full */
#define TD_REDO_BYTES (256u << 10) /* of a half */
#endif

struct td_redo;
struct td_file;

enum td_redo_wave { TD_REDO_FIRST, TD_REDO_SECOND };

/* A new one, empty, in the place of what stood at path; it never fails, but may be one that takes no record (which is logged). */
struct td_redo *td_redo_new(const char *path);
/* A dead process's; as new when there is none, or it makes no sense. */
struct td_redo *td_redo_adopt(const char *path);
void td_redo_free(struct td_redo *r); /* the file stays */

bool td_redo_pending(const struct td_redo *r); /* is there anything to apply? */
/* On a fiber, before anything else is done with the file of the image, and when its data elsewhere are durable: applies what is there, durably, and empties it.  0 or -errno with text. */
int td_redo_apply(struct td_redo *r, struct td_file *f, struct td_err *err);

/* len bytes of the image's file at off are data now; false: not recorded, and missed() until a commit has it. */
bool td_redo_put(struct td_redo *r, enum td_redo_wave wave, uint64_t off, const void *data, uint32_t len);
bool td_redo_missed(const struct td_redo *r);
bool td_redo_crowded(const struct td_redo *r); /* a commit would be good */
void td_redo_freeze(struct td_redo *r);        /* a commit has taken its picture of all that is dirty */
void td_redo_done(struct td_redo *r, int err); /* it is over */

#endif
