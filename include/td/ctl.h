/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control operations: requests to a tapdisk over its socket ctl<pid> in the control directory.
 *
 * A connection carries one message: a JSON object {"op": NAME, ...} with file descriptors where an
 * operation takes them (lib/msg.h).  The answer is any number of rows {"row": {...}} and then
 * {"err": 0, ...} or {"err": ERRNO, "text": "..."}.  Only `watch' continues after {"err": 0}: it
 * sends {"event": {...}} until the connection ends; when the tapdisk ends it, the tapdisk has died.
 *
 * op          takes                           answers
 *
 * list        -                               rows {minor, state, reason, sandbox, uid, args, mode,
 *                                             file, name, ring, rings, stalled, two-primaries}, one
 *                                             a disk
 * attach      minor                           -  (EEXIST when it has it already)
 * detach      minor, keeper                   last: true when this was the process's last disk; it
 *                                             exits
 * open        minor, args, read_only,         as info  (EALREADY when open)
 *             options: ["k=v", ...], name,
 *             key, past
 * close       minor, force, timeout (s),      -; with keeper: detached, last
 *             keeper
 * pause       minor, timeout (s)              -
 * unpause     minor, args (optional),         as info
 *             options (optional)
 * resize      minor                           as info  (looks at the image's size; EINVAL when it
 *                                             has shrunk)
 * relink      minor, file, relative, name,    -  (vhd-util modify -p: the leaf names another
 *             uuid, timestamp, raw            parent, see struct td_relink in td/block.h)
 * commit      minor, image, rate (bytes a     -  (an image of the chain goes into its parent:
 *             second), force                  tapdisk/commit.h; ENODEV, EOPNOTSUPP, or EINVAL)
 * query       minor                           status, done, all (bytes); or the error with which
 *                                             the commit has failed
 * cancel      minor, wait                     -  (of a commit; 0 too when there is none)
 * stats       minor, full                     stats: {...}, the line that tap-ctl prints; full:
 *                                             with histograms
 * stats_all   -                               rows {minor, state, reason, args, mode, size (bytes),
 *                                             rings, stats}, one an open disk; the stats are full
 * info        minor                           {minor, state, reason, args, mode, promise, name,
 *                                             read_only, sectors (512 B), sector_size,
 *                                             physical_sector_size, flush: bool, barrier: bool,
 *                                             discard: bool, discard_granularity, max_ring_order,
 *                                             persistent, max_indirect_segments, max_queues,
 *                                             rings: [{domid, devid, queue, state:
 *                                             "connected"|"broken", reason}, ...]}
 * connect     minor, domid, devid,            -  (0 when connected in the same way already; EBUSY
 *             transport: "xen"|"mem",         when another frontend has it)
 *             refs: [n, ...], port, abi,
 *             persistent, beside, take-over,
 *             polling-duration (us),
 *             polling-idle-threshold
 * disconnect  minor, domid, devid             -  (drains, unmaps; 0 when not connected)
 * watch       minor (optional)                events {minor, state, reason, sectors, rings}, one
 *                                             for each change, and one at the start for each disk
 * ping        minor (optional)                pid, version, takes-over: the layout of its tables
 *                                             (tapdisk/blkif/inflight.h); with minor: its state,
 *                                             answered: a count of its requests, waiting: of those
 *                                             that it has taken and not answered.  Never waits
 * handover    to: a tapdisk's pid             rows {minor, pause (s)}, one a disk that it has; then
 *                                             0: this process ends, or an error, and all are here
 *                                             (tapdisk/ctl/handover.h)
 * settle      minor, args, options, past      -  (writes to the image what a dead tapdisk of that
 *                                             minor had not written yet (lib/redo.h); ESTALE when
 *                                             the image has been changed since)
 * adopt       as open, and rings: [as         -  (from tapdisk to tapdisk; fds: the marker, and
 *             connect takes them, ...]        those of each ring)
 *
 * Of list and info:
 *   args, mode     absent without an image; args is type:path
 *   name           absent when the disk has none
 *   file           identifies the image's file, whatever its name: "DEV:INODE", or "bRDEV"
 *   reason         text, when the disk is held or has failed
 *   ring           "connected", "broken" or absent: the state of all rings in one word
 *   stalled        true when the store has stopped answering (tapdisk/vbd/stall.h), or absent
 *   two-primaries  true when another host may write it (tapdisk/vbd/peers.h, O2), or absent
 *   peer-cut-off   true when other hosts may write what this one does not see (O4), or absent
 *
 * Of open, adopt, settle, detach and close:
 *   name           what the disk's maker knows it by, shorter than TD_NAME_MAX
 *   key            the bytes of an encrypted image's key, TD_CTL_KEY_MAX at most, in hexadecimal;
 *                  an unpause has it still
 *   past           of a dead tapdisk's disk: {paused, sectors, sticky, log}, as its record has it
 *                  (tapdisk/vbd/record.h)
 *   keeper         a pid that the marker gets.  close with a keeper then detaches, as detach does,
 *                  whether or not whoever asked still waits
 *   force          drops the ring; without it, close drains
 *
 * Of connect:
 *   queues         [{refs, port}, ...] instead of refs and port, for a device of several queues; it
 *                  gets all its rings or none
 *   abi            "native", "x86_64" or "x86_32"
 *   fds            with mem: memfd, kick, call, for each queue
 *   beside         true when the toolstack says that the frontends that have the disk belong to the
 *                  same machine, as a guest and its stub domain do; a read-only disk does not need
 *                  it
 *   take-over      true continues the ring where a dead tapdisk of this minor has stopped, which
 *   needs
 *                  the file ring<N>...
 *
 * `state' is an or of TD_STATE_*.
 *
 * Files, all in the control directory (0700).  Those marked * outlive a tapdisk that is killed.
 *
 *   ctl<pid>              the control socket; SOCK_SEQPACKET
 *   nbd*<pid>.<minor>     the NBD server's sockets (tapdisk/nbd/nbd.h); after a handover, links to
 *   nbdclient<pid>        those of the process that has the disk now
 *   disk<N> *             how minor N is open (tapdisk/vbd/record.h)
 *   flush<N> *            whether a flush of the image may have failed unseen (lib/syncmark.h)
 *   redo<N> *             metadata of the image that waits for a commit (lib/redo.h)
 *   tapdisk-enospc<N>     there, or in /run: the leaf is full (MI10 of tapdisk/mirror/mirror.h)
 *   left<N> *             what a connection to an NBD server has left unanswered or unflushed
 *                         (drivers/nbd/nbd.h, K5-K7)
 *   ring<N>.<domid>.<devid>.<queue> *
 *                         what a ring of minor N has taken and not answered
 *                         (tapdisk/blkif/inflight.h)
 *   tapdisk/tapdisk-<N> * a minor number's marker.  Made by allocate, empty.  While a tapdisk has
 *                         it attached, the tapdisk holds a flock on it and it contains "<pid>\n"
 *                         (lib/marker.h).
 *                         A marker with a pid and no flock is a dead tapdisk's.
 */
#ifndef TD_CTL_H
#define TD_CTL_H

#define TD_CTL_DIR_ENV "TAPDISK_CONTROL_DIR" /* names another directory, for tests and builds */
#define TD_CTL_DIR     "/run/blktap-control" /* this one without it */
#define TD_MINOR_MAX   16384                 /* minors are 0..TD_MINOR_MAX-1 */
#define TD_NAME_MAX    128                   /* bytes of a disk's name, with its end */
#define TD_CTL_KEY_MAX 512                   /* bytes of an encrypted image's key or passphrase */
#define TD_CTL_TIMEOUT 10 /* s after which a tapdisk that does not answer is passed over */

/* The states, with the values that clients know. */
enum {
	TD_STATE_DEAD = 0x1,
	TD_STATE_CLOSED = 0x2,
	TD_STATE_QUIESCE_REQUESTED = 0x4,
	TD_STATE_QUIESCED = 0x8,
	TD_STATE_PAUSE_REQUESTED = 0x10,
	TD_STATE_PAUSED = 0x20,
	TD_STATE_SHUTDOWN_REQUESTED = 0x40,
	TD_STATE_LOCKING = 0x80,
	TD_STATE_RESUME_FAILED = 0x200,
	/* ours */
	TD_STATE_NO_SPACE = 0x400, /* writes are held until there is space again */
	/* A flush failed, or the image is corrupt: writes and flushes fail until the disk is
	 * closed and opened again. */
	TD_STATE_FAILED = 0x800,
};

#endif
