# SPDX-License-Identifier: LGPL-2.1-or-later
# Encrypted VHDs and what is made of them: a snapshot has the same key, and no tool passes on as data what it cannot decrypt.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
guest() { "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
cd "$WORK" || exit 99
export TAPDISK_CONF=$WORK/conf
: >conf

start() # IMAGE: with the key on standard input
{
	local marker

	marker=$(tap_ctl create -a "vhd:$WORK/$1" -o cache=writeback -E 2>refused)
	RC=$?
	[ $RC = 0 ] || return 1
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
}
stop() { tap_ctl destroy -p "$pid" -m "$minor" || fail "destroy"; }

# the key's file is named as the image, without .vhd or with it; anything else is refused with the names that would do
head -c 64 /dev/urandom >key
expect 0 vhd_util create -n k.vhd -s 10
for name in k,aes-xts-plain,512.key k.vhd,aes-xts-plain,512.key; do
	cp key $name
	expect 0 vhd_util key -n k.vhd -s -k $name
	expect 0 vhd_util key -n k.vhd -c -k $name
done
expect 22 vhd_util key -n k.vhd -c -k key
has "a key of another name" "$ERR" "it has to be named k,aes-xts-plain,256.key when it has 32 bytes, and k,aes-xts-plain,512.key when it has 64"
cp key "${name%.key}"
expect 22 vhd_util key -n k.vhd -c -k "${name%.key}"
cp key k,aes-xts-plain,256.key
expect 22 vhd_util key -n k.vhd -c -k k,aes-xts-plain,256.key
has "a key of another length" "$ERR" "has 64 bytes, and by its name it should have 32"
expect 0 vhd_util key -p -n k.vhd
hash=$OUT

start k.vhd <key || fail "k.vhd: $(cat refused)"
expect 0 guest write 0 $((4 << 20)) 1
stop

# a snapshot, of one with data and of one without
expect 0 vhd_util snapshot -n s.vhd -p k.vhd
expect 0 vhd_util key -p -n s.vhd
is "the snapshot's hash" "$OUT" "$hash"
expect 0 vhd_util snapshot -n t.vhd -p s.vhd
expect 0 vhd_util key -p -n t.vhd
is "the hash of a snapshot of an empty snapshot" "$OUT" "$hash"
expect 0 vhd_util query -n t.vhd -p
is "its parent" "$OUT" "$WORK/k.vhd"
expect 0 vhd_util snapshot -n u.vhd -p s.vhd -e
expect 0 vhd_util key -p -n u.vhd
is "the hash of a snapshot with -e" "$OUT" "$hash"
for image in u.vhd s.vhd; do # u stands on s
	run tap_ctl create -a "vhd:$WORK/$image" -o cache=writeback
	is "without the key: $image" "$RC" 126
	start $image <key || fail "$image: $(cat refused)"
	expect 0 guest verify 0 $((4 << 20)) 1
	expect 0 guest write 65536 65536 2
	expect 0 guest write $((6 << 20)) 4096 3
	stop
	start $image <key || fail "$image: $(cat refused)"
	expect 0 guest verify 0 65536 1
	expect 0 guest verify 65536 65536 2
	expect 0 guest verify $((6 << 20)) 4096 3
	expect 1 guest verify $((6 << 20)) 4096 2
	stop
	expect 0 vhd_util check -n $image
done
head -c 64 /dev/urandom >wrong
! start s.vhd <wrong || fail "s.vhd is opened with another key"
is "another key" $RC 126

# no copy is made of what is encrypted, wherever in the chain
refused()
{
	for cmd in "copy -n $1 -o out.raw" "copy -n $1 -s" "coalesce -n $1 -o out.vhd" "fill -n $1" "read -n $1 -r 0 -c 8"; do
		expect 95 vhd_util $cmd
		has "$cmd" "$ERR" "encrypted"
		is "what $cmd prints" "$OUT" ""
		[ ! -e out.raw ] && [ ! -e out.vhd ] || fail "$cmd leaves something"
	done
	expect 0 vhd_util query -n "$1" --json
	has "query --json" "$OUT" '"encrypted": true'
}
refused k.vhd
refused s.vhd
expect 95 vhd_util read -n k.vhd -d 0

# between images of one key the bytes may go, which are the same; of two keys not
rm t.vhd u.vhd
expect 0 vhd_util coalesce -n s.vhd
start k.vhd <key || fail "k.vhd: $(cat refused)"
expect 0 guest verify 0 65536 1
expect 0 guest verify 65536 65536 2
expect 0 guest verify $((6 << 20)) 4096 3
stop

# a child without the hash, as it was once made: its parent's key is seen, and its own snapshot gets it
expect 0 vhd_util create -n plain.vhd -s 10
expect 0 vhd_util snapshot -n old.vhd -p plain.vhd
expect 0 vhd_util modify -n old.vhd -p k.vhd
for cmd in "copy -n old.vhd -o out.raw" "coalesce -n old.vhd -o out.vhd" "fill -n old.vhd" "read -n old.vhd -r 0"; do
	expect 95 vhd_util $cmd
	has "$cmd" "$ERR" "k.vhd is encrypted"
done
expect 0 vhd_util snapshot -n new.vhd -p old.vhd -e
expect 0 vhd_util key -p -n new.vhd
is "its hash" "$OUT" "$hash"
start new.vhd <key || fail "new.vhd: $(cat refused)"
expect 0 guest verify 0 65536 1
stop
# it grows, and is emptied, with its key
expect 0 vhd_util resize -n k.vhd -s 5000 -j journal
expect 0 vhd_util key -p -n k.vhd
is "the hash after a resize" "$OUT" "$hash"
expect 0 vhd_util modify -n k.vhd -z
expect 0 vhd_util key -p -n k.vhd
is "the hash without data" "$OUT" "$hash"
exit 0
