# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fifty disks in one tapdisk, two hundred tapdisks on one host; `sm-many.sh NAME' runs one."""
import importlib
import os
import signal
import subprocess
import time

sm = importlib.import_module("sm-client")
call, fails, rows, image, Disk = sm.call, sm.fails, sm.rows, sm.image, sm.Disk
with open(sm.TAP_CTL, "rb") as f:
    SLOW = b"__asan_init" in f.read()  # each start costs ten times as much there


def fifty_disks_in_one_tapdisk():
    pid = sm.spawn()
    disks = [Disk("aio:" + image("m%d.img" % i), pid=pid) for i in range(12 if SLOW else 50)]
    assert [r["minor"] for r in rows("-p", pid)] == [d.minor for d in disks]
    assert len({r["pid"] for r in rows()}) == 1
    fds = len(os.listdir("/proc/%d/fd" % pid))
    threads = len(os.listdir("/proc/%d/task" % pid))
    print("%d disks: %d descriptors, %d threads" % (len(disks), fds, threads))
    # guests on all of them at once, each with data of its own; one is paused, which is nothing to the others
    disks[3].pause()
    writes = [d.guest_start("write", 0, 1 << 20, 100 + i) for i, d in enumerate(disks) if i != 3]
    assert [w.wait() for w in writes] == [0] * (len(disks) - 1)
    disks[3].unpause()
    for i, d in enumerate(disks[:8]):
        if i != 3:
            d.guest("verify", 0, 1 << 20, 100 + i)
            assert d.stats()["secs"][1] == 2048
    # out of order, and the last one is the end of the process
    for d in disks[1::2] + disks[2::2]:
        d.close()
    disks[0].expect(0)
    assert sm.running(pid)
    disks[0].close()
    disks[0].wait_end()


def fifty_disks_die_together():
    pid = sm.spawn()
    disks = [Disk("aio:" + image("m%d.img" % i), pid=pid) for i in range(6 if SLOW else 50)]
    os.kill(pid, signal.SIGKILL)
    disks[0].wait_end()
    call("close", *disks[5].args(), "-t", 120)
    assert rows() == []


def two_hundred_tapdisks():
    n = 40 if SLOW else 200
    paths = [image("t%d.img" % i) for i in range(n)]
    for at in range(0, n, 8):  # some at a time, as a host that boots
        started = [subprocess.Popen([sm.TAP_CTL, "create", "-a", "aio:" + p], stdout=subprocess.PIPE, text=True) for p in paths[at:at + 8]]
        assert [s.communicate()[0].count("\n") for s in started] == [1] * len(started)
        assert [s.returncode for s in started] == [0] * len(started)
    began = time.monotonic()
    all_rows = rows()
    print("list of %d tapdisks: %d ms" % (n, (time.monotonic() - began) * 1000))
    assert sorted(r["args"] for r in all_rows) == sorted("aio:" + p for p in paths)
    assert [r["minor"] for r in all_rows] == list(range(n)) and len({r["pid"] for r in all_rows}) == n
    # one of many is found at once: by its minor, by its path
    assert rows("-m", n - 1) == [all_rows[-1]]
    assert len(rows("-f", paths[7])) == 1
    # some die; the others are as they were
    for r in all_rows[::10]:
        os.kill(r["pid"], signal.SIGKILL)
    while any(sm.running(r["pid"]) for r in all_rows[::10]):
        time.sleep(0.02)
    alive = [r for i, r in enumerate(all_rows) if i % 10]
    assert rows() == alive
    # the numbers and the images of the dead are free again
    again = Disk(all_rows[0]["args"])
    again.close()
    for at in range(0, len(alive), 8):
        ends = [subprocess.Popen([sm.TAP_CTL, "destroy", "-p", str(r["pid"]), "-m", str(r["minor"])]) for r in alive[at:at + 8]]
        assert [e.wait() for e in ends] == [0] * len(ends)


sm.main({f.__name__: f for f in (fifty_disks_in_one_tapdisk, fifty_disks_die_together, two_hundred_tapdisks)})
