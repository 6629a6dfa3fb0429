from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.core.signals import got_request_exception


class SovereignCoreConfig(AppConfig):
    name = "sovereigncore"

    def ready(self) -> None:
        from sovereigncore import checks, middleware  # noqa: F401 - registers the checks

        got_request_exception.connect(middleware.log_unhandled_error)


class SovereignAdminConfig(AdminConfig):
    default_site = "sovereigncore.admin.SovereignAdminSite"
