"""Django's PostgreSQL backend, counted."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base
from django_prometheus.db.common import DatabaseWrapperMixin

from sovereigncore.backends.counting import counting
from sovereigncore.backends.forgetting import ForgettingMixin


class DatabaseWrapper(DatabaseWrapperMixin, ForgettingMixin, base.DatabaseWrapper):  # type: ignore[misc]
    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        params["cursor_factory"] = counting(params["cursor_factory"], self.alias, self.vendor)
        return params

    def create_cursor(self, name: str | None = None) -> Any:
        # Connections make counting cursors by themselves; the mixin's way is not psycopg's.
        return base.DatabaseWrapper.create_cursor(self, name=name)
