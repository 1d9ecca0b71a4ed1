# SPDX-License-Identifier: LGPL-2.1-or-later
# What tapdisk-disk(7) says to write for a guest's disk opens that disk: each row of its tables, in a mode that every /tmp has; and each
# command of README does what it is there for.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
command -v qemu-img >/dev/null || skip "qemu-img is not installed"
export TAP_CTL=$top_builddir/bin/tap-ctl TAPDISK_CONF=$WORK/conf
printf 'cache = writeback\n' >"$TAPDISK_CONF"
put /local/domain/1 name=guest
truncate -s 8M "$WORK/a.img" "$WORK/a.iso"
"$top_builddir/bin/vhd-util" create -n "$WORK/a.vhd" -s 8 || fail "vhd-util"
qemu-img create -q -f qcow2 "$WORK/a.qcow2" 8M || fail "qemu-img"
rm -f "$WORK/a.sock"
truncate -s 8M "$WORK/n.img"
qemu-nbd -t -f raw -k "$WORK/a.sock" "$WORK/n.img" &
at_exit "kill $! 2>/dev/null"
until_true 10 test -S "$WORK/a.sock"
D=1/51712
tapback_start

# A row's words, with a path of ours
image() # ROW
{
	case $1 in
	VHD*) echo "$WORK/a.vhd" ;;
	qcow2*) echo "$WORK/a.qcow2" ;;
	*NBD*) echo "$WORK/a.sock" ;;
	"a CD drive") echo "$WORK/a.iso" ;;
	*) echo "$WORK/a.img" ;;
	esac
}
with_path() { sed "s#MODE#writethrough#; s#/\(srv\|run\)/a\.[a-z0-9]*#$(image "$1")#" <<<"$2"; }
opened() # ROW WORDS
{
	local type=aio

	case $1 in VHD*) type=vhd ;; qcow2*) type=qcow2 ;; *NBD*) type=nbd ;; esac
	is "$1: $2" "$(tap_ctl list | sed 's/.*args=//')" "$type:$(image "$1")"
	case $1 in
	*"another mode") has "$1: $2" "$(tap_ctl list --json)" '"mode": "writethrough"' ;;
	4096*) has "$1: $2" "$(xenstore-read "/local/domain/0/backend/vbd3/$D/params" 2>/dev/null || echo "$2")" 'sector-size=4096' ;;
	unsafe) has "$1: $2" "$(tap_ctl list --json)" '"mode": "unsafe"' ;;
	read-only | "a CD drive")
		expect 0 "$top_builddir/tests/support/tdguest" "$(procs tapdisk)" 0 sectors
		expect 1 "$top_builddir/tests/support/tdguest" "$(procs tapdisk)" 0 write 0 512 1
		;;
	esac
}
# as libxl hands it over: params are the format and the target
by_xl() # ROW WORDS
{
	local words format=aio access=w type=disk

	words=$(with_path "$1" "$2")
	case $words in *format=vhd*) format=vhd ;; esac
	case $words in *access=ro*) access=r ;; esac
	case $words in *devtype=cdrom*) access=r type=cdrom ;; esac
	disk $D "params=$format:${words#*target=}" "mode=$access" "device-type=$type" script=/x
	run env XENBUS_PATH=backend/vbd3/$D "$top_builddir/bin/block-tap" add
	row_done "$1" "$2"
	XENBUS_PATH=backend/vbd3/$D expect 0 "$top_builddir/bin/block-tap" remove
	xenstore-rm "$(be $D)"
	xenstore-rm "$(fe $D)"
}
vbd() { "$top_builddir/bin/tap-vbd" -t 100 -s "$top_builddir/bin/block-tap" "$@"; }
by_tap_vbd() # ROW WORDS
{
	local rc

	case $2 in *devtype=cdrom*) return ;; esac # tests/it/cdrom.sh
	run vbd attach guest "$(with_path "$1" "$2")"
	rc=$RC
	row_done "$1" "$2"
	[ $rc != 0 ] || expect 0 vbd detach guest xvda
}
by_tap_ctl() # ROW WORDS
{
	local rc minor

	# shellcheck disable=SC2046 # words are split, as a shell does
	run tap_ctl create $(with_path "$1" "$2")
	rc=$RC minor=${OUT##*-}
	row_done "$1" "$2"
	[ $rc != 0 ] || expect 0 tap_ctl destroy -p "$(procs tapdisk)" -m "$minor"
}
# a mode that needs O_DIRECT is refused where there is none, by its name: that is an answer as well
row_done()
{
	case $RC:$ERR in
	0:*) opened "$1" "$2" ;;
	*O_DIRECT*) echo "($1: no O_DIRECT here)" ;;
	*) fail "$1: '$2': $ERR" ;;
	esac
}
# table SECTION FUNCTION ROWS: the rows of the page's table, and how many they must be at least; we have no block device, no Ceph (tests/ceph/run), and no
# other host (tests/it/nbd-tcp.sh)
table()
{
	local n=0 row words

	while IFS='|' read -r row words; do
		$2 "$row" "$words"
		n=$((n + 1))
	done < <(sed -n "/^\.Ss $1\$/,/^\.Ed/p" "$top_srcdir/doc/tapdisk-disk.7" | sed '1,/^\.Bd/d; /^\.Ed/d; /^a block device/d; /Ceph/d; /nbd:..host/d; s/   */|/')
	[ $n = "$3" ] || fail "the table '$1' of tapdisk-disk(7) has $n rows"
}
table "xl of Xen 4.19 and later" by_xl 11
table "xl of Xen 4.17 and 4.18" by_xl 10
table tap-vbd by_tap_vbd 11
table tap-ctl by_tap_ctl 11
is "all is gone" "$(tap_ctl list)" ""

# --- the chapter `A disk in one command': each line typed, in an order of its own only where a line ends what the next one wants ------
# /srv and the control directory are ours; the key, the server and the numbers are what the lines stand for.
mkdir "$WORK/srv"
printf %s "a passphrase" >"$WORK/key"
expect 0 "$top_builddir/bin/td-qcow" create -E "$WORK/srv/e.qcow2" 4M <"$WORK/key"
command_line() # LINE, as README has it
{
	local line=${1%%  #*}

	line=${line//\/srv\//$WORK/srv/}
	line=${line//\/run\/server.sock/$WORK/a.sock}
	line=${line//<KEYFILE/<$WORK/key}
	line=${line//20G/20M}
	line=${line//-p PID -m MINOR/-p $pid -m $minor}
	line=${line//PID.MINOR/$pid.$minor}
	line=${line//\/run\/blktap-control/$TAPDISK_CONTROL_DIR}
	(cd "$WORK" && PATH=$top_builddir/bin:$PATH && eval "$line")
}
n=0 pid=PID minor=MINOR
while read -r line; do
	case $line in
	nbdinfo* | "tap-ctl resize"*) pid=$(tap_ctl list -f "$WORK/srv/a.img" | sed -n 's/^pid=\([0-9]*\) .*/\1/p') minor=$(tap_ctl list -f "$WORK/srv/a.img" | sed -n 's/.*minor=\([0-9]*\) .*/\1/p') ;;
	esac
	case $line in nbdinfo*) command -v nbdinfo >/dev/null || continue ;; esac
	run command_line "$line"
	case $RC:$ERR in 0:*) n=$((n + 1)) ;; *) fail "'$line' of README exits with $RC: $ERR" ;; esac
done < <(sed -n '/^A disk in one command/,/^A disk for a Xen guest/s/^    //p' "$top_srcdir/README")
[ $n -ge 10 ] || fail "$n lines of the chapter were found"

# --- what an HVM user, or one with a bootloader, reads -------------------------------------------------------------------------------
for page in README doc/block-tap.7 doc/tapdisk-disk.7; do
	has "$page" "$(grep -m 1 -A 4 HVM "$top_srcdir/$page")" script=block-tap
done

# --- what the package is built from, the README, quickstart and the lab install -----------------------------------------------------
n=0
while read -r package; do
	for list in README quickstart tests/xen/build; do
		grep -qw -- "$package" "$top_srcdir/$list" || fail "$list does not name $package, which debian/control asks for"
	done
	n=$((n + 1))
done < <(sed -n '/^Build-Depends:/,/^Standards-Version:/s/^ \([a-z0-9.+-]*-dev\),$/\1/p' "$top_srcdir/debian/control")
[ $n -ge 8 ] || fail "$n packages were found in debian/control"
