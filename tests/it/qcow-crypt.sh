#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Encrypted images: those of qemu-img read as it reads them, with the key alone; what we write into LUKS, it reads; the old AES is read and
# never written; what is wrong with a LUKS header is said.  SEED=N repeats a run.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 1
SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
reference
printf 'open sesame' >key
printf 'open sesam' >wrong
secret=(--object "secret,id=s,file=$WORK/key")
luks=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10

theirs() # NAME FORMAT OPTIONS
{
	for _ in {1..20}; do # it measures how fast it is, which takes a while, and now and then fails
		rm -f "$1"
		qemu-img create -q -f "$2" "${secret[@]}" -o "$3" "$1" 48M 2>qemu.err && return
	done
	fail "qemu-img create -o $3: $(cat qemu.err)"
}
q() { timeout 250 "$top_builddir/bin/td-qcow" "$@"; }
ours() # NAME OPTIONS
{
	expect 0 q create -f -E -o "encrypt.format=luks,encrypt.iter-time=10,$2" "$1" 48M <key
}
opts() { echo "driver=$2,encrypt.format=$3,encrypt.key-secret=s,file.filename=$1"; }
fill() # NAME DRIVER FORMAT
{
	qemu-img convert -q -n -f raw "${secret[@]}" --target-image-opts ref.raw "$(opts "$@")" || fail "qemu-img convert to $1"
}
reads() # NAME DRIVER
{
	expect 0 tdimg -r -k key "$2:$WORK/$1" dump out.raw
	expect 0 qemu-img compare -q -f raw -F raw out.raw ref.raw
}
storm() # NAME
{
	rm -f model
	expect 0 tdimg -k key ${2:-} "qcow2:$WORK/$1" storm "$SEED" "${STEPS:-60}" model
	expect 0 qemu-img compare -q "${secret[@]}" --image-opts "$(opts "$1" qcow2 luks)" driver=raw,file.filename=model
	expect 0 qemu-img check -q "${secret[@]}" --image-opts "$(opts "$1" qcow2 luks)"
	SEED=$((SEED + 1))
}

# LUKS, by cipher, mode and hash: made by qemu-img, and made by us
for o in encrypt.hash-alg=sha1,cluster_size=512 \
	encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha512; do
	theirs a.qcow2 qcow2 "$luks,$o"
	fill a.qcow2 qcow2 luks
	reads a.qcow2 qcow2
	storm a.qcow2
done
for o in encrypt.cipher-alg=aes-128 encrypt.hash-alg=sha512 encrypt.hash-alg=sha1,cluster_size=512 \
	encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256 encrypt.ivgen-alg=plain,cluster_size=2M \
	encrypt.cipher-mode=cbc,encrypt.cipher-alg=aes-128 extended_l2=on,cluster_size=16k data_file=b.data compat=0.10 \
	backing_file=ref.raw,backing_fmt=raw; do
	ours b.qcow2 "$o"
	[[ $o = data_file* || $o = backing* ]] || fill b.qcow2 qcow2 luks
	storm b.qcow2
done
# past the page cache, where the file system lets us
run tdimg -d -k key "qcow2:$WORK/b.qcow2" info
[ "$RC" != 0 ] || storm b.qcow2 -d
# nothing of what is written stands in the file
ours c.qcow2 cluster_size=64k
seq 1 300000 | head -c 1M >text
expect 0 tdimg -k key "qcow2:$WORK/c.qcow2" load text
! grep -q 12345 c.qcow2 || fail "what was written stands in the clear"
expect 0 tdimg -r -k key "qcow2:$WORK/c.qcow2" dump out.raw
cmp -n 1048576 out.raw text || fail "what was written reads otherwise"
# an overlay in the clear on what is encrypted, by the same key
qemu-img create -q -f qcow2 -u -b c.qcow2 -F qcow2 over.qcow2 48M
run tdimg -k key "qcow2:$WORK/over.qcow2" info
has "a key for a plain image" "$ERR" "not encrypted"

expect 126 q create -o encrypt.format=luks x.qcow2 1M
has "create without a passphrase" "$ERR" "-E"
expect 22 q create -E -o encrypt.format=luks,preallocation=full x.qcow2 1M <key
expect 22 q create -E -o encrypt.format=aes x.qcow2 1M <key
# resized, and merged into what is below, encrypted or not
expect 126 q resize c.qcow2 50M
expect 0 q resize -E c.qcow2 50M <key
qemu-img create -q -f raw base.raw 48M
for b in "base.raw raw" "c.qcow2 qcow2"; do
	read -r below how <<<"$b"
	expect 0 q create -f -E -o encrypt.format=luks,encrypt.iter-time=10 -b "$below" -F "$how" d.qcow2 48M <key
	expect 0 tdimg -k key "qcow2:$WORK/d.qcow2" load text
	expect 0 q commit -f -E d.qcow2 <key # other overlays lie there, from before
	expect 0 q map -E d.qcow2 <key
done
cmp -n 1048576 base.raw text || fail "what was merged reads otherwise"

# a second passphrase; and keys that are not
printf 'second' >key2
for _ in {1..20}; do
	qemu-img amend "${secret[@]}" --object "secret,id=n,file=$WORK/key2" --image-opts "$(opts c.qcow2 qcow2 luks)" \
		-o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=5,encrypt.iter-time=10 2>qemu.err && break
done
expect 0 tdimg -r -k key "qcow2:$WORK/c.qcow2" info
expect 0 tdimg -r -k key2 "qcow2:$WORK/c.qcow2" dump out.raw
cmp -n 1048576 out.raw text || fail "by the second passphrase it reads otherwise"
before=$(md5sum <c.qcow2)
expect 1 tdimg -k wrong "qcow2:$WORK/c.qcow2" info
has "a wrong passphrase" "$ERR" "not with this passphrase"
expect 1 tdimg "qcow2:$WORK/c.qcow2" info
has "no passphrase" "$ERR" "-E"
is "the image after that" "$(md5sum <c.qcow2)" "$before"

expect 0 q info c.qcow2
for w in "format: luks" "cipher alg: aes-256" "cipher mode: xts" "ivgen alg: plain64" "hash alg: sha256" "slots in use: 0 5"; do has info "$OUT" "$w"; done
expect 0 q info --json c.qcow2
has "info --json" "$OUT" '"cipher-alg": "aes-256"'

# through tap-ctl: on standard input, and there still after a pause
pid=$(tap_ctl spawn)
minor=$(tap_ctl allocate) minor=${minor##*-}
expect 0 tap_ctl attach -p "$pid" -m "$minor"
run tap_ctl open -p "$pid" -m "$minor" -a "qcow2:$WORK/c.qcow2" -o cache=writeback -E <wrong
is "tap-ctl open -E with a wrong passphrase" "$RC" 126
expect 126 tap_ctl open -p "$pid" -m "$minor" -a "qcow2:$WORK/c.qcow2" -o cache=writeback
run tap_ctl open -p "$pid" -m "$minor" -a "qcow2:$WORK/c.qcow2" -o cache=writeback -E </dev/null
is "tap-ctl open -E with nothing" "$RC" 22
head -c 513 /dev/zero >long
run tap_ctl open -p "$pid" -m "$minor" -a "qcow2:$WORK/c.qcow2" -o cache=writeback -E <long
is "tap-ctl open -E with 513 bytes" "$RC" 22
expect 0 tap_ctl open -p "$pid" -m "$minor" -a "qcow2:$WORK/c.qcow2" -o cache=writeback -E <key
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 qemu-io -f raw -c "write -P 0x5a 20M 1M" "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
expect 0 qemu-io "${secret[@]}" --image-opts -c "read -P 0x5a 20M 1M" "$(opts c.qcow2 qcow2 luks)"
case $OUT in *failed*) fail "qemu-io reads otherwise: $OUT" ;; esac

# AES of old, in qcow2 and in qcow
for f in qcow2 qcow; do
	theirs aes.$f $f encrypt.format=aes,encrypt.key-secret=s
	fill aes.$f $f aes
	reads aes.$f $f
	expect 1 tdimg -k key "$f:$WORK/aes.$f" info
	has "AES for writing" "$ERR" "read-only"
	expect 1 tdimg -r "$f:$WORK/aes.$f" info
	has "AES without a key" "$ERR" "-E"
done

# malformed: a reason, before any work is done
at=$(python3 - <<'END'
d = open('c.qcow2', 'rb').read(1 << 16)
i = d.index(bytes.fromhex('0537be77'))
print(int.from_bytes(d[i + 8:i + 16], 'big'), i)
END
)
ext=${at#* } at=${at% *}
bad() # WHAT TEXT OFFSET BYTES
{
	cp c.qcow2 bad.qcow2
	printf %b "$4" | dd of=bad.qcow2 bs=1 seek="$3" conv=notrunc status=none
	expect 1 tdimg -k key "qcow2:$WORK/bad.qcow2" info
	has "$1" "$ERR" "$2"
}
bad "no magic" "not one of LUKS" "$at" 'X'
bad "LUKS 2" "version 2" $((at + 7)) '\x02'
bad "another cipher" "AES in the modes" $((at + 8)) 'b'
bad "another mode" "AES in the modes" $((at + 40)) 'q'
bad "another hash" "hash" $((at + 72)) 'md5\0'
bad "a key of 3 bytes" "a key of 3 bytes" $((at + 111)) '\x03'
bad "no iterations" "0 iterations" $((at + 164)) '\0\0\0\0'
bad "2^31 iterations" "iterations" $((at + 212)) '\x80'
bad "no stripes" "0 stripes" $((at + 252)) '\0\0\0\0'
bad "a slot beyond the header" "outside" $((at + 249)) '\xff'
bad "a slot on the header" "outside" $((at + 248)) '\0\0\0\0'
bad "a slot that is neither" "neither in use nor free" $((at + 208)) '\x01'
bad "a header of 16 MiB" "encryption header" $((ext + 16 + 4)) '\x01'
bad "a header of 100 bytes" "not one of LUKS" $((ext + 16)) '\0\0\0\0\0\0\0\x64'
