#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Lazy refcounts: the mark is set before the first write whose count is not on disk, a clean close takes it away, and who opens the image
# with the mark, we or QEMU, makes the counts anew.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
cd "$WORK" || exit 1

number() { od -An -tu1 -j"$2" -N1 "$1" | tr -d ' '; } # of a byte
dirty() { echo $(($(number "$1" 79) & 1)); }
io() { expect 0 qemu-io -f raw "$@" "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"; }
reads()
{
	expect 0 qemu-io -r -f qcow2 -c "read -P 7 1M 2M" -c "read -P 0 3M 1M" "$1"
	case $OUT in *failed*) fail "$1 reads otherwise: $OUT" ;; esac
}

for o in cluster_size=64k cluster_size=512 extended_l2=on,refcount_bits=1; do
	make_image lazy "lazy_refcounts=on,$o" 64M
	marker=$(tap_ctl create -a "qcow2:$WORK/lazy.qcow2" -o cache=writeback) || fail "tap-ctl create"
	minor=${marker##*-} pid=$(tap_ctl list | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	is "the mark of a disk that was opened" "$(dirty lazy.qcow2)" 0
	io -c "write -P 7 1M 2M" -c flush
	is "the mark after a write" "$(dirty lazy.qcow2)" 1
	kill -KILL "$pid"
	until_true 10 gone "$pid"
	tap_ctl list >/dev/null
	tap_ctl free -m "$minor"
	cp lazy.qcow2 theirs.qcow2
	expect 2 qemu-img check -q lazy.qcow2 # it really was lazy
	expect 0 tdimg -r "qcow2:$WORK/lazy.qcow2" info
	is "the mark after a look" "$(dirty lazy.qcow2)" 1
	expect 0 tdimg "qcow2:$WORK/lazy.qcow2" info
	is "the mark after an opening" "$(dirty lazy.qcow2)" 0
	expect 0 qemu-img check -q lazy.qcow2
	reads lazy.qcow2
	expect 0 qemu-io -f qcow2 -c "write -P 9 8M 64k" theirs.qcow2
	expect 0 qemu-img check -q theirs.qcow2
	reads theirs.qcow2
	# closed as it should be
	expect 0 tdimg "qcow2:$WORK/lazy.qcow2" writes 1 50 65536
	is "the mark after a close" "$(dirty lazy.qcow2)" 0
	expect 0 qemu-img check -q lazy.qcow2
done

# more metadata than there is memory for: the counts are written meanwhile
make_image small lazy_refcounts=on,cluster_size=512 2G
expect 0 tdimg "qcow2:$WORK/small.qcow2" writes 1 17500 512
expect 0 qemu-img check -q small.qcow2

# a longer L1 table is counted before it is named
make_image lazy lazy_refcounts=on,cluster_size=512 8M
expect 0 tdimg "qcow2:$WORK/lazy.qcow2" writes 2 20 4096
expect 0 "$top_builddir/bin/td-qcow" resize lazy.qcow2 2G
expect 0 qemu-img check -q lazy.qcow2
