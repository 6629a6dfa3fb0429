"""Liveness, readiness, health and metrics. For probes and scrapers: no account, no envelope."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from monitoring import health, metrics
from monitoring.awareness import awareness


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The process answers. Touches no dependency, so that an outage elsewhere restarts nothing."""
    return JsonResponse({"status": "alive"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Whether to send work here: 503 without the database or the engine."""
    components = health.registry.ask("database", "engine")
    is_ready = all(component.is_up for component in components.values())
    return _report("ready" if is_ready else "not ready", components, 200 if is_ready else 503)


@require_safe
def full(request: HttpRequest) -> HttpResponse:
    """Every component really asked: `healthy`, `degraded`, or 503 without the database."""
    components = health.registry.ask()
    if not components["database"].is_up:
        return _report("unhealthy", components, 503)
    is_whole = all(component.is_up for component in components.values())
    return _report("healthy" if is_whole else "degraded", components, 200)


def _report(
    status: str, components: dict[str, health.ComponentHealth], http_status: int
) -> HttpResponse:
    body = {
        "status": status,
        "version": settings.VERSION,
        "timestamp": timezone.now().isoformat(),
        "components": {
            name: {"status": component.status, "latency_ms": component.latency_ms}
            for name, component in components.items()
        },
    }
    response = JsonResponse(body, status=http_status)
    response["Cache-Control"] = "no-store"
    if http_status == 503:
        response["Retry-After"] = "2"
    return response


@require_safe
def exposition(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format, for `METRICS_TOKEN`; without one set, for this host only."""
    if not _may_scrape(request):
        refusal = HttpResponse("METRICS_TOKEN required.\n", status=401, content_type="text/plain")
        refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    # Bring the gauges of components and of the host up to date, which are set where somebody asks.
    health.registry.ask()
    awareness.current()
    return HttpResponse(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


def _may_scrape(request: HttpRequest) -> bool:
    if settings.METRICS_TOKEN:
        expected = f"Bearer {settings.METRICS_TOKEN}"
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), expected.encode())
    # A proxy on this host is a loopback peer too: a forwarding header gives it away.
    if request.META["WAS_FORWARDED"]:
        return False
    try:
        return ip_address(request.META["PEER_ADDR"]).is_loopback
    except ValueError:
        return False
