# SPDX-License-Identifier: LGPL-2.1-or-later
# What guests do while the new tapdisk serves on trial is kept when that one dies and the old one takes the disks back: what was written,
# a flush that failed, a pause, another image.
. "$top_srcdir/tests/it/lib.sh"

real=$(readlink -f "$top_builddir/tapdisk/tapdisk")
cat >"$WORK/next" <<E2
#!/bin/sh
export SIGNAL_AFTER="9 $WORK/die" FAIL_SYNC=$WORK/fail LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/signal-after.so") ASAN_OPTIONS=verify_asan_link_order=0:\$ASAN_OPTIONS
exec $real "\$@"
E2
chmod 755 "$WORK/next"
export TAPDISK_IO=threads # whose fdatasync can be made to fail
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$1" "$minor" "${@:2}"; }
state() { tap_ctl list -m "$minor" | sed -n 's/.* state=\([^ ]*\) .*/\1/p'; }
moved() { new=$(sed "s/ .*//" "$marker"); [ -n "$new" ] && [ "$new" != "$old" ]; } # it stands second while it opens the disk

create() # SPEC OPTION... ; a key for it on stdin
{
	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-} old=$(cat "$marker")
}

# CMD runs beside the tapdisk $new while it is on trial, which dies instead of answering at its end.  The old one, which judges, stands still as long
# as that takes.  When it has judged before it was stopped, the upgrade succeeds, and there is another.
on_trial() # CMD...
{
	local up

	for _ in $(seq 20); do
		rm -f "$WORK/die"
		TAPDISK=$WORK/next tap_ctl upgrade -p "$old" >"$WORK/up" 2>&1 &
		up=$!
		until_true 10 moved
		kill -STOP "$old" 2>/dev/null
		"$@" || fail "$*"
		touch "$WORK/die"
		kill -CONT "$old" 2>/dev/null
		if ! wait $up; then
			has "why" "$(cat "$WORK/up")" "tapdisk $old continues as before"
			is "it has the disk" "$(cat "$marker")" "$old"
			return
		fi
		rm -f "$WORK/die" # or it would die of its own answer, later
		TAPDISK=$real tap_ctl upgrade -p "$new" >/dev/null || fail "upgrade to the real one"
		old=$(cat "$marker")
	done
	fail "each of twenty upgrades was over before the guest was"
}

written() { guest "$new" write 1048576 8388608 7 >"$WORK/said" || fail "write on trial: $(cat "$WORK/said")"; }
kept()
{
	has "$1: serves" "$(state)" "0"
	guest "$old" verify 1048576 8388608 7 || fail "$1: what was written on trial is gone"
	guest "$old" flush >/dev/null || fail "$1: flush"
	tap_ctl destroy -p "$old" -m "$minor" || fail "$1: destroy"
}

head -c 64 /dev/urandom >"$WORK/e,aes-xts-plain,512.key"
for mode in none writeback; do
	rm -f "$WORK"/d.*
	truncate -s 32M "$WORK/d.img"
	create "aio:$WORK/d.img" -o cache=$mode
	on_trial written
	kept "raw, $mode"

	"$top_builddir/bin/vhd-util" create -n "$WORK/d.vhd" -s 32 || fail "vhd-util"
	create "vhd:$WORK/d.vhd" -o cache=$mode
	on_trial written
	kept "vhd, $mode"
	expect 0 "$top_builddir/bin/vhd-util" check -n "$WORK/d.vhd"

	"$top_builddir/bin/vhd-util" create -n "$WORK/e.vhd" -s 32 &&
		"$top_builddir/bin/vhd-util" key -s -n "$WORK/e.vhd" -k "$WORK/e,aes-xts-plain,512.key" || fail "vhd-util key"
	create "vhd:$WORK/e.vhd" -o cache=$mode -E <"$WORK/e,aes-xts-plain,512.key"
	on_trial written
	kept "encrypted vhd, $mode"
	rm -f "$WORK/e.vhd"

	for how in "" compat=0.10 lazy_refcounts=on; do
		"$top_builddir/bin/td-qcow" create -f ${how:+-o $how} "$WORK/d.qcow2" 32M >/dev/null || fail "td-qcow"
		create "qcow2:$WORK/d.qcow2" -o cache=$mode
		on_trial written
		kept "qcow2 $how, $mode"
		sound_but_for_leaks "$WORK/d.qcow2"
	done

	echo -n secret | "$top_builddir/bin/td-qcow" create -f -E -o encrypt.format=luks,encrypt.iter-time=10 "$WORK/e.qcow2" 32M >/dev/null || fail "td-qcow -E"
	create "qcow2:$WORK/e.qcow2" -o cache=$mode -E < <(echo -n secret)
	on_trial written
	kept "encrypted qcow2, $mode"
done

# --- a flush that failed there has failed (C5)
flush_fails()
{
	touch "$WORK/fail"
	guest "$new" write 0 4096 3 >"$WORK/said" || fail "write: $(cat "$WORK/said")"
	! guest "$new" flush >/dev/null || fail "the flush was to fail"
	rm "$WORK/fail"
}
truncate -s 32M "$WORK/d.img"
create "aio:$WORK/d.img" -o cache=writeback
on_trial flush_fails
is "failed" "$(state)" 0x800
! guest "$old" write 0 4096 4 >/dev/null || fail "a write after a flush that failed"
! guest "$old" flush >/dev/null || fail "a flush after one that failed"
expect 5 tap_ctl destroy -p "$old" -m "$minor"
has "closing it says so" "$ERR" "may be lost"

# --- so with a pause there, and with the image that it came back with
paused() { tap_ctl pause -p "$new" -m "$minor"; }
changed() { tap_ctl pause -p "$new" -m "$minor" && tap_ctl unpause -p "$new" -m "$minor" -a "aio:$WORK/other.img" && guest "$new" write 0 4096 5 >/dev/null; }
create "aio:$WORK/d.img"
on_trial paused
is "paused" "$(state)" 0x2a
tap_ctl unpause -p "$old" -m "$minor" || fail unpause
cp "$WORK/d.img" "$WORK/other.img"
on_trial changed
has "the other image" "$(tap_ctl list -m "$minor")" "state=0 args=aio:$WORK/other.img"
guest "$old" verify 0 4096 5 || fail "the other image"
tap_ctl destroy -p "$old" -m "$minor" || fail destroy

# --- one that hangs and cannot be killed at first: its disks wait for its end, and it is tried again
preload="LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/signal-after.so") ASAN_OPTIONS=verify_asan_link_order=0:\$ASAN_OPTIONS"
printf '#!/bin/sh\nexport NO_KILL=%s %s\nexec %s "$@"\n' "$WORK/no-kill" "$preload" "$real" >"$WORK/weak"
printf '#!/bin/sh\nexport SIGNAL_AFTER="19 disk" %s\nexec %s "$@"\n' "$preload" "$real" >"$WORK/hangs"
chmod 755 "$WORK/weak" "$WORK/hangs"
TAPDISK=$WORK/weak create "aio:$WORK/d.img"
guest "$old" write 0 65536 8 >/dev/null || fail write
touch "$WORK/no-kill"
TAPDISK=$WORK/hangs tap_ctl upgrade -p "$old" >"$WORK/up" 2>&1 &
up=$!
until_true 10 moved
sleep 8 # it has 5 s to answer
gone $up && fail "a disk came back while another process had it: $(cat "$WORK/up")"
gone "$new" && fail "it was killed"
rm "$WORK/no-kill"
until_true 10 gone "$new"
wait $up && fail "an upgrade to one that hangs"
is "it has the disk" "$(cat "$marker")" "$old"
guest "$old" verify 0 65536 8 || fail "what was written before"
tap_ctl destroy -p "$old" -m "$minor" || fail destroy
is left "$(ls "$TAPDISK_CONTROL_DIR")" tapdisk
