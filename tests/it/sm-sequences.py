# SPDX-License-Identifier: LGPL-2.1-or-later
"""A storage manager's life with a disk; `sm-sequences.sh NAME' runs one."""
import importlib
import shutil
import subprocess

sm = importlib.import_module("sm-client")
call, fails, rows, image, Disk = sm.call, sm.fails, sm.rows, sm.image, sm.Disk


def plug_and_unplug():
    d = Disk("aio:" + image("a.img", 8))
    d.guest("write", 0, 65536, 1)
    s = d.stats()
    assert s["secs"][1] == 128 and s["images"][0]["hits"][1] == 128, s
    assert s["images"][0]["driver"] == {"type": 0, "name": "aio", "status": {}}, s
    assert rows("-t", "aio", "-f", d.image[4:]) == rows("-p", d.pid) == rows("-m", d.minor)
    fails(17, "attach", *d.args())
    fails(114, "open", *d.args(), "-a", d.image)
    fails(16, "detach", *d.args())
    d.close()
    d.wait_end()


def options_of_open():
    path = image("o.img")
    for options in (["-R"], ["-D"], ["-t", "55"], ["-R", "-D", "-t", "55"], ["-r"]):
        d = Disk("aio:" + path, *options)
        d.close()
    # what makes no sense is refused, never ignored
    for options in (["-s"],):
        try:
            Disk("aio:" + path, *options)
        except sm.Failure as e:
            assert e.code == 22 and "needs a secondary" in e.text, e
        else:
            raise AssertionError("%s was accepted" % options)


def launch_that_fails():
    for spec, code in (("aio:/nowhere/x", 2), ("bogus:/x", 2)):
        try:
            Disk(spec)
        except sm.Failure as e:
            assert e.code == code, e
        sm.nothing_left()
    # one that has its image elsewhere: who it is can be looked up
    d = Disk("aio:" + image("f.img"))
    e = fails(16, "create", "-a", d.image)
    assert str(d.pid) in e, e
    d.close()


def change_the_image_under_a_guest():
    old, new = image("c1.img", 8), image("c2.img", 8)
    d = Disk("aio:" + old)
    load = d.guest_start("load", 10000, 16)
    sm.until(lambda: d.stats()["secs"][1] > 0, "the guest does nothing")
    for to in (new, old, new):
        d.pause()
        line = call("list", "-m", d.minor)
        assert " state=0x2a " in line, line
        d.pause()  # asked again by one that did not hear
        shutil.copyfile(d.image[4:], to)
        d.unpause("aio:" + to)
        assert call("list", "-m", d.minor).count(" state=0 ") == 1
    load.terminate()
    assert load.wait() == 0, "the guest read something else than it wrote"
    d.pause()
    d.unpause()
    d.guest("write", 0, 4096, 7)
    d.guest("verify", 0, 4096, 7)
    d.close()


def grow_at_unpause():
    path = image("g.img", 8)
    d = Disk("aio:" + path)
    d.guest("write", 0, 4096, 1)
    d.pause()
    with open(path, "r+b") as f:
        f.truncate(16 << 20)
    d.unpause()
    d.guest("write", 12 << 20, 4096, 2)
    d.guest("verify", 12 << 20, 4096, 2)
    d.guest("verify", 0, 4096, 1)
    d.close()


def unpause_that_fails():
    path = image("u.img")
    d = Disk("aio:" + path)
    d.pause()
    fails(2, "unpause", *d.args(), "-a", "aio:/nowhere/x")
    row = rows("-m", d.minor)[0]
    assert row["state"] & 0x20 and row["args"] == d.image, row
    fails(22, "unpause", *d.args(), "-a", "aio")
    d.unpause("aio:" + image("u2.img"))
    d.close()


def a_dead_tapdisk():
    d = Disk("aio:" + image("d.img"))
    d.terminate(9)
    # the next list cleans up, and what is asked of the dead fails at once, with what it is
    assert rows("-m", d.minor) == []
    fails(2, "pause", *d.args())
    fails(2, "stats", *d.args())
    again = Disk(d.image)
    assert again.minor == d.minor
    again.terminate(9)
    # a close or free that is the first to meet it
    call("close", *again.args(), "-t", 120)
    sm.nothing_left()
    again = Disk(d.image)
    again.terminate(9)
    call("free", "-m", again.minor)
    rows()
    # and paused
    again = Disk(d.image)
    again.pause()
    again.terminate(9)
    again = Disk(d.image)
    again.close()


def a_snapshot_and_a_coalesce():
    util = [sm.TAP_CTL.rsplit("/", 1)[0] + "/vhd-util"]
    if not shutil.which(util[0]):
        print("(no vhd-util in this build)")
        return
    base, leaf = sm.WORK + "/base.vhd", sm.WORK + "/leaf.vhd"
    subprocess.run(util + ["create", "-n", base, "-s", "16"], check=True)
    d = Disk("vhd:" + base)
    d.guest("write", 0, 8 << 20, 1)
    d.pause()
    subprocess.run(util + ["snapshot", "-n", leaf, "-p", base], check=True)
    d.unpause("vhd:" + leaf)
    d.guest("write", 4 << 20, 1 << 20, 2)
    assert [i["driver"]["type"] for i in d.stats()["images"]] == [4, 4]
    d.pause()
    subprocess.run(util + ["coalesce", "-n", leaf], check=True, stdout=subprocess.DEVNULL)
    d.unpause("vhd:" + base)
    d.guest("verify", 0, 4 << 20, 1)
    d.guest("verify", 4 << 20, 1 << 20, 2)
    d.guest("verify", 5 << 20, 3 << 20, 1)
    d.close()


sm.main({f.__name__: f for f in (plug_and_unplug, options_of_open, launch_that_fails, change_the_image_under_a_guest,
                                 grow_at_unpause, unpause_that_fails, a_dead_tapdisk, a_snapshot_and_a_coalesce)})
