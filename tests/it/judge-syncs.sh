# SPDX-License-Identifier: LGPL-2.1-or-later
# What judges whether each FLUSH was covered by an fdatasync of its own time: it passes a tapdisk that keeps its promise, on a busy
# machine too, and fails one that breaks it, though its fdatasyncs may be as many as the FLUSHes.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
judge=$top_srcdir/tests/support/judge-syncs
image=$WORK/d.img

# --- logs by hand --------------------------------------------------------------------------------------------------------------
guest_log() { printf '%s\n' "$@" >"$WORK/guest"; }
strace_log() { printf '%s\n' "$@" >"$WORK/strace"; }
judged() { expect "$1" "$judge" "$2" "$image" "$WORK/guest" "$WORK/strace"; } # EXIT-CODE MODE
sync="fdatasync(7<$image>)"

guest_log "10.1 pushed 0 WRITE 0" "10.2 answered 0 WRITE 0" "10.3 pushed 1 FLUSH 0" "10.4 answered 1 FLUSH 0"
strace_log "9 10.310000000 $sync = 0 <0.050000000>"
judged 0 none
is "one that is covered" "$OUT" "flushes=1 covered=1 syncs=1 writes=1 covered=0 durable=0"
judged 1 directsync # the write was not durable when it was answered
judged 1 unsafe     # has no fdatasync
strace_log "9 10.310000000 $sync <unfinished ...>" "8 10.32 io_submit(0, 1, []) = 1 <0.001>" "9 10.390000000 <... fdatasync resumed>) = 0 <0.08>"
judged 0 none
strace_log "9 10.310000000 $sync <unfinished ...>" "9 10.410000000 <... fdatasync resumed>) = 0 <0.1>"
judged 1 none # answered before it ended
has "what it says" "$OUT" "broken promise: the FLUSH of 0.200000 s, answered at 0.300000 s"
strace_log "9 10.290000000 $sync = 0 <0.050000000>"
judged 1 none # begun before it was pushed
strace_log "9 10.310000000 $sync = -1 EIO (Input/output error) <0.050000000>"
judged 1 none # has failed
strace_log "9 10.310000000 fdatasync(7<$WORK/another>) = 0 <0.050000000>"
judged 1 none
strace_log "9 10.310000000 fdatasync(7) = 0 <0.050000000>" # of a user who is not root: without a name
judged 0 none
strace_log "9 10.290000000 fdatasync(7) = 0 <0.050000000>"
judged 1 none
strace_log "9 10.310000000 fdatasync(-1) = 0 <0.050000000>"
judged 1 none
strace_log ""
judged 1 none
judged 0 unsafe

# shared: two FLUSHes, one fdatasync begun after both had been pushed
guest_log "10.1 pushed 0 FLUSH 0" "10.2 pushed 1 FLUSH 0" "10.5 answered 0 FLUSH 0" "10.6 answered 1 FLUSH 0"
strace_log "9 10.300000000 $sync = 0 <0.050000000>"
judged 0 none
# the second came after it had begun
guest_log "10.1 pushed 0 FLUSH 0" "10.2 pushed 1 FLUSH 0" "10.5 answered 0 FLUSH 0" "10.6 answered 1 FLUSH 0"
strace_log "9 10.150000000 $sync = 0 <0.200000000>"
judged 1 none
has "one of two" "$OUT" "flushes=2 covered=1"
# nothing new since a FLUSH that is covered needs none; a write in between does
guest_log "10.1 pushed 0 FLUSH 0" "10.2 answered 0 FLUSH 0" "10.3 pushed 0 FLUSH 0" "10.4 answered 0 FLUSH 0"
strace_log "9 10.110000000 $sync = 0 <0.050000000>"
judged 0 none
guest_log "10.1 pushed 0 FLUSH 0" "10.2 answered 0 FLUSH 0" "10.22 pushed 1 WRITE 0" "10.25 answered 1 WRITE 0" "10.3 pushed 0 FLUSH 0" "10.4 answered 0 FLUSH 0"
judged 1 none
# durable writes: RWF_DSYNC between the two ends of the WRITE, and nowhere else
guest_log "10.1 pushed 0 WRITE 0" "10.2 answered 0 WRITE 0"
strace_log "9 10.150000000 pwritev2(7<$image>, [{iov_base=\"\"..., iov_len=4096}], 1, 0, RWF_DSYNC) = 4096 <0.01>"
judged 0 writethrough
judged 1 writeback # where nobody has asked for it
strace_log "9 10.050000000 pwritev2(7<$image>, [{iov_base=\"\"..., iov_len=4096}], 1, 0, RWF_DSYNC) = 4096 <0.01>"
judged 1 writethrough
# by AIO only the begin shows
guest_log "10.1 pushed 0 FLUSH 0" "10.4 answered 0 FLUSH 0"
aio_log() { strace_log "9 $1 io_submit(0x7f, 1, [{aio_data=0x1, aio_key=0, aio_lio_opcode=IOCB_CMD_FDSYNC, aio_fildes=7<$2>, aio_buf=NULL}]) = 1 <0.001>"; }
aio_log 10.200000000 "$image"
judged 0 none
aio_log 10.200000000 "$WORK/another"
judged 1 none
aio_log 10.050000000 "$image"
judged 1 none
# an error is no promise; what is not answered is no log to judge
strace_log ""
guest_log "10.1 pushed 0 FLUSH 0" "10.2 answered 0 FLUSH -1"
judged 0 none
guest_log "10.1 pushed 0 FLUSH 0"
judged 2 none
guest_log ""
judged 2 none

# --- a tapdisk -----------------------------------------------------------------------------------------------------------------
command -v strace >/dev/null || skip "strace is not installed"
strace -o "$WORK/log" true 2>/dev/null || skip "strace may not trace here"
truncate -s 1M "$image"
TRACED_TAPDISK=$(readlink -f "$top_builddir/tapdisk/tapdisk")
export TRACED_TAPDISK TRACED_LOG=$WORK/strace TAPDISK=$top_srcdir/tests/support/traced-tapdisk

traced() { expect 0 "$top_builddir/tests/support/tdguest" --trace "$WORK/guest" "$pid" "$minor" "$@"; } # COMMAND...: of the guest
disk() # MODE
{
	local options=(-o "cache=$1")

	rm -f "$WORK/strace"
	[ "$1" != unsafe ] || options+=(-o unsafe=yes)
	run tap_ctl create -a "aio:$image" "${options[@]}"
	[ "$RC" = 0 ] || { has "$1" "$ERR" O_DIRECT; return 1; }
	minor=${OUT##*-}
	pid=$(cat "$OUT")
}

for mode in none directsync writethrough writeback unsafe; do
	disk $mode || continue
	for depth in 1 8; do
		traced pairs 64 $depth 1
		judged 0 $mode
		has "$mode, depth $depth" "$OUT" "flushes=64 covered=$([ $mode = unsafe ] && echo 0 || echo 64) "
		has "$mode, depth $depth" "$OUT" "writes=64 "
	done
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
done

# and three that break it, in writeback with threads, whose calls are libc's
for bug in none early fails; do
	cat >"$WORK/tapdisk" <<-E2
	#!/bin/sh
	export FALSE_SYNC=$bug LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/false-sync.so") ASAN_OPTIONS=verify_asan_link_order=0:\$ASAN_OPTIONS
	exec $(readlink -f "$top_builddir/tapdisk/tapdisk") "\$@"
	E2
	chmod 755 "$WORK/tapdisk"
	TRACED_TAPDISK=$WORK/tapdisk TAPDISK_IO=threads disk writeback || fail "$bug: no disk"
	traced pairs 20 1 1
	judged 1 writeback
	case $bug in
	none) has $bug "$OUT" "flushes=20 covered=0 syncs=0 " ;;
	*) has "$bug: as many fdatasyncs as FLUSHes" "$OUT" "flushes=20 covered=0 syncs=20 " ;;
	esac
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
done
