"""What is asked by HTTP: a web process itself, and the address that users reach, by the proxy."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from monitoring.deployment import by_http
from monitoring.deployment.asking import Check
from monitoring.deployment.findings import Finding, failed, not_checked, ok

_CERTIFICATE_LASTS = timedelta(days=14)  # as the alert CertificateExpiring has it
_HSTS_LASTS_S = 180 * 86400
_CLOSED = (401, 403, 404)
_REDIRECTS = (301, 302, 307, 308)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Address:
    """`webs`: web processes themselves; `base`: PUBLIC_BASE_URL; `plain`: plain HTTP there."""

    webs: tuple[str, ...]
    base: str
    plain: str
    is_public_asked: bool
    trusting: ssl.SSLContext

    @property
    def is_secured(self) -> bool:
        return self.base.startswith("https:")

    def ask(self, url: str, **headers: str) -> by_http.Response:
        return by_http.get(url, trusting=self.trusting, headers=headers)

    def ask_web(self, web: str, path: str, **headers: str) -> by_http.Response:
        """Under the name that it answers to, wherever it is."""
        return self.ask(web + path, Host=urlsplit(self.base).netloc, **headers)


def default_web() -> str:
    bind = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.BIND, settings.BIND)  # noqa: S104
    return f"http://{f'[{bind}]' if ':' in bind else bind}:{settings.PORT}"


def default_plain(base: str) -> str:
    host = urlsplit(base).hostname or ""
    return f"http://{f'[{host}]' if ':' in host else host}"


def checks(address: Address) -> list[Check]:
    asked: dict[str, Callable[[Address], Finding]] = {
        "web process": ask_health,
        "metrics token": ask_metrics_token,
        "public address": ask_live,
        "certificate": ask_certificate,
        "redirect to https": ask_redirect,
        "HSTS": ask_hsts,
        "metrics closed": ask_metrics_closed,
    }
    return [
        Check(name=name, ask=partial(_reached, ask, address), asks_elsewhere=True)
        for name, ask in asked.items()
    ]


def _reached(ask: Callable[[Address], Finding], address: Address) -> Finding:
    try:
        return ask(address)
    except by_http.Unreached as error:
        asked = f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
        return failed(f"{asked} does not answer: {type(error).__name__}")


def ask_health(address: Address) -> Finding:
    has: set[str] = set()
    for web in address.webs:
        answer = address.ask_web(web, "/health")
        if answer.status_code not in (200, 503) or "components" not in answer.text:
            return failed(f"{web}/health answers {answer.status_code}")
        components = answer.json()["components"]
        away = sorted(name for name, its in components.items() if its["status"] != "up")
        if away:
            return failed(f"{web} misses {', '.join(away)}")
        has |= set(components)
    return ok(f"{' and '.join(address.webs)} has {', '.join(sorted(has))}")


def ask_metrics_token(address: Address) -> Finding:
    if not settings.METRICS_TOKEN:
        return not_checked("METRICS_TOKEN is not set: only this host may scrape")
    for web in address.webs:
        if (bare := address.ask_web(web, "/metrics").status_code) not in _CLOSED:
            return failed(f"{web}/metrics answers {bare} to who has no token")
        given = address.ask_web(web, "/metrics", Authorization=f"Bearer {settings.METRICS_TOKEN}")
        if given.status_code != 200 or "sovereigncore_" not in given.text:
            return failed(f"{web}/metrics answers {given.status_code} to METRICS_TOKEN")
    return ok(f"{' and '.join(address.webs)}/metrics takes METRICS_TOKEN and nothing less")


def ask_live(address: Address) -> Finding:
    if why := _unasked(address):
        return not_checked(why)
    answer = address.ask(f"{address.base}/live")
    if answer.status_code != 200 or '"alive"' not in answer.text:
        return failed(f"{address.base}/live answers {answer.status_code}")
    return ok(f"{address.base}/live answers")


def ask_certificate(address: Address) -> Finding:
    if why := _unasked(address, needs_tls=True):
        return not_checked(why)
    try:
        ends_at = by_http.certificate_ends_at(address.base, trusting=address.trusting)
    except ssl.SSLCertVerificationError as error:
        return failed(f"it is not to be trusted: {error.verify_message}")
    except OSError as error:
        return failed(f"{address.base} does not answer: {type(error).__name__}")
    if ends_at - timezone.now() < _CERTIFICATE_LASTS:
        return failed(f"it ends at {ends_at:%Y-%m-%d %H:%M} UTC: renew it")
    return ok(f"it is to be trusted until {ends_at:%Y-%m-%d}")


def ask_redirect(address: Address) -> Finding:
    if why := _unasked(address, needs_tls=True):
        return not_checked(why)
    answer = address.ask(f"{address.plain}/login")
    if answer.status_code not in _REDIRECTS:
        return failed(f"{address.plain} answers {answer.status_code} instead of leading to https")
    target = urlsplit(answer.headers.get("Location", ""))
    if (target.scheme, target.hostname) != ("https", urlsplit(address.base).hostname):
        return failed(f"{address.plain} leads to {target.scheme}://{target.netloc}")
    return ok(f"{address.plain} leads to https")


def ask_hsts(address: Address) -> Finding:
    if why := _unasked(address, needs_tls=True):
        return not_checked(why)
    sent = address.ask(f"{address.base}/").headers.get_list("Strict-Transport-Security")
    if len(sent) != 1:
        return failed(f"Strict-Transport-Security is sent {len(sent)} times instead of once")
    lasts = re.search(r"max-age=\"?([0-9]+)", sent[0], flags=re.IGNORECASE)
    if lasts is None or int(lasts[1]) < _HSTS_LASTS_S:
        return failed(f"Strict-Transport-Security does not last {_HSTS_LASTS_S // 86400} days")
    return ok(f"lasts {int(lasts[1]) // 86400} days")


def ask_metrics_closed(address: Address) -> Finding:
    if why := _unasked(address):
        return not_checked(why)
    if not settings.METRICS_TOKEN and urlsplit(address.base).hostname in _LOOPBACK:
        return not_checked("without METRICS_TOKEN this host may read them, and is the only one")
    status = address.ask(f"{address.base}/metrics").status_code
    if status not in _CLOSED:
        return failed(f"{address.base}/metrics answers {status} to everybody")
    return ok(f"{address.base}/metrics answers {status}")


def _unasked(address: Address, *, needs_tls: bool = False) -> str:
    """Why it is not asked, or an empty string."""
    if needs_tls and not address.is_secured:
        return "PUBLIC_BASE_URL is http"
    if not address.is_public_asked:
        return "the public address is not asked; --public asks it"
    return ""
