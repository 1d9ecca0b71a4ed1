# SPDX-License-Identifier: LGPL-2.1-or-later
# An NBD client of a CD drive, that does what it reads from stdin, and tells in a line each what came of it.  nbd-cd.py SOCKET
import hashlib, nbd, sys


def connect():
    h = nbd.NBD()
    h.set_strict_mode(0)  # what is beyond the end is for the server to say
    h.connect_unix(sys.argv[1])
    return h


h = connect()
for word in sys.stdin:
    said = "done"
    try:
        if word == "connect\n":
            h = connect()
            said = "%d %s" % (h.get_size(), "read-only" if h.is_read_only() else "writable")
        elif word == "read\n":
            said = hashlib.sha1(h.pread(1 << 20, 0)).hexdigest()
        elif word == "write\n":
            h.pwrite(bytes(512), 0)
        elif word == "flush\n":
            h.flush()
    except nbd.Error as e:
        said = e.errno
    print(said, flush=True)
