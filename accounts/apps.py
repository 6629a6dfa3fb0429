from __future__ import annotations

from datetime import timedelta

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import actions, authentication  # noqa: F401 - registers its OpenAPI extension
        from accounts.maintenance import flush_credentials
        from monitoring import audit, jobs

        audit.register(actions.ACTIONS)
        jobs.register("flush_credentials", flush_credentials, interval=timedelta(hours=1))
