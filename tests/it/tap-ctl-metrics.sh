# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl metrics: valid text, whose numbers are those of tap-ctl stats; a file appears whole.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

odd="$WORK/a \"b\" \\c.img"
truncate -s 8M "$odd"
expect 0 tap_ctl create -a "aio:$odd" -o cache=writeback
P=$(procs tapdisk)
expect 0 tap_ctl create -a null:1M
expect 0 "$top_builddir/tests/support/tdguest" "$P" 0 write 0 90112 1
expect 0 "$top_builddir/tests/support/tdguest" "$P" 0 flush 3
tap_ctl stats -p "$P" -m 0 >"$WORK/stats" || fail stats

# The grammar of the text format, and what Prometheus and node_exporter refuse: a sample without a type before it, a name whose samples
# are apart, a sample that is there twice, buckets that do not add up.
cat >"$WORK/parse.py" <<'P'
import json, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
assert text.endswith("\n")
sample = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)*)\} (\S+)$')
label = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
types, seen, family, closed = {}, {}, None, set()
for line in text.splitlines():
    if line.startswith("# HELP "):
        assert family is None or line.split()[2] not in closed, line
        closed.add(family)
        family = line.split()[2]
        continue
    if line.startswith("# TYPE "):
        _, _, name, kind = line.split()
        assert name == family and name not in types and kind in ("counter", "gauge", "histogram"), line
        assert name.endswith("_total") == (kind == "counter"), line
        types[name] = kind
        continue
    m = sample.match(line)
    assert m, line
    name = m.group(1)
    base = re.sub("_(bucket|sum|count)$", "", name) if types[family] == "histogram" else name
    assert base == family, line
    labels = tuple((k, re.sub(r"\\(.)", lambda e: {"n": "\n"}.get(e[1], e[1]), v)) for k, v in label.findall(m.group(2)))
    assert (name, labels) not in seen, line
    seen[name, labels] = float(m.group(3))
def get(name, **want):
    found = [v for (n, l), v in seen.items() if n == name and want.items() <= dict(l).items()]
    assert len(found) == 1, (name, want, found)
    return found[0]
stats = json.load(open(sys.argv[2]))
disk = sys.argv[3]
for op in ("read", "write", "flush", "discard"):
    r = stats["requests"][op]
    assert get("tapdisk_requests_total", op=op, disk=disk) == r["completed"]
    assert get("tapdisk_request_errors_total", op=op, disk=disk) == r["errors"]
    h = [(float(dict(l)["le"]), v) for (n, l), v in seen.items() if n.endswith("_bucket") and dict(l)["op"] == op and dict(l)["disk"] == disk]
    assert [x[0] for x in h] == sorted(x[0] for x in h) and [x[1] for x in h] == sorted(x[1] for x in h), h
    assert h[-1][0] == float("inf") and h[-1][1] == r["completed"] == get("tapdisk_request_duration_seconds_count", op=op, disk=disk)
    p50 = r["latency_ns"]["p50"] / 1e9
    if r["completed"]: # the median lies where the buckets say
        assert next(le for le, v in h if v * 2 >= h[-1][1]) >= p50 * 0.9, (op, h, p50)
    assert abs(get("tapdisk_request_duration_seconds_sum", op=op, disk=disk) - r["latency_ns"]["sum"] / 1e9) < 1e-8
assert get("tapdisk_bytes_total", op="write", disk=disk) == 90112 + 3 * 4096
assert get("tapdisk_syncs_total", disk=disk) == stats["cache"]["syncs"] > 0
assert get("tapdisk_disk_size_bytes", disk=disk) == 8 << 20
assert get("tapdisk_disk_info", disk=disk, mode="writeback") == 1
assert get("tapdisk_disk_paused", disk=disk) == int(sys.argv[4])
P
tap_ctl metrics >"$WORK/metrics" || fail metrics
expect 0 python3 "$WORK/parse.py" "$WORK/metrics" "$WORK/stats" "aio:$odd" 0
if command -v promtool >/dev/null; then
	promtool check metrics <"$WORK/metrics" >"$WORK/promtool" 2>&1 || fail "promtool: $(cat "$WORK/promtool")"
fi
expect 0 tap_ctl pause -p "$P" -m 0
expect 0 tap_ctl metrics -f "$WORK/tapdisk.prom"
is "stdout of metrics -f" "$OUT" ""
is "mode of the file" "$(stat -c %a "$WORK/tapdisk.prom")" 644
expect 0 python3 "$WORK/parse.py" "$WORK/tapdisk.prom" "$WORK/stats" "aio:$odd" 1
expect 2 tap_ctl metrics -f "$WORK/no/such/directory/x"
is "left beside it" "$(find "$WORK" -name '*.prom.*')" ""

# what is no regular file stays what it is: it is written to, or refused
mkfifo "$WORK/fifo"
expect 6 tap_ctl metrics -f "$WORK/fifo" # ENXIO
has "a FIFO that nobody reads" "$ERR" "no process reads it"
cat "$WORK/fifo" >"$WORK/through" &
reader=$!
through() { tap_ctl metrics -f "$WORK/fifo" 2>/dev/null; }
until_true 10 through
wait $reader
grep -q '^tapdisk_answers' "$WORK/through" || fail "nothing came through the FIFO"
[ -p "$WORK/fifo" ] || fail "the FIFO has been replaced"
: >"$WORK/real.prom"
ln -s real.prom "$WORK/link.prom"
expect 0 tap_ctl metrics -f "$WORK/link.prom"
[ -L "$WORK/link.prom" ] || fail "the symbolic link has been replaced"
grep -q '^tapdisk_answers' "$WORK/real.prom" || fail "the file behind the link has nothing"
ln -s nowhere "$WORK/dangling"
expect 2 tap_ctl metrics -f "$WORK/dangling"
[ -L "$WORK/dangling" ] && [ ! -e "$WORK/nowhere" ] || fail "the link that leads nowhere has been replaced or followed"
mkdir "$WORK/dir"
expect 21 tap_ctl metrics -f "$WORK/dir"
python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$WORK/socket"
expect 22 tap_ctl metrics -f "$WORK/socket"
[ -S "$WORK/socket" ] || fail "the socket has been replaced"
if mknod "$WORK/null" c 1 3 2>/dev/null && { : >"$WORK/null"; } 2>/dev/null; then
	expect 0 tap_ctl metrics -f "$WORK/null"
	[ -c "$WORK/null" ] || fail "the device has been replaced"
	mknod "$WORK/full" c 1 7
	expect 28 tap_ctl metrics -f "$WORK/full"
	mknod "$WORK/block" b 7 250
	expect 22 tap_ctl metrics -f "$WORK/block"
fi
is "left beside it" "$(find "$WORK" -mindepth 1 -name '[a-z]*.??????')" ""

# one that hangs is told as such, and costs less than a scrape's patience
kill -STOP "$P"
expect 0 tap_ctl metrics
has "the one that hangs" "$OUT" "tapdisk_answers{pid=\"$P\"} 0"
has "the other" "$OUT" 'disk="null:1M",op="read"'
kill -CONT "$P"

# a store that hangs: its disk is told of, while the tapdisk answers
command -v qemu-nbd >/dev/null || { echo "without qemu-nbd: the store that hangs is left out"; exit 0; }
truncate -s 1M "$WORK/far.img"
qemu-nbd -t -f raw -k "$WORK/far" "$WORK/far.img" &
far=$!
at_exit "kill -KILL $far 2>/dev/null"
until_true 10 test -S "$WORK/far"
marker=$(tap_ctl create -a "nbd:$WORK/far" -o request-timeout=1) || fail "create nbd:"
near=$(tap_ctl list -m "${marker##*-}" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
stalled() { tap_ctl metrics | grep "^tapdisk_disk_stalled{minor=\"${marker##*-}\",.*} $1\$" >/dev/null; }
stalled 0 || fail "it stalls already: $(tap_ctl metrics | grep stalled)"
kill -STOP $far
"$top_builddir/tests/support/tdguest" "$near" "${marker##*-}" flush 1 >/dev/null &
guest=$!
until_true 30 stalled 1
kill -CONT $far
until_true 30 stalled 0
wait $guest || fail "the guest's flush failed"
exit 0
