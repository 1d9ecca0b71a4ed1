# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl top: as lines, as JSON, and on a terminal, which is given back as it was whatever ends it.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

expect 0 tap_ctl top -b -n 1 -d 0.1
has "top without disks" "$OUT" "0 disks"
expect 0 tap_ctl top --json -n 2 -d 0.1
is "JSON without disks" "$(printf '%s\n' "$OUT" | sed 's/.*"disks"/"disks"/')" '"disks": []}
"disks": []}'
expect 22 tap_ctl top -d 0
expect 22 tap_ctl top -n 0

truncate -s 8M "$WORK/a name
of two lines"
expect 0 tap_ctl create -a "aio:$WORK/a name
of two lines" -o cache=writeback
P=$(procs tapdisk)
expect 0 tap_ctl create -a null:1M
"$top_builddir/tests/support/tdguest" --devid 51712 "$P" 0 load 10000 8 >"$WORK/load" &
load=$!

# the loaded disk is the first, its rates are those of its counters, and it is one line
busy() { tap_ctl top --json -n 1 -d 0.5 | python3 -c '
import json, sys
d = json.load(sys.stdin)["disks"]
assert len(d) == 2 and d[0]["minor"] == 0 and d[0]["args"].startswith("aio:") and d[0]["mode"] == "writeback", d
w = d[0]["write"]
assert w["per_s"] > 0 and w["bytes_per_s"] >= w["per_s"] * 512 and w["errors"] == 0, d
l = w["latency_ns"]
assert 0 < l["p50"] <= l["p99"] <= l["p99.9"], d
assert d[0]["guest"].endswith("/51712"), d
assert d[1]["read"] == {"per_s": 0.0, "bytes_per_s": 0.0, "errors": 0}, d'; }
until_true 5 busy
expect 0 tap_ctl top -b -n 1 -d 0.2
is "lines for two disks" "$(printf '%s\n' "$OUT" | wc -l)" 4
has "the name on one line" "$OUT" "a name?of two lines"
expect 0 tap_ctl top -b -n 1 -d 0.1 -m 0
has "one disk alone" "$OUT" "1 disk;"
kill $load
wait $load || fail "the load: $(cat "$WORK/load")"

# at any width the latencies are there, and a part of the name; nothing goes beyond the edge
cat >"$WORK/width.py" <<'P'
# width.py TAP-CTL COLUMNS WORD...: one look of top on a terminal of that width shows the words, in whole columns
import fcntl, os, pty, re, struct, sys, termios
columns = int(sys.argv[2])
r, w = os.pipe()
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.read(r, 1)
    os.execv(sys.argv[1], [sys.argv[1], "top", "-n", "1", "-d", "0.1"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, columns, 0, 0))
os.write(w, b"x")
out = b""
while True:
    try:
        got = os.read(fd, 65536)
    except OSError:
        break
    if not got:
        break
    out += got
os.waitpid(pid, 0)
last = out.decode().split("\033[H")[-1]
lines = [re.sub("\033\\[[0-9;?]*[a-zA-Z]", "", l) for l in last.replace("\r", "").split("\n")]
head = [l for l in lines if "DISK" in l]
assert head, lines
for l in lines:
    assert len(l) <= columns, (len(l), l)
for word in sys.argv[3:]:
    assert re.search(r"\b%s\b" % re.escape(word), head[0]), (word, head)
at = head[0].index("DISK")
rows = lines[lines.index(head[0]) + 1:]
assert any(r[at:].startswith("null:1M") for r in rows) and any(r[at:].startswith("aio:") for r in rows), rows
P
expect 0 python3 "$WORK/width.py" "$top_builddir/bin/tap-ctl" 80 MINOR R/s W/s QD R99 W99 F99 ERR DISK
expect 0 python3 "$WORK/width.py" "$top_builddir/bin/tap-ctl" 60 MINOR R/s W/s R99 W99 F99 ERR DISK
expect 0 python3 "$WORK/width.py" "$top_builddir/bin/tap-ctl" 160 PID MINOR GUEST MODE R/s W/s F/s RMB/s WMB/s QD R50 R99 W50 W99 F99 ERR DISK

# one that hangs is counted, and the others are shown
Q=$(procs tapdisk | grep -vx "$P")
kill -STOP "$Q"
expect 0 tap_ctl top -b -n 1 -d 0.1
has "top beside one that hangs" "$OUT" "1 disk, 1 tapdisk does not answer"
kill -CONT "$Q"

cat >"$WORK/terminal.py" <<'P'
# terminal.py TAP-CTL: runs top on a terminal of 8 lines and 60 columns, ended in each way
import fcntl, os, pty, re, select, signal, struct, sys, termios, time

def start():
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.argv[1], [sys.argv[1], "top", "-d", "0.2"])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 60, 0, 0))
    return pid, fd

def read(fd, until, limit=100):
    out, end = b"", time.time() + limit
    while until not in out and time.time() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                out += os.read(fd, 65536)
            except OSError:
                break
    assert until in out, (until, out)
    return out

def ended(pid):
    return os.waitpid(pid, 0)[1]

for how in ("q", "count", signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    pid, fd = start()
    before = termios.tcgetattr(fd)
    out = read(fd, b"\x1b[?1049h")
    out += read(fd, b"\x1b[J") + read(fd, b"\x1b[J")
    out += read(fd, b"\x1b[J")
    assert not termios.tcgetattr(fd)[3] & termios.ECHO
    if how == "count":
        os.write(fd, b"l m r b")
        out += read(fd, b"by bytes")
        how = "q"
    if how == "q":
        os.write(fd, b"q")
    else:
        os.kill(pid, how)
    out += read(fd, b"\x1b[?1049l")
    assert b"\x1b[?25h" in out
    assert ended(pid) == 0
    after = termios.tcgetattr(fd)
    assert after[:4] == before[:4], (before, after)
    # the last picture fits: as many lines as there are, none too long
    picture = out[out.rindex(b"\x1b[H") + 3:]
    lines = re.sub(rb"\x1b\[[0-9?]*[a-zA-Z]", b"", picture).split(b"\r\n")
    assert 4 <= len(lines) <= 8 and all(len(l) <= 60 for l in lines), lines
    os.close(fd)

# stopped, as by a shell's job control: the terminal is as it was; and it goes on
r, w = os.pipe()
pid, fd = pty.fork()
if pid == 0: # the shell
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.environ["TERM"] = "xterm"
        os.execv(sys.argv[1], [sys.argv[1], "top", "-d", "0.2"])
    os.write(w, b"%d\n" % job)
    status = os.waitpid(job, os.WUNTRACED)[1]
    os.write(w, b"stopped\n" if os.WIFSTOPPED(status) else b"ended\n")
    os._exit(1 if os.waitpid(job, 0)[1] else 0)
before = termios.tcgetattr(fd)
job = int(os.read(r, 20))
read(fd, b"\x1b[J")
os.kill(job, signal.SIGTSTP)
read(fd, b"\x1b[?1049l")
assert os.read(r, 20) == b"stopped\n"
assert termios.tcgetattr(fd)[:4] == before[:4]
os.kill(job, signal.SIGCONT)
read(fd, b"\x1b[?1049h")
os.write(fd, b"q")
read(fd, b"\x1b[?1049l")
assert ended(pid) == 0
P
expect 0 timeout 250 python3 "$WORK/terminal.py" "$top_builddir/bin/tap-ctl"
expect 0 tap_ctl destroy -p "$Q" -m 1
expect 0 tap_ctl destroy -p "$P" -m 0
exit 0
