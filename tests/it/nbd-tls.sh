# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks of NBD servers behind TLS (nbds://): qemu-nbd and nbdkit, certificates and pre-shared keys; servers, names and keys that are
# refused; that nothing goes in plain; and who has the keys.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
. "$top_srcdir/tests/it/nbd-tls-lib.sh"

# --- both servers, both kinds of keys, by name and by address; and what a life of a disk has
for how in qemu-x509 qemu-psk nbdkit-x509 nbdkit-psk; do
	start $how
	nbd_disk "$(uri $how "$KEYS" localhost)" -o cache=writethrough
	ring full 3
	ring flush 2
	expect 0 qemu-io -f raw -c 'write -P 7 1M 1M' -c flush -c 'read -P 7 1M 1M' "$URI"
	tap_ctl pause -p "$PID" -m "$MINOR" && tap_ctl unpause -p "$PID" -m "$MINOR" || fail "pause, unpause"
	expect 0 tap_ctl upgrade -p "$PID"
	PID=$(tap_ctl list -m "$MINOR" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	expect 0 qemu-io -f raw -c 'read -P 7 1M 1M' "$URI"
	expect 16 tap_ctl create -a "$(uri $how "$KEYS" 127.0.0.1)"
	has "why" "$ERR" "one writer"
	nbd_destroy
	until_true 10 no_relays
	nbd_disk "$(uri $how "$KEYS")" -R
	expect 0 qemu-io -r -f raw -c 'read -P 7 1M 1M' "$URI"
	# who has the keys: a process that can do nothing; and they are in no file or list of ours
	if [ -z "${TD_SANITIZED:-}" ]; then
		relay=$(relays | head -1)
		has "the relay's capabilities" "$(cat "/proc/$relay/status")" "CapEff:	0000000000000000"
		has "the relay's filter" "$(cat "/proc/$relay/status")" "Seccomp:	2"
		user() { sed -n 's/^Uid:\t\([0-9]*\)\t.*/\1/p' "/proc/$1/status"; }
		[ "$(user "$PID")" = 0 ] || { [ "$(user "$relay")" != 0 ] && [ "$(user "$relay")" != "$(user "$PID")" ]; } || fail "the relay is user $(user "$relay")"
		has "no more privileges" "$(cat "/proc/$relay/status")" "NoNewPrivs:	1"
	fi
	secret=$(cut -d: -f2 "$KEYS/psk/keys.psk")
	! grep -rqs "$secret" "$TAPDISK_CONTROL_DIR" || fail "a key is in the control directory"
	! line | grep -q "$secret" || fail "a key is in the list"
	nbd_destroy
	stop
done

# --- a bulk of data, a death, and a mirror
start nbdkit-x509
dd if=/dev/urandom of=src.img bs=1M count=8 status=none
nbd_disk "$(uri x509 "$KEYS")"
expect 0 nbdcopy src.img "$URI"
ring flush
cmp src.img d.img || fail "what was written is not in the server's file"
expect 0 nbdcopy "$URI" back.img
cmp src.img back.img || fail "what was read is not what was written"
ring write 0 65536 1
ring flush
kill -KILL "$PID"
until_true 10 gone "$PID"
until_true 10 no_relays
expect 0 tap_ctl revive -m "$MINOR"
PID=$OUT
ring verify 0 65536 1
nbd_destroy
truncate -s $SIZE leaf.img
nbd_disk "aio:$WORK/leaf.img" -o cache=writeback -o "mirror=$(uri x509 "$KEYS")"
ring write 0 65536 4
nbd_destroy
nbd_disk "$(uri x509 "$KEYS")" -R
ring verify 0 65536 4
nbd_destroy

# --- refused: by us
refused 71 "refused: unable to get local issuer certificate" "$(uri x509 "$WRONG")" # another authority
cp -r "$KEYS" named
tls_certificate "$KEYS" named server "DNS:elsewhere.example"
stop
start nbdkit-x509 "$WORK/named"
refused 71 "mismatch; it must name 127.0.0.1" "$(uri x509 "$KEYS")"
refused 71 "mismatch; it must name localhost" "$(uri x509 "$KEYS" localhost)"
nbd_disk "$(uri x509 "$KEYS")&tls-hostname=elsewhere.example"
nbd_destroy
stop
cp -r "$KEYS" old
tls_certificate "$KEYS" old server "IP:127.0.0.1" -1
start nbdkit-x509 "$WORK/old"
refused 71 "certificate has expired" "$(uri x509 "$KEYS")"
stop
# --- a server that has TLS 1.2 alone is served as well; one that has less is not
echo -e '[overrides]\ndisabled-version = tls1.3' >only12
echo -e '[overrides]\ndisabled-version = tls1.3\ndisabled-version = tls1.2' >only11
for how in qemu-x509 qemu-psk nbdkit-x509 nbdkit-psk; do
	GNUTLS_SYSTEM_PRIORITY_FILE=$WORK/only12 start $how
	case $how in *x509) expect 0 $nbd_python "$top_srcdir/tests/support/nbd-stranger.py" "$PORT" tls12_alone "$KEYS" ;; esac
	nbd_disk "$(uri $how "$KEYS")"
	ring full 2
	ring flush
	nbd_destroy
	stop
	GNUTLS_SYSTEM_PRIORITY_FILE=$WORK/only11 start $how
	refused 71 "TLS with the NBD server" "$(uri $how "$KEYS")"
	stop
done
# --- a server whose certificate is revoked; a list that revokes nothing; and another authority's, by which nobody can tell
start nbdkit-x509
cp -r "$KEYS" lists
tls_revoke "$KEYS" lists
nbd_disk "$(uri x509 "$WORK/lists")"
ring write 0 4096 1
nbd_destroy
tls_revoke "$KEYS" lists server
refused 71 "certificate revoked" "$(uri x509 "$WORK/lists")"
tls_revoke "$WRONG" lists
refused 71 "CRL signature failure" "$(uri x509 "$WORK/lists")"
echo nonsense >lists/ca-crl.pem
refused 22 "lists/ca-crl.pem" "$(uri x509 "$WORK/lists")"
stop
# --- by the server
start qemu-x509
cp -r "$KEYS" nobody
rm nobody/client-*
run tap_ctl create -a "$(uri x509 "$WORK/nobody")"
[ "$RC" != 0 ] || fail "a client without a certificate was let in"
is "left" "$(tap_ctl list)" ""
cp "$WRONG"/client-* nobody
run tap_ctl create -a "$(uri x509 "$WORK/nobody")"
[ "$RC" != 0 ] || fail "a client with another authority's certificate was let in"
stop
start qemu-psk
refused 71 "TLS with the NBD server" "nbds://127.0.0.1:$PORT/disk?tls-psk-file=$WORK/wrong-psk/keys.psk"
refused 2 "no key of the user me" "$(uri psk "$KEYS")&tls-username=me"
refused 2 "no key of the user me" "nbds://me@127.0.0.1:$PORT/disk?tls-psk-file=$KEYS/psk/keys.psk"
nbd_disk "nbds://qemu@127.0.0.1:$PORT/disk?tls-psk-file=$KEYS/psk/keys.psk"
nbd_destroy
# a server with certificates, a client with a key
refused 71 "TLS with the NBD server" "$(uri x509 "$KEYS")"
# --- keys that are none
refused 2 "none/ca-cert.pem" "nbds://127.0.0.1:$PORT/disk?tls-certificates=$WORK/none"
refused 2 "none" "nbds://127.0.0.1:$PORT/disk?tls-psk-file=$WORK/none"
echo "qemu:0123" >short.psk
refused 22 "not 32 to 1024 hexadecimal digits" "nbds://127.0.0.1:$PORT/disk?tls-psk-file=$WORK/short.psk"
echo "qemu:swordfish" >word.psk
refused 22 "hexadecimal digits" "nbds://127.0.0.1:$PORT/disk?tls-psk-file=$WORK/word.psk"
cp "$KEYS/psk/keys.psk" two.psk
tls_psk two.psk other
refused 22 "2 users" "nbds://127.0.0.1:$PORT/disk?tls-psk-file=$WORK/two.psk"
mkfifo pipe.psk
refused 22 "cannot read the pre-shared keys" "nbds://127.0.0.1:$PORT/disk?tls-psk-file=$WORK/pipe.psk"
mkdir broken
cp "$KEYS"/*.pem broken
echo nonsense >broken/client-key.pem
refused 22 "broken/client-key.pem" "nbds://127.0.0.1:$PORT/disk?tls-certificates=$WORK/broken"
refused 22 "needs tls-certificates=" "nbds://127.0.0.1:$PORT/disk"
refused 22 "always verified" "$(uri x509 "$KEYS")&tls-verify-peer=false"
stop

# --- servers without TLS, and those that would lead us out of it: they see 20 bytes of ours, and no more in plain
for how in qemu-plain nbdkit-plain; do
	start $how
	refused 95 "offers no TLS" "$(uri x509 "$KEYS")"
	stop
done
for how in old notfixed refuses acks-plain injects garbage hangs-up http; do
	$nbd_python "$top_srcdir/tests/support/nbd-no-tls.py" "$PORT" $how seen &
	fake=$!
	until_true 10 test -e seen.ready
	run timeout 250 "$top_builddir/bin/tap-ctl" create -a "$(uri x509 "$KEYS")"
	[ "$RC" != 0 ] && [ "$RC" != 124 ] || fail "$how: exit code $RC"
	is "left by $how" "$(tap_ctl list)" ""
	wait $fake || fail "$how: something was said in plain: $(cat seen)"
	echo "$how: $ERR"
	rm -f seen*
done
