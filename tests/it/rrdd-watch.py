#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""rrdd-watch.py DIR: as XenServer's rrdd learns of guests' disks: by inotify.

Prints a line when a directory vbd3-DOMID-DEVID is made or removed in DIR, and
when it is made, which files of counters a reader finds at that moment:
    make NAME td3-PID/vbd-DOMID-DEVID ...
    remove NAME
"""
import ctypes
import glob
import os
import struct
import sys

CREATE, DELETE, IS_DIR, OVERFLOW = 0x100, 0x200, 0x40000000, 0x4000
base = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init()
if fd < 0 or libc.inotify_add_watch(fd, base.encode(), CREATE | DELETE) < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("ready", flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        _, mask, _, size = struct.unpack_from("iIII", data)
        name = data[16:16 + size].rstrip(b"\0").decode()
        data = data[16 + size:]
        if mask & OVERFLOW:
            sys.exit("events were lost")
        if not name.startswith("vbd3-"):
            continue
        if not mask & IS_DIR:
            print("no directory:", name, flush=True)
        elif mask & DELETE:
            print("remove", name, flush=True)
        else:
            found = glob.glob(os.path.join(base, "td3-*", "vbd-" + name[5:]))
            print("make", name, *sorted(os.path.relpath(f, base) for f in found), flush=True)
