# SPDX-License-Identifier: LGPL-2.1-or-later
# qemu-img on the images of a running disk, as XenServer's storage manager uses it: what is refused, what a pause allows, and that what
# may be done to a parent with locking=off leaves the guest's data right.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$(dirname "$0")/qcow-lib.sh"

guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
# sm names parents by absolute paths, and leaves them writable
echo "parents = $WORK" >conf
export TAPDISK_CONF=$WORK/conf

start() # TYPE:PATH
{
	local marker

	marker=$(tap_ctl create -a "$1") || fail "create $1"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
stop() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
under() # NAME OFF LEN SEED
{
	start "qcow2:$WORK/$1"
	expect 0 guest write "$2" "$3" "$4"
	stop
}
right() # WHAT
{
	guest verify 0 4096 1 >said && guest verify 4096 524288 2 >>said && guest verify 528384 520192 1 >>said &&
		guest verify 2097152 65536 3 >>said || fail "$1: the guest reads something else: $(tail -2 said)"
}
unlocked() # IMAGE: by a name for qemu-img's --image-opts
{
	echo "driver=qcow2,file.filename=$WORK/$1,file.locking=off"
}

# base, smaller, < mids < leaf
expect 0 qemu-img create -q -f qcow2 base 32M
under base 0 1048576 1
expect 0 qemu-img create -q -f qcow2 -F qcow2 -b "$WORK/base" mids 64M
under mids 4096 524288 2
expect 0 qemu-img create -q -f qcow2 -F qcow2 -b "$WORK/mids" leaf 64M
start "qcow2:$WORK/leaf"
expect 0 guest write 2097152 65536 3
right "at first"

# refused while it runs, and nothing has changed
for image in base mids leaf; do
	expect 1 qemu-img resize -q "$image" 80M
	has "resize $image" "$ERR" lock
done
expect 1 qemu-img rebase -u -f qcow2 -F qcow2 -b "$WORK/base" leaf
has "rebase of the leaf" "$ERR" lock
expect 1 qemu-img rebase -u -f qcow2 -F qcow2 -b "$WORK/base" mids
has "rebase of a parent" "$ERR" lock
expect 0 qemu-img info -U --backing-chain --output=json leaf
is "the chain" "$(grep -c '"full-backing-filename"' <<<"$OUT")" 2
right "after what was refused"

# a parent grows, and names another file, beneath a disk that goes on
expect 0 qemu-img resize -q --image-opts "$(unlocked base)" 128G # so far that its first table moves
right "after the base has grown"
expect 0 guest write 3145728 65536 4
expect 0 cp base other
expect 0 qemu-img rebase -u -q -F qcow2 -b "$WORK/other" --image-opts "$(unlocked mids)"
right "after a parent names another file"
expect 0 tap_ctl pause -p "$pid" -m "$minor"

# under a pause all of it works; the unpause takes what is there then
expect 0 qemu-img check -q base
expect 0 qemu-img check -q mids
expect 0 qemu-img check -q leaf
expect 0 qemu-img resize -q mids 80M
expect 0 qemu-img resize -q leaf 80M
mv base gone
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
[ -n "$(find "/proc/$pid/fd" -lname "$WORK/other")" ] || fail "the new parent is not open"
right "on the other file"
expect 0 guest verify 3145728 65536 4
expect 0 guest write 70000640 4096 5
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 qemu-img rebase -u -f qcow2 -F qcow2 -b "$WORK/other" leaf
expect 0 tap_ctl unpause -p "$pid" -m "$minor"
expect 0 guest verify 2097152 65536 3
expect 0 guest verify 0 1048576 1 # the middle is out of the chain
stop
expect 0 qemu-img check -q leaf
exit 0
