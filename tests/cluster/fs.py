# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cluster's file systems on both hosts' disks."""
import time

from lab import Failed, both, say

FSCK = {"gfs2": "fsck.gfs2 -n", "ocfs2": "fsck.ocfs2 -fn"}
TRACED = ("the slot map", "A's heartbeat", "B's heartbeat")


def fs_up(hosts, words, fs="gfs2"):
    """OCFS2's hosts come one after the other: the second one has to find the first.  It opens the
    disk when the file system is there, whose first blocks a kernel reads of each new disk."""
    member = hosts[0].member
    for group in [hosts] if fs == "gfs2" else [[h] for h in hosts]:
        both(group, "disk_open " + words)
        both(group, member(fs + "_cluster_up"))
        if hosts[0] in group:
            hosts[0].do(member(fs + "_make"))
        both(group, member(fs + "_mount"))
    say("mounted on both")


def fs_down(a, b, fs="gfs2"):
    """fsck's status, once nobody has it mounted."""
    both((a, b), a.member("within 60 umount /mnt"))
    both((a, b), "within 30 disk_close")
    return a.ask("within 120 '%s /dev/drbd0 >/tmp/fsck 2>&1'" % FSCK[fs])[1]


class Trace:
    """What each host's mount is answered for OCFS2's slot map and heartbeats, beside what its half
    of the DRBD has.  The half is read and not DRBD, because O_DIRECT first writes what the page
    cache has of the block."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.slots = [h.do(h.member("ocfs2_slot")) for h in hosts]
        self.places = [h.do(h.member("ocfs2_places")) for h in hosts]
        say("slots: A %s, B %s" % tuple(self.slots))
        self.first = self.last = self.look()
        self.say()

    def look(self):
        """[host][what][0: the mount, 1: the half]"""
        seen = []
        for h, places in zip(self.hosts, self.places):
            mount = h.do(h.member("bytes_of $DEV " + places)).split()
            half = h.do("bytes_of ${HALF:-/dev/vda} " + places).split()
            seen.append(list(zip(mount, half)))
            if [len(s) for s in mount + half] != [32] * 2 * len(TRACED):
                raise Failed("no trace of the disk: %s %s" % (mount, half))
        return seen

    def say(self):
        for h, lines in zip(self.hosts, self.last):
            for what, (mount, half) in zip(TRACED, lines):
                say("%s, %s: the mount reads %s, DRBD has %s" % (h.name, what, mount, half))

    def new(self, k):
        """Whether each host has something new of the other's heartbeat, in its mount (0) or on its
        half (1)."""
        other = ((0, 2), (1, 1))  # A's lines have B's heartbeat last
        return all(self.first[i][j][k] != self.last[i][j][k] for i, j in other)

    def found(self, limit=90):
        """Looks again once DRBD has brought each host a new heartbeat: have the mounts read it, and
        has each a slot of its own?"""
        end = time.monotonic() + limit
        while not self.new(1) and time.monotonic() < end:
            time.sleep(1)
            self.last = self.look()
        self.say()
        return self.new(0) and sorted(self.slots) == ["0", "1"]
