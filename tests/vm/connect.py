"""Connects all the while, one after the other, and prints what came of each.

python3 connect.py PORT|PATH SECONDS
"""

import collections
import socket
import sys
import time

seen = collections.Counter()
ends = time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    client = socket.socket(socket.AF_UNIX if sys.argv[1].startswith("/") else socket.AF_INET)
    client.settimeout(10)
    try:
        client.connect(sys.argv[1] if sys.argv[1].startswith("/") else ("127.0.0.1", int(sys.argv[1])))
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        seen["answered" if client.recv(100) else "closed unanswered"] += 1
    except OSError as error:
        seen[type(error).__name__] += 1
    client.close()
print(*(f"{what}={count}" for what, count in seen.items()))
