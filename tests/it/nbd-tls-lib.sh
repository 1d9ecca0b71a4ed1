# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of disks of NBD servers behind TLS share; sourced after nbd-lib.sh.
#
#   start HOW [KEYS], stop    a server at $PORT, whose pid is in start.pid; ./start does the same, as nbd-survive.py wants it
#   uri HOW KEYS [HOST]       a disk's name
#   ring, line, says, refused, relays, no_relays: see there

command -v nbdkit >/dev/null || skip "no nbdkit"
cd "$WORK" || exit 99
. "$top_srcdir/tests/it/tls-lib.sh"

guest="$top_builddir/tests/support/tdguest"
SIZE=$((8 << 20))
export TAPDISK_CONF=$WORK/conf
! grep -q '^#define TD_SANITIZED' "$top_builddir/config.h" || TD_SANITIZED=1 # no filter, no opener: the relay is a thread
[ -n "${TD_SANITIZED:-}" ] || echo "sandbox = yes" >conf
: >>conf
truncate -s $SIZE d.img
PORT=$(free_port)
cat >start <<END
#!/bin/sh
# HOW KEYS: a server at port $PORT, whose process is this one
echo \$\$ >"$WORK/start.pid.new"
mv "$WORK/start.pid.new" "$WORK/start.pid"
case \$1 in
qemu-x509) exec qemu-nbd -t -e 8 -f raw -b 127.0.0.1 -p $PORT -x disk --cache=writeback --object tls-creds-x509,id=t,endpoint=server,dir="\$2",verify-peer=yes --tls-creds t "$WORK/d.img" 2>/dev/null ;;
qemu-psk) exec qemu-nbd -t -e 8 -f raw -b 127.0.0.1 -p $PORT -x disk --cache=writeback --object tls-creds-psk,id=t,endpoint=server,dir="\$2/psk" --tls-creds t "$WORK/d.img" 2>/dev/null ;;
qemu-plain) exec qemu-nbd -t -e 8 -f raw -b 127.0.0.1 -p $PORT -x disk "$WORK/d.img" 2>/dev/null ;;
nbdkit-x509) exec nbdkit -f -i 127.0.0.1 -p $PORT -e disk --tls=require --tls-certificates="\$2" --tls-verify-peer file "$WORK/d.img" ;;
nbdkit-psk) exec nbdkit -f -i 127.0.0.1 -p $PORT -e disk --tls=require --tls-psk="\$2/psk/keys.psk" file "$WORK/d.img" ;;
nbdkit-plain) exec nbdkit -f -i 127.0.0.1 -p $PORT -e disk file "$WORK/d.img" ;;
esac
END
chmod +x start
at_exit 'kill -KILL $(cat "$WORK/start.pid") 2>/dev/null'
start()
{
	./start "$1" "${2:-$KEYS}" &
	disown
	until_true 10 listens 127.0.0.1 "$PORT"
}
stop()
{
	local p

	p=$(cat start.pid)
	kill -KILL "$p"
	until_true 10 gone "$p"
}
uri() # HOW KEYS [HOST]: a disk's name
{
	case $1 in
	*psk) echo "nbds://${3:-127.0.0.1}:$PORT/disk?tls-psk-file=$2/psk/keys.psk" ;;
	*) echo "nbds://${3:-127.0.0.1}:$PORT/disk?tls-certificates=$2" ;;
	esac
}
ring() { expect 0 timeout 250 "$guest" --order 2 "$PID" "$MINOR" "$@"; }
says() { line | grep -q "$1"; }
line() { tap_ctl list --json -m "$MINOR"; }
refused() # RC TEXT NAME: create fails, says why, and leaves nothing
{
	expect "$1" timeout 250 "$top_builddir/bin/tap-ctl" create -a "$3"
	has "why" "$ERR" "$2"
	is "left by $3" "$(tap_ctl list)" ""
}
relays() # their pids: processes of this test's openers that are td-tls
{
	local p

	grep -lsx td-tls /proc/[0-9]*/comm | while read -r p; do
		! grep -qsz "^TAPDISK_CONTROL_DIR=$TAPDISK_CONTROL_DIR\$" "${p%comm}environ" || echo "${p//[^0-9]/}"
	done
}
no_relays() { [ -z "$(relays)" ]; }
