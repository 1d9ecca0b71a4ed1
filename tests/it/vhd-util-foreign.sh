# SPDX-License-Identifier: LGPL-2.1-or-later
# Others' tools and ours on each other's VHDs: qemu-img for fixed and dynamic ones (of differencing ones it shows wrong data without a
# word), libvhdi's vhdiinfo for headers, and for chains npm's vhd-lib, which quickstart puts below $top_builddir/judges.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

for tool in qemu-img qemu-io vhdiinfo; do
	command -v $tool >/dev/null || skip "no $tool (Debian: qemu-utils, libvhdi-utils)"
done
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
SEED=${VHD_SEED:-$RANDOM}
RANDOM=$SEED
echo "seed $SEED (VHD_SEED repeats it)"
cd "$WORK" || exit 1

# writes MIB: the arguments of 40 random writes for qemu-io
writes()
{
	local i

	for i in $(seq 40); do
		printf -- '-c\nwrite -q -P %d %d %d\n' $((RANDOM % 255 + 1)) $((RANDOM * 32768 % ($1 * 2048 - 600) * 512)) $(((RANDOM % 500 + 1) * 512))
	done
}

io() # ARG...
{
	qemu-io "$@" >qemu-io.log 2>&1 && ! grep -qi 'fail\|error' qemu-io.log || fail "qemu-io: $(tail -2 qemu-io.log)"
}

# scribble FILE MIB: the same random writes into FILE and, as raw, into FILE.raw
scribble()
{
	local cmds

	mapfile -t cmds < <(writes "$2")
	io -f vpc "$1" "${cmds[@]}"
	io -f raw "$1.raw" "${cmds[@]}"
}

same() # WHAT A.raw B.raw
{
	cmp -s "$2" "$3" || fail "$1 (seed $SEED): $(cmp "$2" "$3" 2>&1)"
}

# --- qemu-img's, read by us: its size is what the footer says, whatever the geometry does ---
for kind in fixed dynamic; do
	for size in force_size=on force_size=off; do
		rm -f q.vhd out.raw
		qemu-img create -q -f vpc -o subformat=$kind,$size q.vhd 9M || fail "qemu-img create"
		expect 0 vhd_util query -n q.vhd --json
		BYTES=$(sed -n 's/.*"virtual_size": \([0-9]*\).*/\1/p' <<<"$OUT")
		[ $size = force_size=off ] || is "size of qemu-img's $kind disk" "$BYTES" $((9 << 20))
		rm -f q.vhd.raw && truncate -s "$BYTES" q.vhd.raw
		scribble q.vhd 8
		expect 0 vhd_util check -n q.vhd
		expect 0 vhd_util copy -n q.vhd -o out.raw
		same "qemu-img's $kind disk, $size" out.raw q.vhd.raw
	done
done

# --- ours, written and read by qemu-img.  It puts the first block of a dynamic disk where the block table ends, over the batmap and the
# footer, and shows their bytes; so ours has a block of its own first ---
for kind in "" -r; do
	rm -f a.vhd a.vhd.raw out.raw t.vhd
	truncate -s 11M a.vhd.raw
	if [ -z "$kind" ]; then
		io -f raw a.vhd.raw -c "write -P 77 5M 64k"
		expect 0 vhd_util snapshot -n t.vhd -p a.vhd.raw -m
		expect 0 vhd_util coalesce -n t.vhd -o a.vhd
	else
		expect 0 vhd_util create -n a.vhd -s 11 $kind
	fi
	is "size that QEMU sees" "$(qemu-img info --output=json -f vpc a.vhd | sed -n 's/^    "virtual-size": \([0-9]*\).*/\1/p')" $((11 << 20))
	scribble a.vhd 11
	expect 0 vhd_util check -n a.vhd
	expect 0 vhd_util copy -n a.vhd -o out.raw
	same "our disk ($kind) written by QEMU, read by us" out.raw a.vhd.raw
	qemu-img convert -f vpc -O raw a.vhd q.raw || fail "qemu-img convert"
	same "our disk ($kind) read by QEMU" q.raw a.vhd.raw
	# larger, by us, and read by QEMU; a fixed one written, too: the new table has nothing behind it either
	expect 0 vhd_util resize -n a.vhd -s 150 -j j
	truncate -s 150M a.vhd.raw
	qemu-img compare -q -f vpc -F raw a.vhd a.vhd.raw || fail "our resized disk ($kind) in QEMU"
	[ -z "$kind" ] || scribble a.vhd 150
	expect 0 vhd_util check -n a.vhd
	rm -f out.raw
	expect 0 vhd_util copy -n a.vhd -o out.raw
	same "our resized disk ($kind)" out.raw a.vhd.raw
done

# --- a chain, its data through a tapdisk; by coalesce -o one dynamic disk, which QEMU reads ---
level() # IMAGE: random writes by a client of its tapdisk, and the same into chain.raw
{
	local marker minor pid cmds

	marker=$(tap_ctl create -a "vhd:$WORK/$1" -o cache=writeback) || fail "tap-ctl create $1"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	mapfile -t cmds < <(writes 24)
	io -f raw "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor" "${cmds[@]}"
	io -f raw chain.raw "${cmds[@]}"
	expect 0 tap_ctl destroy -p "$pid" -m "$minor"
}

truncate -s 24M chain.raw
expect 0 vhd_util create -n c0.vhd -s 24
level c0.vhd
cp chain.raw c0.raw
for i in 1 2 3; do
	expect 0 vhd_util snapshot -n c$i.vhd -p c$((i - 1)).vhd -e
	level c$i.vhd
	cp chain.raw c$i.raw
done
for i in 0 1 2 3; do
	rm -f out.raw
	expect 0 vhd_util copy -n c$i.vhd -o out.raw
	same "level $i" out.raw c$i.raw
done
expect 0 vhd_util check -n c3.vhd -p
expect 0 vhd_util coalesce -n c3.vhd -o flat.vhd
qemu-img compare -q -f vpc -F raw flat.vhd c3.raw || fail "coalesce -o, read by QEMU"

# --- vhdiinfo: headers ---
INFO=$(vhdiinfo c3.vhd 2>&1) || fail "vhdiinfo: $INFO"
has "vhdiinfo" "$INFO" "Differential"
has "vhdiinfo" "$INFO" "(25165824 bytes)"
has "vhdiinfo" "$INFO" "$("$top_builddir/bin/vhd-util" query -n c3.vhd -U)"
has "vhdiinfo" "$(grep 'Parent identifier' <<<"$INFO")" "$("$top_builddir/bin/vhd-util" query -n c2.vhd -U)"
has "vhdiinfo" "$(grep 'Parent filename' <<<"$INFO")" "c2.vhd"
vhdiinfo c0.vhd | grep -q "Dynamic" || fail "vhdiinfo: a dynamic disk"

# --- vhd-lib: chains both ways ---
export NODE_PATH=${VHD_LIB:-$top_builddir/judges/node_modules}
command -v node >/dev/null && [ -d "$NODE_PATH/vhd-lib" ] ||
	skip "all was right, but vhd-lib is not in $NODE_PATH (npm install --prefix $top_builddir/judges vhd-lib@0.7.2, which quickstart does)"
judge() { node "$top_srcdir/tests/it/vhd-lib-judge.js" "$@" >judge.log 2>&1 || fail "vhd-lib $1: $(grep -m1 -i error judge.log) $(tail -3 judge.log)"; }

judge synth s.vhd c3.vhd c2.vhd c1.vhd c0.vhd
qemu-img compare -q -f vpc -F raw s.vhd c3.raw || fail "our chain, as vhd-lib reads it"
expect 0 vhd_util check -n s.vhd
# its merge of our child into our parent, against our coalesce
mkdir m && cp c?.vhd m/ && cd m || exit 1
expect 0 vhd_util fill -n c2.vhd # vhd-lib trips over a part of a block that the parent has not
judge merge c2.vhd c3.vhd
expect 0 vhd_util modify -n c3.vhd -z
rm -f out.raw
expect 0 vhd_util copy -n c2.vhd -o out.raw
same "vhd-lib's merge" out.raw ../c3.raw
# its name of a parent, read by us: its locators count sectors
cp ../c?.vhd .
mkdir sub && mv c2.vhd sub/
judge chain sub/c2.vhd c3.vhd
expect 0 vhd_util query -n c3.vhd -p
is "the parent that vhd-lib named" "$OUT" "$WORK/m/sub/c2.vhd"
cd ..
# after our coalesce and another parent it still reads the chain
expect 0 vhd_util coalesce -n c2.vhd
expect 0 vhd_util modify -n c3.vhd -p c1.vhd
judge synth s.vhd c3.vhd c1.vhd c0.vhd
qemu-img compare -q -f vpc -F raw s.vhd c3.raw || fail "our chain after a coalesce, as vhd-lib reads it"
exit 0
