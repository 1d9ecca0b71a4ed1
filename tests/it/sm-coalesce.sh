# SPDX-License-Identifier: LGPL-2.1-or-later
# sm's garbage collector under a running guest, in its order: coalesce, relink while a tapdisk writes the leaf, then pause, unpause,
# delete; with a tapdisk killed in between; and what stays refused.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99

find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
start() # MODE
{
	local marker

	marker=$(tap_ctl create -a "vhd:$WORK/leaf.vhd" -o "cache=$1") || fail create
	minor=${marker##*-}
	find_pid
}
under() # IMAGE OFF LEN SEED: data of its own
{
	start writeback
	expect 0 guest write "$2" "$3" "$4"
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	[ "$1" = leaf ] || mv leaf.vhd "$1.vhd"
}
chain() # base < mids < leaf, all names of one length, as uuids have
{
	rm -f ./*.vhd
	expect 0 vhd_util create -n leaf.vhd -s 64
	under base 0 1048576 1
	expect 0 vhd_util snapshot -n leaf.vhd -p base.vhd
	under mids 4096 3145728 2
	expect 0 vhd_util snapshot -n leaf.vhd -p mids.vhd
	under leaf 8192 4096 3
}
right() # WHAT
{
	local ok=1

	guest verify 0 4096 1 >>said || ok=
	guest verify 4096 4096 2 >>said || ok=
	guest verify 8192 4096 3 >>said || ok=
	guest verify 12288 3137536 2 >>said || ok=
	[ -n "$ok" ] || fail "$1: the guest reads something else: $(tail -3 said)"
}
written() # WHAT: all that the writer was told of
{
	for ((i = 0; i < writes; i++)); do
		guest verify $((16777216 + i * 2097152)) 8192 $((100 + i)) >>said || fail "$1: write $i is gone: $(tail -1 said)"
	done
}
write_some() # COUNT: into new blocks, so that the table changes too
{
	for ((n = 0; n < $1; n++)); do
		guest write $((16777216 + writes * 2097152)) 8192 $((100 + writes)) >>said || fail "write $writes"
		writes=$((writes + 1))
	done
}
parent() { vhd_util query -p -n leaf.vhd; }
gc() # as cleanup.py does it, up to the relink
{
	expect 0 vhd_util check --debug -n mids.vhd
	expect 0 vhd_util coalesce --debug -n mids.vhd
	expect 0 vhd_util check --debug -B -n base.vhd
	expect 0 vhd_util query --debug -vsafp -n leaf.vhd
	expect 0 vhd_util modify --debug -p base.vhd -n leaf.vhd
}

for mode in none writeback directsync; do
	chain
	start $mode
	writes=0
	write_some 3
	(
		end=0
		trap 'end=1' TERM
		while [ $end = 0 ]; do guest write 50331648 8192 7 >>said2; done
		exit 0
	) &
	busy=$!
	gc
	kill -TERM $busy
	wait $busy
	is "$mode: the parent that the next open takes" "$(parent)" "$WORK/base.vhd"
	write_some 6
	right "$mode: between relink and pause"
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	is "$mode: kept over the close" "$(parent)" "$WORK/base.vhd"
	expect 0 vhd_util check -n leaf.vhd
	rm mids.vhd
	expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "vhd:$WORK/leaf.vhd"
	right "$mode: without the middle"
	written "$mode"
	guest verify 50331648 8192 7 >>said || fail "$mode: the writes meanwhile"
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	expect 0 vhd_util check -n leaf.vhd
	is "$mode: depth" "$(vhd_util query -d -n leaf.vhd)" "chain depth: 2"
done

# a death between the relink and the pause, with writes in the log from before and after it
for mode in none writeback; do
	chain
	start $mode
	writes=0
	write_some 4
	gc
	write_some 4
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	rm mids.vhd
	expect 0 tap_ctl revive -m "$minor"
	find_pid
	right "$mode: revived"
	written "$mode: revived"
	expect 0 tap_ctl pause -p "$pid" -m "$minor"
	expect 0 tap_ctl unpause -p "$pid" -m "$minor"
	right "$mode: revived, after a pause"
	written "$mode: revived, after a pause"
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
	expect 0 vhd_util check -n leaf.vhd
done

# again, as after a death of the collector: it is done already
chain
start none
gc
expect 0 vhd_util modify -p base.vhd -n leaf.vhd

# a parent in use: its own parent, its footer (sm inflates a volume), a repair; and all of it under the running leaf
expect 0 vhd_util repair -n base.vhd
size=$(stat -c %s base.vhd)
expect 0 vhd_util modify -s $((size + 4096)) -n base.vhd
is "the footer moved" "$(stat -c %s base.vhd)" $((size + 4096))
expect 0 vhd_util check -n base.vhd
right "a parent that was repaired and inflated"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
right "and opened anew"

# what would hurt: a stranger as parent, a name that does not fit in place, the leaf's data, footer and size
expect 0 vhd_util create -n else.vhd -s 64
expect 16 vhd_util modify -p else.vhd -n leaf.vhd
has "why" "$ERR" "not among its parents"
ln base.vhd a-longer-name.vhd
expect 16 vhd_util modify -p a-longer-name.vhd -n leaf.vhd
has "what to do" "$ERR" "pause the disk first"
expect 16 vhd_util modify -z -n leaf.vhd
expect 16 vhd_util modify -z -n base.vhd
expect 16 vhd_util modify -s 100000000 -n leaf.vhd
expect 16 vhd_util repair -n leaf.vhd
is "nothing has changed" "$(parent)" "$WORK/base.vhd"
ln base.vhd b.vhd # shorter: filled up
expect 0 vhd_util modify -p b.vhd -n leaf.vhd
is "a shorter name" "$(parent)" "$WORK/b.vhd"
rm base.vhd
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
right "by the shorter name"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
exit 0
