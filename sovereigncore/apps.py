from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class SovereignCoreConfig(AppConfig):
    name = "sovereigncore"

    def ready(self) -> None:
        from sovereigncore import checks  # noqa: F401 - registers them


class SovereignAdminConfig(AdminConfig):
    default_site = "sovereigncore.admin.SovereignAdminSite"
