# SPDX-License-Identifier: LGPL-2.1-or-later
# What README says to write for a guest's disk opens that disk: each cell of its table, in a mode that every /tmp has.
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

# The cell's words with a path of ours; PATH is what the table abbreviates
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
with_path() { sed "s#MODE#writethrough#; s#\\(target=[^/]*\\)\\(/.*\\|\\.\\.\\.\\)\$#\\1$(image "$1")#" <<<"$2"; }
opened() # ROW CELL
{
	local type=aio

	case $1 in VHD*) type=vhd ;; qcow2*) type=qcow2 ;; *NBD*) type=nbd ;; esac
	is "$1: $2" "$(tap_ctl list | sed 's/.*args=//')" "$type:$(image "$1")"
	case $1 in
	*"another mode") has "$1: $2" "$(tap_ctl list --json)" '"mode": "writethrough"' ;;
	4096*) has "$1: $2" "$(xenstore-read "/local/domain/0/backend/vbd3/$D/params" 2>/dev/null || echo "$2")" 'sector-size=4096' ;;
	unsafe) has "$1: $2" "$(tap_ctl list --json)" '"mode": "unsafe"' ;;
	"a CD drive")
		expect 0 "$top_builddir/tests/support/tdguest" "$(procs tapdisk)" 0 sectors
		expect 1 "$top_builddir/tests/support/tdguest" "$(procs tapdisk)" 0 write 0 512 1
		;;
	esac
}
# as libxl hands it over: params are the format and the target
xl() # ROW CELL FORMAT-OF-PARAMS
{
	local words target access=w type=disk

	words=$(with_path "$1" "$2")
	target=${words#*target=}
	[ "$words" != access=ro ] || { access=r target=$(image raw); }
	case $words in *devtype=cdrom*) access=r type=cdrom ;; esac
	disk $D "params=$3:$target" "mode=$access" "device-type=$type" script=/x
	run env XENBUS_PATH=backend/vbd3/$D "$top_builddir/bin/block-tap" add
	cell_done "$1" "$2"
	XENBUS_PATH=backend/vbd3/$D expect 0 "$top_builddir/bin/block-tap" remove
	xenstore-rm "$(be $D)"
	xenstore-rm "$(fe $D)"
}
vbd() { "$top_builddir/bin/tap-vbd" -t 100 -s "$top_builddir/bin/block-tap" "$@"; }
# a mode that needs O_DIRECT is refused where there is none, by its name: that is an answer as well
cell_done()
{
	case $RC:$ERR in
	0:*) opened "$1" "$2" ;;
	*O_DIRECT*) echo "($1: no O_DIRECT here)" ;;
	*) fail "$1: '$2': $ERR" ;;
	esac
}
cells=0
while IFS='|' read -r row new old own; do
	[ "$old" != "the same" ] || old=$new
	for c in new old; do
		cell=${!c} format=aio
		[ "$cell" != - ] || continue
		case $c:$cell in new:format=vhd*) format=vhd ;; esac
		xl "$row" "$cell" $format
		cells=$((cells + 1))
	done
	case $own in
	*devtype=cdrom) continue ;; # tests/it/cdrom.sh
	"access=w!"*) own="cache=none,access=w!" ;;
	esac
	case $own in *target=*) own=$(with_path "$row" "$own") ;; *) own="$own,target=$(image "$row")" ;; esac
	case $own in *vdev=*) ;; *) own="vdev=xvda,$own" ;; esac
	run vbd attach guest "$own"
	cell_done "$row" "$own"
	[ $RC != 0 ] || expect 0 vbd detach guest xvda
	cells=$((cells + 1))
done < <(sed -n '/^    a disk  /,/^$/p' "$top_srcdir/README" | sed '1d; /^$/d; /^    a block device/d; s/^    //; s/   */|/g')
[ $cells -ge 29 ] || fail "only $cells cells of the table were found"
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
	(cd "$WORK" && PATH=$top_builddir/bin:$PATH && eval "$line")
}
n=0 pid=PID minor=MINOR
while read -r line; do
	case $line in
	"tap-ctl top"*) continue ;; # for a terminal: tests/it/tap-ctl-top.sh
	"tap-ctl resize"*) pid=$(tap_ctl list -f "$WORK/srv/a.img" | sed -n 's/^pid=\([0-9]*\) .*/\1/p') minor=$(tap_ctl list -f "$WORK/srv/a.img" | sed -n 's/.*minor=\([0-9]*\) .*/\1/p') ;;
	esac
	run command_line "$line"
	case $RC:$ERR in 0:*) n=$((n + 1)) ;; *) fail "'$line' of README exits with $RC: $ERR" ;; esac
done < <(sed -n '/^A disk in one command/,/^Each open disk/s/^    //p' "$top_srcdir/README")
[ $n = 13 ] || fail "$n lines of the chapter were found"

# --- what an HVM user, or one with a bootloader, reads -------------------------------------------------------------------------------
for page in README doc/block-tap.7; do
	has "$page" "$(grep -m 1 -A 4 HVM "$top_srcdir/$page")" script=block-tap
done
