from __future__ import annotations

from datetime import timedelta

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import authentication  # noqa: F401 - registers its OpenAPI extension
        from accounts.maintenance import flush_sessions
        from monitoring import jobs

        jobs.register("flush_sessions", flush_sessions, interval=timedelta(hours=1))
