"""Django's PostgreSQL backend, counted, and with connections that live."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base
from django_prometheus.db.common import DatabaseWrapperMixin

from sovereigncore.backends.counting import counting
from sovereigncore.backends.forgetting import ForgettingMixin
from sovereigncore.database import BoundedConnection


class DatabaseWrapper(DatabaseWrapperMixin, ForgettingMixin, base.DatabaseWrapper):  # type: ignore[misc]
    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        params["cursor_factory"] = counting(params["cursor_factory"], self.alias, self.vendor)
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """One that the server has not ended: after its restart the pool holds no others.

        CONN_HEALTH_CHECKS would ask the server each time, and psycopg_pool waits for a second after
        each dead connection, so that a pool of three of them is a failure all the same.
        """
        connection = super().get_new_connection(conn_params)
        # No more can have been in there. What is new and says something all the same is used.
        for _ in range(self.pool.max_size if self.pool else 0):
            if not isinstance(connection, BoundedConnection) or not connection.was_ended:
                break
            connection.close()
            self.pool.putconn(connection)  # which replaces it
            connection = super().get_new_connection(conn_params)
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        # Connections make counting cursors by themselves; the mixin's way is not psycopg's.
        return base.DatabaseWrapper.create_cursor(self, name=name)
