"""Whether the client of a request is still there, asked of its socket."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from django.http import HttpRequest

_HANG_UP = getattr(select, "POLLRDHUP", 0)  # Linux's: the end, even behind unread bytes


def abandonment_of(request: HttpRequest) -> Callable[[], bool]:
    """A function that tells whether the client has closed its connection.

    gunicorn puts the socket into the environment, which shows a vanished client before the next
    write does. Without one (another server, a test client) the answer is always no. A client may
    have pipelined its next request: those bytes are looked at and left where they are.
    """
    connection = request.META.get("gunicorn.socket")
    if not isinstance(connection, socket.socket):
        return lambda: False

    def is_abandoned() -> bool:
        try:
            poll = select.poll()
            poll.register(connection, select.POLLIN | _HANG_UP)
            found = poll.poll(0)
            if not found or found[0][1] & _HANG_UP:
                return bool(found)
            return connection.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True

    return is_abandoned
