"""System checks: settings that start, and that an operator should hear about all the same.

Ids are stable: SC.W001 and so on. What must not start at all is refused in `settings.py`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Tags, register


@register(Tags.security, deploy=True)
def deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    host = urlsplit(settings.PUBLIC_BASE_URL).hostname or ""
    on_loopback = host in ("localhost", "127.0.0.1", "::1")
    if "*" in settings.ALLOWED_HOSTS:
        found.append(checks.Warning("ALLOWED_HOSTS accepts every host name.", id="SC.W001"))
    elif not any(_matches(host, pattern) for pattern in settings.ALLOWED_HOSTS):
        found.append(
            checks.Warning(
                f"ALLOWED_HOSTS lacks the host of PUBLIC_BASE_URL, {host}.", id="SC.W002"
            )
        )
    if not settings.SERVED_BY_TLS and not on_loopback:
        found.append(
            checks.Warning("PUBLIC_BASE_URL is http: passwords travel in the clear.", id="SC.W003")
        )
    if settings.SERVED_BY_TLS and not settings.TRUSTED_PROXIES:
        found.append(
            checks.Warning(
                "PUBLIC_BASE_URL is https but TRUSTED_PROXIES is empty.",
                hint="Name the proxy that ends TLS, or every request is redirected for ever.",
                id="SC.W004",
            )
        )
    if not settings.METRICS_TOKEN and not on_loopback:
        found.append(checks.Warning("METRICS_TOKEN is not set.", id="SC.W005"))
    if settings.API_DOCS and not on_loopback:
        found.append(checks.Warning("API_DOCS shows the API to everybody.", id="SC.W006"))
    if not settings.EMAIL_URL and not on_loopback:
        found.append(
            checks.Warning(
                "EMAIL_URL is not set: mails are files in DATA_DIR/outbox, and nobody gets one.",
                id="SC.W007",
            )
        )
    return found


def _matches(host: str, pattern: str) -> bool:
    bare = pattern.strip("[]").lower()
    return host == bare or (bare.startswith(".") and ("." + host).endswith(bare))
