#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is to be encrypted is, or it is refused: a new image by -E or any word of encryption alone, and a snapshot of one that is.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
cd "$WORK" || exit 1
printf 'open sesame' >key
printf 'close sesame' >wrong
q() { timeout 250 "$top_builddir/bin/td-qcow" "$@"; }
luks() # FILE: it is encrypted, to us and to QEMU
{
	expect 0 q info "$1"
	has "$1" "$OUT" "format: luks"
	has "$1, by qemu-img" "$(qemu-img info -U "$1")" "encrypted: yes"
}
none() { [ ! -e "$1" ] || fail "$1 was left behind by: $2"; }
fast=encrypt.iter-time=10

# a new image
expect 0 q create -E -o $fast a.qcow2 16M <key
luks a.qcow2
expect 0 q create -E -o $fast,encrypt.cipher-alg=aes-128 b.qcow2 16M <key
luks b.qcow2
has "its cipher" "$(q info b.qcow2)" aes-128
expect 0 q create -E c.qcow2 16M <key # without a word
luks c.qcow2
for o in cipher-alg=aes-256 cipher-mode=xts ivgen-alg=plain64 hash-alg=sha1 iter-time=10; do
	expect 126 q create -o encrypt.$o x.qcow2 16M
	has "without a key" "$ERR" "-E"
	none x.qcow2 "encrypt.$o without a key"
done
expect 22 q create -E -o preallocation=full x.qcow2 16M <key
none x.qcow2 "a key with preallocation"
expect 22 q create -E -o data_file=x.data,data_file_raw=on x.qcow2 16M <key
none x.qcow2 "a key with a raw data file"
none x.data "a key with a raw data file"

# a snapshot of one that is encrypted: by the same key, or not at all; and so upon that one
head -c 1M /dev/urandom >text
expect 0 tdimg -k key "qcow2:$WORK/a.qcow2" load text
below=a.qcow2
for s in s1.qcow2 s2.qcow2; do
	expect 126 q snapshot $below $s
	has "a snapshot without the key" "$ERR" "-E"
	none $s "a snapshot without the key"
	expect 126 q snapshot -E $below $s <wrong
	has "a snapshot with a wrong key" "$ERR" "not with this passphrase"
	none $s "a snapshot with a wrong key"
	expect 126 q create -b $below -F qcow2 $s
	none $s "create upon it without the key"
	expect 126 q create -b $below -F qcow2 $s 16M
	none $s "create of that size upon it without the key"
	expect 0 q snapshot -E -o $fast $below $s <key
	luks $s
	expect 0 tdimg -r -k key "qcow2:$WORK/$s" dump out.raw
	cmp -n 1048576 out.raw text || fail "$s reads otherwise"
	expect 1 tdimg -r "qcow2:$WORK/$s" info
	has "$s without a key" "$ERR" "-E"
	below=$s
done
secret=(--object "secret,id=s,file=$WORK/key")
expect 0 qemu-img compare -q "${secret[@]}" --image-opts "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=s1.qcow2,backing.driver=qcow2,backing.encrypt.format=luks,backing.encrypt.key-secret=s,backing.file.filename=a.qcow2" "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=a.qcow2"
# what it holds is encrypted, and goes back by commit
seq 1 100000 | head -c 512K >"more"
expect 0 tdimg -k key "qcow2:$WORK/s1.qcow2" load more
! grep -q 12345 s1.qcow2 || fail "what was written stands in the clear"
rm s2.qcow2
expect 126 q commit s1.qcow2
expect 0 q commit -E s1.qcow2 <key
expect 0 tdimg -r -k key "qcow2:$WORK/a.qcow2" dump out.raw
cmp -n 524288 out.raw more || fail "what was merged reads otherwise"
# one in the clear between: its child needs the key too
qemu-img create -q -f qcow2 -u -b a.qcow2 -F qcow2 mid.qcow2 16M
expect 126 q snapshot mid.qcow2 x.qcow2
none x.qcow2 "a snapshot of an overlay in the clear, without the key"
expect 0 q snapshot -E -o $fast mid.qcow2 top.qcow2 <key
expect 0 tdimg -r -k key "qcow2:$WORK/top.qcow2" dump out.raw
cmp -n 524288 out.raw more || fail "top.qcow2 reads otherwise"
# the old AES below: what is new has LUKS
for _ in {1..20}; do qemu-img create -q -f qcow2 "${secret[@]}" -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 16M 2>qemu.err && break; done
expect 126 q snapshot aes.qcow2 x.qcow2
expect 0 q snapshot -E -o $fast aes.qcow2 ontop.qcow2 <key
luks ontop.qcow2
expect 0 tdimg -r -k key "qcow2:$WORK/ontop.qcow2" info
# in the clear below: a key encrypts what is new, and no key leaves it in the clear
qemu-img create -q -f qcow2 plain.qcow2 16M
expect 0 q snapshot plain.qcow2 x.qcow2
expect 0 tdimg -r "qcow2:$WORK/x.qcow2" info
expect 0 q snapshot -f -E -o $fast plain.qcow2 x.qcow2 <key
luks x.qcow2

# under a tapdisk: paused, snapshot, and on with that, by the key that it has
pid=$(tap_ctl spawn) minor=$(tap_ctl allocate) minor=${minor##*-}
expect 0 tap_ctl attach -p "$pid" -m "$minor"
expect 0 tap_ctl open -p "$pid" -m "$minor" -a "qcow2:$WORK/a.qcow2" -o cache=writeback -E <key
run q snapshot -E -o $fast a.qcow2 live.qcow2 <key
is "a snapshot of what is written to" "$RC" 16
none live.qcow2 "a snapshot of what is written to"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 q snapshot -E -o $fast a.qcow2 live.qcow2 <key
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -a "qcow2:$WORK/live.qcow2"
uri="nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"
expect 0 qemu-io -f raw -c "write -P 0x5a 8M 1M" "$uri"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
expect 0 tdimg -r -k key "qcow2:$WORK/live.qcow2" dump out.raw
cmp -n 524288 out.raw more || fail "live.qcow2 reads otherwise"
