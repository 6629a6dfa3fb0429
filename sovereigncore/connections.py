"""The database connection of the thread that is working, and when to let go of it."""

from __future__ import annotations

from django.db import connection


def release_connection() -> None:
    """Give it back before a long wait: with a pool it is scarce.

    Twelve streams over four connections took three times as long while they held them, and those
    who may wait for a password to be hashed would hold the whole pool. SQLite's belongs to the
    thread and costs nobody anything.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()
