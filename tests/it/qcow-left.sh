#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# td-qcow leaves nothing of an image that it could not make, and nothing else is lost; info looks at a disk that runs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
cd "$WORK" || exit 1
q() { timeout 250 "$top_builddir/bin/td-qcow" "$@"; }
left() { ls; }

# bad words, and a size that cannot be
mkdir bad && cd bad || exit 1
qemu-img create -q -f qcow2 ../base.qcow2 1M
cp ../base.qcow2 below.qcow2
for o in cluster_size=3 nonsense=1 compat=0.10,extended_l2=on data_file_raw=on data_file=../x.data preallocation=full,backing_file=below.qcow2,backing_fmt=qcow2; do
	run q create -o $o x.qcow2 1M
	[ "$RC" != 0 ] || fail "create -o $o: it works"
	is "what create -o $o leaves" "$(left)" below.qcow2
done
for s in 513 0 1000P; do
	run q create x.qcow2 $s
	[ "$RC" != 0 ] || fail "create of $s bytes: it works"
	is "what create of $s bytes leaves" "$(left)" below.qcow2
done
run q create -o cluster_size=512 x.qcow2 1P
[ "$RC" != 0 ] || fail "create of 1P: it works"
is "what create of 1P leaves" "$(left)" below.qcow2
run q create -b none.qcow2 -F qcow2 x.qcow2
is "create upon nothing" "$RC" 2
is "what create upon nothing leaves" "$(left)" below.qcow2
run q create -o data_file=x.data,extended_l2=on,cluster_size=4k x.qcow2 1M
[ "$RC" != 0 ] || fail "extended L2 entries with clusters of 4k: it works"
is "what that leaves" "$(left)" below.qcow2
ln -s beyond.qcow2 link.qcow2
run q create -o compat=0.10,lazy_refcounts=on link.qcow2 1M
[ "$RC" != 0 ] && [ -L link.qcow2 ] && [ ! -e beyond.qcow2 ] || fail "create behind a link leaves: $(left)"
rm link.qcow2
# a file that was there stays, empty if it was
: >x.qcow2
run q create -o compat=0.10,lazy_refcounts=on x.qcow2 1M
[ "$RC" != 0 ] || fail "lazy refcounts in version 2: it works"
is "a file that was there" "$(stat -c %s x.qcow2)" 0
# --force over one that is in use changes nothing
expect 0 q create -f x.qcow2 8M
expect 0 tap_ctl create -a "qcow2:$WORK/bad/x.qcow2" -o cache=writeback
before=$(md5sum <x.qcow2) # an open image bears a mark in its header
minor=${OUT##*-} pid=$(tap_ctl list -m "${OUT##*-}" | sed 's/pid=\([0-9]*\) .*/\1/')
expect 16 q create -f x.qcow2 1M
is "the image in use" "$(md5sum <x.qcow2)" "$before"

# info while it runs, with and without a guest's writes
expect 0 q info x.qcow2
has "info of a running disk" "$OUT" "virtual size: 8 MiB"
expect 0 q info --json x.qcow2
expect 16 q check x.qcow2
expect 16 q resize x.qcow2 16M
expect 16 q resize x.qcow2 +8M
run q snapshot x.qcow2 y.qcow2
is "a snapshot of what is written to" "$RC" 16
[ ! -e y.qcow2 ] || fail "a snapshot that was refused is there"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"

# no space
[ "$(id -u)" = 0 ] || exit 0
mkdir "$WORK/small"
mount -t tmpfs -o size=1M tmpfs "$WORK/small" 2>/dev/null || exit 0
at_exit "umount -l $WORK/small"
cd "$WORK/small" || exit 1
for o in preallocation=full preallocation=falloc preallocation=full,data_file=x.data; do
	expect 28 q create -o $o x.qcow2 8M
	has "create without space" "$ERR" "No space left"
	is "what create -o $o without space leaves" "$(left)" ""
done
: >x.qcow2
expect 28 q create -o preallocation=full x.qcow2 8M
is "a file that was there, without space" "$(stat -c %s x.qcow2)" 0
