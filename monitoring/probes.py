"""Health probes of the database and the cache."""

from __future__ import annotations

from django.core.cache import caches
from django.db import connection


def ask_database() -> None:
    """Raises django.db.Error when the database does not answer, or is not ours: SQLite makes an
    empty file where one was deleted, and that one answers too."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
            cursor.fetchone()
    finally:
        connection.close()  # the probe's thread ends, and its connection with it


def ask_cache() -> None:
    """Raises when Redis does not answer."""
    caches["default"].get("health-probe")
