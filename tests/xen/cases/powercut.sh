# SPDX-License-Identifier: LGPL-2.1-or-later
# Power cuts under a real guest.  powercut: the guest writes files and fsyncs them, on a disk of each pair of format and mode; each
# image is in a file system of its own, whose every write and flush dm-log-writes keeps, with a mark where the guest was promised a
# step.  On the host, tests/xen/powercut builds from the log what a cut may have left, and looks for what was promised.
# powercut-reboot: disks of such cuts again under dom0's own kernel, Xen and a guest, which looks itself.
#
# Where things are on /dev/vdd, in sectors: pair i has its file system at i * AREA, and its log FS_SECTORS later.  These
# numbers, PAIRS and STEPS come from tests/xen/powercut, in /lab/powercut.conf.

POWERCUT_MIB=48 # of a guest's disk

dm() { DM_DISABLE_UDEV=1 dmsetup "$@" >/tmp/dmsetup.out 2>&1 || { sed 's/^/# | /' /tmp/dmsetup.out; return 1; }; }
area() { dm create "$1" --table "0 $3 linear /dev/vdd $2"; } # area NAME FIRST SECTORS

pair_image() { # pair_image FORMAT FILE
	case $1 in
	raw) truncate -s ${POWERCUT_MIB}M "$2" ;;
	vhd) vhd-util create -n "$2" -s $POWERCUT_MIB ;;
	qcow2) td-qcow create "$2" ${POWERCUT_MIB}M >/dev/null ;;
	esac
}
pair_target() { # pair_target FORMAT MODE FILE
	local words="cache=$2"
	[ "$2" != unsafe ] || words+=":unsafe=yes"
	echo "$1:$words:$3"
}

# Everything that reaches the file system's disk is in the log, mkfs included.
pair_logged() { # pair_logged I
	area "fs$1" $(($1 * AREA)) "$FS_SECTORS" && area "log$1" $(($1 * AREA + FS_SECTORS)) $((AREA - FS_SECTORS)) &&
		dm create "cut$1" --table "0 $FS_SECTORS log-writes /dev/mapper/fs$1 /dev/mapper/log$1" &&
		mke2fs -t ext4 -q -F -E nodiscard "/dev/mapper/cut$1" && mkdir -p "/cut/$1" && mount -t ext4 "/dev/mapper/cut$1" "/cut/$1"
}
# One after the other: libxl gives each hotplug script 40 s, and nine of them at once share two emulated processors.
pair_attach() { # pair_attach I FORMAT/MODE FILE
	local d; d=$(disk "$(vdev "$1")" "$(pair_target "${2%/*}" "${2#*/}" "$3")")
	if guest_alive c1; then
		timeout 60 xl block-attach c1 "$d" >/tmp/attach.out 2>&1 </dev/null || { sed 's/^/# | /' /tmp/attach.out; return 1; }
	else
		UPLIMIT=120 guest_start c1 pv "$d"
	fi
}
mark() { dm message "cut$1" 0 mark "$2"; } # mark I WORD

# The guest at its steps, and its promises on the way to the log: each is marked after it was made, never before.  A process in here
# takes as long as a step: none is started but for the mark.
steps() { # steps I
	local seq line part= n= told= rc=
	seq=$(($(cat /tmp/c1.seq) + 1)); echo $seq >/tmp/c1.seq
	[ -p /tmp/nothing ] || mkfifo /tmp/nothing
	exec 5<"$(guest_log c1)" 6<>/tmp/nothing
	echo "$seq promise write /mnt pair$1 $STEPS" >"$(xenstore-read "/local/domain/$(cat /tmp/c1.id)/console/tty")"
	until [ -n "$rc" ]; do
		[ $SECONDS -lt $((BEGAN + 60 + STEPS * 6)) ] || { say "the guest does not get on: ${n:-0} of $STEPS steps"; return 1; }
		while read -r line <&5; do
			line=$part${line%$'\r'} part=
			case $line in
			"@P pair$1 "*) n=${line##* } ;;
			"@END $seq "*) rc=${line##* } ;;
			"promise: "*) echo "# $line" ;;
			esac
		done
		part+=$line
		[ "$n" = "$told" ] || { mark "$1" "promised-$n" || return 1; told=$n; }
		read -r -t 0.05 <&6
	done
	exec 5<&- 6<&-
	return "$rc"
}

case_powercut() {
	. /lab/powercut.conf
	local i=0 pair
	guests_only
	modprobe dm-log-writes || die "no dm-log-writes"
	for pair in $PAIRS; do
		pair_logged $i || die "no file system for $pair"
		pair_image "${pair%/*}" "/cut/$i/image" || die "no image for $pair"
		pair_attach $i "$pair" "/cut/$i/image" || die "$pair cannot be attached"
		g c1 60 "promise_start $(vdev $i)" >/tmp/started || { sed 's/^/# | /' /tmp/started; die "$pair: no file system in the guest"; }
		sync -f "/cut/$i/image" # in unsafe nobody else does, and then all would be lost
		BEGAN=$SECONDS
		steps $i || die "$pair: the guest cannot write"
		mark $i end || die "no mark"
		say "$pair: $STEPS steps promised in $((SECONDS - BEGAN)) s"
		g c1 60 "umount /mnt" || die "umount failed in the guest"
		i=$((i + 1))
	done
	guest_stop c1 || die "xl destroy failed"
	for i in $(seq 0 $((i - 1))); do
		umount "/cut/$i" && dm remove "cut$i" && dm remove "fs$i" && dm remove "log$i" || die "the log cannot be closed"
	done
}

# /lab/powercut.left has a line for each disk: FORMAT/MODE, the name that its files have, what was promised at the cut.
case_powercut_reboot() {
	. /lab/powercut.conf
	local i=0 pair name promised bad=0
	guests_only
	modprobe dm-mod
	while read -r pair name promised; do
		area "left$i" $((i * FS_SECTORS)) "$FS_SECTORS" && mkdir -p "/left/$i" && mount -t ext4 "/dev/mapper/left$i" "/left/$i" ||
			die "$pair: dom0 cannot mount what is left"
		pair_attach $i "$pair" "/left/$i/image" || die "$pair: what is left cannot be attached"
		g c1 60 "promise_look $(vdev $i) $name $promised" >/tmp/looked || bad=1
		say "$pair, after a reboot: $(tail -1 /tmp/looked)"
		[ $bad = 0 ] || sed 's/^/# | /' /tmp/looked
		i=$((i + 1))
	done </lab/powercut.left
	[ $bad = 0 ] || die "the guest lost what it was promised"
	guest_stop c1 || die "xl destroy failed"
	for i in $(seq 0 $((i - 1))); do umount "/left/$i" && dm remove "left$i"; done
}
