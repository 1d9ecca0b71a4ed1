# SPDX-License-Identifier: LGPL-2.1-or-later
# A log of changes when something beside the death goes wrong: a sync that fails, a log that cannot be read, and whoever
# writes to the image's file without looking at its format.
. "$top_srcdir/tests/it/lib.sh"

guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
sum() { sha256sum <"$IMG"; }
state() { tap_ctl list -m "$minor" | sed -n 's/.* state=\([^ ]*\) .*/\1/p'; }
failing() { LD_PRELOAD=$(readlink -f "$top_builddir/tests/support/signal-after.so") FAIL_SYNC=$WORK/fail TAPDISK_IO=threads \
	ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} "$@"; }
export top_builddir
AT=4194304 LEN=1048576

make() # FORMAT [DIR]
{
	TYPE=$1 IMG=${2:-$WORK}/img.$1
	rm -f "$IMG"
	case $1 in
	vhd) vhd_util create -n "$IMG" -s 64 ;;
	qcow2) td_qcow create "$IMG" 64M >/dev/null ;;
	esac || fail "cannot make a $1"
}

open_it() # ARG...
{
	marker=$(tap_ctl create -a "$TYPE:$IMG" "$@") || fail "create $TYPE:$IMG $*"
	minor=${marker##*-} pid=$(cat "$marker")
}

dead() # OFF LEN SEED
{
	guest write "$1" "$2" "$3" >"$WORK/said" || fail "write: $(cat "$WORK/said")"
	kill -KILL "$pid"
	until_true 10 gone "$pid"
}

away() { tap_ctl destroy -p "$pid" -m "$minor" || fail "$1: destroy"; }

for format in vhd qcow2; do
	# --- the data's sync fails when the disk is opened again: the log is not put over what may be lost (G9 of lib/redo.h)
	for first in revive settle create; do
		make $format
		open_it
		guest write 0 65536 9 >/dev/null && guest flush >/dev/null || fail "$format: a flush"
		dead $AT $LEN 1
		before=$(sum)
		touch "$WORK/fail"
		case $first in
		revive)
			pid=$(failing tap_ctl revive -m "$minor") || fail "$format: revive"
			is "$format: the disk has failed" "$(state)" 0x800
			kill -KILL "$pid" && until_true 10 gone "$pid"
			;;
		settle) run failing tap_ctl settle -m "$minor" && is "$format: settle whose sync fails" "$RC" 5 ;;
		create) run failing tap_ctl create -a "$format:$IMG" && is "$format: create whose sync fails" "$RC" 5 ;;
		esac
		rm "$WORK/fail" # the kernel tells of it once: from here on, each sync does well
		is "$format, $first: the image" "$(sum)" "$before"
		expect 5 tap_ctl settle -m "$minor"
		has "$format: settle" "$ERR" "a sync of it has failed"
		has "$format: settle names the way out" "$ERR" "free -f"
		expect 5 tap_ctl create -a "$format:$IMG"
		expect 5 tap_ctl free -m "$minor"
		expect 5 tap_ctl destroy -p "$pid" -m "$minor"
		is "$format, $first: nobody has put it there" "$(sum)" "$before"
		for again in 1 2; do
			pid=$(tap_ctl revive -m "$minor") || fail "$format, $first: revive $again"
			is "$format: it has failed" "$(state)" 0x800
			guest verify $AT $LEN 1 || fail "$format, $first: what was acknowledged does not read back through the log"
			guest verify 0 65536 9 || fail "$format, $first: what was flushed"
			! guest flush >/dev/null || fail "$format, $first: a flush after one that failed"
			! guest write 0 4096 2 >/dev/null || fail "$format, $first: a write after a flush that failed"
			expect 5 tap_ctl pause -p "$pid" -m "$minor"
			has "$format: no pause" "$ERR" "is not paused"
			guest verify $AT $LEN 1 || fail "$format, $first: after a pause"
			[ $again = 2 ] || { kill -KILL "$pid" && until_true 10 gone "$pid"; }
			is "$format, $first: nothing is written" "$(sum)" "$before"
		done
		tap_ctl destroy -p "$pid" -m "$minor"
		open_it # whoever opens it anew says that it has been checked
		guest verify 0 65536 9 || fail "$format: what was flushed, opened anew"
		away "$format: anew"
	done

	# --- the same of a disk that lives on: it is not paused, and goes on as what it is
	make $format
	marker=$(failing tap_ctl create -a "$format:$IMG") || fail create
	minor=${marker##*-} pid=$(cat "$marker")
	guest write 0 65536 9 >/dev/null && guest flush >/dev/null && guest write $AT $LEN 3 >/dev/null || fail "$format: writes"
	touch "$WORK/fail"
	! guest flush >/dev/null || fail "the flush was to fail"
	rm "$WORK/fail"
	before=$(sum)
	expect 5 tap_ctl pause -p "$pid" -m "$minor"
	is "$format: it goes on" "$(state)" 0x800
	guest verify $AT $LEN 3 || fail "$format: after a pause that was refused"
	is "$format: nothing is written" "$(sum)" "$before"
	expect 5 tap_ctl destroy -p "$pid" -m "$minor"

	# --- all was flushed, and the sync with which the image is closed fails: whoever pauses or closes it hears of that
	for end in pause close; do
		make $format
		marker=$(failing tap_ctl create -a "$format:$IMG") || fail create
		minor=${marker##*-} pid=$(cat "$marker")
		guest write 0 65536 9 >/dev/null && guest flush >/dev/null || fail "$format: writes"
		touch "$WORK/fail"
		expect 5 tap_ctl $end -p "$pid" -m "$minor"
		rm "$WORK/fail"
		has "$format: $end" "$ERR" "a sync of $format:$IMG failed as it was closed"
		if [ $end = pause ]; then
			is "$format: it is not paused, and has failed" "$(state)" 0x800
			guest verify 0 65536 9 || fail "$format: reads after a pause that failed"
			! guest write 0 4096 2 >/dev/null || fail "$format: a write after a sync that failed"
			expect 5 tap_ctl pause -p "$pid" -m "$minor"
			expect 5 tap_ctl close -p "$pid" -m "$minor"
		fi
		tap_ctl destroy -p "$pid" -m "$minor"
		open_it
		guest verify 0 65536 9 || fail "$format: what was flushed, opened anew after a failed $end"
		away "$format: after a failed $end"
	done

	# --- one disk's failure is no other's, and takes no other's away
	make $format
	rm -f "$WORK/other.img" && truncate -s 1M "$WORK/other.img"
	marker=$(failing tap_ctl create -a "$format:$IMG") || fail create
	minor=${marker##*-} pid=$(cat "$marker")
	other=$(tap_ctl allocate) && tap_ctl attach -p "$pid" -m "${other##*-}" && tap_ctl open -p "$pid" -m "${other##*-}" -a "aio:$WORK/other.img" ||
		fail "a second disk of one tapdisk"
	touch "$WORK/fail"
	"$top_builddir/tests/support/tdguest" "$pid" "${other##*-}" write 0 4096 1 >/dev/null &&
		! "$top_builddir/tests/support/tdguest" "$pid" "${other##*-}" flush >/dev/null || fail "the other's flush was to fail"
	rm "$WORK/fail"
	dead $AT $LEN 4
	pid=$(tap_ctl revive -m "$minor") && pid_other=$(tap_ctl revive -m "${other##*-}") || fail "$format: revive of both"
	is "$format: its own syncs have done well" "$(state)" 0
	guest verify $AT $LEN 4 && guest flush >/dev/null || fail "$format: its own"
	away "$format: own"
	minor=${other##*-} pid=$pid_other
	is "$format: the other's has failed" "$(state)" 0x800
	tap_ctl destroy -p "$pid" -m "$minor"

	# --- a log that this version cannot read may be the one
	for how in version cut; do
		make $format
		open_it
		dead $AT $LEN 5
		log=$TAPDISK_CONTROL_DIR/redo$minor
		cp "$log" "$WORK/log"
		if [ $how = version ]; then printf '\xff' | dd of="$log" bs=1 conv=notrunc status=none; else truncate -s 8192 "$log"; fi
		before=$(sum)
		for cmd in "tap_ctl create -a $format:$IMG" "$([ $format = vhd ] && echo "vhd_util repair -n $IMG" || echo "td_qcow check -r all $IMG")" \
			"$([ $format = vhd ] && echo "vhd_util check -n $IMG" || echo "td_qcow resize $IMG 128M")"; do
			# shellcheck disable=SC2086 # words
			run $cmd
			[ "$RC" != 0 ] || fail "$format, $how: $cmd"
			has "$format, $how: $cmd" "$ERR" "$log, which cannot be read"
		done
		is "$format, $how: the image" "$(sum)" "$before"
		[ -e "$log" ] || fail "$format, $how: the log is gone"
		cp "$WORK/log" "$log"
		tap_ctl list >/dev/null
		expect 0 tap_ctl settle -m "$minor"
		expect 0 tap_ctl free -m "$minor"
		open_it
		guest verify $AT $LEN 5 || fail "$format, $how: afterwards"
		away "$format: $how"
	done

	# --- a log that was removed, or that this version cannot read, is not replaced by a new one: nobody serves what it held
	for how in version gone; do
		make $format
		open_it
		guest write 0 65536 9 >/dev/null && guest flush >/dev/null || fail "$format, $how: a flush"
		dead $AT $LEN 7
		log=$TAPDISK_CONTROL_DIR/redo$minor
		cp "$log" "$WORK/log"
		if [ $how = version ]; then printf '\xff' | dd of="$log" bs=1 conv=notrunc status=none; else rm "$log"; fi
		before=$(sum)
		for cmd in revive settle free; do
			run tap_ctl $cmd -m "$minor"
			[ "$RC" != 0 ] || fail "$format, $how: $cmd"
			has "$format, $how: $cmd" "$ERR" "redo$minor"
			has "$format, $how: $cmd names the way out" "$ERR" "free -f"
		done
		tap_ctl list >/dev/null
		is "$format, $how: the image" "$(sum)" "$before"
		cp "$WORK/log" "$log" # it comes back
		pid=$(tap_ctl revive -m "$minor") || fail "$format, $how: revive with the log again"
		guest verify $AT $LEN 7 && guest verify 0 65536 9 || fail "$format, $how: what was acknowledged"
		away "$format, $how"
	done

	# --- whoever writes to its file without looking at its format
	make $format
	open_it
	dead $AT $LEN 6
	before=$(sum)
	for cmd in "tap_ctl create -a aio:$IMG" "tap_ctl create -a aio:$IMG -o cache=writeback" "vhd_util create -F -n $IMG -s 32" \
		"td_qcow create -f $IMG 32M" "vhd_util snapshot -m -n $WORK/new.vhd -p $IMG"; do
		# shellcheck disable=SC2086 # words
		expect 16 $cmd
		has "$cmd" "$ERR" "tap-ctl settle -m $minor"
		is "$format: the image after $cmd" "$(sum)" "$before"
	done
	vhd_util create -n "$WORK/base.vhd" -s 32
	vhd_util snapshot -n "$WORK/leaf.vhd" -p "$WORK/base.vhd"
	for cmd in "vhd_util create -F -n $IMG -s 32 -r" "vhd_util snapshot -F -n $IMG -p $WORK/base.vhd" "vhd_util modify -m -n $WORK/leaf.vhd -p $IMG" \
		"td_qcow snapshot -f -F raw $WORK/other.img $IMG"; do
		# shellcheck disable=SC2086 # words
		expect 16 $cmd
		is "$format: the image after $cmd" "$(sum)" "$before"
	done
	rm -f "$WORK/base.vhd" "$WORK/leaf.vhd"
	expect 0 tap_ctl create -R -a "aio:$IMG" # who looks at the bytes alone
	tap_ctl destroy -p "$(cat "$OUT")" -m "${OUT##*-}"
	# another file under that inode's number is another file
	cp "$IMG" "$WORK/keep" && truncate -s 0 "$IMG" && truncate -s 64M "$IMG"
	expect 0 tap_ctl create -a "aio:$IMG"
	tap_ctl destroy -p "$(cat "$OUT")" -m "${OUT##*-}"
	dd if="$WORK/keep" of="$IMG" conv=notrunc status=none && truncate -r "$WORK/keep" "$IMG"
	expect 0 tap_ctl settle -m "$minor"
	tap_ctl free -m "$minor"
	open_it
	guest verify $AT $LEN 6 || fail "$format: settled"
	away "$format: raw"
done
