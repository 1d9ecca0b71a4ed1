# SPDX-License-Identifier: LGPL-2.1-or-later
# vhd-util's outputs, exit codes and byte facts, as storage managers parse and expect them.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
bytes() { dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null; }

cd "$WORK" || exit 1

# --- what a fresh image is ---
expect 0 vhd_util create --debug -n a.vhd -s 1024
is "create's output" "$OUT$ERR" ""
is "size of a fresh 1 GiB disk" "$(stat -c %s a.vhd)" 5120
is "creator" "$(bytes a.vhd 28 8 | od -An -tx1 | tr -d ' \n')" 7461700000010003
is "block size" "$(bytes a.vhd $((512 + 32)) 4 | od -An -tx1 | tr -d ' \n')" 00200000
is "batmap behind the block table" "$(bytes a.vhd 3584 8)" tdbatmap
cmp -s <(bytes a.vhd 0 512) <(tail -c 512 a.vhd) || fail "the two footers differ"
expect 0 vhd_util snapshot --debug -n b.vhd -p a.vhd
is "snapshot's output" "$OUT$ERR" ""
is "size of its snapshot" "$(stat -c %s b.vhd)" 6656
is "locators" "$(for i in 0 1 2; do bytes b.vhd $((512 + 576 + 24 * i)) 4; done)" MacXW2kuW2ru
expect 0 vhd_util read -n b.vhd -p
is "names in the locators" "$(printf '%s\n' "$OUT" | grep -c 'decoded name : ./a.vhd')" 3
expect 0 vhd_util create -n s.vhd -s 100 -S 1024
is "room for a resize" "$(stat -c %s s.vhd)" 5120
expect 0 vhd_util create -n f.vhd -s 10 -r
is "size of a fixed disk" "$(stat -c %s f.vhd)" $((10 * 1048576 + 512))
[ "$(stat -c %b f.vhd)" -ge 20480 ] || fail "a fixed disk has its space set aside: $(stat -c %b f.vhd) sectors"
truncate -s 5M raw.img
expect 0 vhd_util snapshot -n r.vhd -p raw.img -m
expect 0 vhd_util query -n r.vhd -v -p -d
is "snapshot of a raw image" "$OUT" "5
$WORK/raw.img
chain depth: 2"

# --- query: one order, whatever the order of the flags ---
expect 0 vhd_util query -n b.vhd -dfpsv --debug
is "query -dfpsv" "$OUT" "1024
6656
$WORK/a.vhd
hidden: 0
chain depth: 2"
expect 0 vhd_util query -p -n a.vhd
is "query -p without a parent" "$OUT" "a.vhd has no parent"
expect 0 vhd_util query -n s.vhd -S -v -a
is "query -vSa" "$OUT" "100
1024
0"
expect 0 vhd_util query -n b.vhd --json
has "query --json" "$OUT" '"depth": 2'

# --- as XenServer's storage manager asks and parses: with the block table of 2 TiB, and of a parent that is not active ---
expect 0 vhd_util create --debug -n m.vhd -s 100 -S 2097152
expect 0 vhd_util snapshot --debug -n n.vhd -p m.vhd -S 2097152 -e
expect 0 vhd_util query --debug -S -n n.vhd
is "query -S" "$OUT" 2097152
mv m.vhd away
expect 0 vhd_util query --debug -vsafpub -n n.vhd
is "query -vsafpub" "$OUT" "100
$(stat -c %s n.vhd)
./m.vhd
hidden: 0
0"
expect 2 vhd_util query --debug -vsafp -n n.vhd
mv away m.vhd
expect 0 vhd_util read -pn n.vhd
has "the block size's line" "$OUT" "
Block size          : 2097152 "
has "the type's line" "$OUT" "
Disk type           : Differencing hard disk"
expect 0 vhd_util resize --debug -s 2088960 -n n.vhd -f
expect 0 vhd_util query --debug -v -n n.vhd
is "resize -f to the largest" "$OUT" 2088960
rm m.vhd n.vhd

# --- set ---
expect 0 vhd_util set -n a.vhd -f hidden -v 1
expect 0 vhd_util query -n a.vhd -f
is "hidden" "$OUT" "hidden: 1"
expect 0 vhd_util set -n a.vhd -f marker -v 7
expect 22 vhd_util set -n a.vhd -f colour -v 7
expect 0 vhd_util check -n a.vhd
is "check" "$OUT" "a.vhd is valid"

# --- scan ---
expect 0 vhd_util scan -f -m '[ab].vhd'
is "scan" "$OUT" "vhd=a.vhd capacity=1073741824 size=5120 hidden=1 parent=none
vhd=b.vhd capacity=1073741824 size=6656 hidden=0 parent=a.vhd"
expect 0 vhd_util scan -f -M -m 'a.vhd'
is "scan -M" "$OUT" "vhd=a.vhd capacity=1073741824 size=5120 hidden=1 marker=7 keyhash= parent=none"
expect 0 vhd_util snapshot -n c.vhd -p b.vhd -e
expect 0 vhd_util scan -p -m '?.vhd'
is "scan -p" "$OUT" "vhd=a.vhd capacity=1073741824 size=5120 hidden=1 parent=none
   vhd=b.vhd capacity=1073741824 size=6656 hidden=0 parent=a.vhd
      vhd=c.vhd capacity=1073741824 size=6656 hidden=0 parent=b.vhd
vhd=f.vhd capacity=10485760 size=10486272 hidden=0 parent=none
vhd=r.vhd capacity=5242880 size=5120 hidden=0 parent=raw.img (not found in scan)
vhd=s.vhd capacity=104857600 size=5120 hidden=0 parent=none"
expect 0 vhd_util scan -f -a -v -m c.vhd
is "scan -a" "$(printf '%s\n' "$OUT" | sed 's/ .*parent=/ /')" "vhd=$WORK/c.vhd $WORK/b.vhd
vhd=$WORK/b.vhd $WORK/a.vhd
vhd=$WORK/a.vhd none"
expect 0 vhd_util scan -f -a -m r.vhd
is "scan -a of a raw parent" "$OUT" "vhd=r.vhd capacity=5242880 size=5120 hidden=0 parent=raw.img
vhd=raw.img capacity=5242880 size=5242880 hidden=1 parent=none"
echo nonsense >bad.vhd
expect 0 vhd_util scan -f -c -m '[bs]*.vhd'
has "scan -c goes on" "$OUT" "vhd=bad.vhd scan-error=22 error-message='"
has "scan -c goes on" "$OUT" "vhd=s.vhd capacity="
expect 22 vhd_util scan -f -m 'bad.vhd'
expect 0 vhd_util scan -f -m 'none*.vhd'
is "scan of nothing" "$OUT" ""

# --- data: fill, coalesce, copy ---
dd if=/dev/urandom of=raw.img bs=1M count=5 conv=notrunc 2>/dev/null
SUM=$(sha256sum <raw.img)
expect 0 vhd_util fill -n r.vhd
expect 0 vhd_util copy -n r.vhd -o out.img
is "fill, copy -o" "$(sha256sum <out.img)" "$SUM"
expect 0 vhd_util query -n r.vhd -a
is "blocks after fill" "$OUT" 3
: >raw.img && truncate -s 5M raw.img
expect 0 vhd_util coalesce --debug -n r.vhd
is "coalesce into a raw parent" "$OUT" "Coalesced 10240 sectors"
is "the raw parent's data" "$(sha256sum <raw.img)" "$SUM"
is "copy -s" "$("$top_builddir/bin/vhd-util" copy -n r.vhd -s | sha256sum)" "$SUM"
expect 0 vhd_util coalesce -n r.vhd -o flat.vhd
expect 0 vhd_util query -n flat.vhd -p -a
is "coalesce -o" "$OUT" "flat.vhd has no parent
3"
is "read -r" "$("$top_builddir/bin/vhd-util" read -n flat.vhd -r 0 -c 10240 | sha256sum)" "$SUM"
is "read -B" "$("$top_builddir/bin/vhd-util" read -n flat.vhd -B | od -An -tx1)" " e0"
expect 0 vhd_util read -n flat.vhd -t 4100 -b 1
has "read -b" "$OUT" "block: 1: offset: "
expect 0 vhd_util check -n r.vhd -p -s
has "check -p" "$OUT" "r.vhd is valid"
expect 0 vhd_util modify -n flat.vhd -z
expect 0 vhd_util query -n flat.vhd -a -s
is "modify -z" "$OUT" "$(stat -c %s flat.vhd)
0"

# --- modify -p: another parent; the header stays where others look for it ---
mkdir below && mv a.vhd below/
expect 2 vhd_util query -n b.vhd -p
is "query -p of a lost parent" "$OUT" "query failed"
is "one line of text" "$(printf '%s\n' "$ERR" | wc -l)" 1
has "what was tried" "$ERR" "./a.vhd"
for _ in 1 2 3; do
	expect 0 vhd_util modify -n b.vhd -p below/a.vhd
	expect 0 vhd_util query -n b.vhd -p
	is "modify -p" "$OUT" "$WORK/below/a.vhd"
	is "the header's place" "$(bytes b.vhd 512 8)" cxsparse
	expect 0 vhd_util check -n b.vhd -p
done
[ "$(stat -c %s b.vhd)" -le 10240 ] || fail "each modify -p makes the file longer: $(stat -c %s b.vhd) bytes"
expect 0 vhd_util modify -n b.vhd -p raw.img -m
expect 0 vhd_util query -n b.vhd -p -d
is "modify -p -m" "$OUT" "$WORK/raw.img
chain depth: 2"

# --- an image does not choose a directory for its parents; the host may ---
mkdir up && mv b.vhd up/
expect 0 vhd_util modify -n up/b.vhd -p below/a.vhd
expect 13 vhd_util copy -n up/b.vhd -o out2.img
has "the refusal" "$ERR" "parent-dirs"
expect 13 vhd_util coalesce -n up/b.vhd
expect 0 vhd_util query -n up/b.vhd -p -d
export TAPDISK_CONF=$WORK/conf
echo "parent-dirs = /nowhere:$WORK/below" >conf
expect 0 vhd_util coalesce -n up/b.vhd

# --- a snapshot of an image without data stands on that image's parent, unless -e says not ---
expect 0 vhd_util create -n base.vhd -s 4
expect 0 vhd_util snapshot -n empty.vhd -p base.vhd
expect 0 vhd_util snapshot -n top.vhd -p empty.vhd
expect 0 vhd_util query -n top.vhd -p
is "an empty parent is passed over" "$OUT" "$WORK/base.vhd"

# --- on a terminal a coalesce shows how far it is, and the line that callers parse stays whole ---
if command -v script >/dev/null; then
	T=$(script -qec "'$top_builddir/bin/vhd-util' coalesce -n top.vhd --force" /dev/null </dev/null | tr '\r' '\n')
	has "progress" "$T" "100 %"
	has "progress" "$T" "
Coalesced 0 sectors"
fi

# --- limits ---
expect 22 vhd_util create -n big.vhd -s $((2040 * 1024 + 1))
expect 0 vhd_util create -n big.vhd -s $((2040 * 1024))
expect 0 vhd_util check -n big.vhd
cp base.vhd 1.vhd
for i in $(seq 2 30); do
	expect 0 vhd_util snapshot -n "$i.vhd" -p "$((i - 1)).vhd" -e
done
expect 28 vhd_util snapshot -n 31.vhd -p 30.vhd -e
[ ! -e 31.vhd ] || fail "a refused snapshot left its file"

# --- errors: an errno, one line that names the file ---
expect 2 vhd_util query -n missing.vhd -v
has "missing" "$ERR" "missing.vhd: No such file or directory"
expect 22 vhd_util query -n bad.vhd -v
expect 17 vhd_util create -n base.vhd -s 4
expect 22 vhd_util nonsense
expect 22 vhd_util
expect 22 vhd_util create -n x.vhd
expect 22 vhd_util create -n x.vhd -s many
expect 22 vhd_util query -n base.vhd -Z
expect 22 vhd_util coalesce -n base.vhd
expect 22 vhd_util resize -n base.vhd -s 8
expect 22 vhd_util snapshot -n base.vhd -p base.vhd --force
for c in create snapshot query read set check repair resize revert fill coalesce modify scan key copy; do
	expect 0 vhd_util $c -h
	has "help of $c" "$OUT" "usage: vhd-util $c"
done

# --- key ---
expect 0 vhd_util create -n k.vhd -s 10
expect 0 vhd_util key -p -n k.vhd
is "no key" "$OUT" none
head -c 32 /dev/zero >k,aes-xts-plain,256.key
NONCE=$(printf '01%.0s' $(seq 32))
WANT=$({ head -c 32 /dev/zero | tr '\0' '\1'; head -c 32 /dev/zero; } | sha256sum | cut -d' ' -f1)
expect 0 vhd_util key -C -k k,aes-xts-plain,256.key -N "$NONCE"
is "hash" "$OUT" "$WANT"
expect 0 vhd_util key -s -n k.vhd -k k,aes-xts-plain,256.key -N "$NONCE"
expect 0 vhd_util key -p -n k.vhd
is "nonce and hash" "$OUT" "$NONCE $WANT"
expect 0 vhd_util key -c -n k.vhd -k k,aes-xts-plain,256.key
head -c 32 /dev/urandom >k,aes-xts-plain,256.key
expect 22 vhd_util key -c -n k.vhd -k k,aes-xts-plain,256.key
has "a wrong key" "$ERR" "is not that of k.vhd"
expect 0 vhd_util check -n k.vhd
expect 95 vhd_util fill -n k.vhd

# --- locks: nobody writes an image that a tapdisk has, nor looks are held up ---
exec 9<>base.vhd
python3 - 9 <<'PY' || exit 1
import fcntl, struct, sys
F_OFD_SETLK = 37
fcntl.fcntl(int(sys.argv[1]), F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
PY
expect 16 vhd_util set -n base.vhd -f hidden -v 1
expect 16 vhd_util resize -n base.vhd -s 8 -j j
expect 16 vhd_util snapshot -n x.vhd -p base.vhd
expect 16 vhd_util coalesce -n empty.vhd
expect 0 vhd_util query -n base.vhd -v
expect 0 vhd_util scan -f -m base.vhd
expect 0 vhd_util check -n base.vhd
exec 9<&-
# as a parent it may be written beneath its child, by whoever has the child too
exec 9<base.vhd 8<empty.vhd
cat >lock.py <<'PY'
import fcntl, struct, sys
for start, length in ((0, 100), (201, 1)):
    fcntl.fcntl(int(sys.argv[1]), 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, start, length, 0))
PY
python3 lock.py 9 || exit 1
expect 16 vhd_util coalesce -n empty.vhd
has "who has only the parent" "$ERR" "base.vhd is in use by"
python3 lock.py 8 || exit 1
expect 0 vhd_util coalesce -n empty.vhd --force
is "coalesce beneath" "$OUT" "Coalesced 0 sectors"
expect 0 vhd_util set -n base.vhd -f hidden -v 1
expect 16 vhd_util resize -n base.vhd -s 8 -j j
exec 9<&- 8<&-
exit 0
