# SPDX-License-Identifier: LGPL-2.1-or-later
# For bench/xen: one guest, one store, served in turns by a tapdisk, by Linux's xen-blkback and by QEMU's qdisk.
#
# Everything runs emulated, so the rates say little; side by side, and with dom0's CPU time for each request, they compare.  All of dom0's
# processors' busy time is counted, kernel threads and interrupts too.

[ ! -f /lab/bench.conf ] || . /lab/bench.conf
BENCH_LOADS=${BENCH_LOADS:-"randread,4096,1 randread,4096,32 randwrite,4096,32 read,65536,8 write,65536,8"}

# attach or detach BACKEND STORE
bench_attach() {
	local target=$2
	case $1 in
	tapdisk) timeout 60 tap-vbd attach d1 "format=raw,vdev=xvdb,access=rw,cache=none,target=$target" ;;
	blkback)
		[ -b "$target" ] || target=$(losetup --direct-io=on -f --show "$target") || return 1
		echo "$target" >/tmp/bench.loop
		timeout 60 xl block-attach d1 "backendtype=phy,format=raw,vdev=xvdb,access=rw,target=$target" ;;
	qdisk) timeout 60 xl block-attach d1 "backendtype=qdisk,format=raw,vdev=xvdb,access=rw,direct-io-safe,target=$target" ;;
	esac >/tmp/attach.out 2>&1 && g d1 30 "disk_there xvdb 20" >/dev/null
}
bench_detach() {
	case $1 in
	tapdisk) timeout 60 tap-vbd detach d1 xvdb ;;
	*) timeout 60 xl block-detach d1 xvdb ;;
	esac >/tmp/detach.out 2>&1 || return 1
	case $(cat /tmp/bench.loop 2>/dev/null) in /dev/loop*) losetup -d "$(cat /tmp/bench.loop)" ;; esac
	rm -f /tmp/bench.loop
	g d1 30 "disk_gone xvdb 20" >/dev/null
}
busy_ms() { awk '/^cpu / { print ($2 + $3 + $4 + $7 + $8) * 10 }' /proc/stat; }

# One turn: a line for each load, "STORE LOAD BACKEND IOPS MICROSECONDS-OF-CPU"
bench_turn() { # bench_turn STORE-NAME STORE BACKEND
	local load before after n s
	bench_attach "$3" "$2" || { sed 's/^/# | /' /tmp/attach.out; say "$3 cannot be had on $1: left out"; bench_detach "$3"; return 0; }
	for load in $BENCH_LOADS; do
		before=$(busy_ms)
		g d1 60 "aioload /dev/xvdb ${load//,/ } ${BENCH_SECONDS:-4}" >/tmp/aioload || die "$3, $load: $(cat /tmp/aioload)"
		after=$(busy_ms)
		read -r n s < <(sed -n 's/^aioload: \([0-9]*\) requests, \([0-9.]*\) seconds/\1 \2/p' /tmp/aioload)
		awk "BEGIN { print \"$1 $load $3\", $n / $s, ($after - $before) * 1000 / $n }" >>/tmp/bench.all
	done
	bench_detach "$3" || { sed 's/^/# | /' /tmp/detach.out; die "$3 does not let go"; }
}

bench_table() {
	awk '
	function median(k,   n, i, j, t, a) {
		n = count[k]
		for (i = 1; i <= n; i++) a[i] = v[k, i]
		for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
		return n == 0 ? 0 : n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
	}
	function add(k, x) { v[k, ++count[k]] = x }
	function show(x) { return x ? sprintf("%.2f", x) : "-" }
	{ if (!(($1, $2) in seen)) { seen[$1, $2]; order[++rows] = $1 " " $2 } add($1 " " $2 " " $3 " iops", $4); add($1 " " $2 " " $3 " cpu", $5) }
	END {
		print "= | store | load | tapdisk IOPS | xen-blkback | qdisk | of blkback | of qdisk | dom0 CPU us a request: tapdisk | blkback | qdisk |"
		print "= |---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
		for (i = 1; i <= rows; i++) {
			split(order[i], f, " "); k = order[i]
			t = median(k " tapdisk iops"); b = median(k " blkback iops"); q = median(k " qdisk iops")
			printf "= | %s | %s | %d | %d | %d | %s | %s | %d | %d | %d |\n", f[1], f[2], t, b, q, show(b ? t / b : 0), show(q ? t / q : 0),
				median(k " tapdisk cpu"), median(k " blkback cpu"), median(k " qdisk cpu")
		}
	}' /tmp/bench.all
}

case_bench() {
	local i file
	guests_only
	kill -TERM "$(tapback_pid vbd)"; wait_for 10 gone "$(tapback_pid vbd)" || die "tapback does not end" # vbd is blkback's now
	modprobe xen-blkback || die "no xen-blkback"
	file=$(image bench.img 96); dd if=/dev/zero of="$file" bs=1M count=96 conv=fsync 2>/dev/null || die "no file"
	guest_start d1 pv || die "xl create failed"
	rm -f /tmp/bench.all
	for i in $(seq "${BENCH_ROUNDS:-3}"); do
		for backend in tapdisk blkback qdisk; do
			say "round $i: $backend"
			bench_turn device /dev/vdb $backend
			bench_turn file "$file" $backend
		done
	done
	bench_table
	guest_stop d1
}
