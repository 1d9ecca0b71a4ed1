# SPDX-License-Identifier: LGPL-2.1-or-later
# A client that verifies all that it reads, over a disk whose server is killed and started again beneath it.
#
#   nbd-survive.py URI SIZE KILLS SEED PIDFILE COMMAND...
#
# COMMAND starts the server, which PIDFILE names; it is killed (-9) KILLS times, while requests are under way.  With UNTIL=FILE the
# load goes on until FILE is there, too.  At the end all is read once more, flushed, and the last line says how much was done.  A
# wrong byte or an error ends it with 1.
import nbd, os, random, signal, subprocess, sys, threading, time

uri, size, kills, seed, pidfile = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
command = sys.argv[6:]
until = os.environ.get("UNTIL")
BLOCK, DEPTH = 4096, 16
rand = random.Random(seed)
blocks = size // BLOCK
content = [0] * blocks  # the number that fills a block
h = nbd.NBD()
h.connect_uri(uri)
left, done, over, writes = kills, threading.Event(), threading.Event(), 0
trouble = []


def pattern(n):
    return n.to_bytes(8, "little") * (BLOCK // 8)


def start():
    """As a supervisor does: a server that ends by itself (nbdkit now and then, just after its start) is started again."""
    while True:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while server.poll() is None:
            try:
                if int(open(pidfile).read()) == server.pid:
                    return server
            except (OSError, ValueError):
                pass
            time.sleep(0.01)


def killer():
    global left
    r = random.Random(seed + 1)
    server = None
    while not over.is_set() and not trouble:
        time.sleep(r.uniform(0.05, 0.4))
        if left:
            os.kill(int(open(pidfile).read()), signal.SIGKILL)
            if server:
                server.wait()
            time.sleep(r.choice((0, 0, 0.3, 1)))
            server = start()
            left -= 1
        else:
            if not until or os.path.exists(until):
                done.set()
            if server and server.poll() is not None:
                server = start()


def check(at, n, data):
    for i in range(n):
        if data[i * BLOCK:(i + 1) * BLOCK] != pattern(content[at + i]):
            trouble.append("block %d is %s, not %d" % (at + i, data[i * BLOCK:i * BLOCK + 8].hex(), content[at + i]))


supervisor = threading.Thread(target=killer, daemon=True)
supervisor.start()
busy, serial, reads = {}, 0, 0
while (not done.is_set() or busy) and not trouble:
    while len(busy) < DEPTH and not done.is_set():
        n = rand.choice((1, 1, 1, 2, 8))
        at = rand.randrange(blocks - n)
        if any(at < b + m and b < at + n for b, m, _, _ in busy.values()):
            break  # the client orders what overlaps; a disk need not
        what = rand.random()
        serial += 1
        if what < 0.45:
            buf = nbd.Buffer.from_bytearray(bytearray(pattern(serial) * n))
            cookie = h.aio_pwrite(buf, at * BLOCK, flags=nbd.CMD_FLAG_FUA if what < 0.05 else 0)
            busy[cookie] = (at, n, serial, buf)
        elif what < 0.5:
            busy[h.aio_zero(n * BLOCK, at * BLOCK)] = (at, n, 0, None)
        elif what < 0.97:
            buf = nbd.Buffer(n * BLOCK)
            busy[h.aio_pread(buf, at * BLOCK)] = (at, n, -1, buf)
        else:
            busy[h.aio_flush()] = (0, 0, -2, None)
    h.poll(100)
    for cookie in list(busy):
        if not h.aio_command_completed(cookie):
            continue
        at, n, what, buf = busy.pop(cookie)
        if what == -1:
            check(at, n, buf.to_bytearray())
            reads += 1
        elif what >= 0:
            content[at:at + n] = [what] * n
            writes += 1
for at in range(0, blocks, 16):
    n = min(16, blocks - at)
    check(at, n, h.pread(n * BLOCK, at * BLOCK))
h.flush()
over.set()
supervisor.join()
if trouble:
    print("seed %d: %s" % (seed, trouble[0]))
    sys.exit(1)
with open(pidfile + ".content", "w") as f:
    f.write(" ".join(map(str, content)))
print("%d kills, %d writes, %d reads: every byte right" % (kills, writes, reads))
