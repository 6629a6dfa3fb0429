"""PostgreSQL connections that give up on a server which does not answer.

`statement_timeout` is the server's own clock, which stands still with it: a stopped server, or one
behind a dead network, would hold every thread that asks it for as long as TCP allows.
"""

from __future__ import annotations

import select
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

T = TypeVar("T")

WEB_TIMEOUT_S = 2.0  # somebody waits, and everything asked of the database takes milliseconds
COMMAND_TIMEOUT_S = 3600.0  # a migration or a backup may work for long, but not for ever
_POLL_S = 0.1  # psycopg's own, which lets signals through

_timeout_s = COMMAND_TIMEOUT_S


def limit_waits(timeout_s: float) -> None:
    """How long any statement of this process may take from now on, until its answer is there."""
    global _timeout_s  # noqa: PLW0603 - one process does one kind of work
    _timeout_s = timeout_s


class ServerSilent(psycopg.OperationalError):
    """It took longer than `limit_waits` allows, and will hardly answer whoever asks it at once."""


class BoundedConnection(psycopg.Connection[Any]):
    """Raises ServerSilent when the server takes longer than `limit_waits` allows, and closes: its
    answer may still come, and would be taken for the next one's. Whether a COMMIT that got no
    answer happened nobody knows, as when a connection breaks."""

    def wait(self, gen: PQGen[T], interval: float = _POLL_S, timeout: float | None = None) -> T:
        limit_s = _timeout_s if timeout is None else min(timeout, _timeout_s)
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.close()
            raise ServerSilent(str(error)) from error

    @property
    def was_ended(self) -> bool:
        """Whether the server ended it while nobody used it; seen here, without asking the server.

        It says nothing to who asks nothing, except that it ends, or that its configuration was
        loaded anew; a connection lost to that is made again.
        """
        socket = select.poll()
        socket.register(self.fileno(), select.POLLIN)
        return bool(socket.poll(0))
