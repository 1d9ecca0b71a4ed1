#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# td-qcow commit writes beneath an overlay only where no other overlay stands on the backing file.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
cd "$WORK" || exit 1
mkdir -p sub
q() { timeout 250 "$top_builddir/bin/td-qcow" "$@"; }
pattern() { # pattern IMAGE NUMBER
	expect 0 qemu-io -f qcow2 -c "read -P $2 0 1M" "$1"
	[[ $OUT = *"read 1048576/1048576"* && $OUT != *"verification failed"* ]] ||
		fail "$1 does not read as $2: $OUT"
}

expect 0 q create base.qcow2 8M
expect 0 qemu-io -f qcow2 -c "write -P 1 0 1M" base.qcow2
expect 0 q snapshot base.qcow2 mine.qcow2
expect 0 q snapshot base.qcow2 other.qcow2
expect 0 qemu-io -f qcow2 -c "write -P 2 0 1M" mine.qcow2

# a closed one beside it
expect 16 q commit mine.qcow2
has "who stands there" "$ERR" "other.qcow2 has the backing file"
has "what to do" "$ERR" "--force"
pattern other.qcow2 1
# named in another way, from another directory
expect 16 q commit "$WORK/mine.qcow2"
(cd sub && q commit ../mine.qcow2 2>/dev/null)
is "from another directory" $? 16
# which names it by an absolute path
expect 0 qemu-img rebase -u -f qcow2 -F qcow2 -b "$WORK/base.qcow2" other.qcow2
expect 16 q commit mine.qcow2
expect 0 qemu-img rebase -u -f qcow2 -F qcow2 -b base.qcow2 other.qcow2
# an open one, which --force does not pass over
expect 0 tap_ctl create -a "qcow2:$WORK/other.qcow2"
minor=${OUT##*-}
pid=$(tap_ctl list -m "$minor" | sed 's/pid=\([0-9]*\) .*/\1/')
expect 16 q commit --force mine.qcow2
has "who has it" "$ERR" "$pid"
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
pattern other.qcow2 1
# what lies elsewhere and bears the same backing name stands on another file
cp base.qcow2 other.qcow2 sub/
rm other.qcow2
# an image upon the overlay itself sees no difference
expect 0 q snapshot mine.qcow2 upon.qcow2
expect 0 q commit mine.qcow2
pattern base.qcow2 2
pattern upon.qcow2 2
pattern sub/other.qcow2 1
# said to be of no use
expect 0 q snapshot base.qcow2 other.qcow2
expect 0 qemu-io -f qcow2 -c "write -P 3 0 1M" mine.qcow2
expect 16 q commit mine.qcow2
expect 0 q commit -f mine.qcow2
pattern base.qcow2 3
