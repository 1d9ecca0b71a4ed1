# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of TLS share; sourced after nbd-lib.sh, in $WORK.
#
#   free_port                 a TCP port of 127.0.0.1 that nobody listens at
#   listens ADDRESS PORT      whether somebody does
#   tls_authority DIR         makes a CA there
#   tls_certificate AUTHORITY DIR WHO NAME [DAYS]
#                             and one that it has signed: DIR/WHO-cert.pem, DIR/WHO-key.pem, DIR/ca-cert.pem.  NAME is its subject, and
#                             as IP:... or DNS:... whom it names.  DAYS below 0: it has expired so many days ago
#   tls_revoke AUTHORITY DIR WHO
#                             makes DIR/ca-crl.pem, in which DIR/WHO-cert.pem is revoked; without WHO, no certificate is
#   tls_psk FILE USER         a new pre-shared key, in a new line of FILE
#   $KEYS                     all of the good ones: certificates of a server at 127.0.0.1 and localhost, and of a client; psk, user qemu
#   $WRONG                    the same by another authority; and another key

command -v openssl >/dev/null || skip "no openssl"

free_port() { $nbd_python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
listens() { $nbd_python -c "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)" "$1" "$2" 2>/dev/null; }

tls_authority()
{
	mkdir -p "$1"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 -subj "/CN=a test's authority" -keyout "$1/ca-key.pem" -out "$1/ca-cert.pem" 2>/dev/null || fail "an authority"
}

tls_certificate()
{
	local ca=$1 dir=$2 who=$3 name=$4 days=${5:-10} usage=serverAuth

	local key=rsa:2048

	[ "$who" = server ] || usage=clientAuth key="ec -pkeyopt ec_paramgen_curve:P-256"
	mkdir -p "$dir"
	# shellcheck disable=SC2086
	openssl req -newkey $key -nodes -subj "/CN=a test's $who" -keyout "$dir/$who-key.pem" -out "$dir/$who.csr" 2>/dev/null || fail "a key"
	if [ "$days" -gt 0 ]; then
		openssl x509 -req -in "$dir/$who.csr" -CA "$ca/ca-cert.pem" -CAkey "$ca/ca-key.pem" -CAcreateserial -days "$days" -out "$dir/$who-cert.pem" \
			-extfile <(echo "subjectAltName=$name"; echo "extendedKeyUsage=$usage"; echo "keyUsage=digitalSignature,keyEncipherment") 2>/dev/null || fail "a certificate"
	else
		: >"$dir/index"
		echo 01 >"$dir/serial"
		printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=%s\nextendedKeyUsage=%s\n' \
			"$dir" "$dir" "$dir" "$name" "$usage" >"$dir/conf"
		openssl ca -batch -notext -config "$dir/conf" -in "$dir/$who.csr" -cert "$ca/ca-cert.pem" -keyfile "$ca/ca-key.pem" \
			-startdate "$(date -u -d "$((days - 9)) days" +%y%m%d%H%M%SZ)" -enddate "$(date -u -d "$days days" +%y%m%d%H%M%SZ)" -out "$dir/$who-cert.pem" 2>/dev/null || fail "an expired certificate"
	fi
	[ "$ca" = "$dir" ] || cp "$ca/ca-cert.pem" "$dir"
}

tls_revoke()
{
	: >"$2/index"
	echo 01 >"$2/crlnumber"
	printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\ncrlnumber=%s/crlnumber\ndefault_md=sha256\ndefault_crl_days=5\n' "$2" "$2" >"$2/conf"
	[ -z "${3:-}" ] || openssl ca -config "$2/conf" -cert "$1/ca-cert.pem" -keyfile "$1/ca-key.pem" -revoke "$2/$3-cert.pem" 2>/dev/null || fail "a revocation"
	openssl ca -config "$2/conf" -cert "$1/ca-cert.pem" -keyfile "$1/ca-key.pem" -gencrl -out "$2/ca-crl.pem" 2>/dev/null || fail "a list of revocations"
}

tls_psk() { echo "$2:$(openssl rand -hex 32)" >>"$1"; }

KEYS=$WORK/keys WRONG=$WORK/wrong
tls_authority "$KEYS"
tls_certificate "$KEYS" "$KEYS" server "IP:127.0.0.1,DNS:localhost"
tls_certificate "$KEYS" "$KEYS" client "DNS:a-client"
mkdir "$KEYS/psk" "$WORK/wrong-psk"
tls_psk "$KEYS/psk/keys.psk" qemu
tls_authority "$WRONG"
tls_certificate "$WRONG" "$WRONG" server "IP:127.0.0.1,DNS:localhost"
tls_certificate "$WRONG" "$WRONG" client "DNS:a-client"
tls_psk "$WORK/wrong-psk/keys.psk" qemu
