# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running guest moves from one host with Xen to the other: both have its disk open for a moment, and DRBD has two primaries."""
from lab import Failed, say
from looks import CACHED

PEER = {"A": "10.9.0.1", "B": "10.9.0.2"}


def xl_migrate(a, b):
    """Opens the disk on the new host before it closes it on the old one.  Whether the guest has moved, and what xl said."""
    b.do("mover_wait")
    moved = not a.ask("mover_send " + PEER[b.name])[1]
    said = " ".join((a.ask("cat /tmp/send")[0] + b.ask("cat /tmp/receive")[0]).split())
    if moved:
        b.do("mover_came mover--incoming")
    return moved, said


def migrated(a, b, name):
    """By xl migrate, or refused, as the mode has to be."""
    moved, said = xl_migrate(a, b)
    if name in CACHED:
        if moved:
            raise Failed("%s: the guest has migrated: %s" % (name, said))
        log = b.do("grep -h 'Primary on the other host too' /var/log/messages | tail -n 1")
        a.do("mover_is_here && mover_works")
        say("%s: B refuses the guest, which goes on on A: %s" % (name, log))
        return False
    if not moved:
        raise Failed("%s: xl migrate: %s" % (name, said))
    b.do("mover_works")
    return True


def saved(a, b):
    """xl save, then xl restore: one host after the other has the disk open."""
    b.do("rm -f $(guest_log mover)")
    a.do("mover_save")
    a.do("until_true 300 drbdadm secondary r0")
    b.do("drbdadm primary r0 && mover_fetch")
    a.do("/lab/busybox nc %s 4001 </data/mover && rm /data/mover" % PEER[b.name])
    b.do("mover_restore && mover_came && mover_works")


def moved(a, b, name):
    """a is Primary at the beginning, b at the end; the other one is only while the guest moves."""
    a.do("mover_up -o cache=%s && mover_load" % name)
    b.do("drbdadm primary r0")
    how = "xl migrate"
    if migrated(a, b, name):
        a.do("until_true 300 drbdadm secondary r0")
    else:
        b.do("drbdadm secondary r0")
        saved(a, b)
        how = "xl migrate is refused, and the guest goes on; xl save and restore"
    load = b.do("mover_down").splitlines()[-1]
    a.do("drbdadm primary r0")  # a Secondary does not even read
    sums = [h.do("drbd_sum") for h in (b, a)]
    a.do("drbdadm secondary r0")
    if sums[0] != sums[1]:
        raise Failed("%s: DRBD's halves differ" % name)
    print("migrate %-12s  %s; %s; halves equal" % (name, how, load), flush=True)


def migrate(lab, name):
    a, b = lab.hosts
    b.do("drbdadm secondary r0")
    moved(a, b, name)
    return True
