# SPDX-License-Identifier: LGPL-2.1-or-later
# An image is not as its dead tapdisk left it: QEMU has written to it, it was replaced, copied or lengthened, the host has been started
# again, or its file system is full.  Nothing is put into a state of it that the log is not of, nothing of the log is given up without a
# word, and the sentence says what to do.  On a block device, under the number that it had, the log is applied.
. "$top_srcdir/tests/it/lib.sh"
command -v qemu-io >/dev/null && command -v qemu-img >/dev/null || skip "QEMU's tools are not installed"

guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
sum() { sha256sum <"$IMG"; }
AT=4259840 LEN=1048576 MODE=none

make() # FORMAT [FILE]
{
	TYPE=$1 IMG=${2:-$WORK/img.$1}
	[ -b "$IMG" ] || rm -f "$IMG"
	case $1 in
	vhd) vhd_util create -n "$IMG" -s 64 ;;
	qcow2) td_qcow create ${2:+-f} "$IMG" 64M >/dev/null ;;
	esac || fail "cannot make a $1"
}

open_it() # ARG...
{
	marker=$(tap_ctl create -a "$TYPE:$IMG" -o cache=$MODE "$@") || fail "create $TYPE:$IMG $*"
	minor=${marker##*-} pid=$(cat "$marker")
}

# The kernel may hold a dead process's files, and so their locks, for a moment longer than the process.
unlocked() { qemu-img info "$IMG" >"$WORK/info" 2>&1 || ! grep -qi lock "$WORK/info"; }

# What was flushed, what was acknowledged alone, and a death
dead()
{
	open_it
	guest write 0 65536 9 >/dev/null && guest flush >/dev/null || fail "$TYPE: a write and a flush"
	guest write $AT $LEN 1 >"$WORK/said" || fail "write: $(cat "$WORK/said")"
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	until_true 2 unlocked
	log=$TAPDISK_CONTROL_DIR/redo$minor
	[ -e "$log" ] || fail "$TYPE: a dead tapdisk leaves no log"
}

revive() { pid=$(tap_ctl revive -m "$minor") || fail "$1: revive"; }
destroy() { tap_ctl destroy -p "$pid" -m "$minor" || fail "$1: destroy"; until_true 2 unlocked; }
sound() { if [ "$TYPE" = vhd ]; then expect 0 vhd_util check -n "$IMG"; else expect 0 td_qcow check "$IMG"; fi; }

# It is of another state: the image stays as it is, and so does the log, until it is given up.
refused() # WHAT
{
	local before

	before=$(sum)
	for cmd in revive settle free; do
		expect 116 tap_ctl $cmd -m "$minor"
		has "$1: $cmd" "$ERR" "is not as the last tapdisk left it"
		has "$1: $cmd names the way out" "$ERR" "free -f"
	done
	tap_ctl list >/dev/null
	[ -e "$log" ] || fail "$1: the log is gone"
	is "$1: the image" "$(sum)" "$before"
	expect 0 tap_ctl free -f -m "$minor"
	has "$1: what is given up is said" "$ERR" "are lost"
	is "$1: the image after free -f" "$(sum)" "$before"
	[ ! -e "$log" ] || fail "$1: free -f leaves the log"
}

qio() # CMD [-r]
{
	case $TYPE in
	vhd) qemu-io ${2:+-r} --image-opts "driver=vpc,force_size_calc=current_size,file.filename=$IMG" -c "$1" ;;
	*) qemu-io ${2:+-r} -f qcow2 -c "$1" "$IMG" ;;
	esac >"$WORK/qio" 2>&1 && ! grep -q -i "fail\|error" "$WORK/qio" || fail "qemu-io: $(cat "$WORK/qio")"
}

for format in vhd qcow2; do
	# --- QEMU has looked, and then written
	make $format
	dead
	qio "read 0 64k" -r
	revive "$format: after QEMU has read"
	guest verify $AT $LEN 1 || fail "$format: after QEMU has read"
	destroy "$format"
	make $format
	dead
	qio "write -P 7 32M 64k"
	refused "$format, written by QEMU"
	open_it
	guest verify 0 65536 9 || fail "$format, written by QEMU: what was flushed"
	destroy "$format"
	qio "read -P 7 32M 64k"

	# --- replaced: another inode; and put back
	make $format
	dead
	cp "$IMG" "$WORK/copy" && mv "$IMG" "$WORK/kept" && mv "$WORK/copy" "$IMG"
	before=$(sum)
	expect 116 tap_ctl revive -m "$minor"
	has "$format, replaced" "$ERR" "or it was replaced"
	is "$format, replaced: the image" "$(sum)" "$before"
	mv "$WORK/kept" "$IMG"
	revive "$format: put back"
	guest verify $AT $LEN 1 || fail "$format: put back"
	destroy "$format"
	sound

	# --- copied, as to another host: the copy has what was flushed, and the original its log
	make $format
	dead
	cp "$IMG" "$WORK/copy"
	first=$minor original=$IMG IMG=$WORK/copy
	open_it
	guest verify 0 65536 9 || fail "$format, a copy: what was flushed"
	destroy "$format"
	sound
	IMG=$original minor=$first
	revive "$format: copied"
	guest verify $AT $LEN 1 && guest verify 0 65536 9 || fail "$format: the original of a copy"
	destroy "$format"

	# --- made longer: by nobody who knows the format, and by those who do
	make $format
	dead
	if [ $format = vhd ]; then
		expect 16 vhd_util resize -n "$IMG" -s 128 -j "$WORK/j"
		has "$format, resized" "$ERR" "tap-ctl settle -m $minor"
	else
		expect 0 td_qcow resize "$IMG" 128M # which applies the log first
		has "$format, resized" "$ERR" "is in it now"
		expect 0 tap_ctl free -m "$minor"
		open_it
		guest verify $AT $LEN 1 || fail "$format, resized: what was acknowledged"
		destroy "$format, resized"
		make $format
		dead
	fi
	truncate -s +1M "$IMG"
	revive "$format: made longer"
	guest verify $AT $LEN 1 && guest verify 0 65536 9 || fail "$format: made longer"
	destroy "$format"
	sound
	if [ $format = qcow2 ]; then
		make $format
		dead
		qemu-img resize -q "$IMG" 128M || fail "qemu-img resize"
		refused "$format, resized by QEMU"
		sound
	fi

	# --- the host has been started again: what a log builds on may be lost, and it is none (G7)
	make $format
	dead
	boot=$(cat /proc/sys/kernel/random/boot_id)
	LC_ALL=C sed -i "s/$boot/00000000-1111-2222-3333-444444444444/g" "$log" "$TAPDISK_CONTROL_DIR/disk$minor"
	revive "$format: of an earlier boot"
	guest verify 0 65536 9 || fail "$format, of an earlier boot: what was flushed"
	! guest verify $AT $LEN 1 >/dev/null || fail "$format: a log of an earlier boot is put into the image"
	destroy "$format"
	sound
	make $format
	dead
	LC_ALL=C sed -i "s/$boot/00000000-1111-2222-3333-444444444444/g" "$TAPDISK_CONTROL_DIR/disk$minor"
	rm "$log"
	revive "$format: the record of an earlier boot, without a log"
	guest verify 0 65536 9 || fail "$format, without a log: what was flushed"
	destroy "$format"
done

# --- a block device, under the number and name that it had
if [ "$(id -u)" = 0 ] && command -v losetup >/dev/null; then
	truncate -s 80M "$WORK/store"
	for format in vhd qcow2; do
		D=$(losetup -f --show "$WORK/store" 2>/dev/null) || break
		# by its file: the number may be somebody else's by then
		at_exit "losetup -j $WORK/store | cut -d: -f1 | xargs -r losetup -d"
		make $format "$D"
		dead
		expect 0 tap_ctl list
		revive "$format on $D"
		guest verify $AT $LEN 1 && guest verify 0 65536 9 || fail "$format on $D"
		kill -KILL "$pid"
		until_true 10 gone "$pid"
		guest=$minor
		open_it # another disk of it
		guest verify $AT $LEN 1 || fail "$format on $D: opened anew"
		destroy "$format on $D"
		tap_ctl free -m "$guest" 2>/dev/null
		sound
		losetup -d "$D"
	done
fi

# --- its file system is full: nothing is given up, but by free -f
[ "$(id -u)" = 0 ] || exit 0
mkdir "$WORK/small"
mount -t tmpfs -o size=8M tmpfs "$WORK/small" 2>/dev/null || exit 0
at_exit "umount -l $WORK/small"
MODE=writeback AT=$((40 << 20 | 65536)) # a page of a table that holds nothing yet
for format in vhd qcow2; do
	for how in room -f; do
		rm -f "$WORK/small/"*
		make $format "$WORK/small/img.$format"
		dead
		fallocate -d "$IMG" 2>/dev/null || { echo "no holes can be dug here"; exit 0; } # the log's places have no space any more
		cat /dev/zero >"$WORK/small/filler" 2>/dev/null
		run tap_ctl free -m "$minor"
		[ "$RC" = 28 ] || fail "$format: free on a full file system: $RC $ERR"
		has "$format, full" "$ERR" "cannot be written"
		has "$format, full: the way out" "$ERR" "free -f"
		[ -e "$log" ] || fail "$format, full: the log is gone"
		if [ $how = room ]; then
			rm "$WORK/small/filler"
			expect 0 tap_ctl free -m "$minor"
			open_it
			guest verify $AT $LEN 1 || fail "$format: free, when there is room"
		else
			expect 0 tap_ctl free -f -m "$minor"
			has "$format, full: what is given up is said" "$ERR" "are lost"
			rm "$WORK/small/filler"
			if [ $format = vhd ]; then
				expect 0 vhd_util repair -n "$IMG"
				sound
			else
				sound_but_for_leaks "$IMG"
			fi
			open_it
		fi
		guest verify 0 65536 9 || fail "$format, full, $how: what was flushed"
		destroy "$format"
	done
done
exit 0
