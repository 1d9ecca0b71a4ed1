# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl killed at any point of a create leaves nothing that stays; a tapdisk that nobody wants ends by itself.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

truncate -s 1M "$WORK/a.img"
none() { [ -z "$(procs tapdisk)$(procs tap-ctl)" ]; } # the child of a killed one is a tapdisk soon
nothing_left()
{
	until_true 20 none
	expect 0 tap_ctl list
	is "list ($1)" "$OUT" ""
	is "files ($1)" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""
}

# at points all over it: how many of them hit the middle depends on the machine, that nothing is left does not
made=0
for i in $(seq 30); do
	setsid "$top_builddir/bin/tap-ctl" create -a "aio:$WORK/a.img" >"$WORK/out" 2>/dev/null &
	p=$!
	sleep "0.0$(printf %02d $((i * 2 % 50)))"
	kill -KILL $p 2>/dev/null && wait $p 2>/dev/null
	if [ -s "$WORK/out" ]; then
		# the name was printed: then the disk is there, or its tapdisk has given up; both are whole
		row=$(tap_ctl list -m 0)
		case $row in
		*args=*)
			made=$((made + 1))
			row=${row#pid=}
			expect 0 tap_ctl destroy -p "${row%% *}" -m 0
			;;
		esac
	fi
	nothing_left "killed, $i"
done
echo "30 killed creates, $made were done before"

# before the tapdisk listens
cat >"$WORK/slow-tapdisk" <<E
#!/bin/sh
echo \$\$ >"$WORK/started"
until [ -e "$WORK/go" ]; do sleep 0.05; done
exec "$(realpath "$top_builddir/tapdisk/tapdisk")" "\$@"
E
chmod +x "$WORK/slow-tapdisk"
TAPDISK=$WORK/slow-tapdisk setsid "$top_builddir/bin/tap-ctl" create -a "aio:$WORK/a.img" >/dev/null 2>&1 &
p=$!
until_true 5 test -s "$WORK/started"
is "the marker while it is made" "$(cat "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0")" $p
expect 0 tap_ctl list
is "list while it is made" "$OUT" "minor=0"
kill -KILL $p
wait $p 2>/dev/null
touch "$WORK/go"
until_true 20 gone "$(cat "$WORK/started")"
nothing_left "killed before the tapdisk listened"

# its reader is gone when it has its result
"$top_builddir/bin/tap-ctl" create -a "aio:$WORK/a.img" 2>"$WORK/err" | true
nothing_left "nobody heard the result"

# A destroy that is killed between the detach and the free: the marker bears its pid.  Here a process that has ended asks for that.
detach_for() # KEEPER
{
	python3 - "$TAPDISK_CONTROL_DIR/ctl$1" "$2" <<'P'
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.send(json.dumps({"op": "detach", "minor": 0, "keeper": int(sys.argv[2])}).encode())
assert json.loads(s.recv(65536))["err"] == 0
P
}
sh -c 'echo $$' >"$WORK/ended"
expect 0 tap_ctl create -a "aio:$WORK/a.img"
pid=$(procs tapdisk)
expect 0 tap_ctl close -p "$pid" -m 0
expect 0 detach_for "$pid" "$(cat "$WORK/ended")"
is "the marker between" "$(cat "$TAPDISK_CONTROL_DIR/tapdisk/tapdisk-0")" "$(cat "$WORK/ended")"
until_true 20 none
nothing_left "a destroy that was killed"
# detached by hand, it stays allocated
expect 0 tap_ctl create -a "aio:$WORK/a.img"
pid=$(procs tapdisk)
expect 0 tap_ctl close -p "$pid" -m 0
expect 0 tap_ctl detach -p "$pid" -m 0
until_true 20 none
expect 0 tap_ctl list
is "detached" "$OUT" "minor=0"
expect 0 tap_ctl free -m 0

# where there are no files without a name
dir=$TAPDISK_CONTROL_DIR/tapdisk
if command -v strace >/dev/null && strace -o /dev/null true 2>/dev/null; then
	nameless() { ASAN_OPTIONS=detect_leaks=0 strace -o "$WORK/trace" -P "$dir" -P "$dir/tapdisk-0" -e trace=openat,linkat -e inject=openat:error=EOPNOTSUPP "$@"; }
	expect 0 nameless "$top_builddir/bin/tap-ctl" create -a "aio:$WORK/a.img"
	grep -q 'O_TMPFILE.*INJECTED' "$WORK/trace" || fail "nothing was simulated: $(cat "$WORK/trace")"
	expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0
	nothing_left "made under another name"
	run nameless -e inject=linkat:signal=KILL "$top_builddir/bin/tap-ctl" create -a "aio:$WORK/a.img"
	is "killed before its marker had its name" "$OUT" ""
	nothing_left "killed before its marker had its name"

	# A call of the tapdisk on a file takes half a second, and an open comes meanwhile, or makes it.
	cat >"$WORK/slow.py" <<-'P'
		import json, os, signal, socket, subprocess, sys, time
		how, tapdisk, image, call, path = sys.argv[1:]
		leash, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		strace = ["strace", "-f", "-o", "/dev/null", "-P", path, "-e", "trace=" + call, "-e", "inject=%s:delay_enter=500000" % call]
		run = subprocess.Popen(strace + [tapdisk, "--spawn-fd", str(its.fileno()), "--leash"], pass_fds=[its.fileno()])
		its.close()
		assert json.loads(leash.recv(65536))["err"] == 0
		pid = int(open("/proc/%d/task/%d/children" % (run.pid, run.pid)).read().split()[0])
		def connect():
		    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		    s.connect("%s/ctl%d" % (os.environ["TAPDISK_CONTROL_DIR"], pid))
		    return s
		last, s = connect(), connect()
		s.send(json.dumps({"op": "attach", "minor": 0}).encode())
		assert json.loads(s.recv(65536))["err"] == 0
		os.kill(pid, signal.SIGSTOP)
		if how == "dies":
		    leash.close()
		last.send(json.dumps({"op": "open", "minor": 0, "args": "aio:" + image}).encode())
		os.kill(pid, signal.SIGCONT)
		if how == "signal":
		    time.sleep(0.2)
		    os.kill(pid, signal.SIGTERM)
		run.wait(30)
	P
	slow() { ASAN_OPTIONS=detect_leaks=0 python3 "$WORK/slow.py" "$1" "$(realpath "$top_builddir/tapdisk/tapdisk")" "$WORK/a.img" "$2" "$3"; }
	# the last thing that a dead tap-ctl has sent comes while its tapdisk gives the disk up
	expect 0 tap_ctl allocate
	expect 0 slow dies unlink "$dir/tapdisk-0"
	nothing_left "an open that came late"
	expect 0 tap_ctl allocate
	expect 0 slow signal rename "$TAPDISK_CONTROL_DIR/flush0.new"
	is "files (a signal in the middle of an open)" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" "$dir/tapdisk-0"
	expect 0 tap_ctl free -m 0
	nothing_left "a signal in the middle of an open"
fi

# a control directory without space: the cause, and nothing left
if [ "$(id -u)" = 0 ] && mkdir "$WORK/small" && mount -t tmpfs -o size=1M tmpfs "$WORK/small" 2>/dev/null; then
	at_exit "umount -l $WORK/small"
	small() { TAPDISK_CONTROL_DIR=$WORK/small tap_ctl "$@"; }
	expect 0 small list
	mkdir -p "$WORK/small/tapdisk"
	expect 0 small allocate # an inode takes no page
	dd if=/dev/zero of="$WORK/small/fill" bs=4k 2>/dev/null
	expect 28 small create -a "aio:$WORK/a.img"
	has "create without space" "$ERR" "No space left"
	pid=$(small spawn)
	expect 28 small attach -p "$pid" -m 0
	has "attach without space" "$ERR" "cannot write the marker $WORK/small/tapdisk/tapdisk-0: No space left"
	kill "$pid"
	is "what they leave" "$(ls "$WORK/small/tapdisk")" tapdisk-0

	# a disk that is open goes on, may be paused, and leaves no record that says that it is not; limits need one
	rm "$WORK/small/fill"
	expect 0 small create -a "aio:$WORK/a.img" # has the other minor, 1
	pid=$(small list -m 1 | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	dd if=/dev/zero of="$WORK/small/fill" bs=1k 2>/dev/null
	expect 0 small pause -p "$pid" -m 1
	[ ! -e "$WORK/small/disk1" ] || fail "a disk that is paused has the record of one that is open"
	expect 0 small unpause -p "$pid" -m 1
	expect 28 small limit -p "$pid" -m 1 -o limit-iops=100
	has "limits without a record" "$ERR" "its record cannot be written (No space left on device)"
	expect 0 small destroy -p "$pid" -m 1
fi

# let go of, it is as any other: the end of tap-ctl means nothing to it
expect 0 tap_ctl create -a "aio:$WORK/a.img"
sleep 0.5
expect 0 tap_ctl list
has "a disk that was made" "$OUT" "minor=0 state=0"
expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m 0

# spawned, and then nobody came
"$top_builddir/tapdisk/tapdisk" --spawn-fd 9 --orphan 1 9>"$WORK/report" &
until_true 10 none
wait
nothing_left "an orphan"
