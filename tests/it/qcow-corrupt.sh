#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A qcow2 that is found to be corrupt while a guest uses it: the write that would have done harm fails, as all after it; reads go on; log,
# state and reason say so, the image is marked, and is not opened for writing any more before it is repaired.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/qcow-lib.sh"
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 1

number() { python3 -c 'import sys; f = open(sys.argv[1], "rb"); f.seek(int(sys.argv[2])); print(int.from_bytes(f.read(8), "big"))' "$@"; }
io() { run qemu-io -f raw "$@" "nbd+unix:///?socket=$TAPDISK_CONTROL_DIR/nbd$pid.$minor"; }
reason() # of the disk, as tapback hears it
{
	python3 - "$TAPDISK_CONTROL_DIR/ctl$pid" "$minor" <<'END'
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.sendall(json.dumps({"op": "info", "minor": int(sys.argv[2])}).encode())
print(s.recv(65536).decode())
END
}

# the second L2 entry points onto the first L2 table: its first cluster reads and writes, the second must not
make_image bad cluster_size=64k
expect 0 qemu-io -f qcow2 -c "write -P 1 0 128k" bad.qcow2
l2=$(($(number bad.qcow2 "$(number bad.qcow2 40)") & 0xfffffffffffe00))
python3 - "$l2" <<'END'
import sys
l2 = int(sys.argv[1])
f = open("bad.qcow2", "r+b")
f.seek(l2 + 8)
f.write((l2 | 1 << 63).to_bytes(8, "big"))
END
marker=$(tap_ctl create -a "qcow2:$WORK/bad.qcow2" -o cache=writeback) || fail "tap-ctl create"
minor=${marker##*-} pid=$(tap_ctl list | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
io -c "write -P 2 0 4k"
case $OUT in *failed*) fail "a write beside the bad entry: $OUT" ;; esac
before=$(dd if=bad.qcow2 bs=64k skip=$((l2 / 65536)) count=1 status=none | md5sum)
io -c "write -P 3 64k 4k"
has "a write onto metadata" "$OUT$ERR" "Input/output error"
is "the metadata after it" "$(dd if=bad.qcow2 bs=64k skip=$((l2 / 65536)) count=1 status=none | md5sum)" "$before"
io -c "write -P 3 0 4k"
has "a write after it" "$OUT$ERR" "Input/output error"
io -c "read -P 2 0 4k"
case $OUT$ERR in *failed* | *rror*) fail "a read after it: $OUT $ERR" ;; esac
has "the state" "$(tap_ctl list)" "state=0x800"
has "the reason" "$(reason)" "$WORK/bad.qcow2 is corrupt: the L2 entry of offset 0x10000"
is "the mark" "$(($(od -An -tu1 -j79 -N1 bad.qcow2) & 2))" 2
expect 5 tap_ctl destroy -p "$pid" -m "$minor"

expect 30 tap_ctl create -a "qcow2:$WORK/bad.qcow2" -o cache=writeback
has "opened for writing" "$ERR" "td-qcow check -r all"
marker=$(tap_ctl create -R -a "qcow2:$WORK/bad.qcow2" -o cache=writeback) || fail "tap-ctl create -R"
expect 0 tap_ctl destroy -p "$(tap_ctl list | sed -n 's/^pid=\([0-9]*\) .*/\1/p')" -m "${marker##*-}"

# an image with a data file holds nothing but metadata: a table of it that is counted as free is not given away a second time
make_image ext cluster_size=512,data_file=data.img 1M
expect 0 qemu-io -f qcow2 -c "write -P 1 0 4k" ext.qcow2
l2=$(($(number ext.qcow2 "$(number ext.qcow2 40)") & 0xfffffffffffe00))
python3 - "$l2" "$(number ext.qcow2 "$(number ext.qcow2 48)")" <<'END'
import sys
l2, block = map(int, sys.argv[1:])
f = open("ext.qcow2", "r+b")
f.seek(block + l2 // 512 * 2)
f.write(bytes(2))
END
marker=$(tap_ctl create -a "qcow2:$WORK/ext.qcow2" -o cache=none -o data-file="$WORK/data.img") || fail "tap-ctl create"
minor=${marker##*-} pid=$(tap_ctl list | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
io -c "write -P 2 4k 4k" # the table is in memory, and has changed
io -c "write -P 3 64k 4k"
has "a write that needs a table" "$OUT$ERR" "Input/output error"
has "the reason" "$(reason)" "is counted as free, but it is metadata"
io -c "read -P 2 4k 4k" -c "read -P 1 0 4k"
case $OUT$ERR in *failed* | *rror*) fail "a read after it: $OUT $ERR" ;; esac
expect 5 tap_ctl destroy -p "$pid" -m "$minor"
