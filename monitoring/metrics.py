"""Every metric of the platform, in one place. Label values are ours, never a caller's text."""

from __future__ import annotations

import functools
import platform

import django
from django.conf import settings
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from monitoring.stored import stored

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60)
# An answer may be written for as long as ENGINE_TOTAL_TIMEOUT_S allows.
_LONG_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 500)

REQUESTS = Histogram(
    "sovereigncore_http_request_duration_seconds",
    "Requests by route name, method and status class, from first byte in to last byte out.",
    ["route", "method", "status_class"],
    buckets=_SECONDS,
)
REQUESTS_IN_PROGRESS = Gauge(
    "sovereigncore_http_requests_in_progress",
    "Requests being answered now, open streams included.",
    multiprocess_mode="livesum",
)
RATE_LIMITED = Counter(
    "sovereigncore_rate_limited_total", "Requests refused by a rate limit, by limit.", ["limit"]
)
LOGINS = Counter("sovereigncore_logins_total", "Login attempts by outcome.", ["outcome"])
PASSWORD_RESETS = Counter(
    "sovereigncore_password_resets_total",
    "Password resets asked for, and those done.",
    ["outcome"],
)
REGISTRATIONS = Counter("sovereigncore_registrations_total", "Accounts registered.")
QUERIES = Counter(
    "sovereigncore_queries_total", "Consciousness queries by final status.", ["status"]
)
CACHE_LOOKUPS = Counter(
    "sovereigncore_answer_cache_lookups_total",
    "Requests that an earlier answer could have served, by result: hit or miss.",
    ["result"],
)
QUOTA_REFUSALS = Counter(
    "sovereigncore_quota_refusals_total", "Requests refused by a daily token quota."
)
TOKENS = Counter("sovereigncore_tokens_total", "Tokens settled, by kind.", ["kind"])
TIME_TO_FIRST_TOKEN = Histogram(
    "sovereigncore_time_to_first_token_seconds",
    "From the engine call to its first token.",
    buckets=_SECONDS,
)
STREAM_DURATION = Histogram(
    "sovereigncore_stream_duration_seconds",
    "Streamed answers by outcome, from their first event to their end.",
    ["outcome"],
    buckets=_LONG_SECONDS,
)
TOKENS_PER_SECOND = Histogram(
    "sovereigncore_tokens_per_second",
    "Tokens a second of each generation, from its first token to its last.",
    buckets=_TOKENS_PER_SECOND,
)
# Each process counts the requests that it answers itself, so that the sum is right whether or not
# the line is shared.
QUEUE_WAITING = Gauge(
    "sovereigncore_queue_waiting",
    "Requests waiting for an engine slot.",
    multiprocess_mode="livesum",
)
SLOTS_BUSY = Gauge(
    "sovereigncore_slots_busy", "Engine slots held by requests.", multiprocess_mode="livesum"
)
QUEUE_WAIT = Histogram(
    "sovereigncore_queue_wait_seconds",
    "From the wish for an engine slot to having it.",
    buckets=_SECONDS,
)
ENGINE_UP = Gauge(
    "sovereigncore_engine_up",
    "Whether requests may be sent to an engine, as last seen; NaN once it is removed.",
    ["engine"],
    multiprocess_mode="mostrecent",
)
ENGINE_FAILURES = Counter(
    "sovereigncore_engine_failures_total",
    "Requests that an engine failed, by reason.",
    ["engine", "reason"],
)
ENGINE_BREAKER_OPEN = Gauge(
    "sovereigncore_engine_breaker_open",
    "Web processes that leave the engine alone because it failed.",
    ["engine"],
    multiprocess_mode="livesum",
)
COMPONENT_UP = Gauge(
    "sovereigncore_component_up",
    "Whether a component answered when last asked.",
    ["component"],
    multiprocess_mode="mostrecent",
)
HOST_READING = Gauge(
    "sovereigncore_host_reading",
    "Host readings; NaN where the host cannot give one.",
    ["reading"],
    multiprocess_mode="mostrecent",
)
AWARENESS_LEVEL = Gauge(
    "sovereigncore_consciousness_level",
    "0 to 1; docs/explanation/awareness.md has the formula.",
    multiprocess_mode="mostrecent",
)
COGNITIVE_MODE = Gauge(
    "sovereigncore_cognitive_mode",
    "1 for the governor's present decision, 0 for the others.",
    ["mode"],
    multiprocess_mode="mostrecent",
)
# Of the processes that live: after an upgrade the old version is gone with its last process.
BUILD_INFO = Gauge(
    "sovereigncore_build_info",
    "1, by the version that runs and what it runs on.",
    ["version", "python", "django"],
    multiprocess_mode="livemax",
)


@functools.lru_cache(maxsize=2048)
def _request_child(route: str, method: str, status_class: str) -> Histogram:
    return REQUESTS.labels(route, method, status_class)


def observe_request(route: str, method: str, status: int, elapsed_s: float) -> None:
    known = method if method in _METHODS else "other"
    _request_child(route, known, f"{status // 100}xx").observe(elapsed_s)


def exposition() -> bytes:
    """All metrics in Prometheus' text format: counted ones summed over the web processes, stored
    ones read from the database."""
    if not settings.PROMETHEUS_MULTIPROC_DIR:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(stored)
    return generate_latest(registry)


REGISTRY.register(stored)
BUILD_INFO.labels(settings.VERSION, platform.python_version(), django.get_version()).set(1)
