# SPDX-License-Identifier: LGPL-2.1-or-later
# An NBD server with whatever abilities, manners and malice a test wants.  nbd-server.py SOCKET HOW SIZE [LOG]; "list" as SOCKET names what
# HOW may be.  With a LOG, each command is a line there: TYPE OFFSET LENGTH FLAGS.
import os, random, socket, struct, sys, threading, time

HAS, RO, FLUSH, FUA, TRIM, ZEROES, MULTI = 1, 2, 4, 8, 32, 64, 256
ALL = HAS | FLUSH | FUA | TRIM | ZEROES
NAMES = {0: "read", 1: "write", 2: "disc", 3: "flush", 4: "trim", 6: "zeroes"}
OLD, OPTION, ANSWER = 0x00420281861253, b"IHAVEOPT", 0x3E889045565A9

# honest ones: (flags of the export, style, blocks: minimum, preferred, maximum)
HONEST = {
    "all": (ALL, "fixed", None),
    "oldstyle": (ALL, "old", None),
    "nofixed": (ALL, "new", None),
    "nogo": (ALL, "nogo", None),
    "nofua": (ALL & ~FUA, "fixed", None),
    "bare": (HAS | FLUSH, "fixed", None),
    "noflush": (HAS | TRIM, "fixed", None),
    "noflags": (0, "old", None),
    "readonly": (ALL | RO, "fixed", None),
    "small": (ALL, "fixed", (1, 4096, 65536)),
    "big": (ALL, "fixed", (4096, 4096, 1 << 25)),
    "backwards": (ALL, "fixed", None),  # answers the last first
    "dribble": (ALL, "fixed", None),  # a byte at a time
    "failing": (ALL, "fixed", None),  # EIO for whatever touches its second MiB
    "full": (ALL, "fixed", None),  # ENOSPC for writes there
    "unwilling": (ALL, "fixed", None),  # ENOTSUP for trim and zeroes
    "multi": (ALL | MULTI, "fixed", None),  # a flush covers all connections
    "chunked": (ALL, "fixed", None),  # structured replies, with holes
    "scattered": (ALL, "fixed", None),  # the same in any order
    "gap": (ALL, "fixed", None),  # sends half of what is read twice, and the other half never
    "apart": (ALL | MULTI, "fixed", None),  # volatile; a connection sees what another one writes when it is flushed, and not before
    "volatile": (ALL, "fixed", None),  # keeps in SOCKET.disk what was flushed, or written with FUA; its death loses the rest
}
# malicious handshakes: sent as the greeting, or as the answer to GO
GREETING = {
    "silence": b"",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "cut": b"NBDMAGIC",
    "nostyle": b"NBDMAGIC" + b"x" * 8,
    "hugeold": struct.pack(">8sQQI", b"NBDMAGIC", OLD, 1 << 63, HAS) + bytes(124),
}


def answer(option, type, data=b"", length=None, magic=ANSWER):
    return struct.pack(">QIII", magic, option, type, len(data) if length is None else length) + data


def export(size=8 << 20, flags=ALL):
    return answer(7, 3, struct.pack(">HQH", 0, size, flags))


def blocks(*three):
    return answer(7, 3, struct.pack(">HIII", 3, *three))


ACK = answer(7, 1)
TO_GO = {
    "badmagic": answer(7, 1, magic=1),
    "wrongoption": answer(6, 1),
    "hugeanswer": answer(7, 3, b"", 0xFFFFFFFF),
    "ackalone": ACK,
    "endless": answer(7, 3, struct.pack(">H", 9)) * 1000,
    "shortexport": answer(7, 3, struct.pack(">HQ", 0, 1 << 20)) + ACK,
    "notype": answer(7, 3, b"") + ACK,
    "hugesize": export(1 << 63) + ACK,
    "oddsize": export(1000) + ACK,
    "nosize": export(0) + ACK,
    "zeroblocks": export() + blocks(0, 0, 0) + ACK,
    "oddblocks": export() + blocks(3, 4096, 1 << 20) + ACK,
    "tinymax": export() + blocks(1, 1, 1) + ACK,
    "maxbelowmin": export() + blocks(512, 4096, 0) + ACK,
    "tls": answer(7, 0x80000005, b"only with TLS\x1b[31m\n"),
}
# malicious transmissions: what is said to a read of 4096 bytes at 0, cookie given
TALK = {
    "nomagic": lambda c: b"x" * 16,
    "structured": lambda c: struct.pack(">IHHQI", 0x668E33EF, 1, 1, c, 8 + 4096) + bytes(8 + 4096),
    "othercookie": lambda c: struct.pack(">IIQ", 0x67446698, 0, c ^ 1 << 40) + bytes(4096),
    "oldcookie": lambda c: struct.pack(">IIQ", 0x67446698, 0, c - 256) + bytes(4096),
    "twice": lambda c: (struct.pack(">IIQ", 0x67446698, 0, c) + bytes(4096)) * 2,
    "unasked": lambda c: struct.pack(">IIQ", 0x67446698, 0, 0) + struct.pack(">IIQ", 0x67446698, 0, c) + bytes(4096),
    "short": lambda c: struct.pack(">IIQ", 0x67446698, 0, c) + bytes(100),
    "halfhead": lambda c: struct.pack(">IIQ", 0x67446698, 0, c)[:9],
    "hangup": lambda c: b"",
}


def chunk(c, type, data=b"", flags=1, length=None):
    return struct.pack(">IHHQI", 0x668E33EF, flags, type, c, len(data) if length is None else length) + data


def part(c, off, n, flags=0):
    return chunk(c, 1, struct.pack(">Q", off) + bytes([n >> 9 & 255]) * n, flags)


def hole(c, off, n, flags=0):
    return chunk(c, 2, struct.pack(">QI", off, n), flags)


# the same with structured replies: none of these brings a byte that was not sent
CHUNKS = {
    "lacking": lambda c: part(c, 0, 2048, 1),
    "lackingend": lambda c: part(c, 0, 2048) + chunk(c, 0),
    "before": lambda c: part(c, 1 << 20, 512, 1),
    "beyond": lambda c: part(c, 3584, 1024, 1),
    "wraps": lambda c: hole(c, (1 << 64) - 512, 1024, 1),
    "toomuch": lambda c: part(c, 0, 4096) + part(c, 0, 512, 1),
    "hugehole": lambda c: hole(c, 0, 0xFFFFFFFF, 1),
    "nohole": lambda c: hole(c, 0, 0, 1),
    "nodata": lambda c: chunk(c, 1, struct.pack(">Q", 0)),
    "longhole": lambda c: chunk(c, 2, struct.pack(">QII", 0, 4096, 0)),
    "shorthead": lambda c: chunk(c, 1, b"abc"),
    "hugechunk": lambda c: chunk(c, 1, struct.pack(">Q", 0), length=0xFFFFFFFF),
    "nonewithdata": lambda c: chunk(c, 0, b"x"),
    "notdone": lambda c: chunk(c, 0, flags=0),
    "strangetype": lambda c: chunk(c, 3, bytes(8)),
    "noerror": lambda c: chunk(c, 0x8001, struct.pack(">IH", 0, 0)),
    "hugeerror": lambda c: chunk(c, 0x8001, struct.pack(">IH", 5, 0), length=1 << 20),
    "endlesserrors": lambda c: chunk(c, 0x8001, struct.pack(">IH", 5, 0), flags=0) * 100,
    "status": lambda c: chunk(c, 5, struct.pack(">III", 7, 4096, 3)),
    "mixed": lambda c: part(c, 0, 512) + struct.pack(">IIQ", 0x67446698, 0, c) + bytes(4096),
    "chunkhangup": lambda c: part(c, 0, 2048),
}
TALK.update(CHUNKS)
# honest ones; and one that sends a half twice, and the other not
SHAPED = ("chunked", "scattered", "gap")


def shaped(c, off, data):
    """A read's reply: holes where there are zeroes, in order or not."""
    if how == "gap":
        half = len(data) // 2
        return chunk(c, 1, struct.pack(">Q", off) + data[:half], 0) * 2 + chunk(c, 0)
    parts, at, step = [], 0, 512 if len(data) < 65536 else 16384
    while at < len(data):
        some = data[at:at + step]
        parts.append(chunk(c, 1, struct.pack(">Q", off + at) + some, 0) if any(some) else hole(c, off + at, len(some)))
        at += step
    if how == "scattered":
        random.Random(off).shuffle(parts)
    return b"".join(parts) + chunk(c, 0)


def allocation(c, off, n):
    """A block status: what is zero is a hole."""
    out, at = b"", off
    while at < min(off + n, size) and len(out) < 8 * 50:
        end, zero = at, not any(disk[at:at + 512])
        while end < off + n and (not any(disk[end:end + 512])) == zero:
            end += 512
        out += struct.pack(">II", end - at, 3 if zero else 0)
        at = end
    return chunk(c, 5, struct.pack(">I", 7) + out)


class Gone(Exception):
    pass


def hear(s, n):
    got = b""
    while len(got) < n:
        more = s.recv(n - len(got))
        if not more:
            raise Gone
        got += more
    return got


def say(s, data):
    if how == "dribble" and len(data) < 600:
        for b in data:
            s.sendall(bytes([b]))
    else:
        s.sendall(data)


def greet(s, flags, style, sizes):
    if style == "old":
        say(s, struct.pack(">8sQQI", b"NBDMAGIC", OLD, size, flags) + bytes(124))
        return
    say(s, b"NBDMAGIC" + OPTION + struct.pack(">H", 0 if style == "new" else 3 if style == "fixed" else 1))
    hear(s, 4)
    while True:
        magic, option, length = struct.unpack(">8sII", hear(s, 16))
        assert magic == OPTION and length < 5000
        data = hear(s, length)
        if option == 8:  # structured replies
            say(s, answer(8, 1 if how in CHUNKS or how in SHAPED else 0x80000001))
            continue
        if option == 10:
            say(s, answer(10, 4, struct.pack(">I", 7) + b"base:allocation") + answer(10, 1))
            continue
        if option == 1:
            say(s, struct.pack(">QH", size, flags) + bytes(124))  # without NO_ZEROES in both cases
            return
        assert option == 7 and data[:4] == bytes(4), (option, data)
        if style == "nogo":
            say(s, answer(7, 0x80000001))
        else:
            say(s, export(size, flags) + (blocks(*sizes) if sizes else b"") + answer(7, 3, struct.pack(">H", 2) + b"a test's") + ACK)
            return


def carry_out(s, head, flags, sizes):
    """A command: its reply."""
    global writer
    magic, cflags, type, cookie, off, length = head
    assert magic == 0x25609513 and type in NAMES, head
    if how == "early" and type == 1:  # thanks for data that it has not got
        say(s, struct.pack(">IIQ", 0x67446698, 0, cookie))
        time.sleep(0.5)
        hear(s, length)
        return b""
    data = hear(s, length) if type == 1 else b""
    while os.path.exists(hush):
        time.sleep(0.01)
    if log:
        log.write("%s %d %d %d\n" % (NAMES[type], off, length, cflags))
        log.flush()
    assert off + length <= size and off % 512 == length % 512 == 0
    assert not (cflags & 1) or flags & FUA
    assert type not in (0, 1) or not sizes or length <= sizes[2]
    assert type != 3 or flags & FLUSH
    assert type != 4 or flags & TRIM
    assert type != 6 or flags & ZEROES
    assert type in (0, 2, 3) or not flags & RO
    if type == 1 and os.path.exists(hold):  # one is held until the other file is there, whether or not its client lives
        os.rename(hold, hold + "s")
        while os.path.exists(hold + "s"):
            time.sleep(0.01)
    if how == "apart" and log:
        log.write("by %d\n" % s.fileno())
        log.flush()
    error = 0
    if type in (0, 1, 4, 6) and off < 2 << 20 and off + length > 1 << 20:
        error = 5 if how == "failing" else 28 if how == "full" and type in (1, 6) and not os.path.exists(room) else 0
    if how == "unwilling" and type in (4, 6):
        error = 95
    reply = struct.pack(">IIQ", 0x67446698, error, cookie)
    with lock:
        if type == 0 and not error:
            data = bytes(disk[off:off + length])
            if how == "apart" and s is not writer:
                data = os.pread(stable.fileno(), length, off)
            reply = shaped(cookie, off, data) if how in SHAPED else reply + data
        elif type == 1 and not error:
            disk[off:off + length] = data
            if log:
                log.write("written %d\n" % off)
                log.flush()
        elif type == 6 and not error:
            disk[off:off + length] = bytes(length)
        if stable:
            if type in (1, 6):
                writer = s
                dirty.append((off, length))
            if type == 3 or cflags & 1:
                for at, n in dirty if type == 3 else [(off, length)]:
                    os.pwrite(stable.fileno(), disk[at:at + n], at)
                if type == 3:
                    dirty.clear()
    return reply


def serve(s):
    flags, style, sizes = HONEST.get(how, HONEST["all"])
    try:
        if how in GREETING:
            say(s, GREETING[how])
            if how == "silence":
                s.shutdown(socket.SHUT_WR)
            s.recv(1)
            return
        if how in TO_GO:
            say(s, b"NBDMAGIC" + OPTION + struct.pack(">H", 3))
            hear(s, 4 + 16)
            say(s, answer(8, 0x80000001))
            hear(s, 16 + 8)
            say(s, TO_GO[how])
            s.recv(1)
            return
        greet(s, flags, style, sizes)
        held, n = [], 0
        while True:
            head = struct.unpack(">IHHQQI", hear(s, 28))
            if head[2] == 2:
                if log:
                    log.write("disc\n")
                    log.flush()
                return
            n += 1
            if head[2] == 7:
                assert how in CHUNKS or how in SHAPED
                say(s, allocation(head[3], head[4], head[5]))
                continue
            if how in TALK and head[2] == 0 and head[4] == 0:
                hit = TALK[how](head[3])
                say(s, hit)
                if how in ("short", "halfhead", "hangup", "chunkhangup"):
                    return
                continue
            reply = carry_out(s, head, flags, sizes)
            if how != "backwards":
                say(s, reply)
                continue
            held.append(reply)
            s.setblocking(False)
            try:
                more = s.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                more = b""
            s.setblocking(True)
            if not more or len(held) == 32:
                while held:
                    say(s, held.pop())
    except (Gone, ConnectionError):
        pass
    finally:
        s.close()


if sys.argv[1] == "list":
    print("\n".join({"hostile-open": list(GREETING) + list(TO_GO), "hostile-talk": TALK, "honest": HONEST}[sys.argv[2]]))
    sys.exit()
path, how, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = open(sys.argv[4], "w") if len(sys.argv) > 4 else None
room = path + ".room"  # with this file there is space again
hush = path + ".hush"  # with this file nothing is answered
hold = path + ".hold"  # with this file the next write is held, which makes it .holds, until that is removed
disk, lock = bytearray(size), threading.Lock()
stable, dirty, writer = None, [], None
if how in ("volatile", "apart"):
    if not os.path.exists(path + ".disk"):
        open(path + ".disk", "wb").truncate(size)
    stable = open(path + ".disk", "r+b")
    disk[:] = stable.read()
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(path)
listener.listen(16)


def bravely(s):
    try:
        serve(s)
    except AssertionError as e:  # the client broke the rules: all ends, and the test sees it
        sys.stderr.write("nbd-server: the client breaks the protocol: %r\n" % (e,))
        import traceback
        traceback.print_exc()
        os._exit(1)


while True:
    s, _ = listener.accept()
    threading.Thread(target=bravely, args=(s,), daemon=True).start()
