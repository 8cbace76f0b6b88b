"""Runs inside the root: connections from source ports that count up, each opened, used and closed in order.

    traffic.py FIRST COUNT PAUSE FILE    writes the last source port that was used to FILE, with each connection;
                                         ends early where FILE.stop is
"""

import os
import socket
import sys
import threading
import time

first, count, pause, file = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
server = socket.create_server(("127.0.0.1", 0), backlog=128)


def serve():
    while True:
        connection, _ = server.accept()
        connection.recv(16)
        connection.sendall(b"pong")
        connection.recv(16)
        connection.close()


threading.Thread(target=serve, daemon=True).start()
for port in range(first, first + count):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.1", port))
        client.connect(server.getsockname())
        client.sendall(b"ping")
        client.recv(16)
        client.shutdown(socket.SHUT_WR)
        client.recv(16)
    with open(file, "w", encoding="ascii") as out:
        out.write(str(port))
    if os.path.exists(file + ".stop"):
        break
    time.sleep(pause)
