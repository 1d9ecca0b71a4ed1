/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The redo log: an image's metadata that has changed in memory and waits for a commit, which writes
 * it to the file.  A guest's flush makes a commit, and a power cut before that loses only what was
 * never promised; but a process that dies alone must lose nothing that was answered, since its
 * guest lives on.  So each change of such metadata is in a log in memory that outlives the process,
 * from before the request that needs it is answered until a commit has written it to the file.  The
 * next open of the image applies the log first.
 *
 * E1 a record is whole before it counts; a change is recorded before its request is answered, or
 *    (the log is full, or there could be none) the request is answered after a commit
 * E2 a record stays until a commit that began after it was made has succeeded
 * E3 records are applied in the order in which they were made; the first of two waves (what
 *    others refer to: counts of references) is durable before the second, and the data before
 *    both, as in a commit
 * E4 a record that was made after a change that found no room in the log may refer to that change:
 *    it counts only when a commit has included the missed change.  Until then (missed()) each
 *    request that may need the missed change, such as a write into a block that it allocated, is
 *    answered after a commit too
 *
 * A log belongs to one state of one image:
 *
 * G1 Whoever opens an image for writing gives it a mark, a random number in a place of its
 *    header, before the log has a record, and takes it away at close, when the file has
 *    everything.  Our other writers remove a mark that they find.  The mark stays the same from
 *    open to close, so that no commit changes what the log builds on.  It costs a write of the
 *    header at
 *    each open and at each close, and a sync at a qcow2's open and at each close; nothing on the
 *    path of a request.
 * G2 A log names its image (device and inode; of a block device, its number or its name), the
 *    image's mark, and the host's boot.  It is applied only where all of these match.  Otherwise
 *    the image has been written by others since, or replaced: then the log is refused, and kept.
 * G3 In a qcow2 the mark lies where the format demands that a program that does not know it clears
 *    it when it opens the image for writing (the autoclear bits): QEMU does.  A VHD has no such
 *    place.  There the log keeps a sum of the block table too, as the file and the records
 *    together give it (a record and the sum after it become valid in one store, so commits do not
 *    change it), and of bitmaps, to which bits are only ever added, the file must have none that
 *    the log does not.  So every foreign change of the structure is found.  A foreign change of
 *    data is not found in a block that existed before and for which the log has no record; the log
 *    does not touch such data.
 * G4 Where an image cannot be marked (qcow2 of version 2, qcow, no space) the log takes no
 *    record, and E1's other half holds.
 * G5 A process that opens a marked image for writing looks for its log among all logs of this
 *    host, and applies it first; a reader is refused, with the command that applies the log.  Only
 *    a commit, or applying it, empties a log; it is removed only when it is empty, or by an
 *    explicit command (tap-ctl free -f).  A log that cannot be read (another version's, cut off)
 *    may be the image's: then the image is refused as well.
 * G6 A disk's record says whether there is a log (tapdisk/vbd/record.h): if the log is then
 *    missing, or this version cannot read it, that is an error.  The record is written after the
 *    open that it describes, so a log's path must never be empty in between: a new log replaces the
 *    old one in one step, by rename, and a log that is not used (G4) stays there, empty.  If an
 *    open fails or dies on the way, what the older record says is still true.
 * G7 A restart of the host voids logs: what it lost of the page cache was never promised, and
 *    what a log builds on may be lost as well.
 * G8 An open that writes to a file without reading its format (as a raw disk, or to make a new
 *    image of it) looks for such a log too, by the place of the mark, which the log names, and is
 *    refused.
 *
 * When a sync fails (S2 of lib/settle.h, C5 of tapdisk/cache/cache.c), the data that guests have
 * written since the last good flush may be lost, and a log's records refer to them.  Applied to the
 * file, the records would replace what an earlier flush has made durable (a parent's data, zeroes)
 * by unknown data.
 *
 * G9 After a failed sync, the log of that image is marked (failed) before the failure is reported
 *    to anybody; if the process dies first, the syncmark tells (lib/syncmark.h).  The log is not
 *    applied to the image any more.  The disk's own successor opens the image for reading alone,
 *    and reads through the log: what was answered reads as it was answered, the image stays at its
 *    last good flush, and each write and flush fails.  Anybody else is refused.  The log is removed
 *    when the disk is closed, which reports that the last flush failed, or by free -f.
 *
 * A log has two halves.  A commit freezes the half that records go to, and new records go to the
 * other half; the frozen half is emptied when the commit succeeds.  When it fails, the next commit
 * freezes nothing, and the records that it covers in the active half are skipped from then on.
 *
 * A log that has missed a change is applied to a file that a commit may have changed in part: code
 * that records an earlier value again (a count of nought, and then of one) must have a commit in
 * between; and for such a log G3's sum and bits are not checked.
 *
 * Home thread only.  NULL is accepted as a log everywhere: such a process has no successor.
 */
#ifndef TD_LIB_REDO_H
#define TD_LIB_REDO_H

#include "td/io.h"

#ifndef TD_REDO_BYTES              /* tests/crash/hostlab has less, so that it is soon full */
#define TD_REDO_BYTES (256u << 10) /* of a half */
#endif

struct td_redo;
struct td_file;
struct td_image;

enum td_redo_wave {
	TD_REDO_FIRST,
	TD_REDO_SECOND,
	/* or'ed to SECOND: a piece of a bitmap that bits are only added to (G3) */
	TD_REDO_BITS = 1u << 8,
};

/* A new one, empty; it never fails, but may be one that takes no record (which is logged).  What
 * stood at path and may hold something is moved aside. */
struct td_redo *td_redo_new(const char *path);
/* What stands there, or a new one when there is nothing to lose.  must: there has to be one (G6).
 * 0 or -errno with text. */
int td_redo_adopt(const char *path, bool must, struct td_redo **out, struct td_err *err);
void td_redo_free(struct td_redo *r); /* the file stays */

void td_redo_boot(char boot[40]); /* the host's boot (G7), as text; "" when it cannot be told */
/* Does what stands at path hold anything?  0: no; else how many records, or -errno when nobody can
 * tell (another version's). */
int td_redo_waits(const char *path);
bool td_redo_pending(const struct td_redo *r); /* is there anything to apply? */
bool td_redo_takes(const struct td_redo *r);   /* records, at all */
void td_redo_fail(struct td_redo *r);          /* G9; NULL is fine */
void td_redo_fail_of(const struct td_file *f); /* every log of that file; on a fiber */

/*
 * For whoever writes to a file without knowing its format, or takes it for another one.  Blocking;
 * -EBUSY with text when a log waits for it. dead: a living tapdisk's does not count, which has the
 * image.
 */
int td_redo_mind(const char *path, bool dead, struct td_err *err);

/* --- an image is opened: on a fiber, with its file locked --- */

uint32_t td_redo_mark(void); /* a new one; never 0 */
/*
 * Is there a log that has to be applied to f, which bears that mark (0: none)?  own: the disk's, or
 * NULL.  *out: own, or a dead process's (let it go with td_redo_leave), or NULL.  -ESTALE with
 * text: own holds something and is not of this state.  f open for reading alone: -EBUSY with text
 * when one waits.
 */
int td_redo_look(struct td_redo *own, struct td_file *f, uint32_t mark, struct td_redo **out,
		 struct td_err *err);
void td_redo_leave(struct td_redo *own, struct td_redo *out);
/*
 * When data elsewhere are durable: applies what is there to f, durably, and empties it; or, after a
 * sync that failed, shows f as though it had been applied (G9: then *image->lost is not 0, and
 * nothing may be written).  0 or -errno with text; -ESTALE as above (G3).
 */
int td_redo_apply(struct td_redo *r, struct td_file *f, struct td_image *image, struct td_err *err);
/* The file as it is when all is applied; 0 or -errno. */
int td_redo_read(const struct td_redo *r, struct td_file *f, void *buf, uint64_t off, uint32_t len);
bool td_redo_sum(const struct td_redo *r, uint64_t *sum); /* G3; false: not known */
/* -ESTALE with its text */
int td_redo_stale(const struct td_redo *r, const struct td_file *f, struct td_err *err);
/* The image has its mark, and the log is empty: records are of this state from now on. */
void td_redo_begin(struct td_redo *r, const struct td_file *f, uint32_t mark, uint64_t mark_at,
		   uint64_t sum);        /* mark_at: its place in the file */
void td_redo_decline(struct td_redo *r); /* G4; NULL is fine */

/* --- while it is open --- */

/* len bytes of the image's file at off are data now; false: not recorded, and missed() until a
 * commit has it. */
bool td_redo_put(struct td_redo *r, unsigned wave, uint64_t off, const void *data, uint32_t len);
bool td_redo_put_sum(struct td_redo *r, unsigned wave, uint64_t off, const void *data, uint32_t len,
		     uint64_t sum);
bool td_redo_missed(const struct td_redo *r);
bool td_redo_crowded(const struct td_redo *r); /* a commit would be good */
void td_redo_freeze(struct td_redo *r); /* a commit has taken its picture of all that is dirty */
void td_redo_done(struct td_redo *r, int err); /* it is over */

#endif
