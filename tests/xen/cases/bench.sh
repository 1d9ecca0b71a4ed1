# SPDX-License-Identifier: LGPL-2.1-or-later
# For bench/xen: one guest, one store, served in turns by a tapdisk, by Linux's xen-blkback and by QEMU's qdisk.
#
# Everything runs emulated, so the rates say little; side by side, and with dom0's CPU time for each request, they compare.  All of dom0's
# processors' busy time is counted, kernel threads and interrupts too, while nothing else runs in dom0: it is read without starting a
# process, a second after the load has begun and a second before it ends.

[ ! -f /lab/bench.conf ] || . /lab/bench.conf
BENCH_LOADS=${BENCH_LOADS:-"randread,4096,1 randread,4096,32 randwrite,4096,32 read,65536,8 write,65536,8"}
BENCH_BACKENDS=${BENCH_BACKENDS:-"tapdisk persistent blkback qdisk"}
BENCH_STORES=${BENCH_STORES:-"device file"}

# attach or detach BACKEND STORE.  persistent: a tapdisk with the toolstack's word for persistent grants.
bench_attach() {
	local target=$2
	case $1 in
	tapdisk) timeout 60 tap-vbd attach d1 "format=raw,vdev=xvdb,access=rw,cache=none,target=$target" ;;
	persistent) timeout 60 tap-vbd attach d1 "format=raw,vdev=xvdb,access=rw,cache=none,direct-io-safe,target=$target" ;;
	blkback)
		[ -b "$target" ] || target=$(losetup --direct-io=on -f --show "$target") || return 1
		echo "$target" >/tmp/bench.loop
		timeout 60 xl block-attach d1 "backendtype=phy,format=raw,vdev=xvdb,access=rw,target=$target" ;;
	# without direct-io-safe, for which QEMU asks libaio, that Debian's has not got: through dom0's page cache
	qdisk) timeout 60 xl block-attach d1 "backendtype=qdisk,format=raw,vdev=xvdb,access=rw,target=$target" ;;
	esac >/tmp/attach.out 2>&1 && g d1 60 "disk_there xvdb 50" >>/tmp/attach.out 2>&1
}
bench_detach() {
	case $1 in
	tapdisk | persistent) timeout 60 tap-vbd detach d1 xvdb ;;
	*) timeout 60 xl block-detach d1 xvdb ;;
	esac >/tmp/detach.out 2>&1 || return 1
	g d1 60 "disk_gone xvdb 50" >/dev/null || return 1
	case $(cat /tmp/bench.loop 2>/dev/null) in /dev/loop*) losetup -d "$(cat /tmp/bench.loop)" ;; esac
	rm -f /tmp/bench.loop
}
# Sets BUSY (ms of all processors) and NOW (ms).  No process is started.
busy() {
	local u n s i w q h
	read -r _ u n s i w q h _ </proc/stat; BUSY=$(((u + n + s + q + h) * 10))
	read -r u _ </proc/uptime; NOW=$((10#${u/./} * 10))
}
# What the ring of a tapdisk has done, for the profile: requests and kicks in, answers and notifies out.
ring_counts() { tap-ctl stats -p "$(pidof tapdisk)" -m "$(tap-ctl list | sed -n 's/.*minor=\([0-9]*\).*/\1/p')" | grep -oE '"(reqs|kicks)": *\[[^]]*\]' | tr -d ' \n'; }

# One load: a line for bench/report, "m TABLE ROW BACKEND ROUND IOPS P50 P99 MICROSECONDS-OF-CPU"; commas in the row are its spaces
bench_load() { # bench_load ROUND STORE-NAME BACKEND LOAD
	local s=${BENCH_SECONDS:-4} log seq busy0 now0 n t p50 p99
	log=$(guest_log d1); seq=$(($(cat /tmp/d1.seq) + 1)); echo $seq >/tmp/d1.seq
	printf '%s %s\n' $seq "aioload /dev/xvdb ${4//,/ } $((s + 2))" >"$(xenstore-read "/local/domain/$(cat /tmp/d1.id)/console/tty")"
	sleep 1; busy; busy0=$BUSY now0=$NOW
	[ -z "${BENCH_PROFILE:-}" ] || perf record -q -a -g -e cpu-clock -F 500 -o "/tmp/perf.$2.$3.$4" -- sleep "$s" >/dev/null 2>&1
	[ -n "${BENCH_PROFILE:-}" ] || sleep "$s"
	busy
	wait_for 90 grep -qa "^@END $seq " "$log" || die "$3, $4: the guest does not answer"
	read -r n t p50 p99 < <(tr -d '\r' <"$log" | sed -n "/^@BEGIN $seq\$/,\$s/^aioload: \([0-9]*\) requests, \([0-9.]*\) seconds, p50 \([0-9.]*\) us, p99 \([0-9.]*\) us/\1 \2 \3 \4/p")
	[ -n "$p99" ] || die "$3, $4: $(sed -n "/^@BEGIN $seq/,\$p" "$log" | tr -d '\r')"
	awk -v head="= m xen-$2 $4 $3 $1" -v n="$n" -v t="$t" -v p="$p50 $p99" -v cpu=$((BUSY - busy0)) -v w=$((NOW - now0)) \
		'BEGIN { printf "%s %.1f %s %.1f\n", head, n / t, p, cpu / w * 1e6 / (n / t) }'
}
# One turn: all the loads on one store by one backend
bench_turn() { # bench_turn ROUND STORE-NAME STORE BACKEND
	local load before
	bench_attach "$4" "$3" || { sed 's/^/# | /' /tmp/attach.out; die "$4 cannot be had on $2"; }
	[ "$1" != 1 ] || say "$4: $(key "$(fe d1 xvdb)" feature-persistent) persistent in the guest, $(key "$(fe d1 xvdb)" multi-queue-num-queues) queues, ring-page-order $(key "$(fe d1 xvdb)" ring-page-order)"
	for load in $BENCH_LOADS; do
		case $4 in tapdisk | persistent) before=$(ring_counts) ;; *) before= ;; esac
		bench_load "$1" "$2" "$4" "$load"
		[ -z "$before" ] || say "$2 $load $4: ring $before -> $(ring_counts)"
	done
	bench_detach "$4" || { sed 's/^/# | /' /tmp/detach.out; die "$4 does not let go"; }
}

case_bench() {
	local i file store disks=()
	guests_only
	kill -TERM "$(tapback_pid vbd)"; wait_for 10 gone "$(tapback_pid vbd)" || die "tapback does not end" # vbd is blkback's now
	modprobe xen-blkback || die "no xen-blkback"
	file=$(image bench.img 96); dd if=/dev/zero of="$file" bs=1M count=96 conv=fsync 2>/dev/null || die "no file"
	# libxl starts a QEMU for a PV guest only with the guest, so that one has a qdisk from the beginning
	[ ! -x /usr/libexec/xen-qemu-system-i386 ] || disks=("format=raw,vdev=xvdz,access=rw,backendtype=qdisk,target=$(image seed.img 1)")
	guest_start d1 pv "${disks[@]}" || die "xl create failed"
	[ ${#disks[@]} -gt 0 ] || { say "no QEMU for Xen: without qdisk"; BENCH_BACKENDS=${BENCH_BACKENDS/qdisk/}; }
	for i in $(seq "${BENCH_ROUNDS:-3}"); do
		for store in $BENCH_STORES; do
			for backend in $BENCH_BACKENDS; do
				say "round $i, $store: $backend"
				case $store in
				device) bench_turn "$i" device /dev/vdb "$backend" ;;
				file) bench_turn "$i" file "$file" "$backend" ;;
				esac
			done
		done
	done
	for i in /tmp/perf.*; do
		[ -s "$i" ] || continue
		echo "# profile of ${i#/tmp/perf.}"; perf report -i "$i" --no-children -g none --percent-limit 1 --sort comm,sym --stdio 2>/dev/null | grep -v '^#' | grep . | sed 's/^/# | /'
	done
	guest_stop d1
}
