# SPDX-License-Identifier: LGPL-2.1-or-later
"""What storage managers do with tap-ctl, call by call, and how they read it: the command line and its text alone."""
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

TAP_CTL = os.environ["TAP_CTL"]
GUEST = os.environ["TDGUEST"]
WORK = os.environ["WORK"]
CTL = os.environ["TAPDISK_CONTROL_DIR"]


class Failure(Exception):
    def __init__(self, args, code, text):
        super().__init__("%s: exit code %d: %s" % (" ".join(args), code, text))
        self.code, self.text = code, text


def call(*args, stdin=None):
    """One line of output, or Failure with exit code and text."""
    args = [str(a) for a in args]
    p = subprocess.run([TAP_CTL] + args, stdin=stdin, capture_output=True, text=True)
    if p.returncode:
        if p.stderr.count("\n") != 1 or p.stdout:
            raise AssertionError("%s: an error is one line on stderr: %r %r" % (args, p.stderr, p.stdout))
        raise Failure(args, p.returncode, p.stderr.strip())
    return p.stdout


def fails(code, *args):
    try:
        call(*args)
    except Failure as e:
        assert e.code == code, "%s; wanted %d" % (e, code)
        return e.text
    raise AssertionError("%s succeeded; wanted error %d" % (" ".join(map(str, args)), code))


def rows(*args):
    """list: a line is at most four fields at spaces, a field is split at its only `='; the state is hexadecimal."""
    out = []
    for line in call("list", *args).splitlines():
        row = {}
        for field in line.split(" ", 3):
            bits = field.split("=")
            assert len(bits) == 2, "a client cannot read %r" % line
            row[bits[0]] = int(bits[1], 16 if bits[0] == "state" else 10) if bits[0] != "args" else bits[1]
        out.append(row)
    return out


def allocate():
    path = call("allocate").rstrip("\n")
    return int(re.search(r"/tapdisk/tapdisk-(\d+)$", path).group(1))


def spawn():
    return int(call("spawn"))


class Disk:
    """A disk as it is launched: allocate, spawn, attach, open; what fails is taken back in the reverse order."""

    def __init__(self, image, *options, pid=None):
        assert not rows("-f", image.split(":", 1)[1]), "somebody has %s" % image
        self.minor = allocate()
        try:
            self.pid = pid or spawn()
            try:
                try:
                    call("attach", "-p", self.pid, "-m", self.minor)
                except Failure as e:  # a tapdisk that has just answered is there
                    raise AssertionError("%s; it %s, of its sockets there are %s" % (
                        e, "runs" if running(self.pid) else "has ended",
                        [f for f in os.listdir(CTL) if str(self.pid) in f])) from e
                try:
                    call("open", "-p", self.pid, "-m", self.minor, "-a", image, *options)
                except BaseException:
                    call("detach", "-p", self.pid, "-m", self.minor)
                    raise
            except BaseException:
                if not pid:
                    self.terminate()
                raise
        except BaseException:
            call("free", "-m", self.minor)
            raise
        self.image = image
        self.expect(0)

    def args(self):
        return "-p", self.pid, "-m", self.minor

    def expect(self, state, image=None):
        self.image = image or self.image
        got = rows("-m", self.minor)
        want = {"pid": self.pid, "minor": self.minor, "state": state, "args": self.image}
        assert got == [want], "list says %r, not %r" % (got, want)

    def terminate(self, sig=signal.SIGTERM):
        try:
            os.kill(self.pid, sig)
        except ProcessLookupError:
            pass
        self.wait_end()

    def wait_end(self):
        until(lambda: not running(self.pid), "tapdisk %d does not end" % self.pid)

    def pause(self):
        call("pause", *self.args())
        self.expect(0x2A)

    def unpause(self, image=None):
        call("unpause", *self.args(), *(["-a", image] if image else []))
        self.expect(0, image)

    def close(self, *options):
        call("close", *self.args(), "-t", 120, *options)
        call("detach", *self.args())
        call("free", "-m", self.minor)
        assert not rows("-m", self.minor)

    def stats(self):
        text = call("stats", *self.args())
        assert text.count("\n") == 1
        s = json.loads(text)
        for i in s["images"]:
            assert len(i["hits"]) == len(i["fail"]) == 2 and {"type", "name"} <= set(i["driver"]), i
        assert s["name"] == self.image and len(s["secs"]) == 2
        assert {"nbd_mirror_failed", "reqs_outstanding"} <= set(s)
        return s

    def guest(self, *command):
        return subprocess.run([GUEST, str(self.pid), str(self.minor)] + [str(c) for c in command], check=True,
                              capture_output=True, text=True).stdout

    def guest_start(self, *command):
        return subprocess.Popen([GUEST, str(self.pid), str(self.minor)] + [str(c) for c in command])


def running(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def image(name, megabytes=1):
    path = os.path.join(WORK, name)
    with open(path, "wb") as f:
        f.truncate(megabytes << 20)
    return path


def left():
    return call("list"), [os.path.join(d, f) for d, _, files in os.walk(CTL) for f in files]


def nothing_left():
    # a tapdisk that has lost its last disk stays until its answer was read
    until(lambda: left() == ("", []), left)


def until(what, text):
    """Waits for that, as long as a slow machine needs."""
    end = time.monotonic() + 100
    while not what():
        assert time.monotonic() < end, text() if callable(text) else text
        time.sleep(0.02)


def main(sequences):
    todo = sys.argv[1:] or list(sequences)
    for name in todo:
        began = time.monotonic()
        sequences[name]()
        nothing_left()
        print("%s: %.1f s" % (name, time.monotonic() - began), flush=True)
