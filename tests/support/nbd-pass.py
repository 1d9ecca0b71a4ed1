# SPDX-License-Identifier: LGPL-2.1-or-later
# Connects to an NBD server, and passes the connection to a tapdisk under a name.  nbd-pass.py SERVER-SOCKET RECEIVER NAME
import array, socket, sys

server, receiver, name = sys.argv[1:]
a = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
a.connect(server)
b = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
b.connect(receiver)
b.sendmsg([name.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [a.fileno()]))])
