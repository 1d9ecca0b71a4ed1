# SPDX-License-Identifier: LGPL-2.1-or-later
# Connects two tapdisks as xapi does for a storage migration: one end of a connection goes to the destination's receiver, the other, under
# a name, to the source's.  nbd-between.py NBDSERVER NBDCLIENT NAME
import array, socket, sys

server, client, name = sys.argv[1:]
for path, message, end in zip((server, client), ("a datapath's uuid", name), socket.socketpair()):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path)
    n = s.sendmsg([message.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [end.fileno()]))])
    assert n == len(message)
