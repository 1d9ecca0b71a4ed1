# SPDX-License-Identifier: LGPL-2.1-or-later
# What is refused: with which number, in one line, and with nothing left behind.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

truncate -s 1M "$WORK/a.img"

# refuse RC PART ARG...: the command fails with RC, one line that has PART, no output, no process and no file
refuse()
{
	local rc=$1 part=$2

	shift 2
	expect "$rc" tap_ctl "$@"
	is "stdout of a failure" "$OUT" ""
	has "error text" "$ERR" "$part"
	is "number of lines" "$(printf '%s\n' "$ERR" | wc -l)" 1
	case $ERR in
	"tap-ctl: "*) ;;
	*) fail "error text: '$ERR' does not say who speaks" ;;
	esac
	is "processes left" "$(procs tapdisk)" ""
	is "files left" "$(find "$TAPDISK_CONTROL_DIR" ! -type d 2>/dev/null)" ""
}

# the command line
expect 22 tap_ctl
has "no command" "$ERR" "usage: tap-ctl COMMAND"
refuse 22 "usage: tap-ctl COMMAND" frobnicate
refuse 22 "no option -Z" list -Z
refuse 22 "--frob" list --frob
refuse 22 "needs a value" list -p
refuse 22 "-p takes a number" list -p x
refuse 22 "-p takes a number" list -p 0
refuse 22 "-m takes a number" list -m -1
refuse 22 "-m takes a number" free -m 99999999999
refuse 22 "-m is missing" free
refuse 22 "-p is missing" close -m 0
refuse 22 "-a is missing" create
refuse 22 "'junk' is not an option" list junk
refuse 22 "TYPE:PATH" create -a aio
refuse 22 "TYPE:PATH" create -a :/x
refuse 22 "TYPE:PATH" create -a aio:
refuse 22 "KEY=VALUE" create -a aio:/x -o cache
refuse 22 "leave one out" create -a "aio:$WORK/a.img" -D -o parents-cache=no
refuse 22 "stands on no other" create -a "aio:$WORK/a.img" -e 3
refuse 22 "takes a number" create -a "aio:$WORK/a.img" -e x
refuse 22 "needs a secondary" create -a "aio:$WORK/a.img" -s
refuse 22 "a VHD or a qcow2, and not aio:" create -a "aio:$WORK/a.img" -s -2 "aio:$WORK/b.img"
refuse 22 "do not go together" create -a "aio:$WORK/a.img" -s -2 "vhd:$WORK/b.vhd" -C "$WORK/a.cbtlog"
refuse 22 "is empty" create -a "aio:$WORK/a.img" -E </dev/null
refuse 22 "not encrypted" create -a "aio:$WORK/a.img" -o cache=writeback -E <<<"a key"
refuse 22 "takes a number" create -a "aio:$WORK/a.img" -t soon
# a configuration that somebody names and that is not there would be weaker in silence; a relative name is one from here
TAPDISK_CONF=$WORK/none refuse 2 "$WORK/none, which TAPDISK_CONF names" create -a "aio:$WORK/a.img" -o cache=writeback
echo "cache = nonsense" >"$WORK/conf"
cd "$WORK" || exit 1
TAPDISK_CONF=conf refuse 22 "$WORK/conf, line 1: cache=nonsense" create -a "aio:$WORK/a.img"
cd "$OLDPWD" || exit 1
refuse 22 "-a is missing" commit -p 1 -m 0
refuse 22 "bytes a second" commit -p 1 -m 0 -a /x -r fast

# help goes to stdout and succeeds
for args in --help -h help "help list" "list --help" "list -h" "create --help"; do
	# shellcheck disable=SC2086
	expect 0 tap_ctl $args
	is "stderr of help" "$ERR" ""
	has "help" "$OUT" "tap-ctl"
done
refuse 22 frob help frob
expect 0 tap_ctl --version
has version "$OUT" "tap-ctl "

# images; the tapdisk judges these, and create takes back what it had made
refuse 2 "$WORK/missing" create -a "aio:$WORK/missing"
refuse 2 frob create -a "frob:$WORK/a.img"
refuse 38 vdi create -a "vdi:$WORK/a.img"
refuse 21 "$WORK" create -a "aio:$WORK"
refuse 22 cache create -a "aio:$WORK/a.img" -o cache=frob
refuse 22 frob create -a "aio:$WORK/a.img" -o frob=yes
refuse 22 unsafe=yes create -a "aio:$WORK/a.img" -o cache=unsafe
head -c 1000 /dev/zero >"$WORK/odd.img"
refuse 22 512 create -a "aio:$WORK/odd.img"
LONG=$(printf '/%04000d' 1)
refuse 36 "" create -a "aio:$LONG$(printf '/%0200d' 1)"

# the image's lock
expect 0 tap_ctl create -a "aio:$WORK/a.img"
P=$(procs tapdisk)
expect 16 tap_ctl create -a "aio:$WORK/a.img"
has "lock" "$ERR" "in use"
# who holds it is known to root alone
[ "$(id -u)" != 0 ] || has "who holds it" "$ERR" "$P"
is "processes after a refused create" "$(procs tapdisk)" "$P"
expect 0 tap_ctl list
is "list after a refused create" "$OUT" "pid=$P minor=0 state=0 args=aio:$WORK/a.img"
expect 0 tap_ctl destroy -p "$P" -m 0

# a tapdisk that cannot be started
TAPDISK=$WORK/none refuse 2 TAPDISK create -a "aio:$WORK/a.img"
TAPDISK=/bin/false refuse 10 "ended before it was ready" spawn
TAPDISK=/bin/false refuse 10 "ended before it was ready" create -a "aio:$WORK/a.img"
printf '#!/nonexistent/sh\n' >"$WORK/script"
chmod +x "$WORK/script"
TAPDISK=$WORK/script refuse 2 "cannot run" spawn
TAPDISK_CONTROL_DIR=/dev/null/x refuse 20 "control directory" allocate

# nobody to hear the result: then there is none
for args in allocate spawn "create -a null:1M" "create -a aio:$WORK/a.img" help --version; do
	# shellcheck disable=SC2086
	run sh -c '"$0" "$@" >/dev/full' "$top_builddir/bin/tap-ctl" $args
	is "$args into a full device" "$RC" 28
	is "processes left by $args" "$(procs tapdisk)" ""
	is "files left by $args" "$(find "$TAPDISK_CONTROL_DIR" ! -type d)" ""
done

# a tapdisk that says nothing is given 10 s, and is ended then
printf '#!/bin/sh\nexec sleep 10000\n' >"$WORK/mute"
chmod +x "$WORK/mute"
start=$SECONDS
TAPDISK=$WORK/mute refuse 110 "within 10 s" create -a "aio:$WORK/a.img"
took=$((SECONDS - start))
[ $took -ge 9 ] || fail "a mute tapdisk was waited for $took s"
no_mute() { [ -z "$(procs sleep)" ]; }
until_true 5 no_mute

# an attach to a minor number that nobody has allocated, and to one that another holds
expect 0 tap_ctl spawn
P=$OUT
run tap_ctl attach -p "$P" -m 5
[ "$RC" != 0 ] || fail "attach without a marker worked"
expect 0 tap_ctl create -a "null:1M" -o cache=none
expect 16 tap_ctl attach -p "$P" -m 0
expect 22 tap_ctl attach -p "$P" -m 99999
exit 0
