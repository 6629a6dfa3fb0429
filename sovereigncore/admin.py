"""The admin site: Django's own, with its login limited like every other login."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse

from sovereigncore import ratelimit


class SovereignAdminSite(AdminSite):
    site_title = site_header = "SovereignCore"
    index_title = "Administration"

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            ratelimit.enforce(request, group="auth", rate=settings.RATE_LIMIT_AUTH)
        return super().login(request, extra_context)
