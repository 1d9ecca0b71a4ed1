# SPDX-License-Identifier: LGPL-2.1-or-later
# VHDs as other makers write them: footers of 511 bytes, fixed disks of more than 2040 GiB, names of parents from Windows; and a VHDX,
# which is none, and is called what it is.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

command -v python3 >/dev/null || skip "no python3"
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$top_srcdir/tests/it
: >conf

start() # SPEC [ARG...]
{
	local marker spec=$1

	shift
	marker=$(tap_ctl create -a "$spec" -o cache=writeback "$@" 2>refused)
	RC=$?
	[ $RC = 0 ] || return 1
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
stop() { tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"; }

cat >make.py <<'P'
import os, vhd_hand as v
data = {s: bytes([s % 251 + 1]) * 512 for s in range(64)}
fixed = v.Hand(64 * 512, v.FIXED, sectors=data)
open('fixed.vhd', 'wb').write(fixed.bytes()[:-1])
open('fixed.raw', 'wb').write(fixed.bytes()[:-512])
open('dynamic.vhd', 'wb').write(v.Hand(64 * 512, sectors=data).bytes()[:-1])
large = 4 << 40
with open('large.vhd', 'wb') as f:
    f.truncate(large)
    f.seek(large)
    f.write(v.footer(large, v.FIXED, b'l' * 16))
with open('table.vhd', 'wb') as f:
    f.write(v.footer(large, v.DYNAMIC, b'm' * 16).ljust(65536, b'\0') + v.footer(large, v.DYNAMIC, b'm' * 16))
open('x.vhdx', 'wb').write(b'vhdxfile'.ljust(1 << 20, b'\0'))

os.mkdir('names')
base = v.Hand(64 * 512, v.FIXED, sectors=data)
open('names/base.vhd', 'wb').write(base.bytes())
def child(name, locators, header_name, little=False):
    c = v.Hand(64 * 512, v.DIFF, parent=base.uuid, parent_name=header_name,
               names=[(code, text.encode('utf-16-le'), 'bytes') for code, text in locators])
    b = bytearray(c.bytes())
    if little:
        n = header_name.encode('utf-16-le')
        b[512 + 64:512 + 64 + len(n)] = n
        b[512 + 36:512 + 40] = v.checksum(b[512:1536], 36).to_bytes(4, 'big')
    open('names/' + name + '.vhd', 'wb').write(b)
windows = 'C:\\vm\\base.vhd'
child('both', [(b'W2ru', '.\\base.vhd'), (b'W2ku', windows)], 'base.vhd')
child('absolute', [(b'W2ku', windows)], windows)
child('header', [], 'D:\\vm\\base.vhd')
child('little', [], 'base.vhd', little=True)
child('umlaut', [], 'C:\\v\u00e4m\\base.vhd', little=True)
P
python3 make.py || fail "make.py"

# 511 bytes of footer: read, written, checked, completed
for kind in fixed dynamic; do
	cp $kind.vhd k.vhd
	expect 0 vhd_util check -n k.vhd
	has "check of a footer of 511 bytes" "$ERR" "511 bytes"
	expect 0 vhd_util query -n k.vhd -v
	expect 0 vhd_util copy -n k.vhd -o $kind.copy
	cmp fixed.raw $kind.copy || fail "copy of the $kind disk"
	start "vhd:$WORK/k.vhd" -R || fail "$kind, read-only: $(cat refused)"
	guest read 0 32768 | cmp - fixed.raw || fail "the $kind disk, read-only"
	stop
	cmp -s $kind.vhd k.vhd || fail "the $kind image was changed by a reader"
	start "vhd:$WORK/k.vhd" || fail "$kind: $(cat refused)"
	expect 0 guest write $((63 * 512)) 512 9
	expect 0 guest flush
	stop
	is "bytes of the $kind image" "$(stat -c %s k.vhd)" "$(($(stat -c %s $kind.vhd) + 1))"
	expect 0 vhd_util check -n k.vhd
	is "what check says" "$ERR" ""
	start "vhd:$WORK/k.vhd" || fail "$kind: $(cat refused)"
	expect 0 guest verify $((63 * 512)) 512 9
	guest read 0 $((63 * 512)) | cmp -n $((63 * 512)) - fixed.raw || fail "the rest of the $kind disk"
	stop
	cp $kind.vhd k.vhd
	expect 22 vhd_util resize -n k.vhd -s 40 -j j
	has "resize" "$ERR" repair
	expect 0 vhd_util set -n k.vhd -f hidden -v 1
	expect 0 vhd_util query -n k.vhd -f
	is "hidden" "$OUT" "hidden: 1"
	cp $kind.vhd k.vhd
	expect 0 vhd_util repair -n k.vhd
	expect 0 vhd_util check -n k.vhd
	is "what check says of the repaired $kind image" "$ERR" ""
	rm $kind.copy
	expect 0 vhd_util copy -n k.vhd -o $kind.copy
	cmp fixed.raw $kind.copy || fail "copy of the repaired $kind disk"
done

# a fixed disk of 4 TiB; one with a block table cannot be so large
expect 0 vhd_util query -n large.vhd -v
is "MiB of the large disk" "$OUT" $((4 << 20))
expect 0 vhd_util check -n large.vhd
start "vhd:$WORK/large.vhd" || fail "large.vhd: $(cat refused)"
expect 0 guest write $((3 << 40)) 4096 1
expect 0 guest verify $((3 << 40)) 4096 1
expect 0 guest write $(((4 << 40) - 512)) 512 2
expect 0 guest verify $(((4 << 40) - 512)) 512 2
stop
expect 0 vhd_util check -n large.vhd
"$top_builddir/bin/vhd-util" read -n large.vhd -r $((3 << 31)) -c 8 | cmp -s -n 4096 - /dev/zero && fail "read does not see what was written"
expect 22 vhd_util check -n table.vhd
has "a block table for 4 TiB" "$ERR" "2040 GiB"

# a VHDX
expect 22 vhd_util query -n x.vhdx -v
has "vhd-util on a VHDX" "$ERR" "is a VHDX"
start "vhd:$WORK/x.vhdx" && fail "a VHDX was opened"
has "tap-ctl on a VHDX" "$(cat refused)" "is a VHDX"

# names of parents, each of which leads to the file beside the child
for name in both absolute header little umlaut; do
	start "vhd:$WORK/names/$name.vhd" -R || fail "$name: $(cat refused)"
	guest read 0 32768 | cmp - fixed.raw || fail "$name shows something else"
	stop
	expect 0 vhd_util query -n names/$name.vhd -p
	is "the parent of $name" "$OUT" "$WORK/names/base.vhd"
	expect 0 vhd_util read -n names/$name.vhd -r 0 -c 64
done

# not there: 2, and the place beside the child is named; another file of that name is not the parent
mv names/base.vhd away
for name in both absolute header little; do
	! start "vhd:$WORK/names/$name.vhd" -R || fail "$name was opened without its parent"
	is "$name: exit code" $RC 2
	has "$name: where it should be" "$(cat refused)" "$WORK/names/base.vhd"
	expect 2 vhd_util query -n names/$name.vhd -p
done
head -c 32768 /dev/urandom | cat - <(tail -c 512 large.vhd) >names/base.vhd
! start "vhd:$WORK/names/absolute.vhd" -R || fail "another file became the parent"
[ $RC != 13 ] || fail "another file beside the child is no matter of parent-dirs"
rm names/base.vhd

# it is there, but where no parent may be: that is what is said
mkdir elsewhere && mv away elsewhere/base.vhd
cat >more.py <<P
import vhd_hand as v
u = v.Hand(1)
b = open('elsewhere/base.vhd', 'rb').read()[-512:]
open('names/far.vhd', 'wb').write(v.Hand(64 * 512, v.DIFF, parent=b[68:84], names=[(b'MacX', b'file://$WORK/elsewhere/base.vhd', 'bytes')]).bytes())
P
python3 more.py || fail "more.py"
! start "vhd:$WORK/names/far.vhd" -R || fail "a parent in another directory was taken"
is "a parent in another directory: exit code" $RC 13
has "what to do" "$(cat refused)" "parent-dirs"
exit 0
