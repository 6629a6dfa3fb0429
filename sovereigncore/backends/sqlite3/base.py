"""Django's SQLite backend, counted."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base
from django_prometheus.db.common import DatabaseWrapperMixin

from sovereigncore.backends.counting import counting
from sovereigncore.backends.forgetting import ForgettingMixin


class DatabaseWrapper(DatabaseWrapperMixin, ForgettingMixin, base.DatabaseWrapper):  # type: ignore[misc]
    def create_cursor(self, name: str | None = None) -> Any:
        factory = counting(base.SQLiteCursorWrapper, self.alias, self.vendor)
        return self.connection.cursor(factory=factory)
