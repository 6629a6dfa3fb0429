"""`python -m tests.chaos.flood PORT CONNECTIONS [NAME]`: log in with wrong passwords until it is
ended.

With a NAME every other attempt is at that account, and each comes from one of the 256 addresses of
203.0.113.0/24, as a proxy that is trusted would tell. In a process of its own and on bare sockets,
so that it costs whoever measures next to nothing.
"""

from __future__ import annotations

import random
import re
import socket
import sys
import threading
import uuid

_TIMEOUT_S = 30.0


def flood(port: int, victim: str) -> None:
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        while True:
            _attempt(connection, victim)


def _attempt(connection: socket.socket, victim: str) -> None:
    is_aimed = bool(victim) and random.random() < 0.5
    name = victim if is_aimed else f"flood-{uuid.uuid4().hex}"
    place = f"X-Forwarded-For: 203.0.113.{random.randrange(256)}\r\n" if victim else ""
    body = f"username={name}&password=Wrong-1-word"
    connection.sendall(
        f"POST /api/v1/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\n{place}"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None
    while len(rest) < int(length[1]):
        rest += connection.recv(65536)


def main(port: int, connections: int, victim: str = "") -> None:
    for _ in range(connections):
        threading.Thread(target=flood, args=(port, victim), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
