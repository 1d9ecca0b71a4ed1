# SPDX-License-Identifier: LGPL-2.1-or-later
# What cases are written with.  They run in dom0, in bash, and end with die when something is not as it must be.
# State that outlives a case (guests that several cases share) is in files in /tmp: NAME.id, NAME.seq, NAME.cfg.

. /lab/conf
MODES="none writethrough writeback directsync unsafe"
# The type under which xl makes our disks.  xl of 4.17 refuses backendtype=tap, so that a
# tapback serves the type `vbd' there, which xen-blkback, not loaded, leaves to it.
TYPE=vbd3
[ "$XEN" != 4.17 ] || TYPE=vbd
PIDFILE=/run/tapback-$TYPE.pid
say() { local up; read -r up _ </proc/uptime; echo "# [${up%.*} s] $*"; }
now_ms() { local up; read -r up _ </proc/uptime; echo $((10#${up/./} * 10)); }
die() { echo "# $NAME: $*"; exit 1; }
# Processes are dear in an emulated machine: what waits starts none.
exec {NAP}<> <(:)
nap() { read -r -t "$1" -u "$NAP"; true; }
wait_for() { # wait_for SECONDS COMMAND...: until it succeeds; SECONDS of a lab that has its machine for itself, and three times as many here
	local end=$((SECONDS + 3 * $1)); shift
	until "$@"; do [ $SECONDS -lt $end ] || return 1; nap 0.3; done
}
says() { # says FILE TEXT: whether TEXT stands at the beginning of a line there
	local text
	read -r -d '' text <"$1"
	[[ $'\n'$text = *$'\n'"$2"* ]]
} 2>/dev/null

# --- the programs under test ---------------------------------------------------------------------------------------------------
CTL=/run/blktap-control
tapback_start() { # tapback_start [TYPE]: the daemon for backend/TYPE
	local type=${1:-$TYPE}
	setsid tapback -d -v -n "$type" -p "/run/tapback-$type.pid" >>"/var/log/tapback-$type.log" 2>&1 </dev/null &
	wait_for 10 test -s "/run/tapback-$type.pid"
}
tapback_pid() { cat "/run/tapback-${1:-$TYPE}.pid" 2>/dev/null; }
backend_start() {
	tapback_start || return 1
	[ $TYPE = vbd3 ] || tapback_start vbd3 # tap-vbd's disks
}
disk() { # disk VDEV TARGET [ACCESS]: xl's words for a disk of ours; target last, as it takes the rest of the line
	local words="vdev=$1,access=${3:-rw}"
	case $TYPE:$2 in
	vbd:*) echo "$words,format=raw,script=block-tap,target=$2" ;;
	vbd3:vhd:*) echo "$words,backendtype=tap,format=vhd,target=${2#vhd:}" ;;
	*) echo "$words,backendtype=tap,format=raw,target=$2" ;;
	esac
}
image() { rm -f "/data/$1"; truncate -s "${2:-96}M" "/data/$1"; echo "/data/$1"; }
target() { # target MODE PATH
	case $1 in unsafe) echo "cache=unsafe:unsafe=yes:$2" ;; *) echo "cache=$1:$2" ;; esac
}

# --- guests --------------------------------------------------------------------------------------------------------------------
guest_config() { # guest_config NAME TYPE DISK...
	local name=$1 type=$2 list= d; shift 2
	for d in "$@"; do list+="'$d', "; done
	cat >"/tmp/$name.cfg" <<-E
		name = "$name"
		type = "$type"
		kernel = "/lab/vmlinux"
		ramdisk = "/lab/domu.cpio"
		extra = "console=hvc0 earlyprintk=xen loglevel=5 panic=-1 mitigations=off nopti random.trust_cpu=on ${GUEST_ARGS:-}"
		memory = 192
		vcpus = ${GUEST_VCPUS:-1}
		on_poweroff = "destroy"
		on_reboot = "destroy"
		on_crash = "destroy"
		disk = [ $list ]
	E
}
guest_log() { echo "/var/log/xen/console/guest-$1.log"; }
guest_alive() { [ -s "/tmp/$1.id" ] && xl list "$1" >/dev/null 2>&1; }
guest_start() { # guest_start NAME TYPE DISK...: xl create, until its agent answers
	guest_config "$@"
	guest_create "$1"
}
guest_create() { # guest_create NAME: from its configuration
	local name=$1
	rm -f "$(guest_log "$name")"; echo 0 >"/tmp/$name.seq"
	timeout 120 xl create -q "/tmp/$name.cfg" >"/tmp/$name.out" 2>&1 </dev/null || { sed 's/^/# | /' "/tmp/$name.out"; return 1; }
	xl domid "$name" >"/tmp/$name.id"
	wait_for ${UPLIMIT:-100} says "$(guest_log "$name")" @UP || { say "$name does not come up"; return 1; }
}
guest_stop() { # guest_stop NAME: destroyed; xl runs the hotplug scripts' remove
	timeout 90 xl destroy "$1" >"/tmp/$1.out" 2>&1; local rc=$?
	rm -f "/tmp/$1.id"; return $rc
}
guests_only() { # guests_only [NAME...]: no other guest is running
	local f name
	for f in /tmp/*.id; do
		name=$(basename "$f" .id); [ "$name" != "*" ] || continue
		case " $* " in *" $name "*) ;; *) guest_stop "$name" ;; esac
	done
}
g() { # g NAME SECONDS COMMAND: in the guest; prints its output, returns its status, 125 when there is no answer
	local name=$1 limit=$2 seq log id; shift 2
	seq=$(($(<"/tmp/$name.seq") + 1)); echo $seq >"/tmp/$name.seq"
	log=$(guest_log "$name"); id=$(<"/tmp/$name.id")
	printf '%s %s\n' "$seq" "$*" >"$(xenstore-read "/local/domain/$id/console/tty")"
	wait_for "$limit" says "$log" "@END $seq " || { say "$name does not answer to: $*"; return 125; }
	tr -d '\r' <"$log" | sed -n "/^@BEGIN $seq\$/,/^@END $seq /p" | grep -av '^@'
	return "$(tr -d '\r' <"$log" | sed -n "s/^@END $seq //p")"
}

# --- a guest's disk as dom0 sees it --------------------------------------------------------------------------------------------
vdev() { local letters=abcdefghijklmnopqrstuvwxyz; echo "xvd${letters:$1:1}"; } # vdev N: the N-th, from 0 on
devid() { local c; printf -v c %d "'${1#xvd}"; echo $((51712 + 16 * (c - 97))); }
be() { echo "/local/domain/0/backend/${3:-$TYPE}/$(cat "/tmp/$1.id")/$(devid "$2")"; } # be GUEST VDEV [TYPE]
fe() { echo "/local/domain/$(cat "/tmp/$1.id")/device/vbd/$(devid "$2")"; }
key() { xenstore-read "$1/$2" 2>/dev/null; }
state_is() { [ "$(key "$1" state)" = "$2" ]; }
disk_pid() { key "$(be "$@")" kthread-pid; }
disk_minor() { key "$(be "$@")" physical-device-path | sed 's/.*\.//'; }
gone() { ! kill -0 "$1" 2>/dev/null; }
absent() { ! xenstore-exists "$1"; }
tapdisks() { pidof tapdisk | wc -w; }
nothing_left() { # no process, marker, socket or xenstore directory of a disk is left in dom0
	local left
	left=$(pidof tapdisk); [ -z "$left" ] || { echo "# tapdisk still runs: $left"; return 1; }
	left=$(ls $CTL/tapdisk 2>/dev/null); [ -z "$left" ] || { echo "# markers are left: $left"; return 1; }
	left=$(find $CTL -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | grep -vE '^tapdisk$|^tapback|^(hotplug-[0-9]*|nbd)[.]lock$'); [ -z "$left" ] || { echo "# sockets are left: $left"; return 1; }
	left=$(for t in vbd vbd3; do for n in $(xenstore-list /local/domain/0/backend/$t 2>/dev/null); do xenstore-list "/local/domain/0/backend/$t/$n"; done; done)
	[ -z "$left" ] || { echo "# backend directories are left: $left"; return 1; }
}

# --- what the kernel saw a tapdisk do ------------------------------------------------------------------------------------------
trace_start() { # trace_start PID
	rm -f /tmp/trace /tmp/trace.err
	setsid strace -f -v -e trace=io_submit,fdatasync,fsync,sync_file_range,pwritev,pwritev2,pwrite64 -o /tmp/trace -p "$1" 2>/tmp/trace.err &
	TRACER=$!
	wait_for 20 grep -q attached /tmp/trace.err || die "strace does not attach: $(cat /tmp/trace.err)"
}
trace_stop() { # sets SYNCS (fdatasync in any form) and DURABLE (writes that return when durable)
	# one signal is not enough: strace may look whether it was interrupted just before it comes, and then sleep
	while kill -INT $TRACER 2>/dev/null; do nap 0.1; done
	wait $TRACER 2>/dev/null
	SYNCS=$(grep -v resumed /tmp/trace | grep -oE '\b(fdatasync|fsync)\(|IOCB_CMD_F(D)?SYNC' | wc -l)
	DURABLE=$(grep -v resumed /tmp/trace | grep -oE 'RWF_D?SYNC' | wc -l)
}

evidence() { # what one wants to see after a failure
	local f
	for f in /var/log/tapback-vbd.log /var/log/tapback-vbd3.log /var/log/messages; do
		[ -s $f ] && tail -n 12 $f | cut -c1-200 | sed "s,^,# | ${f##*/}: ,"
	done
	for f in /tmp/*.id; do [ -s "$f" ] && tail -n 6 "$(guest_log "$(basename "$f" .id)")" | tr -d '\r' | cut -c1-160 | sed 's/^/# | guest: /'; done
	tap-ctl list 2>&1 | sed 's/^/# | tap-ctl list: /'
	xenstore-ls /local/domain/0/backend 2>/dev/null | head -60 >>/var/log/xenstore.evidence
}

# After a failure: nothing of it may make the next case fail too.
start_over() {
	local t n d p
	guests_only
	for t in vbd vbd3; do
		for n in $(xenstore-list /local/domain/0/backend/$t 2>/dev/null); do
			for d in $(xenstore-list "/local/domain/0/backend/$t/$n"); do
				xenstore-rm "$(key "/local/domain/0/backend/$t/$n/$d" frontend)" 2>/dev/null
				xenstore-rm "/local/domain/0/backend/$t/$n/$d"
			done
		done
		kill -9 "$(tapback_pid $t)"
	done
	for p in $(pidof tapdisk); do kill -9 "$p"; done
	wait_for 5 eval '[ "$(tapdisks)" = 0 ]'
	rm -rf $CTL /run/tapback-*.pid
	umount /small /mnt/outside 2>/dev/null
	backend_start || say "the backend does not start again"
} >/dev/null 2>&1
