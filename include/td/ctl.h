/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Control operations: what one asks a tapdisk over its socket ctl<pid> in the control directory.
 *
 * A connection carries one message: a JSON object {"op": NAME, ...} with file descriptors where an
 * operation takes them (lib/msg.h).  The answer is any number of rows {"row": {...}} and then
 * {"err": 0, ...} or {"err": ERRNO, "text": "..."}. `watch' alone goes on: after {"err": 0} it
 * sends {"event": {...}} until the connection ends; its end is the tapdisk's death.
 *
 * op          takes                                              answers
 * list        -                                                  rows {minor, state, args, mode,
 * name, reason, ring} one a disk (args, mode: absent without an image; name: absent without one;
 * args is type:path; ring: "connected", "running", "broken" or absent; two-primaries: true, O2 of
 * tapdisk/vbd/peers.h, or absent; reason: text when the disk
 * is held or failed; file: which one that is, under any name: "DEV:INODE", "bRDEV") attach minor -
 * (17 when it has it already) detach      minor, keeper (a pid that the marker gets)         last:
 * true when this was the process's last disk; it exits open        minor, args, read_only, options:
 * ["k=v", ...],     as info     (114 when open) name (what its maker knows it by; TD_NAME_MAX), key
 * (of an encrypted image: its bytes, TD_CTL_KEY_MAX at most, in hexadecimal; an unpause has it
 * still) past (of a dead tapdisk's disk: {paused, sectors, sticky, log}, tapdisk/vbd/record.h)
 * close       minor, force, timeout (s), keeper                  -           (drains; force: drops
 * the ring; keeper: then detaches, as detach does with it, whether or not whoever asked still
 * waits: detached: true, last) pause       minor, timeout (s)                                 -
 * unpause     minor, args (optional), options (optional)         as info
 * relink      minor, file, relative, name, uuid, timestamp, raw   -   (names another parent in
 *                                                                         the leaf's file)
 * resize      minor                                              as info     (looks at the image's
 * size; 22 when it has shrunk) stats       minor, full stats: {...}, the line that tap-ctl prints;
 * full: with histograms stats_all   -                                                  rows {minor,
 * state, reason, args, mode, size (bytes), ring, stats}, one an open disk; the stats are full info
 * minor                                              {minor, state, args, mode, promise, read_only,
 * sectors (512 B), sector_size, physical_sector_size, flush: bool, barrier: bool, discard: bool,
 * discard_granularity, max_ring_order, max_queues, rings: [{domid, devid, queue, state:
 * "connected"|"broken", reason}, ...]} connect     minor, domid, devid, transport "xen"|"mem", - (0
 * when connected in the same way already; refs: [n, ...], port, abi, beside, take-over        16
 * when another frontend has it) (a device of several queues has queues: [{refs, port}, ...] in the
 * place of refs and port; it gets all its rings or none) (abi: "native", "x86_64" or "x86_32"; fds
 * for mem: memfd, kick, call, for each queue; beside: true when the toolstack says that the
 *                 frontends that have it are of the same machine, as a guest and its stub domain
 * are; a read-only disk needs no such word; take-over: true goes on where a dead tapdisk of this
 * minor has stopped, which needs the ring's record) disconnect  minor, domid, devid - (drains,
 * unmaps; 0 when not connected) watch       minor (optional) events {minor, state, reason, sectors,
 * rings}, one for each change, and one at the start for each disk ping        minor (optional) pid,
 * version, takes-over: the layout of its tables (tapdisk/blkif/inflight.h); with minor: its state,
 * answered: a count of its requests, waiting: of those that it has taken and not answered.  Never
 * waits handover    to: a tapdisk's pid                                rows {minor, pause (s)}, one
 * a disk that it has; then 0: this process ends, or an error, and all are here
 * (tapdisk/ctl/handover.h) settle      minor, args, options, past: as of a record         - (what a
 * dead tapdisk of that minor had not written to its image yet is put there (lib/redo.h); 116 when
 * the image has been changed since) adopt       from tapdisk to tapdisk: as open, and past, -
 *             rings: [as connect takes them, ...]; fds: the marker, and those of each ring
 *
 * `state' is an or of TD_STATE_*.  Files, all in the control directory (0700):
 *   ctl<pid>              the socket; SOCK_SEQPACKET
 *   nbd*<pid>.<minor>, nbdclient<pid>  the NBD server's (tapdisk/nbd/nbd.h); after a handover,
 * links to those of who has the disk now disk<N>               how minor N is open
 * (tapdisk/vbd/record.h); outlives a tapdisk that is killed flush<N>              whether a flush
 * of the image may have failed unseen (lib/syncmark.h); outlives a tapdisk that is killed redo<N>
 * metadata of the image that waits for a commit (lib/redo.h); outlives a tapdisk that is killed
 *   left<N>               what a connection to an NBD server has left unanswered or unflushed
 * (drivers/nbd/nbd.h, K5-K7); outlives likewise ring<N>.<domid>.<devid>.<queue>  what a ring of
 * minor N has taken and not answered (tapdisk/blkif/inflight.h); outlives a tapdisk that is killed
 *   tapdisk/tapdisk-<N>   a minor number's marker.  Made by allocate, empty.  While a tapdisk has
 * it attached, the tapdisk holds a flock on it and it contains "<pid>\n".  A marker with a pid and
 * no flock is a dead tapdisk's.
 */
#ifndef TD_CTL_H
#define TD_CTL_H

#define TD_CTL_DIR_ENV                                                                             \
	"TAPDISK_CONTROL_DIR"                /* another control directory, for tests and builds;   \
					      */
#define TD_CTL_DIR     "/run/blktap-control" /* this one without it */
#define TD_MINOR_MAX   16384                 /* minors are 0..TD_MINOR_MAX-1 */
#define TD_NAME_MAX    128                   /* bytes of a disk's name, with its end */
#define TD_CTL_KEY_MAX 512                   /* bytes of an encrypted image's key or passphrase */
#define TD_CTL_TIMEOUT 10 /* s after which a tapdisk that does not answer is passed over */

enum { /* as clients know them */
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
       TD_STATE_FAILED = 0x800, /* a flush failed, or the image is corrupt: writes and flushes fail
				   until the disk is closed and opened again */
};

#endif
