# SPDX-License-Identifier: LGPL-2.1-or-later
# An NBD server at 127.0.0.1 that would have its client speak in plain: nbd-no-tls.py PORT HOW LOG.  It serves one connection, and
# exits with 1 when anything but the handshake's flags, STARTTLS and TLS's own records came.
import socket, struct, sys

port, how, log = int(sys.argv[1]), sys.argv[2], sys.argv[3]
OLD, OPTION, ANSWER = 0x00420281861253, b"IHAVEOPT", 0x3E889045565A9
STARTTLS = OPTION + struct.pack(">II", 5, 0)
GREETING = b"NBDMAGIC" + OPTION + struct.pack(">H", 1 if how == "notfixed" else 3)


def answer(type, data=b""):
    return struct.pack(">QIII", ANSWER, 5, type, len(data)) + data


listener = socket.create_server(("127.0.0.1", port))
open(log + ".ready", "w").close()
s, _ = listener.accept()
s.settimeout(60)
seen = b""


def hear(n):
    """Up to n bytes, until nothing more comes."""
    global seen
    while len(seen) < n:
        try:
            more = s.recv(65536)
        except (ConnectionError, TimeoutError):
            return
        if not more:
            return
        seen += more


if how == "http":
    s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
elif how == "old":
    s.sendall(struct.pack(">8sQQI", b"NBDMAGIC", OLD, 8 << 20, 1) + bytes(124))
elif how == "notfixed":
    s.sendall(b"NBDMAGIC" + OPTION + struct.pack(">H", 2))
else:
    s.sendall(GREETING)
    hear(20)
    if how == "refuses":
        s.sendall(answer(0x80000002, b"not today\x1b[31m"))
    elif how == "hangs-up":
        s.shutdown(socket.SHUT_WR)
    elif how == "acks-plain":  # and goes on as if nothing had been asked
        s.sendall(answer(1) + struct.pack(">QIII", ANSWER, 7, 3, 12) + struct.pack(">HQH", 0, 8 << 20, 1))
    elif how == "injects":  # an answer to what will be asked through TLS
        s.sendall(answer(1, b"more") + struct.pack(">QIII", ANSWER, 7, 1, 0))
    elif how == "garbage":
        s.sendall(answer(1) + bytes(range(256)) * 4)
hear(1 << 20)
open(log, "wb").write(seen)
plain = struct.pack(">I", 3) + STARTTLS
rest = seen[len(plain):]
good = not seen if how in ("http", "old", "notfixed") else seen.startswith(plain)
while good and rest:  # records of a handshake or alerts; data there can be none
    good = rest[0] in (21, 22) and rest[1] == 3 and len(rest) >= 5
    rest = rest[5 + struct.unpack(">H", rest[3:5])[0]:] if good else rest
sys.exit(0 if good else 1)
