# SPDX-License-Identifier: LGPL-2.1-or-later
# Live commit of encrypted images and of compressed ones, under a guest's load, over a death: what is encrypted stays so, and
# qemu-img is the judge of the rest; and of images whose names are no text.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

type qemu-img qemu-io >/dev/null 2>&1 || skip "without qemu-img"
command -v python3 >/dev/null || skip "python3 is not installed"
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
q() { timeout 250 "$top_builddir/bin/td-qcow" "$@"; }
guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
job() { tap_ctl "$1" -p "$pid" -m "$minor" "${@:2}"; }
cd "$WORK" || exit 99
printf 'open sesame' >key

start() # SPEC [ARG...]: the key is on standard input, where there is one
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
stop() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
fill() # INDEX
{
	expect 0 guest write $(($1 * 4194304)) 1048576 $((10 + $1))
	expect 0 guest write $((16777216 + $1 * 32768)) 65536 $((20 + $1))
}
right() # WHAT
{
	local i

	for i in 0 1 2; do
		guest verify $((i * 4194304)) 1048576 $((10 + i)) >>said 2>&1 || fail "$1: image $i's data: $(tail -2 said)"
		guest verify $((16777216 + i * 32768)) 32768 $((20 + i)) >>said 2>&1 || fail "$1: image $i's part: $(tail -2 said)"
	done
}
busy_commit() # IMAGE: with a guest that writes meanwhile
{
	(
		end=
		trap 'end=1' TERM
		while [ -z "$end" ]; do guest write 25165824 262144 7 >>said2 2>&1 || exit 1; done
	) &
	busy=$!
	expect 0 job commit -a "$1" -w
	kill -TERM $busy
	wait $busy || fail "the guest that wrote meanwhile: $(tail -2 said2)"
	has "its end" "$OUT" "Commit status 'concluded'"
}
hidden() # FILE: what the guest has written is not to be seen there
{
	local i

	for i in 0 1 2; do
		guest read $((i * 4194304)) 512 >seen || fail "read"
		python3 -c 'import sys; sys.exit(open(sys.argv[1], "rb").read().find(open("seen", "rb").read()[:64]) >= 0)' "$1" ||
			fail "$1 shows what image $i holds"
	done
}

# --- qcow2 with LUKS, each image with a master key of its own
luks=(-E -o encrypt.iter-time=10)
expect 0 q create "${luks[@]}" base.qcow2 32M <key
for i in 0 1 2; do
	names=(base mids tops)
	[ $i = 0 ] || expect 0 q snapshot "${luks[@]}" "${names[i - 1]}.qcow2" "${names[i]}.qcow2" <key
	start "qcow2:$WORK/${names[i]}.qcow2" -E <key
	fill $i
	[ $i = 2 ] || stop
done
busy_commit mids.qcow2
rm mids.qcow2
right "an encrypted image in the middle"
hidden base.qcow2
stop
expect 0 q check base.qcow2
expect 0 q check tops.qcow2
has "what is named" "$(qemu-img info -U tops.qcow2)" base.qcow2
start "qcow2:$WORK/tops.qcow2" -E <key
right "opened again"
# and the leaf, over a death
expect 0 job commit -a tops.qcow2 -r 4M
kill -KILL "$pid"
until_true 10 gone "$pid"
expect 0 tap_ctl revive -m "$minor" -E <key
find_pid
expect 0 job query -w
right "the leaf"
hidden base.qcow2
has "the disk" "$(tap_ctl list -m "$minor")" base.qcow2
stop
rm tops.qcow2
start "qcow2:$WORK/base.qcow2" -E <key
right "the parent alone"
stop

# --- into a plain parent it would be laid open: refused
rm -f ./*.qcow2
expect 0 qemu-img create -q -f qcow2 low.qcow2 32M
expect 0 q create "${luks[@]}" -b low.qcow2 -F qcow2 secret.qcow2 <key
start "qcow2:$WORK/secret.qcow2" -E <key
expect 0 guest write 0 65536 1
expect 22 job commit -a secret.qcow2
has "why" "$ERR" "would lay its data open"
expect 0 guest verify 0 65536 1
stop

# --- VHD, whose images have one key
head -c 32 /dev/urandom >key
cp key base,aes-xts-plain,256.key
expect 0 vhd_util create -n base.vhd -s 32
expect 0 vhd_util key -n base.vhd -s -k base,aes-xts-plain,256.key
for i in 0 1 2; do
	[ $i = 0 ] || expect 0 vhd_util snapshot -n "${names[i]}.vhd" -p "${names[i - 1]}.vhd"
	start "vhd:$WORK/${names[i]}.vhd" -E <key
	fill $i
	[ $i = 2 ] || stop
done
busy_commit mids.vhd
rm mids.vhd
right "an encrypted VHD in the middle"
hidden base.vhd
stop
expect 0 vhd_util check -n tops.vhd

# --- compressed clusters: of the image they are read as what they hold; over those of the parent new ones are written, uncompressed
plain() # FILE
{
	qemu-io -f qcow2 -c "write -P $2 1M 4M" -c "write -P $3 9M 1M" -c "write -P 9 20000k 100k" "$1" >>qemu || fail "qemu-io $1"
}
for type in zlib zstd; do
	rm -f ./*.qcow2
	qemu-img create -q -f qcow2 b.qcow2 32M && plain b.qcow2 1 2
	qemu-img convert -c -O qcow2 -o compression_type=$type b.qcow2 base.qcow2 || skip "no $type"
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 m.qcow2 32M
	qemu-io -f qcow2 -c 'write -P 3 2M 2M' -c 'write -P 4 9M 64k' -c 'write -P 5 12M 1M' -c 'write -z 4M 512k' m.qcow2 >>qemu
	qemu-img convert -c -f qcow2 -O qcow2 -o compression_type=$type,backing_file=base.qcow2,backing_fmt=qcow2 m.qcow2 mids.qcow2 || fail "convert"
	rm m.qcow2 b.qcow2
	qemu-img check --output=json mids.qcow2 | grep -q '"compressed-clusters": [1-9]' || fail "mids.qcow2 is not compressed"
	qemu-img create -q -f qcow2 -b mids.qcow2 -F qcow2 tops.qcow2 32M
	qemu-io -f qcow2 -c 'write -P 6 3M 64k' tops.qcow2 >>qemu
	qemu-img convert -O raw tops.qcow2 before.raw
	chmod a-w base.qcow2 mids.qcow2
	start "qcow2:$WORK/tops.qcow2"
	expect 0 job commit -a mids.qcow2 -w
	stop
	rm -f mids.qcow2
	qemu-img convert -O raw tops.qcow2 after.raw
	cmp before.raw after.raw || fail "compressed with $type: another content"
	expect 0 qemu-img check -f qcow2 base.qcow2
	expect 0 qemu-img check -f qcow2 tops.qcow2
	# and of the leaf, with all that is left in the parent compressed
	start "qcow2:$WORK/tops.qcow2"
	expect 0 job commit -a tops.qcow2 -w
	stop
	qemu-img convert -O raw base.qcow2 after.raw
	cmp before.raw after.raw || fail "compressed with $type, the leaf: another content"
	expect 0 qemu-img check -f qcow2 base.qcow2
done

# --- a name that is no text: nobody could be told which, nor could a successor
rm -f ./*.qcow2
odd=$(printf 'b\377se.qcow2')
qemu-img create -q -f qcow2 "$odd" 32M || skip "a file system that takes text alone"
qemu-img create -q -f qcow2 -b "$odd" -F qcow2 mids.qcow2 32M
qemu-img create -q -f qcow2 -b mids.qcow2 -F qcow2 tops.qcow2 32M
chmod a-w "$odd" mids.qcow2
start "qcow2:$WORK/tops.qcow2"
expect 0 guest write 0 65536 1
expect 22 job commit -a mids.qcow2
has "why" "$ERR" "is not UTF-8 text"
expect 0 job query
has "no job" "$OUT" undefined
expect 0 guest verify 0 65536 1
# another image of the chain may be committed
expect 0 job commit -a tops.qcow2 -w
expect 0 guest verify 0 65536 1
stop
exit 0
