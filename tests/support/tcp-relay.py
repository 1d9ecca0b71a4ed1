# SPDX-License-Identifier: LGPL-2.1-or-later
# Forwards connections to 127.0.0.1: tcp-relay.py PORT TO-PORT.  Stopped (SIGSTOP), it is a link that is slow without end.
import socket, sys, threading


def move(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for s in a, b:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    near, _ = listener.accept()
    try:
        far = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    except OSError:
        near.close()
        continue
    for ends in (near, far), (far, near):
        threading.Thread(target=move, args=ends, daemon=True).start()
