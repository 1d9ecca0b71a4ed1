# SPDX-License-Identifier: LGPL-2.1-or-later
# NBD clients that break the rules, on bare sockets.  nbd-hostile.py CASE DIR PID MINOR; "list" names the cases
import os, random, socket, struct, sys, time

REQUEST, SIMPLE, STRUCTURED = 0x25609513, 0x67446698, 0x668E33EF
OPTION = b"IHAVEOPT"
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
SIZE = 8 << 20


class Client:
    def __init__(self, prefix="nbd", handshake=True, structured=False):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.connect("%s/%s%s.%s" % (directory, prefix, pid, minor))
        self.s.settimeout(200)
        if handshake and prefix == "nbd":
            self.hear(18)
            self.say(struct.pack(">I", 3))
            if structured:
                self.option(8, b"")
                self.hear(20)
            self.option(1, b"")
            self.hear(10)
        elif handshake:
            self.hear(152)

    def say(self, data):
        self.s.sendall(data)

    def hear(self, n):
        got = b""
        while len(got) < n:
            more = self.s.recv(n - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    def option(self, number, data, length=None):
        self.say(OPTION + struct.pack(">II", number, len(data) if length is None else length) + data)

    def ask(self, type, off=0, length=512, cookie=1, flags=0, data=b"", magic=REQUEST):
        self.say(struct.pack(">IHHQQI", magic, flags, type, cookie, off, length) + data)

    def simple(self, cookie=1, error=0):
        magic, err, got = struct.unpack(">IIQ", self.hear(16))
        assert (magic, err, got) == (SIMPLE, error, cookie), (hex(magic), err, got)

    def is_dropped(self):
        try:
            while self.s.recv(65536):
                pass
        except ConnectionError:
            pass
        self.s.close()


def lives():
    """Another client is served as if nothing were, at the disk's end, where the others write nothing."""
    c = Client()
    data = os.urandom(4096)
    c.ask(WRITE, SIZE - 4096, 4096, 7, data=data)
    c.simple(7)
    c.ask(READ, SIZE - 4096, 4096, 8)
    c.simple(8)
    assert c.hear(4096) == data
    c.ask(DISC)
    c.is_dropped()


def bad_handshakes():
    for first in (b"\xff\xff\xff\xff", b"\0\0\0\4", b"GET / HTTP/1.1\r\n\r\n"):
        c = Client(handshake=False)
        c.hear(18)
        c.say(first)
        c.is_dropped()
    for what in (b"IHAVEOPS" + bytes(8), OPTION + struct.pack(">II", 7, 0xFFFFFFFF), OPTION + struct.pack(">II", 1, 4097) + bytes(4097)):
        c = Client(handshake=False)
        c.hear(18)
        c.say(struct.pack(">I", 3) + what)
        c.is_dropped()
    c = Client(handshake=False)  # options for ever
    c.hear(18)
    c.say(struct.pack(">I", 3))
    try:
        for i in range(5000):
            c.option(99, b"x" * (i % 50))
            c.hear(struct.unpack(">I", c.hear(20)[16:])[0])
    except (EOFError, ConnectionError):
        pass
    c.is_dropped()


def half_a_handshake():
    """Those who stop in the middle, and stay."""
    whole = struct.pack(">I", 3) + OPTION + struct.pack(">II", 7, 6) + bytes(6)
    stay = []
    for n in range(len(whole)):
        c = Client(handshake=False)
        c.say(whole[:n])
        stay.append(c)
    lives()
    for c in stay:
        c.s.close()


def half_a_request():
    head = struct.pack(">IHHQQI", REQUEST, 0, WRITE, 1, 0, 4096)
    stay = []
    for n in list(range(len(head))) + [28, 29, 4000]:
        c = Client()
        c.say((head + bytes(4096))[:n])
        stay.append(c)
    lives()
    for c in stay:
        c.s.close()


def bad_magic():
    for magic in (0, SIMPLE, REQUEST ^ 1):
        c = Client()
        c.ask(FLUSH, 0, 0)
        c.ask(READ, magic=magic)
        c.simple()
        c.is_dropped()


def unknown():
    """What is not known, not offered, or not allowed is an error, and the next request is understood."""
    for prefix in ("nbd", "nbd-old"):
        c = Client(prefix)
        for type in (CACHE, STATUS, 8, 9, 255, 0xFFFF):
            c.ask(type)
            c.simple(1, 22)
        for flags in (2, 4, 8, 16, 0x8000):
            c.ask(READ, flags=flags)
            c.simple(1, 22)
        c.ask(READ, 0, 512, 9)
        c.simple(9)
        c.hear(512)


def numbers():
    """Offsets and lengths at every edge."""
    edge = [0, 1, 511, 512, 513, SIZE - 512, SIZE - 1, SIZE, SIZE + 512, 2**31, 2**32 - 512, 2**32, 2**63 - 512, 2**63, 2**64 - 512, 2**64 - 1]
    lengths = [0, 1, 511, 512, 1024, SIZE, SIZE + 512, (64 << 20), (64 << 20) + 512, 2**31, 2**32 - 512, 2**32 - 1]
    c = Client()
    for off in edge:
        for length in lengths:
            for type in (READ, TRIM, ZEROES, STATUS):
                inside = off + length <= SIZE and (off | length) % 512 == 0 and type != STATUS
                if inside and length > 1024:
                    continue
                c.ask(type, off, length)
                magic, err, got = struct.unpack(">IIQ", c.hear(16))
                assert magic == SIMPLE and got == 1
                assert (err == 0) == inside, (type, off, length, err)
                if not err and type == READ:
                    c.hear(length)
    for off in edge:
        for length in (512, 1024, 700, SIZE + 512):
            c.ask(WRITE, off, length, 3, data=bytes(length))
            magic, err, got = struct.unpack(">IIQ", c.hear(16))
            assert (magic, got) == (SIMPLE, 3)
            assert (err == 0) == (off + length <= SIZE and (off | length) % 512 == 0), (off, length, err)
    c.ask(FLUSH, 2**64 - 1, 2**32 - 1)  # they mean nothing there
    c.simple()


def long_refused_write():
    c = Client()
    c.ask(WRITE, 0, (64 << 20) + 512, 5)
    block = bytes(1 << 20)
    for i in range(64):
        c.say(block)
    c.say(bytes(512))
    c.simple(5, 22)
    c.ask(FLUSH, 0, 0, 6)
    c.simple(6)


def never_reads():
    """Twenty that ask for all they can and read nothing; the others are served meanwhile, and the tapdisk does not grow without end."""
    greedy = []
    for i in range(20):
        c = Client(structured=i % 2 == 0)
        c.s.setblocking(False)
        for k in range(2000):
            try:
                c.s.send(struct.pack(">IHHQQI", REQUEST, 0, READ, k, 0, 1 << 20))
            except BlockingIOError:
                break
        greedy.append(c)
    time.sleep(0.3)
    for i in range(5):
        lives()
    rss = int([l for l in open("/proc/%s/status" % pid) if l.startswith("VmRSS")][0].split()[1])
    limit = 260 << 10 if not sanitized() else 1 << 20
    assert rss < limit, rss
    for c in greedy:
        c.s.close()
    lives()


def sanitized():
    return "libasan" in open("/proc/%s/maps" % pid).read()


def crowd():
    """More than there is room for: the ones beyond are turned away, and there is room again when the crowd has gone."""
    cs = []
    for i in range(400):
        c = Client(handshake=False)
        cs.append(c)
    served = 0
    for c in cs:
        try:
            c.hear(18)
            served += 1
        except (EOFError, ConnectionError):
            pass
    assert 200 <= served <= 256, served
    for c in cs:
        c.s.close()
    end = time.monotonic() + 200
    while True:
        try:
            lives()
            break
        except (EOFError, ConnectionError):
            assert time.monotonic() < end
            time.sleep(0.05)


def random_bytes():
    seed = int(os.environ.get("SEED", time.time()))
    print("seed", seed)
    random.seed(seed)
    for round in range(300):
        c = Client(random.choice(("nbd", "nbd-old")), handshake=random.random() < 0.7, structured=random.random() < 0.5)
        c.s.settimeout(0.5)
        try:
            for i in range(random.randrange(1, 12)):
                roll = random.random()
                if roll < 0.1:
                    c.say(random.randbytes(random.randrange(1, 200)))
                elif roll < 0.2:
                    c.option(random.randrange(12), random.randbytes(random.randrange(60)))
                else:
                    length = random.choice((0, 512, 4096, 65536, 1 << 20, random.randrange(1 << 16), random.randrange(1 << 32) | 1))
                    type = random.choice((READ, WRITE, FLUSH, TRIM, ZEROES, STATUS, DISC, random.randrange(1 << 16)))
                    data = random.randbytes(min(length, 1 << 17)) if type == WRITE else b""
                    c.ask(type, random.choice((0, 512, random.randrange(SIZE // 2), random.randrange(1 << 64))), length, i,
                          random.choice((0, 0, 1, random.randrange(1 << 16))), data)
            if random.random() < 0.5:
                c.s.settimeout(0.01)
                c.s.recv(65536)
        except (OSError, EOFError):
            pass
        c.s.close()
        if round % 50 == 0:
            lives()


cases = [bad_handshakes, half_a_handshake, half_a_request, bad_magic, unknown, numbers, long_refused_write, never_reads, crowd, random_bytes]
if sys.argv[1] == "list":
    print("\n".join(c.__name__ for c in cases))
else:
    directory, pid, minor = sys.argv[2:]
    globals()[sys.argv[1]]()
    lives()
