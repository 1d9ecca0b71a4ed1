# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cluster lab's two hosts in QEMU: their power, their networks, their agents."""
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time

LIMIT = int(os.environ.get("LIMIT", 240))  # s for one command of a host: what only a hang can reach
START = time.monotonic()


def say(text):
    print("# [%5.1f s] %s" % (time.monotonic() - START, text), flush=True)


class Failed(Exception):
    pass


def until(what, true, limit=LIMIT):
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            raise Failed("%s: not within %d s" % (what, limit))
        time.sleep(0.1)


class Switch:
    """The hosts' power switch, which their fence agents ask to turn the other one off."""

    def __init__(self):
        self.hosts, self.lock, self.asked = {}, threading.Lock(), []

    def serve(self, host, qemu, connection):
        with connection, connection.makefile("rw") as port:
            try:
                for line in port:
                    verb, name = line.split()
                    with self.lock:
                        if verb != "off" or qemu.poll() is not None:  # the one that was faster has turned it off
                            return
                        say("%s turns %s off" % (host.name, name))
                        self.asked.append((host.name, name))
                        self.hosts[name].off()
                    port.write(line)
                    port.flush()
            except OSError:
                pass


class Host:
    """One of the two, and its agent."""

    def __init__(self, name, out, tmp, switch, machine, member):
        self.name, self.other, self.out, self.tmp, self.switch, self.machine = name, "AB".replace(name, ""), out, tmp, switch, machine
        self.qemu, self.n, self.lines = None, 0, queue.Queue()
        self.done, self.loads, self.failed = 0, 0, []  # what its load has said
        self.member = member  # makes a command for the member of the cluster, which is the host or a guest, one for the host
        self.disk = "%s/disk-%s" % (tmp, name)
        with open(self.disk, "wb") as f:
            f.truncate(128 << 20)
        self.log = open("%s/host-%s.log" % (out, name), "w")
        switch.hosts[name] = self

    def socket(self, what, name=None):
        return "%s/%s-%s" % (self.tmp, what, name or self.name)

    def on(self):
        """Boots it; ready() waits for that."""
        nets = []
        for n in "01":  # datagrams: either host may come and go
            nets += ["-netdev", "dgram,id=n%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s" % (
                        n, self.socket("net" + n), self.socket("net" + n, self.other)),
                     "-device", "virtio-net-pci,netdev=n%s,romfile=,mac=52:54:00:00:0%s:0%d" % (n, n, 1 + "AB".index(self.name))]
        self.qemu = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35",
             "-drive", "if=none,id=d,format=raw,cache=unsafe,file=" + self.disk, "-device", "virtio-blk-pci,drive=d",
             "-chardev", "file,id=console,append=on,path=%s/console-%s.log" % (self.out, self.name), "-serial", "chardev:console",
             "-device", "virtio-serial-pci", "-chardev", "stdio,id=agent", "-device", "virtserialport,nr=1,chardev=agent",
             "-chardev", "socket,id=power,server=on,wait=off,path=" + self.socket("power"), "-device", "virtserialport,nr=2,chardev=power",
             "-monitor", "unix:%s,server=on,wait=off" % self.socket("monitor")] + nets + self.machine(self.name),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines = queue.Queue()
        threading.Thread(target=self.pump, args=(self.qemu, self.lines), daemon=True).start()
        threading.Thread(target=self.switch.serve, args=(self, self.qemu, self.connect("power")), daemon=True).start()

    def off(self):
        """As a power cut does it."""
        self.qemu.kill()
        self.qemu.wait()

    def ready(self):
        self.until("@UP")

    def connect(self, what):
        s = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + LIMIT
        while True:
            try:
                s.connect(self.socket(what))
                return s
            except OSError:
                if time.monotonic() > end or self.qemu.poll() is not None:
                    raise Failed("host %s: no QEMU: %s" % (self.name, self.qemu.stdout.read())) from None
                time.sleep(0.1)

    def monitor(self, command):
        with self.connect("monitor") as s:
            s.sendall((command + "\n").encode())
            got = b""
            while got.count(b"(qemu) ") < 2:
                got += s.recv(4096)

    def link(self, net, state):
        self.monitor("set_link n%d %s" % (net, state))

    def pump(self, qemu, lines):
        for raw in qemu.stdout:
            line = raw.decode("utf-8", "replace").strip("\r\n")
            self.log.write(line + "\n")
            self.log.flush()
            if line.startswith("@DONE "):
                self.done = int(line.split()[1])
            elif line.startswith("@FAILED "):
                self.failed.append(line[8:])
            elif line == "@ENDED":
                self.loads -= 1
            else:
                lines.put(line)
        lines.put(None)

    def until(self, start):
        end, got = time.monotonic() + LIMIT, []
        while True:
            try:
                line = self.lines.get(timeout=max(0.1, end - time.monotonic()))
            except queue.Empty:
                raise Failed("host %s does not answer; the last lines: %s" % (self.name, got[-3:])) from None
            if line is None:
                raise Failed("host %s has died; the last lines: %s" % (self.name, got[-12:]))
            got.append(line)
            if line.startswith(start):
                return got

    def send(self, command):
        self.n += 1
        self.qemu.stdin.write(("%d %s\n" % (self.n, command)).encode())
        self.qemu.stdin.flush()

    def answer(self):
        self.until("@BEGIN %d" % self.n)
        lines = self.until("@END %d " % self.n)
        return "\n".join(lines[:-1]).strip(), int(lines[-1].split()[2])

    def ask(self, command):
        """What it says, and its status."""
        self.send(command)
        return self.answer()

    def do(self, command):
        text, status = self.ask(command)
        if status:
            raise Failed("host %s: %s: %s" % (self.name, command, text))
        return text

    def load(self):
        self.done, self.loads, self.failed = 0, 1, []
        self.do("load_start " + self.name)

    def load_goes_on(self, files=3, limit=LIMIT):
        """It has made some more files."""
        want = self.done + files
        until("host %s's load" % self.name, lambda: self.done >= want or self.failed or not self.loads, limit)
        if self.done < want:
            raise Failed("host %s's load has failed: %s" % (self.name, self.failed))

    def load_end(self):
        self.do("load_stop")
        until("host %s's load ends" % self.name, lambda: not self.loads)
        if self.failed:
            raise Failed("host %s's load has failed: %s" % (self.name, self.failed))


def both(hosts, command):
    """At the same time, for what waits for the other."""
    for h in hosts:
        h.send(command)
    for h, (text, status) in [(h, h.answer()) for h in hosts]:
        if status:
            raise Failed("host %s: %s: %s" % (h.name, command, text))


class Lab:
    """Both hosts, DRBD connected, both Primary; or without DRBD."""

    def __init__(self, out, machine, member=str, drbd=True):
        self.out, self.machine, self.member, self.switch = out, machine, member, Switch()
        self.drbd = drbd

    def __enter__(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="cluster.")
        self.hosts = [Host(n, self.out, self.tmp.name, self.switch, self.machine, self.member) for n in "AB"]
        try:
            for h in self.hosts:
                h.on()
            for h in self.hosts:
                h.ready()
            if self.drbd:
                self.drbd_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def drbd_up(self):
        both(self.hosts, "drbd_config && drbd_make && drbd_up")
        both(self.hosts, "until_true 600 drbd_is cs:Connected")
        self.hosts[0].do("drbd_same")
        for h in self.hosts:  # one after the other: DRBD refuses two that ask at once
            h.do("drbdadm primary r0")
        say("both hosts are up: " + self.hosts[0].do("grep cs: /proc/drbd"))

    def __exit__(self, *why):
        for h in self.hosts:
            if h.qemu:
                h.off()
        self.tmp.cleanup()
