# SPDX-License-Identifier: LGPL-2.1-or-later
# An NBD client through the turns of a disk's life.  nbd-life.py CASE PID MINOR FILE; TAP_CTL, DIR in the environment
import array, json, nbd, os, random, resource, signal, socket, subprocess, sys, time

case, pid, minor, path = sys.argv[1:]
directory = os.environ["DIR"]
sockname = "%s/nbd%s.%s" % (directory, pid, minor)


def tap_ctl(op, *more, rc=0):
    p = subprocess.run([os.environ["TAP_CTL"], op, "-p", pid, "-m", minor, *more], capture_output=True, text=True)
    assert p.returncode == rc, (op, p.returncode, p.stderr)
    return p.stdout


def connect():
    h = nbd.NBD()
    h.connect_unix(sockname)
    return h


def until(what):
    end = time.monotonic() + 200
    while not what():
        assert time.monotonic() < end


def settle(h, seconds):
    """Lets the handle go on for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and h.aio_in_flight():
        h.poll(10)


class Writer:
    """Writes with 32 in flight, each on a block of its own; knows what must be there, block by block."""

    def __init__(self, h):
        self.h, self.acked, self.failed, self.pending, self.n = h, {}, 0, {}, 0

    def issue(self):
        while len(self.pending) < 32:
            block = random.choice([b for b in range(256) if b not in self.pending])
            self.n += 1
            data = self.n.to_bytes(8, "big") * 512
            buf = nbd.Buffer.from_bytearray(bytearray(data))
            self.pending[block] = (data, buf)

            def done(err, block=block, data=data):
                del self.pending[block]
                if err.value if hasattr(err, "value") else err:
                    self.failed += 1
                else:
                    self.acked[block] = data
                return 1

            self.h.aio_pwrite(buf, block * 4096, done)

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.issue()
            self.h.poll(10)

    def check(self):
        with open(path, "rb") as f:
            for block, data in self.acked.items():
                if block in self.pending:
                    continue
                f.seek(block * 4096)
                assert f.read(4096) == data, block


def pauses():
    """Requests wait while the disk is paused, and none fails."""
    w = Writer(connect())
    for turn in range(5):
        w.run(0.1)
        tap_ctl("pause")
        n = json.loads(tap_ctl("stats"))["nbd"]["reqs"][1]
        until(lambda: w.h.poll(10) >= 0 and w.n - len(w.pending) == n)  # what was answered before the pause comes in
        w.issue()
        settle(w.h, 0.3)
        assert w.n - len(w.pending) == n, "a paused disk answered"
        tap_ctl("unpause", *(["-a", "aio:" + path] if turn % 2 else []))
    while w.h.aio_in_flight():
        w.h.poll(-1)
    w.check()
    assert not w.failed and w.n >= 5 * 32, (w.failed, w.n)


def hundred():
    """A hundred clients at once, each with requests in flight; some say good-bye, some just go."""
    hs = [connect() for i in range(100)]
    bufs = []
    for i, h in enumerate(hs):
        for k in range(4):
            bufs.append(nbd.Buffer(1 << 20))
            h.aio_pread(bufs[-1], (k * (1 << 20)) % (16 << 20), lambda err: 1)
    for i, h in enumerate(hs):
        if i % 3 == 0:
            continue  # goes without having read its replies
        while h.aio_in_flight():
            h.poll(-1)
        if i % 3 == 1:
            h.shutdown()
    del hs, h
    h = connect()
    h.pwrite(b"a" * 512, 0)
    assert h.pread(512, 0) == b"a" * 512


def send_fd(name, fd, text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect("%s/%s" % (directory, name))
    s.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fd))] if fd else [])
    return s


def passed():
    """Sockets that are passed are served, old and new; what is no socket does no harm."""
    for name, protocol in (("nbdserver-new", "newstyle-fixed"), ("nbdserver", "oldstyle")):
        ours, theirs = socket.socketpair()
        send_fd("%s%s.%s" % (name, pid, minor), [theirs.fileno()], b"some name").close()
        theirs.close()
        h = nbd.NBD()
        h.connect_socket(os.dup(ours.fileno()))
        assert h.get_protocol() == protocol, h.get_protocol()
        data = os.urandom(70000 // 512 * 512)
        h.pwrite(data, 512)
        assert h.pread(len(data), 512) == data
        h.shutdown()
    # through TCP too, as a toolstack's HTTP connection is
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    send_fd("nbdserver-new%s.%s" % (pid, minor), [theirs.fileno()], b"x").close()
    theirs.close()
    h = nbd.NBD()
    h.connect_socket(os.dup(ours.fileno()))
    assert h.get_size() == 16 << 20
    h.shutdown()
    # an exported one: what was promised of it is kept, and who cannot be promised it is turned away
    for words in b" ", b"read-only ", b"alone read-only", b"read-only later", b"read-onl":
        ours, theirs = socket.socketpair()
        send_fd("nbdexport%s.%s" % (pid, minor), [theirs.fileno()], words).close()
        theirs.close()
        if words in (b"read-only later", b"read-onl"):
            assert ours.recv(1) == b""
            continue
        h = nbd.NBD()
        h.connect_socket(os.dup(ours.fileno()))
        assert h.is_read_only() == (b"read-only" in words) and h.can_multi_conn() == (b"alone" not in words)
        h.shutdown()
    # no descriptor, a file, a pipe, five of them, nothing at all
    receiver = "nbdserver-new%s.%s" % (pid, minor)
    f = open(path)
    r, w = os.pipe()
    pairs = [socket.socketpair() for i in range(2)]
    held = [send_fd(receiver, [], b"no descriptor"), send_fd(receiver, [f.fileno()], b"a file"), send_fd(receiver, [w], b"a pipe"),
            send_fd(receiver, [s.fileno() for p in pairs for s in p], b"four")]
    quiet = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    quiet.connect("%s/%s" % (directory, receiver))
    client = "nbdclient%s" % pid
    for i in range(12):
        a, b = socket.socketpair()
        held.append(send_fd(client, [a.fileno()], b"mirror-%d" % (i % 11)))
    held.append(send_fd(client, [], b"nothing"))
    assert connect().get_size() == 16 << 20
    for s in held:
        s.close()


def grows():
    h = connect()
    os.truncate(path, 32 << 20)
    tap_ctl("resize")
    assert connect().get_size() == 32 << 20
    h.set_strict_mode(0)
    h.pwrite(b"b" * 512, (32 << 20) - 512)
    assert h.pread(512, (32 << 20) - 512) == b"b" * 512


def shrink_refused():
    """A paused disk does not come back smaller under a client."""
    os.truncate(path, 32 << 20)
    tap_ctl("resize")
    h = connect()
    tap_ctl("pause")
    os.truncate(path, 16 << 20)
    tap_ctl("unpause", rc=22)
    os.truncate(path, 32 << 20)
    tap_ctl("unpause")
    h.pread(512, (32 << 20) - 512)
    h.shutdown()
    h = None
    tap_ctl("pause")
    os.truncate(path, 16 << 20)
    tap_ctl("unpause")
    assert connect().get_size() == 16 << 20


def many_opens():
    """Clients that come and go leave nothing behind."""
    def fds():
        return len(os.listdir("/proc/%s/fd" % pid))

    before = fds()
    for i in range(200):
        h = connect()
        h.aio_pread(nbd.Buffer(65536), 0)
        if i % 2:
            h.shutdown()
        del h
    until(lambda: time.sleep(0.05) or fds() == before)


def no_descriptors():
    """Out of descriptors, it waits for some, and does not spin."""
    def connections(n):
        cs = []
        for i in range(n):
            cs.append(socket.socket(socket.AF_UNIX))
            cs[-1].connect(sockname)
            cs[-1].settimeout(0.5)
        return cs

    def served(cs):
        n = 0
        for c in cs:
            try:
                n += len(c.recv(18)) == 18
            except TimeoutError:
                break
        return n

    def ticks():
        return sum(map(int, open("/proc/%s/stat" % pid).read().split()[13:15]))

    have = max(int(x) for x in os.listdir("/proc/%s/fd" % pid)) + 1
    limits = resource.prlimit(int(pid), resource.RLIMIT_NOFILE)
    resource.prlimit(int(pid), resource.RLIMIT_NOFILE, (have + 3, limits[1]))
    cs = connections(8)
    cs[0].settimeout(200)
    assert 0 < served(cs) < 8
    before = ticks()
    time.sleep(0.7)
    assert ticks() - before < 20, ticks() - before
    resource.prlimit(int(pid), resource.RLIMIT_NOFILE, limits)
    late = cs[-1]
    late.settimeout(200)
    assert len(late.recv(18)) == 18
    assert connect().get_size()


def close_drains():
    w = Writer(connect())
    w.run(0.3)
    idle = connect()
    tap_ctl("close")
    try:
        while w.h.aio_in_flight():
            w.h.poll(1000)
    except nbd.Error:
        pass
    w.check()
    assert w.acked
    try:
        idle.pread(512, 0)
    except nbd.Error:
        pass
    else:
        raise AssertionError("a closed disk was read")
    assert not os.path.exists(sockname)


def flushes():
    h = connect()
    for i in range(10):
        h.pwrite(bytes([i]) * 4096, i * 4096)
        h.flush()
    for i in range(10):
        h.flush()
    for i in range(10):
        h.pwrite(bytes([i]) * 4096, i * 4096, nbd.CMD_FLAG_FUA)


def sigterm():
    h = connect()
    os.kill(int(pid), signal.SIGTERM)
    time.sleep(0.3)
    h.pread(512, 0)
    assert connect().get_size()


globals()[case]()
