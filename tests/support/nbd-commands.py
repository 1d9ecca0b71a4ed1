# SPDX-License-Identifier: LGPL-2.1-or-later
# Every NBD command with every flag and at every edge, by libnbd; the file below is looked at too, unless it is "-".  nbd-commands.py URI FILE
import nbd, os, random, sys

uri, path = sys.argv[1:]
MiB = 1 << 20


def connect(structured=True):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if structured:
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.set_strict_mode(0)
    h.connect_uri(uri)
    return h


def fails(errno, op, *args):
    try:
        op(*args)
    except nbd.Error as e:
        assert e.errno == errno, (e.errno, errno, e)
    else:
        raise AssertionError("no error: " + errno)


def extents(h, length, offset, flags=0):
    got = []
    h.block_status(length, offset, lambda context, off, entries, err: got.extend(zip(entries[::2], entries[1::2])), flags)
    return got


def edges(h, structured):
    size = h.get_size()
    data = os.urandom(MiB)
    h.pwrite(data, size - MiB)
    assert h.pread(MiB, size - MiB) == data
    assert h.pread(512, size - 512) == data[-512:]
    for op in h.pread, h.trim:
        fails("EINVAL", op, 512, size)
        fails("EINVAL", op, 1024, size - 512)
    fails("EINVAL", h.pread, 512, 2**63)
    fails("ENOSPC", h.pwrite, b"x" * 512, size)
    fails("ENOSPC", h.pwrite, b"x" * MiB, size - 512)  # its data is thrown away, and the next request understood
    fails("ENOSPC", h.zero, 1024, size - 512)
    fails("EINVAL", h.pread, 100, 0)
    fails("EINVAL", h.pwrite, b"x" * 700, 0)
    fails("EINVAL", h.pread, 512, 7)
    fails("EINVAL", h.cache, 512, 0)  # not offered
    # a length of nothing does nothing
    h.pwrite(b"", 0)
    h.zero(0, 0)
    h.trim(0, 0)
    assert h.pread(512, size - 512) == data[-512:]
    fails("EINVAL", h.pread, 512, 0, 1 << 9)  # a flag that nobody knows
    if not structured:
        fails("EINVAL", h.pread, 512, 0, nbd.CMD_FLAG_DF)


def long_ones(h, structured):
    data = random.randbytes(40 * MiB + 512)
    h.pwrite(data, 512)
    assert h.pread(len(data), 512) == data
    if path != "-":
        assert open(path, "rb").read()[512 : 512 + len(data)] == data
    if structured:
        assert h.pread(65536, 512, nbd.CMD_FLAG_DF) == data[:65536]
        fails("EOVERFLOW", h.pread, 20 * MiB, 512, nbd.CMD_FLAG_DF)
    h.pwrite(data[::-1], 512, nbd.CMD_FLAG_FUA)
    assert h.pread(len(data), 512) == data[::-1]


def zeroes(h):
    h.pwrite(b"\xff" * (8 * MiB), 0)
    h.zero(MiB, 512)
    h.zero(MiB, 2 * MiB, nbd.CMD_FLAG_NO_HOLE)
    h.zero(MiB, 4 * MiB + 512, nbd.CMD_FLAG_FUA)
    want = bytearray(b"\xff" * (8 * MiB))
    for at in 512, 2 * MiB, 4 * MiB + 512:
        want[at : at + MiB] = bytes(MiB)
    assert h.pread(8 * MiB, 0) == want
    try:
        h.zero(MiB, 6 * MiB, nbd.CMD_FLAG_FAST_ZERO)
        want[6 * MiB : 7 * MiB] = bytes(MiB)
    except nbd.Error as e:
        assert e.errno == "ENOTSUP", e
    assert h.pread(8 * MiB, 0) == want


def status(h):
    size = h.get_size()
    h.trim(size, 0)
    h.pwrite(b"\x11" * MiB, 4 * MiB)
    h.flush()
    got = extents(h, 16 * MiB, 0)
    assert sum(n for n, state in got) == 16 * MiB
    at = 0
    for n, state in got:
        assert state in (0, 3), got
        if at <= 4 * MiB < at + n:
            assert state == 0, got
        at += n
    assert len(extents(h, 16 * MiB, 0, nbd.CMD_FLAG_REQ_ONE)) == 1
    fails("EINVAL", extents, h, 512, size)
    assert extents(h, 512, 4 * MiB) == [(512, 0)]


def many(h):
    """64 in flight, each on its own place, out of order as they like."""
    bufs = {}
    for round in range(3):
        for i in range(64):
            n = 512 * random.randrange(1, 64)
            b = random.randbytes(n)
            bufs[i] = b
            h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b)), i * 65536, lambda err: 1)
        while h.aio_in_flight():
            h.poll(-1)
        reads = {i: nbd.Buffer(len(b)) for i, b in bufs.items()}
        for i, b in reads.items():
            h.aio_pread(b, i * 65536, lambda err: 1)
        while h.aio_in_flight():
            h.poll(-1)
        for i, b in bufs.items():
            assert reads[i].to_bytearray() == b, i


def two_clients(h):
    """What one has written the other reads, and one's flush is the other's too."""
    g = connect()
    for i in range(50):
        data = os.urandom(4096)
        h.pwrite(data, 4096 * i)
        assert g.pread(4096, 4096 * i) == data
        g.flush()
    g.shutdown()


for structured in (True, False):
    h = connect(structured)
    assert h.get_structured_replies_negotiated() == structured
    edges(h, structured)
    long_ones(h, structured)
    zeroes(h)
    many(h)
    if structured:
        status(h)
        two_clients(h)
    h.flush()
    h.shutdown()
