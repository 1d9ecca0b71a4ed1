# SPDX-License-Identifier: LGPL-2.1-or-later
# A client of an exported disk that is not one, or that is more careful than one: nbd-stranger.py PORT HOW [KEYS].
#
# Prints what it got, and exits with 0 where the server did what HOW expects of it.
import os, socket, ssl, struct, sys, time

port, how = int(sys.argv[1]), sys.argv[2]
keys = sys.argv[3] if len(sys.argv) > 3 else None
OPT, REPLY = 0x49484156454F5054, 0x0003E889045565A9
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED = 1, 2, 3, 5, 6, 7, 8
TLS_REQD, INVALID = 0x80000005, 0x80000003


def read(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError("closed after %d of %d bytes" % (len(data), n))
        data += more
    return data


def connect(flags=3):
    s = socket.create_connection(("127.0.0.1", port), 60)
    magic, opt, theirs = struct.unpack(">QQH", read(s, 18))
    assert magic == 0x4E42444D41474943 and opt == OPT and theirs == 3
    if flags is not None:
        s.sendall(struct.pack(">I", flags))
    return s


def ask(s, option, data=b""):
    s.sendall(struct.pack(">QII", OPT, option, len(data)) + data)


def answer(s, option):
    magic, what, kind, n = struct.unpack(">QIII", read(s, 20))
    assert magic == REPLY and what == option, (magic, what)
    return kind, read(s, n)


def ended(s):
    """Has the server hung up, without a word more?"""
    try:
        return s.recv(1) == b""
    except OSError as e:
        return not isinstance(e, TimeoutError)


def start_tls(s, version):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.minimum_version = c.maximum_version = version
    c.set_ciphers("ALL:@SECLEVEL=0")
    c.load_verify_locations(keys + "/ca-cert.pem")
    c.load_cert_chain(keys + "/client-cert.pem", keys + "/client-key.pem")
    ask(s, STARTTLS)
    assert answer(s, STARTTLS) == (1, b"")
    return c.wrap_socket(s, server_hostname="127.0.0.1")


def get_disk(s):
    """As much as says that the disk is there; its size."""
    ask(s, GO, struct.pack(">IH", 0, 0))
    size = None
    while True:
        kind, data = answer(s, GO)
        if kind == 1:
            return size
        assert kind == 3, hex(kind)
        if data[:2] == b"\0\0":
            size = struct.unpack(">Q", data[2:10])[0]


def tls12():
    t = start_tls(connect(), ssl.TLSVersion.TLSv1_2)
    print(t.version(), t.cipher()[0], get_disk(t))
    assert "GCM" in t.cipher()[0] or "CHACHA20" in t.cipher()[0]


def tls12_alone():
    start_tls(connect(), ssl.TLSVersion.TLSv1_2)
    try:
        start_tls(connect(), ssl.TLSVersion.TLSv1_3)
    except (ssl.SSLError, OSError):
        return
    raise SystemExit("it has TLS 1.3")


def tls11():
    s = connect()
    try:
        start_tls(s, ssl.TLSVersion.TLSv1_1)
    except (ssl.SSLError, OSError) as e:
        print(e)
        return
    raise SystemExit("TLS 1.1 was accepted")


def no_tls():
    """Nothing is said of the disk, whatever is asked for; and then TLS is still to be had."""
    s = connect()
    for option, data in ((LIST, b""), (STRUCTURED, b""), (INFO, b"\0" * 6), (GO, b"\0" * 6), (77, b"x" * 4096)):
        ask(s, option, data)
        kind, text = answer(s, option)
        assert kind == TLS_REQD and b"TLS" in text, (option, hex(kind), text)
    ask(s, STARTTLS, b"x")
    assert answer(s, STARTTLS)[0] == INVALID
    print(get_disk(start_tls(s, ssl.TLSVersion.TLSv1_3)))


def export_name():
    s = connect()
    ask(s, EXPORT_NAME)
    assert ended(s)


def abort():
    s = connect()
    ask(s, ABORT)
    assert answer(s, ABORT) == (1, b"")
    assert ended(s)


def haggles():
    s = connect()
    for _ in range(16):
        ask(s, LIST)
        assert answer(s, LIST)[0] == TLS_REQD
    assert ended(s)


def not_fixed():
    assert ended(connect(0))


def odd_flags():
    assert ended(connect(7))


def long_option():
    s = connect()
    s.sendall(struct.pack(">QII", OPT, LIST, 0x7FFFFFFF))
    assert ended(s)


def no_magic():
    s = connect()
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert ended(s)


def injects():
    """What stands in plain behind STARTTLS is not taken for the client's."""
    s = connect()
    s.sendall(struct.pack(">QII", OPT, STARTTLS, 0) + struct.pack(">QIIIH", OPT, GO, 6, 0, 0))
    assert answer(s, STARTTLS) == (1, b"")
    try:
        rest = s.recv(4096)
    except ConnectionResetError:
        return
    assert rest[:1] in (b"", b"\x15") and ended(s), rest  # TLS's alert


def no_handshake():
    s = connect()
    ask(s, STARTTLS)
    assert answer(s, STARTTLS) == (1, b"")
    s.sendall(os.urandom(300))
    try:
        s.recv(4096)
    except ConnectionResetError:
        return
    assert ended(s)


def again():
    """There is one beginning of TLS, and what was agreed on before does not count."""
    t = start_tls(connect(), ssl.TLSVersion.TLSv1_3)
    ask(t, STARTTLS)
    assert answer(t, STARTTLS)[0] & 0x80000000
    print(get_disk(t))


def half_closed():
    """Requests are answered although their sender has nothing more to say."""
    t = connect()
    t = start_tls(t, ssl.TLSVersion.TLSv1_2) if keys else t
    get_disk(t)
    for i in range(8):
        t.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, i, 0, 65536))
    if keys:
        t.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 9, 0, 0))
    else:
        t.shutdown(socket.SHUT_WR)
    got = 0
    while data := t.recv(65536):
        got += len(data)
    assert got == 8 * (16 + 65536), got


def slow(step):
    """Not more than 15 s for all of it, however the bytes come."""
    s, since = connect(None), time.monotonic()
    try:
        for byte in struct.pack(">IQII", 3, OPT, LIST, 4096) + bytes(100):
            s.sendall(bytes([byte]))
            time.sleep(step)
    except OSError:
        pass
    took = time.monotonic() - since
    print("%.1f s" % took)
    assert 10 < took < 30, took


def crowd():
    """Many that say nothing; they go on until the file `enough' is there."""
    all = []
    while not os.path.exists("enough"):
        try:
            s = socket.create_connection(("127.0.0.1", port), 5)
            all.append(s)
        except OSError:
            pass
        if len(all) > 200:
            all.pop(0).close()
        if len(all) == 100:
            open("crowded", "w").close()
        time.sleep(0.02)


ways = {k: v for k, v in list(globals().items()) if callable(v) and v.__module__ == "__main__"}
if how == "slow":
    slow(0.9)
else:
    ways[how]()
