# SPDX-License-Identifier: LGPL-2.1-or-later
# What sm means by -D: parents through the page cache, the leaf past it; over pauses, deaths and upgrades; and what others write into
# a parent meanwhile is what the guest reads once the chain has been opened again.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
dd if=/dev/zero of=probe bs=4096 count=1 oflag=direct status=none 2>/dev/null || skip "no O_DIRECT here"
command -v python3 >/dev/null || skip "python3 is not installed"
direct=$(python3 -c "import os; print(os.O_DIRECT)")

way() # FILE: how the tapdisk has it open: direct, cached, or nothing
{
	local fd flags

	for fd in "/proc/$pid/fd"/*; do
		[ "$(readlink "$fd")" = "$1" ] || continue
		flags=$(sed -n 's/^flags:[[:space:]]*//p' "/proc/$pid/fdinfo/${fd##*/}")
		if [ $((8#$flags & direct)) = 0 ]; then echo cached; else echo direct; fi
	done | sort -u
}
says() # WHAT LEAF PARENTS READ-CACHING: of l, m and b
{
	local f

	is "$1: leaf" "$(way "$WORK/l")" "$2"
	for f in m b; do is "$1: $f" "$(way "$WORK/$f")" "$3"; done
	expect 0 tap_ctl stats -p "$pid" -m "$minor"
	has "$1: stats" "$OUT" "\"read_caching\": \"$4\""
	has "$1: mode" "$OUT" '"mode": "none"'
}
under() # TYPE NAME OFF LEN SEED
{
	start -a "$1:$WORK/$2" -o cache=writeback
	expect 0 guest write "$3" "$4" "$5"
	stop
}
chain() # TYPE: b < m < l, each with data of its own
{
	rm -f b m l
	if [ "$1" = vhd ]; then
		expect 0 vhd_util create -n b -s 64
		under vhd b 0 1048576 1
		expect 0 vhd_util snapshot -n m -p b
		under vhd m 4096 524288 2
		expect 0 vhd_util snapshot -n l -p m
	else
		expect 0 "$top_builddir/bin/td-qcow" create b 64M
		under qcow2 b 0 1048576 1
		expect 0 "$top_builddir/bin/td-qcow" create -F qcow2 -b b m
		under qcow2 m 4096 524288 2
		expect 0 "$top_builddir/bin/td-qcow" create -F qcow2 -b m l
	fi
}
right() # WHAT
{
	guest verify 0 4096 1 >said && guest verify 4096 524288 2 >>said && guest verify 528384 520192 1 >>said &&
		guest verify 2097152 65536 3 >>said || fail "$1: the guest reads something else: $(tail -2 said)"
}

for type in vhd qcow2; do
	chain $type
	start -a "$type:$WORK/l"
	says "$type, without" direct direct false
	stop
	start -a "$type:$WORK/l" -D
	says "$type, -D" direct cached true
	expect 0 guest write 2097152 65536 3
	right "$type"
	expect 0 tap_ctl audit -p "$pid" -m "$minor" --json
	has "$type: the audit" "$(tr -d ' \n' <<<"$OUT")" '"as_asked":true'
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	expect 0 tap_ctl unpause -p "$pid" -m "$minor"
	says "$type, after a pause" direct cached true
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	expect 0 tap_ctl revive -m "$minor"
	find_pid
	says "$type, revived" direct cached true
	right "$type, revived"
	expect 0 tap_ctl upgrade -p "$pid"
	find_pid
	says "$type, upgraded" direct cached true
	right "$type, upgraded"
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	expect 0 tap_ctl unpause -p "$pid" -m "$minor" -o parents-cache=no
	says "$type, no more" direct direct false
	right "$type, no more"
	stop
	# a leaf that is only read is read as they are
	start -a "$type:$WORK/l" -R
	says "$type, -R" direct direct false
	stop
	start -a "$type:$WORK/l" -D -R
	says "$type, -D -R" cached cached true
	right "$type, read-only"
	expect 0 tap_ctl audit -p "$pid" -m "$minor" --json
	has "$type, read-only: the audit" "$(tr -d ' \n' <<<"$OUT")" '"as_asked":true'
	expect 0 tap_ctl upgrade -p "$pid"
	find_pid
	says "$type, -D -R, upgraded" cached cached true
	right "$type, read-only, upgraded"
	stop
done

# no file of the chain is looked at in another way than it is then read: a parent's file system may not know O_DIRECT
if command -v strace >/dev/null; then
	chain vhd
	cat >traced <<-EOF
		#!/bin/sh
		exec strace -D -f -qq -A -o "$WORK/trace" -e trace=openat,openat2 -e signal=none -- "$top_builddir/tapdisk/tapdisk" "\$@"
	EOF
	chmod +x traced
	TAPDISK=$WORK/traced start -a "vhd:$WORK/l" -D
	stop
	is "opened with O_DIRECT" "$(grep -w O_DIRECT trace | sed 's/[^"]*"\([^"]*\)".*/\1/' | sort -u)" "$WORK/l"
else
	echo "no strace: how parents are looked at is not seen"
fi

# a collector writes the base whose pages this host has: coalesce, relink, pause, unpause
chain vhd
start -a "vhd:$WORK/l" -D
expect 0 guest write 2097152 65536 3
right "before"
expect 0 vhd_util coalesce -n m
right "during: the image above hides it"
expect 0 vhd_util modify -p b -n l
expect 0 tap_ctl pause -p "$pid" -m "$minor"
mv m gone
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
is "the base" "$(way "$WORK/b")" cached
right "after"
# and it grows (sm does so before it coalesces a larger image into it)
expect 0 vhd_util modify -s 67200000 -n b
right "after the parent's footer has moved"
stop

# a base on a device: what is written behind the device's back, as another host does it, is read.  The device's pages would hide it.
truncate -s 64M raw other
for f in raw:1 other:5; do
	start -a "aio:$WORK/${f%:*}" -o cache=writeback
	expect 0 guest write 0 1048576 "${f#*:}"
	stop
done
if dev=$(losetup --show -f "$WORK/raw" 2>/dev/null); then
	at_exit "losetup -d $dev"
	rm -f l
	printf "parent-dirs = /dev\nparents = %s\n" "$dev" >conf
	export TAPDISK_CONF=$WORK/conf
	expect 0 vhd_util snapshot -n l -p "$dev" -m
	start -a "vhd:$WORK/l" -D
	is "a parent on a device" "$(way "$dev")" direct
	is "its leaf" "$(way "$WORK/l")" direct
	expect 0 tap_ctl stats -p "$pid" -m "$minor"
	has "nothing is claimed" "$OUT" '"read_caching": "false"'
	stop
	start -a "vhd:$WORK/l" -D -R
	is "a parent on a device, under a leaf that is only read" "$(way "$dev")" direct
	is "that leaf" "$(way "$WORK/l")" cached
	stop
	start -a "aio:$dev" -D -R
	is "a device that is only read" "$(way "$dev")" direct
	expect 0 tap_ctl stats -p "$pid" -m "$minor"
	has "of it nothing is claimed" "$OUT" '"read_caching": "false"'
	stop
	start -a "vhd:$WORK/l" -D
	expect 0 guest verify 0 1048576 1
	dd if=other of=raw bs=1M count=1 conv=notrunc,fsync status=none
	expect 0 guest verify 0 1048576 5
	stop
else
	echo "no loop device: the case of a parent on a device is not tried"
fi
exit 0
