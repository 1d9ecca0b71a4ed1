# SPDX-License-Identifier: LGPL-2.1-or-later
# An image from a stranger names its neighbours, as its parent or as its data file, and gets at none of them; nor does it keep their owners off.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "no python3"

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
guest() { "$top_builddir/tests/support/tdguest" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
conf() { printf '%s\n' "$@" >"$TAPDISK_CONF"; }
create() # TYPE:PATH ARG...: pid, minor
{
	local marker

	marker=$(tap_ctl create -o cache=writeback -a "$@") || fail "create $*"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
destroy() { tap_ctl destroy -p "$pid" -m "$minor" || fail destroy; }
refused() # WHAT TEXT TYPE:PATH ARG...
{
	local what=$1 text=$2

	shift 2
	expect 13 tap_ctl create -o cache=writeback -a "$@"
	has "$what" "$ERR" "$text"
}
shows() { guest "$pid" "$minor" read 0 65536 >shown && [ "$(head -c 6 shown)" = secret ]; }
victim_starts() # by its owner, while whatever wanted it is open or refused
{
	local p=$pid m=$minor

	create "aio:$WORK/victim.img"
	destroy
	pid=$p minor=$m
}
conf
truncate -s 4M victim.img
printf secret | dd of=victim.img conv=notrunc status=none
sum=$(sha256sum <victim.img)

# --- a qcow2 with the victim as its data file
td_qcow create -o data_file=victim.img,data_file_raw=on data.qcow2 4M || fail "td-qcow create" # what is there keeps its contents
truncate -s 4M x.data
refused "a data file that the image names" "-o data-file=PATH" "qcow2:$WORK/data.qcow2"
refused "a data file that the image names, read-only" "-o data-file=PATH" "qcow2:$WORK/data.qcow2" -R
is "the victim" "$(sha256sum <victim.img)" "$sum"
# the host's word counts, also for a successor and after a pause, and the image's does not
create "qcow2:$WORK/data.qcow2" -o "data-file=$WORK/x.data"
guest "$pid" "$minor" write 0 65536 7 || fail "a write"
tap_ctl pause -p "$pid" -m "$minor" && tap_ctl unpause -p "$pid" -m "$minor" || fail "pause and unpause"
kill -KILL "$pid"
until_true 5 gone "$pid"
expect 0 tap_ctl revive -m "$minor"
pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
guest "$pid" "$minor" verify 0 65536 7 || fail "what was written to the data file"
destroy
is "the victim" "$(sha256sum <victim.img)" "$sum"
expect 22 tap_ctl create -o cache=writeback -a "qcow2:$WORK/data.qcow2" -o data-file=x.data
has "a relative one" "$ERR" "absolute"
echo "data-file = $WORK/x.data" >conf
expect 22 tap_ctl create -o cache=writeback -a "qcow2:$WORK/data.qcow2"
conf

# --- the victim as a raw parent, of a qcow2 and of a VHD
qemu-img create -q -f qcow2 -F raw -b victim.img back.qcow2 || skip "no qemu-img"
cp victim.img tmp.img
vhd_util snapshot -n nil.vhd -p tmp.img -m || fail "snapshot -m"
python3 - <<'END'
import struct
d = bytearray(open('nil.vhd', 'rb').read())
d = d.replace(b'tmp.img', b'vic.img').replace('tmp.img'.encode('utf-16-le'), 'vic.img'.encode('utf-16-le'))
d = d.replace('tmp.img'.encode('utf-16-be'), 'vic.img'.encode('utf-16-be'))
h = bytearray(d[512:1536])
h[36:40] = bytes(4)
h[36:40] = struct.pack('>I', ~sum(h) & 0xffffffff)
d[512:1536] = h
open('nil.vhd', 'wb').write(d)
END
ln victim.img vic.img
refused "a raw backing file" "chmod a-w" "qcow2:$WORK/back.qcow2"
refused "a raw parent of a VHD" "chmod a-w" "vhd:$WORK/nil.vhd"
victim_starts
# a fixed VHD's guest writes the metadata of one that names the victim, and its end is cut off
vhd_util create -n fixed.vhd -s 4 -r || fail "a fixed VHD"
dd if=nil.vhd of=fixed.vhd conv=notrunc status=none
run tap_ctl create -o cache=writeback -a "vhd:$WORK/fixed.vhd"
[ "$RC" != 0 ] || fail "a file that contradicts itself was opened"
truncate -s -4096 fixed.vhd
refused "a fixed VHD's guest has written a differencing disk's metadata" "chmod a-w" "vhd:$WORK/fixed.vhd"
truncate -s +1M fixed.vhd
refused "the same, grown" "chmod a-w" "vhd:$WORK/fixed.vhd"
# a qcow2 is as good a victim, and no uuid tells that it is the parent
td_qcow create victim.qcow2 4M && qemu-img create -q -f qcow2 -F qcow2 -b victim.qcow2 up.qcow2 || fail "td-qcow create"
refused "a qcow2 as backing file" "chmod a-w" "qcow2:$WORK/up.qcow2"
# an image that wants it does not lock it, while it tries and after
for _ in 1 2 3 4 5; do
	tap_ctl create -o cache=writeback -a "qcow2:$WORK/back.qcow2" 2>/dev/null &
	victim_starts
	wait $!
done
# while the victim runs the refusal is the same: it tells nothing of who runs
create "aio:$WORK/victim.img"
refused "while it runs" "chmod a-w" "qcow2:$WORK/back.qcow2"
destroy

# --- what the host says
conf "parents = $WORK/victim.img"
create "qcow2:$WORK/back.qcow2"
shows || fail "a parent on the list does not show"
destroy
refused "a file that is not on it" "parents = $WORK/victim.img" "vhd:$WORK/nil.vhd"
conf "parents = $WORK"
create "vhd:$WORK/nil.vhd"
shows || fail "a parent in a directory on the list does not show"
destroy
conf "parents = same-uid"
create "qcow2:$WORK/back.qcow2"
destroy
if chown 12345 back.qcow2 2>/dev/null; then
	refused "another owner's" "parents = same-uid" "qcow2:$WORK/back.qcow2"
	conf "parents = same-uid:$WORK/victim.img"
	create "qcow2:$WORK/back.qcow2"
	destroy
fi
conf "parents = no"
chmod a-w victim.img
refused "no parents at all" "no image has one" "qcow2:$WORK/back.qcow2"
for word in maybe frozen: :frozen no:frozen relative/path ""; do
	conf "parents = $word"
	expect 22 tap_ctl create -o cache=writeback -a "aio:$WORK/tmp.img"
	has "parents = $word" "$ERR" "same-uid"
done
# by default one that is frozen is a parent
conf
create "qcow2:$WORK/back.qcow2"
shows || fail "a frozen parent does not show"
destroy
rm vic.img

# --- chains that our own tools make need no word
mkdir own
truncate -s 4M own/base.img own/base2.img
td_qcow create -b base.img -F raw own/a.qcow2 || fail "create -b"
td_qcow snapshot own/a.qcow2 own/b.qcow2 || fail "snapshot"
vhd_util snapshot -n own/a.vhd -p own/base2.img -m || fail "snapshot -m"
vhd_util snapshot -n own/b.vhd -p own/a.vhd || fail "snapshot"
vhd_util create -n own/p.vhd -s 4 && vhd_util snapshot -n own/q.vhd -p own/p.vhd || fail "vhd-util"
for image in qcow2:$WORK/own/b.qcow2 vhd:$WORK/own/b.vhd vhd:$WORK/own/q.vhd; do
	create "$image"
	guest "$pid" "$minor" write 0 65536 9 || fail "a write"
	destroy
done
vhd_util create -n own/m.vhd -s 4 && truncate -s 4M own/base3.img && vhd_util modify -n own/m.vhd -p own/base3.img -m || fail modify
create "vhd:$WORK/own/m.vhd"
destroy

# --- a directory with a colon in its name is one directory, and not two
mkdir -p "a:$WORK/b" other
cp victim.img other/
chmod a-w other/victim.img
qemu-img create -q -f qcow2 -u -F raw -b "$WORK/other/victim.img" "./a:$WORK/b/x.qcow2" 4M
expect 1 tap_ctl create -o cache=writeback -a "qcow2:$WORK/a:$WORK/b/x.qcow2"
has "out of a directory with a colon" "$ERR" "on an image's word"
cp victim.img "a:$WORK/b/base.img"
chmod a-w "a:$WORK/b/base.img"
qemu-img create -q -f qcow2 -u -F raw -b base.img "./a:$WORK/b/x.qcow2" 4M
create "qcow2:$WORK/a:$WORK/b/x.qcow2"
shows || fail "in a directory with a colon a parent does not show"
destroy

# --- a link does not lead out, whether it is a file's or a directory's
mkdir in
ln -s ../other/victim.img in/file
ln -s ../other in/dir
ln -s /proc/self/root in/magic
for name in file dir/victim.img "magic$WORK/other/victim.img"; do
	qemu-img create -q -f qcow2 -u -F raw -b "$name" in/x.qcow2 4M
	refused "a link: $name" "leads out" "qcow2:$WORK/in/x.qcow2"
done
# unless it leads where parents may be
conf "parent-dirs = $WORK/other"
for name in file dir/victim.img; do
	qemu-img create -q -f qcow2 -u -F raw -b "$name" in/x.qcow2 4M
	create "qcow2:$WORK/in/x.qcow2"
	shows || fail "through the link $name a parent does not show"
	destroy
done
conf
# a link that stays inside is nobody's way out
cp victim.img in/base.img
chmod a-w in/base.img
ln -s base.img in/inside
qemu-img create -q -f qcow2 -u -F raw -b inside in/x.qcow2 4M
create "qcow2:$WORK/in/x.qcow2"
shows || fail "through a link inside a parent does not show"
destroy
exit 0
