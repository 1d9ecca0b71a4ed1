# SPDX-License-Identifier: LGPL-2.1-or-later
# What the benches are written with: sourced by bench/ring, null, nbd, vhd, qcow, scale.  They print the lines that bench/report takes, and are
# run by bench/run.  Environment: ROUNDS (5), SECONDS_EACH (3), SIZE (1G: of the disk), DIR (where files go: /var/tmp), ROWS (a regular
# expression: of the rows, as "TABLE: ROW", only those), PRIORITY (see at_priority).
set -euo pipefail
# shellcheck source=tests/support/errtrap.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/errtrap.sh"
: "${top_builddir:=$PWD}" "${ROUNDS:=5}" "${SECONDS_EACH:=3}" "${SIZE:=1G}" "${DIR:=/var/tmp}" "${ROWS:=.}"
work=$(mktemp -d "$DIR/tapdisk-bench.XXXXXX")
export TAPDISK_CONTROL_DIR=$work/ctl TAPDISK_CONF=/dev/null
pid= minor= server=
tap_ctl() { "$top_builddir/bin/tap-ctl" "$@"; }
finish() # a bench that starts more than this takes it away before
{
	trap '' TERM INT # a second signal, which whoever stops a group may send, is not to stop this
	[ -z "$pid" ] || tap_ctl destroy -p "$pid" -m "$minor" || kill -KILL "$pid"
	# one that was being made when a signal came is not known by its pid here
	tap_ctl list 2>/dev/null | sed -n 's/^pid=\([0-9]*\) .*/\1/p' | sort -u | xargs -r kill -KILL || true
	[ -z "$server" ] || kill "$server" || true
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
say() { echo "bench: $*" >&2; }
need() { local t; for t in "$@"; do command -v "$t" >/dev/null || { say "install $t first"; exit 77; }; done; }
need_fio() # ENGINE...
{
	local e; need fio
	for e in "$@"; do fio --enghelp | grep -qw "$e" || { say "this fio has no engine $e"; exit 77; }; done
}

# --- lines ---------------------------------------------------------------------------------------------------------------------
line() { local IFS=$'\t'; echo "$*"; }
table() { name=$1; line table "$@"; }    # NAME UNIT BASE TITLE: of the rows that follow
aim() { line aim "$name" "$@"; }         # VARIANT RATIO ROWS [OF]
value() { line v "$name" "$@"; }         # WHAT VALUE
wanted() { [[ "$name: $1" =~ $ROWS ]]; } # ROW

# Each command once a round; it prints "RATE P50 P99 CPU", with `-' for what it does not know.
row() # ROW VARIANT=COMMAND...
{
	local row=$1 i j v order rate p50 p99 cpu

	shift
	wanted "$row" || return 0
	for ((i = 1; i <= ROUNDS; i++)); do
		# by chance, so that none has the same one before it each time, whose traces in caches count
		mapfile -t order < <(shuf -i "1-$#")
		for j in "${order[@]}"; do
			v=${!j}
			say "$name: $row, round $i of $ROUNDS: ${v%%=*}"
			# not in a subshell, as the command starts what `finish' must know
			${v#*=} >"$work/line"
			read -r rate p50 p99 cpu <"$work/line" || { say "$row: ${v%%=*} gave no result"; return 1; }
			line m "$name" "$row" "${v%%=*}" "$i" "$rate" "$p50" "$p99" "$cpu"
		done
	done
}

# --- servers -------------------------------------------------------------------------------------------------------------------
create() # SPEC [OPTION...]: sets pid and minor
{
	local marker

	marker=$(tap_ctl create -a "$@")
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	at_priority_too "$pid"
}
destroy() { tap_ctl destroy -p "$pid" -m "$minor"; pid=; }
socket() { echo "$TAPDISK_CONTROL_DIR/nbd$pid.$minor"; }
# A server of somebody else's on $work/peer.sock; its command is in the arguments.
peer_start()
{
	rm -f "$work/peer.sock"; "$@" & server=$!
	until [ -S "$work/peer.sock" ]; do kill -0 $server || return 1; sleep 0.02; done
	at_priority_too $server
}
peer_stop() { kill "$server"; wait "$server" || true; server=; }
qsd_start() # FILE DRIVER [DIRECT AIO]
{
	peer_start qemu-storage-daemon --blockdev "file,node-name=f,filename=$1,cache.direct=${3:-on},aio=${4:-native}" --blockdev "$2,node-name=d,file=f" \
		--nbd-server "addr.type=unix,addr.path=$work/peer.sock" --export nbd,id=e,node-name=d,name=,writable=on
}
cpu_of() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; } # ticks

# PRIORITY: what is measured, and what it is measured with, run at this priority of SCHED_FIFO, or, if it is below 0, with this nice value, so
# that a machine that others use is ours for the seconds of a round.  SCHED_FIFO moves a thread away when one that is bound to its processor
# wakes there: what a tapdisk does near its loop (TD_IO_NEAR) is measured with -20.
at_priority() { case ${PRIORITY:-} in '') "$@" ;; -*) nice -n "$PRIORITY" "$@" ;; *) chrt -f "$PRIORITY" "$@" ;; esac; }
at_priority_too() # what runs already
{
	case ${PRIORITY:-} in
	'') ;;
	-*) find "/proc/$1/task" -mindepth 1 -maxdepth 1 -printf '%f\n' | xargs renice -n "$PRIORITY" -p >/dev/null ;;
	*) chrt -a -f -p "$PRIORITY" "$1" ;;
	esac
}

# --- loads ---------------------------------------------------------------------------------------------------------------------
lay_out() { # FILE
	say "laying out $SIZE in $work"
	fio --name=lay --filename="$1" --rw=write --bs=1M --size="$SIZE" --direct=1 --ioengine=libaio --iodepth=8 --end_fsync=1 >/dev/null
}
ring() # SPEC RW BS DEPTH [OPTION...]: the ring on a tapdisk that is started for it
{
	create "$1" -o cache=none
	at_priority "$top_builddir/bench/ringbench" --rw "$2" --bs "$3" --depth "$4" --seconds "$SECONDS_EACH" "${@:5}" "$pid" "$minor" | ring_result
	destroy
}
ring_result() { sed 's/[a-z0-9_]*=//g' | awk '{ print $1, $2, $3, $1 ? $4 / 100 / $1 * 1e6 : "-" }'; }
# What fio says of one job: RATE P50 P99, its own CPU, and how many KiB it moved.
fio_result() # RW
{
	awk -F';' -v o="$([[ $1 == *read* ]] && echo 0 || echo 41)" '/^3;/ {
		for (i = 18 + o; i <= 37 + o; i++) { split($i, p, /%=/); if (p[1] + 0 == 50) p50 = p[2]; if (p[1] + 0 == 99) p99 = p[2] }
		print $(8 + o), p50, p99, $(8 + o) ? ($88 + $89) / 100 / $(8 + o) * 1e6 : "-", $(6 + o)
	}'
}
ms=$(awk "BEGIN { printf \"%.0f\", $SECONDS_EACH * 1000 }") # fio takes no fractions, and 0 for ever
job() # RW BS DEPTH SIZE FIO-OPTION...
{
	at_priority fio --name=x --rw="$1" --bs="$2" --iodepth="$3" --size="$4" --runtime="${ms}ms" --time_based --norandommap --randrepeat=0 \
		--output-format=terse --terse-version=3 "${@:5}" 2>/dev/null | fio_result "$1"
}
fio_file() { job "$3" "$4" "$5" "$SIZE" --filename="$2" --ioengine="$1" --direct=1 | cut -d' ' -f1-4; } # ENGINE FILE RW BS DEPTH
# A client (JOBS of them) of the server PID on SOCKET: the CPU is the server's, not fio's.
fio_nbd() # PID SOCKET RW BS DEPTH [SIZE [OFFSET]]
{
	local before rate p50 p99 kib

	before=$(cpu_of "$1")
	read -r rate p50 p99 _ kib < <(job "$3" "$4" "$5" "${6:-$SIZE}" --offset="${7:-0}" --numjobs="${JOBS:-1}" --group_reporting \
		--ioengine=nbd --uri="nbd+unix:///?socket=$2")
	awk -v r="$rate $p50 $p99" -v n="$kib" -v bs="$(numfmt --from=iec "${4^^}")" -v ticks=$(($(cpu_of "$1") - before)) -v hz="$(getconf CLK_TCK)" \
		'BEGIN { print r, n ? ticks / hz * 1e6 / (n * 1024 / bs) : "-" }'
}
size_of() { [ $(($1 % 1048576)) = 0 ] && echo "$(($1 / 1048576)) MiB" || echo "$(($1 / 1024)) KiB"; }
