# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest's ring, over the memory transport: every ABI and ring order, load with verification, and what no honest guest sends.
. "$top_srcdir/tests/it/lib.sh"

guest="$top_builddir/tests/support/tdguest"
truncate -s 24M "$WORK/d.img"
marker=$(tap_ctl create -a "aio:$WORK/d.img" -o cache=writeback) || fail "create"
pid=$(tap_ctl list -f "$WORK/d.img" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
minor=${marker##*-}

for abi in native x86_64 x86_32; do
	for order in 0 1 2 3 4; do
		expect 0 "$guest" --abi $abi --order $order "$pid" "$minor" write $((order * 65536)) 90112 $order
		expect 0 "$guest" --abi $abi --order $order "$pid" "$minor" verify $((order * 65536)) 90112 $order
	done
done
expect 0 "$guest" --order 2 "$pid" "$minor" full 7
# the guest's own check must be able to fail
expect 1 "$guest" "$pid" "$minor" verify 4096 512 8
has "the place of the wrong byte" "$OUT" "byte 4096"
# what the guest wrote stands in the file
"$guest" "$pid" "$minor" read 0 $((24 << 20)) | cmp - "$WORK/d.img" || fail "the file is not what the guest reads"

expect 0 "$guest" "$pid" "$minor" load 2 1
expect 0 "$guest" --order 4 "$pid" "$minor" load 2 200
# indirect requests, of up to 2 MiB, alone and among others
for abi in native x86_64 x86_32; do
	expect 0 "$guest" --abi $abi --segs 512 "$pid" "$minor" write 512 5000192 $abi
	expect 0 "$guest" --abi $abi --segs 12 "$pid" "$minor" verify 512 5000192 $abi
	expect 0 "$guest" --abi $abi "$pid" "$minor" verify 512 5000192 $abi
done
expect 0 "$guest" --segs 32 "$pid" "$minor" load 1 32
expect 0 "$guest" --segs 300 --order 4 "$pid" "$minor" load 1 8
expect 0 "$guest" --segs 16 --order 4 "$pid" "$minor" load 1 150 # more of them than there is room for

# persistent grants: the guest's own pages, without a copy
expect 0 "$guest" --persistent --segs 100 "$pid" "$minor" full 11
expect 0 "$guest" --persistent "$pid" "$minor" load 1 32
expect 0 "$guest" --persistent --segs 24 --order 4 "$pid" "$minor" load 1 100 # more pages than stay mapped
# a tapdisk that stays awake
expect 0 "$guest" --polling 10000 "$pid" "$minor" load 1 1
expect 0 "$guest" --polling 1000 --segs 24 --order 4 "$pid" "$minor" load 1 100

expect 0 "$guest" --order 1 "$pid" "$minor" barrier 512 65536 9
expect 0 "$guest" "$pid" "$minor" verify 512 65536 9
expect 0 "$guest" "$pid" "$minor" flush 5

# a discard gives space back to the file system
used=$(du -k "$WORK/d.img" | cut -f1)
expect 0 "$guest" "$pid" "$minor" discard 8388608 8388608
[ "$(du -k "$WORK/d.img" | cut -f1)" -le $((used - 8000)) ] || fail "a discard of 8 MiB has given nothing back"
expect 1 "$guest" "$pid" "$minor" discard 8388608 33554432

for case in $("$guest" hostile list); do
	expect 0 "$guest" "$pid" "$minor" hostile "$case"
done
# a broken ring is gone with its frontend, and the next one finds the disk as it was
expect 0 "$guest" "$pid" "$minor" write 0 4096 1
expect 0 "$guest" "$pid" "$minor" verify 0 4096 1

tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"
expect 2 "$guest" "$pid" "$minor" flush

# sectors of 4096 bytes: the ring's units stay, what the guest is told does not, and a successor tells the same
truncate -s 8192512 "$WORK/l.img"
expect 22 tap_ctl create -a "aio:$WORK/l.img" -o sector-size=4096 -o cache=writeback
has "the reason" "$ERR" "not a multiple of sector-size=4096"
truncate -s 8M "$WORK/l.img"
marker=$(tap_ctl create -a "aio:$WORK/l.img" -o sector-size=4096 -o cache=writeback) || fail "create"
minor=${marker##*-}
pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
expect 0 "$guest" "$pid" "$minor" sectors
is "sectors of 512 bytes, logical size, physical size" "$OUT" "16384 4096 4096"
expect 0 "$guest" --segs 40 "$pid" "$minor" full 3
expect 0 "$guest" "$pid" "$minor" verify 4096 12288 3
kill -KILL "$pid"
until_true 10 gone "$pid"
pid=$(tap_ctl revive -m "$minor") || fail "revive"
expect 0 "$guest" "$pid" "$minor" sectors
is "after a revival" "$OUT" "16384 4096 4096"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "aio:$WORK/l.img"
expect 0 "$guest" "$pid" "$minor" sectors
is "after a pause" "$OUT" "16384 4096 4096"
truncate -s 9000448 "$WORK/l.img" # not whole sectors
expect 0 tap_ctl resize -p "$pid" -m "$minor"
expect 0 "$guest" "$pid" "$minor" sectors
is "after a resize" "$OUT" "17576 4096 4096"
tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"
