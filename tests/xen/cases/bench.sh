# SPDX-License-Identifier: LGPL-2.1-or-later
# For bench/xen: one guest, one store, served in turns by a tapdisk, by Linux's xen-blkback and by QEMU's qdisk.
#
# Everything runs emulated, so the rates say little; side by side, and with dom0's CPU time for each request, they compare.  All of dom0's
# processors' busy time is counted, kernel threads and interrupts too, while nothing else runs in dom0: it is read without starting a
# process, a second after the load has begun and a second before it ends.

BENCH_LOADS=${BENCH_LOADS:-"randread,4096,1 randread,4096,32 randwrite,4096,32 read,65536,8 write,65536,8"}
BENCH_BACKENDS=${BENCH_BACKENDS:-"tapdisk persistent blkback qdisk"}
BENCH_STORES=${BENCH_STORES:-"device file"}

# The guest has all its disks from the beginning: what changes from turn to turn is the one that is loaded.  persistent: a tapdisk with the
# toolstack's word for persistent grants; the two tapdisks share a store as two hosts' would.
bench_attach() { # bench_attach BACKEND VDEV STORE
	local target=$3 words="format=raw,vdev=$2"
	case $1 in
	tapdisk) timeout 60 tap-vbd attach d1 "$words,access=w!,cache=none,target=$target" ;;
	persistent) timeout 60 tap-vbd attach d1 "$words,access=w!,cache=none,direct-io-safe,target=$target" ;;
	blkback)
		[ -b "$target" ] || target=$(losetup --direct-io=on -f --show "$target") || return 1
		timeout 60 xl block-attach d1 "$words,access=rw,backendtype=phy,target=$target" ;;
	# without direct-io-safe, for which QEMU asks libaio, that Debian's has not got: through dom0's page cache
	qdisk) timeout 60 xl block-attach d1 "$words,access=rw,backendtype=qdisk,target=$target" ;;
	esac >/tmp/attach.out 2>&1 && g d1 60 "disk_there $2 50" >>/tmp/attach.out 2>&1
}
# Sets BUSY (ms of all processors; of it USER_MS in programs, SOFT in interrupts) and NOW (ms).  No process is started.
busy() {
	local u n s i w q h
	read -r _ u n s i w q h _ </proc/stat; BUSY=$(((u + n + s + q + h) * 10)) USER_MS=$(((u + n) * 10)) SOFT=$(((q + h) * 10))
	read -r u _ </proc/uptime; NOW=$((10#${u/./} * 10))
}
# What the ring of a tapdisk has done, for the profile: requests in and out, kicks in and notifies out.
ring_counts() { tap-ctl stats -p "$(disk_pid d1 "$1" vbd3)" -m "$(disk_minor d1 "$1" vbd3)" | sed -n 's/.*"xenbus": {\(.*\)/\1/p' | grep -oE '"(reqs|kicks)": *\[[^]]*\]' | tr -d ' \n'; }

# One load: a line for bench/report, "m TABLE ROW BACKEND ROUND IOPS P50 P99 MICROSECONDS-OF-CPU"; commas in the row are its spaces
bench_load() { # bench_load ROUND STORE-NAME BACKEND VDEV LOAD
	local s=${BENCH_SECONDS:-4} log seq busy0 now0 user0 soft0 n t p50 p99
	log=$(guest_log d1); seq=$(($(cat /tmp/d1.seq) + 1)); echo $seq >/tmp/d1.seq
	printf '%s %s\n' $seq "aioload /dev/$4 ${5//,/ } $((s + 2))" >"$(xenstore-read "/local/domain/$(cat /tmp/d1.id)/console/tty")"
	sleep 1; [ -z "${BENCH_PROFILE:-}" ] || echo "= begin $2 $5 $3"
	busy; busy0=$BUSY now0=$NOW user0=$USER_MS soft0=$SOFT
	sleep "$s"; busy
	[ -z "${BENCH_PROFILE:-}" ] || echo "= end"
	wait_for 90 says "$log" "@END $seq " || die "$3, $5: the guest does not answer"
	read -r n t p50 p99 < <(tr -d '\r' <"$log" | sed -n "/^@BEGIN $seq\$/,\$s/^aioload: \([0-9]*\) requests, \([0-9.]*\) seconds, p50 \([0-9.]*\) us, p99 \([0-9.]*\) us/\1 \2 \3 \4/p")
	[ -n "$p99" ] || die "$3, $5: $(sed -n "/^@BEGIN $seq/,\$p" "$log" | tr -d '\r')"
	awk -v head="= m xen-$2 $5 $3 $1" -v n="$n" -v t="$t" -v p="$p50 $p99" -v cpu=$((BUSY - busy0)) -v w=$((NOW - now0)) \
		'BEGIN { printf "%s %.1f %s %.1f\n", head, n / t, p, cpu / w * 1e6 / (n / t) }'
	[ -z "${BENCH_PROFILE:-}" ] || say "$2, $5, $3: of dom0's $((BUSY - busy0)) ms: programs $((USER_MS - user0)), interrupts $((SOFT - soft0)), in $((NOW - now0)) ms"
}
# What a tapdisk asks of dom0's kernel for each request; strace slows it down, so apart from what is measured.
bench_calls() { # bench_calls STORE-NAME BACKEND VDEV LOAD
	local n
	setsid strace -f -c -S calls -o /tmp/calls -p "$(disk_pid d1 "$3" vbd3)" 2>/tmp/calls.err & n=$!
	wait_for 20 grep -q attached /tmp/calls.err || die "strace does not attach: $(cat /tmp/calls.err)"
	g d1 90 "aioload /dev/$3 ${4//,/ } 3" >/tmp/aioload || die "$2, $4: $(cat /tmp/aioload)"
	kill -INT $n; wait $n 2>/dev/null
	n=$(sed -n 's/^aioload: \([0-9]*\) .*/\1/p' /tmp/aioload)
	say "$1, $4, $2: calls a request: $(awk -v n="$n" '$4 ~ /^[0-9]+$/ && $NF != "total" { printf "%s %.3f, ", $NF, $4 / n }' /tmp/calls)"
}

case_bench() {
	local i n load store v backend file target seed=() disks=() before
	guests_only
	if [ $TYPE = vbd ]; then # it is blkback's now
		kill -TERM "$(tapback_pid)"; wait_for 10 gone "$(tapback_pid)" || die "tapback does not end"
	fi
	modprobe xen-blkback || die "no xen-blkback"
	file=$(image bench.img 96); dd if=/dev/zero of="$file" bs=1M count=96 conv=fsync 2>/dev/null || die "no file"
	# libxl starts a QEMU for a PV guest only with the guest, so that one has a qdisk from the beginning
	if [ -x /usr/libexec/xen-qemu-system-i386 ]; then seed=("format=raw,vdev=xvdz,access=rw,backendtype=qdisk,target=$(image seed.img 1)")
	else say "no QEMU for Xen: without qdisk"; BENCH_BACKENDS=${BENCH_BACKENDS/qdisk/}; fi
	guest_start d1 pv "${seed[@]}" || die "xl create failed"
	n=1
	for store in $BENCH_STORES; do
		target=$file; [ $store != device ] || target=/dev/vdb
		for backend in $BENCH_BACKENDS; do
			v=$(vdev $n); n=$((n + 1))
			bench_attach "$backend" "$v" "$target" || { sed 's/^/# | /' /tmp/attach.out; die "$backend cannot be had on $store"; }
			disks+=("$store $backend $v")
			say "$v: $store, $backend; persistent grants: backend $(key "$(fe d1 "$v")" backend | sed 's,.*,&/feature-persistent,' | xargs xenstore-read 2>/dev/null), guest $(key "$(fe d1 "$v")" feature-persistent)"
		done
	done
	if [ -n "${BENCH_PROFILE:-}" ]; then # for tests/xen/profile: dom0 on the first processor, the guest on the others
		echo 0 >/proc/sys/kernel/kptr_restrict; cp /proc/kallsyms /share/kallsyms
		xl vcpu-pin Domain-0 all 0 && xl vcpu-pin d1 all all,^0 || die "processors cannot be had apart"
	fi
	for i in $(seq "${BENCH_ROUNDS:-3}"); do
		for load in $BENCH_LOADS; do
			for ((n = 0; n < ${#disks[@]}; n++)); do
				read -r store backend v <<<"${disks[(i - 1 + n) % ${#disks[@]}]}"
				case $backend in tapdisk | persistent) before=$(ring_counts "$v") ;; *) before= ;; esac
				bench_load "$i" "$store" "$backend" "$v" "$load"
				[ -z "$before" ] || say "round $i, $store, $load, $backend: ring $before -> $(ring_counts "$v")"
			done
		done
	done
	for load in ${BENCH_PROFILE:+$BENCH_LOADS}; do
		for i in "${disks[@]}"; do
			case $i in *" tapdisk "* | *" persistent "*) bench_calls $i "$load" ;; esac
		done
	done
	guest_stop d1
}
