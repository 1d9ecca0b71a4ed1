# SPDX-License-Identifier: LGPL-2.1-or-later
# Before an image's data go into its parent, vhd-util asks who else stands on that: another child, open or not, would see its disk change.
# What storage managers do, the middle of an open chain into what is beneath, stays as it is.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
: >conf

start() # NAME IMAGE [ARG...]: pid_NAME, minor_NAME
{
	local marker name=$1 image=$2 m

	shift 2
	marker=$(tap_ctl create -a "$image" -o cache=writeback "$@") || fail "create $image"
	m=${marker##*-}
	eval "minor_$name=$m pid_$name=$(tap_ctl list -m "$m" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')"
}
guest() # NAME ARG...
{
	local p=pid_$1 m=minor_$1

	shift
	"$top_builddir/tests/support/tdguest" "${!p}" "${!m}" "$@"
}
stop()
{
	local p=pid_$1 m=minor_$1

	tap_ctl destroy -p "${!p}" -m "${!m}" || fail "destroy"
}
written() # IMAGE OFF LEN SEED
{
	start w "vhd:$WORK/$1"
	expect 0 guest w write "$2" "$3" "$4"
	stop w
}

expect 0 vhd_util create -n p.vhd -s 10
written p.vhd 0 4194304 1
expect 0 vhd_util snapshot -n c.vhd -p p.vhd
expect 0 vhd_util snapshot -n d.vhd -p p.vhd
written d.vhd 0 1048576 2
sum=$(sha256sum <p.vhd)

# the other child is open: 16, and who has it; no word helps
start c "vhd:$WORK/c.vhd"
for how in "" --force "-a p.vhd" "-x p.vhd" "-x p.vhd --force"; do
	expect 16 vhd_util coalesce -n d.vhd $how
	has "coalesce $how" "$ERR" "p.vhd is in use by tapdisk (pid $pid_c) through another image"
done
is "the parent" "$(sha256sum <p.vhd)" "$sum"
expect 0 guest c verify 0 4194304 1
# both are open, one read-only: of two processes as of one
start d "vhd:$WORK/d.vhd" -R
expect 16 vhd_util coalesce -n d.vhd --force
stop d
expect 0 guest c verify 0 1048576 1
stop c

# the other child is closed: 16, and its name; --force when it is of no use any more
expect 16 vhd_util coalesce -n d.vhd
has "a closed child" "$ERR" "c.vhd has the parent $WORK/p.vhd too"
is "the parent" "$(sha256sum <p.vhd)" "$sum"
mkdir elsewhere
expect 0 vhd_util snapshot -n elsewhere/e.vhd -p d.vhd -e
# what stands on the image itself sees no difference
rm c.vhd
expect 0 vhd_util coalesce -n d.vhd
expect 0 vhd_util snapshot -n c.vhd -p p.vhd
expect 16 vhd_util coalesce -n d.vhd
expect 0 vhd_util coalesce -n d.vhd --force
rm ./*.vhd elsewhere/*

# further down: what is passed by must not have others on it either
expect 0 vhd_util create -n a.vhd -s 10
expect 0 vhd_util snapshot -n m.vhd -p a.vhd
expect 0 vhd_util snapshot -n l.vhd -p m.vhd -e
expect 0 vhd_util snapshot -n o.vhd -p m.vhd -e
written l.vhd 0 65536 3
expect 16 vhd_util coalesce -n l.vhd -a a.vhd
has "a child of what is between" "$ERR" "o.vhd has the parent $WORK/m.vhd too"
rm o.vhd
expect 0 vhd_util coalesce -n l.vhd -a a.vhd
rm ./*.vhd

# a raw parent
truncate -s 4M base.img
expect 0 vhd_util snapshot -n r.vhd -p base.img -m
expect 0 vhd_util snapshot -n s.vhd -p base.img -m
written r.vhd 0 65536 4
start s "vhd:$WORK/s.vhd"
expect 16 vhd_util coalesce -n r.vhd
stop s
expect 16 vhd_util coalesce -n r.vhd
has "a closed child of a raw parent" "$ERR" "s.vhd has the parent $WORK/base.img too"
start q "aio:$WORK/base.img" -R
expect 16 vhd_util coalesce -n r.vhd --force
stop q
rm s.vhd
expect 0 vhd_util coalesce -n r.vhd
rm ./*.vhd

# the middle of an open chain, and two disks of one chain's images at once
expect 0 vhd_util create -n a.vhd -s 10
expect 0 vhd_util snapshot -n b.vhd -p a.vhd
written b.vhd 0 1048576 5
expect 0 vhd_util snapshot -n l.vhd -p b.vhd
start l "vhd:$WORK/l.vhd"
start b "vhd:$WORK/b.vhd" -R
expect 0 vhd_util coalesce -n b.vhd
expect 0 guest l verify 0 1048576 5
expect 0 guest b verify 0 1048576 5
stop b
# the same with a reader of the parent beside them
start a "vhd:$WORK/a.vhd" -R
expect 16 vhd_util coalesce -n b.vhd
has "a reader of the parent" "$ERR" "pid $pid_a"
stop a
expect 0 vhd_util coalesce -n b.vhd
stop l
exit 0
