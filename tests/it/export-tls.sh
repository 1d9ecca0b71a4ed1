# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-ctl export over TLS: the usual clients with certificates and with pre-shared keys, and ours; who is refused; strangers, and those
# that would get in without TLS; that a crowd of silent ones keeps nobody out.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/nbd-lib.sh"
command -v nbdkit >/dev/null || skip "no nbdkit"
cd "$WORK" || exit 99
. "$top_srcdir/tests/it/tls-lib.sh"
. "$top_srcdir/tests/it/export-lib.sh"

SIZE=$((8 << 20))
export TAPDISK_CONF=$WORK/conf
: >conf
dd if=/dev/urandom of=d.img bs=1M count=8 status=none
cp d.img src.img
nbd_disk "aio:$WORK/d.img" -o cache=writeback
with() # certs|psk [KEYS]: $HOW, what the export is given; $NBD, a client's URI; $QEMU and $KIT, what QEMU and nbdkit are given
{
	local keys=${2:-$KEYS}

	case $1 in
	x509)
		HOW=(--tls-certificates "$KEYS")
		NBD="nbds://127.0.0.1:$PORT/?tls-certificates=$keys"
		KIT=(tls-certificates="$keys")
		QEMU=(--object "tls-creds-x509,id=t,endpoint=client,dir=$keys,verify-peer=yes")
		;;
	psk)
		HOW=(--tls-psk-file "$KEYS/psk/keys.psk")
		NBD="nbds://qemu@127.0.0.1:$PORT/?tls-psk-file=$keys/psk/keys.psk"
		KIT=(tls-psk="$keys/psk/keys.psk" tls-username=qemu)
		QEMU=(--object "tls-creds-psk,id=t,endpoint=client,dir=$keys/psk,username=qemu")
		;;
	esac
	QIMAGE="driver=nbd,host=127.0.0.1,port=$PORT,tls-creds=t"
}
stranger() { expect 0 timeout 200 $nbd_python "$top_srcdir/tests/support/nbd-stranger.py" "$PORT" "$@"; }
refused() # TEXT WHAT: no client gets in, and the log says why
{
	run nbdinfo "$NBD"
	[ "$RC" != 0 ] || fail "$2: let in"
	until_true 10 log_has "$1"
	until_true 10 served 0
}

# --- one that sends a byte a second, from here on, to an export of its own; its end is waited for below
PORT=0
exported --tls-certificates "$KEYS"
$nbd_python "$top_srcdir/tests/support/nbd-stranger.py" "$PORT" slow >slow.out 2>&1 &
slow=$!
mv front.err slow.err # which it goes on to write
slow_front=$FRONT
at_exit 'kill "$slow_front" 2>/dev/null'

# --- good ones
PORT=0
for how in x509 psk; do
	with $how
	exported "${HOW[@]}"
	has "its name" "$AT" "nbds://127.0.0.1:"
	with $how
	expect 0 nbdinfo "$NBD"
	has "$how" "$OUT" "newstyle-fixed with TLS"
	expect 0 nbdcopy "$NBD" back.img
	cmp src.img back.img || fail "$how: what nbdcopy has read"
	expect 0 qemu-img convert "${QEMU[@]}" --image-opts "$QIMAGE" -O raw back.img
	cmp src.img back.img || fail "$how: what qemu-img has read"
	expect 0 qemu-io "${QEMU[@]}" --image-opts -c 'write -P 7 1M 1M' -c flush -c 'read -P 7 1M 1M' "$QIMAGE"
	expect 0 nbdcopy --flush src.img "$NBD"
	cmp src.img d.img || fail "$how: what nbdcopy has written"
	nbdkit -U proxy-$how.sock -P proxy.pid nbd hostname=127.0.0.1 port="$PORT" tls=require "${KIT[@]}"
	at_exit 'kill $(cat "$WORK/proxy.pid") 2>/dev/null'
	expect 0 nbdcopy "nbd+unix:///?socket=$WORK/proxy-$how.sock" back.img
	cmp src.img back.img || fail "$how: what nbdkit has read"
	kill "$(cat proxy.pid)"
	until_true 10 gone "$(cat proxy.pid)"
	# a disk of ours on it, which outlives its tapdisk
	far=$PID farm=$MINOR
	nbd_disk "$NBD"
	expect 0 qemu-io -f raw -c 'write -P 9 3M 1M' "$URI"
	expect 0 tap_ctl upgrade -p "$far"
	far=$(tap_ctl list -m "$farm" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	expect 0 qemu-io -f raw -c 'write -P 8 5M 1M' -c 'read -P 9 3M 1M' -c 'read -P 8 5M 1M' "$URI"
	case $OUT in *"verification failed"*) fail "$OUT" ;; esac
	nbd_destroy
	PID=$far MINOR=$farm
	expect 0 nbdcopy --flush src.img "$NBD"
	unexport
done

# --- with a pre-shared key: another one, and another's name
exported --tls-psk-file "$KEYS/psk/keys.psk"
mkdir -p "$WRONG/psk"
cp wrong-psk/keys.psk "$WRONG/psk"
with psk "$WRONG"
refused "TLS with 127.0.0.1" "another key"
with psk
NBD=${NBD/qemu@/root@}
cp "$KEYS/psk/keys.psk" root.psk
sed -i 's/^qemu/root/' root.psk
NBD=${NBD%=*}=$WORK/root.psk
: >front.err
refused "TLS with 127.0.0.1" "another user"
# a new key is known without another export
cat root.psk >>"$KEYS/psk/keys.psk"
expect 0 nbdinfo --size "$NBD"
unexport

# --- with certificates; those that are revoked count at once
exported --tls-certificates "$KEYS"
with x509
stranger tls12 "$KEYS"
stranger tls11 "$KEYS"
stranger half_closed "$KEYS"
stranger again "$KEYS"
cp -r "$KEYS" other
cp "$WRONG"/client-* other
with x509 "$WORK/other"
refused "unable to get local issuer certificate\|certificate of 127.0.0.1" "another authority's client"
rm other/client-*
: >front.err
refused "peer did not return a certificate" "a client without a certificate"
tls_certificate "$KEYS" other client DNS:a-client -1
: >front.err
refused "certificate has expired" "an expired certificate"
cp "$KEYS"/server-cert.pem other/client-cert.pem # a server's is not a client's
cp "$KEYS"/server-key.pem other/client-key.pem
: >front.err
refused "certificate of 127.0.0.1" "a server's certificate"
with x509
tls_revoke "$KEYS" "$KEYS" client
: >front.err
refused "certificate revoked" "a client whose certificate is revoked"
rm "$KEYS/ca-crl.pem"
expect 0 nbdinfo --size "$NBD"
with x509 "$WRONG"
run nbdinfo "$NBD"
[ "$RC" != 0 ] || fail "a client has taken us for a server of its authority"
with psk
run nbdinfo "$NBD"
[ "$RC" != 0 ] || fail "a client with a key got in where there are certificates"
# --- without TLS
run nbdinfo "$AT"
NBD=${AT/nbds/nbd}
: >front.err
refused "wants no TLS" "a client without TLS"
run qemu-io -r -f raw -c 'read 0 512' "$NBD"
[ "$RC" != 0 ] || fail "qemu-io got in without TLS"
for how in no_tls export_name abort haggles not_fixed odd_flags long_option no_magic injects no_handshake; do
	stranger $how "$KEYS"
	echo "$how: $OUT"
done
until_true 10 served 0
unexport # its log is limited
with x509
LISTEN=$PORT exported "${HOW[@]}"
# keys that are lost: nobody gets in, and the log says what is missing
mv "$KEYS/server-key.pem" lost.pem
: >front.err
refused "server-key.pem" "a client of a server without a key"
mv lost.pem "$KEYS/server-key.pem"
expect 0 nbdinfo --size "$NBD"

# --- that one has been left in time
wait $slow || fail "one that sends a byte a second: $(cat slow.out)"
has "its end" "$(cat slow.err)" "no answer within 15 s"
kill "$slow_front"

# --- a crowd that says nothing: it keeps nobody out, and does not make the front grow
rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$FRONT/status"; }
before=$(rss)
$nbd_python "$top_srcdir/tests/support/nbd-stranger.py" "$PORT" crowd &
crowd=$!
until_true 20 test -e crowded
[ "$(parts | wc -w)" -le 32 ] || fail "$(parts | wc -w) processes for a crowd"
for _ in 1 2 3 4 5; do
	expect 0 nbdcopy "$NBD" back.img
	cmp src.img back.img || fail "what was read beside a crowd"
done
touch enough
wait $crowd
most=512
! grep -q '^#define TD_SANITIZED' "$top_builddir/config.h" || most=16384
[ $(($(rss) - before)) -lt $most ] || fail "the front has grown from $before to $(rss) KiB"
[ "$(find "/proc/$FRONT/fd" -type l | wc -l)" -lt 100 ] || fail "descriptors are left: $(ls -l "/proc/$FRONT/fd")"
log_has "turned away before it is verified" || fail "nothing of the crowd in the log"
until_true 10 served 0
[ "$(wc -l <front.err)" -lt 60 ] || fail "a crowd has written $(wc -l <front.err) lines"
unexport
nbd_destroy
