"""The database connection of the thread that is working, and when to let go of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

T = TypeVar("T")


def release_connection() -> None:
    """Give it back before a long wait: with a pool it is scarce.

    Twelve streams over four connections took three times as long while they held them, and those
    who may wait for a password to be hashed would hold the whole pool. SQLite's belongs to the
    thread and costs nobody anything.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()


def retry_broken(act: Callable[[], T]) -> T:
    """Once more where the connection broke: an answer is not given up for a database that was
    restarted a moment ago. One that is silent is not asked again: it costs as long each time."""
    try:
        return act()
    except (OperationalError, InterfaceError) as error:
        release_connection()
        if _is_silence(error):
            raise
    return act()


def _is_silence(error: Exception) -> bool:
    if connection.vendor != "postgresql":
        return False
    # Here, so that nobody loads PostgreSQL's client who does not use it.
    from sovereigncore.database import ServerSilent

    return isinstance(error.__cause__, ServerSilent)
