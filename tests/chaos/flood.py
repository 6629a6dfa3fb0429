"""`python -m tests.chaos.flood PORT CONNECTIONS`: log in with wrong passwords until it is ended.

In a process of its own and on bare sockets, so that it costs whoever measures next to nothing.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import uuid

_TIMEOUT_S = 30.0


def flood(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        while True:
            body = b"username=flood-%s&password=Wrong-1-word" % uuid.uuid4().hex.encode()
            connection.sendall(
                b"POST /api/v1/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(65536)
            head, _, rest = answer.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None
            while len(rest) < int(length[1]):
                rest += connection.recv(65536)


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        threading.Thread(target=flood, args=(int(sys.argv[1]),), daemon=True).start()
    threading.Event().wait()
