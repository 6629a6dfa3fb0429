"""How asking for a slot can end without one."""

from __future__ import annotations

from sovereigncore.api import ServiceError


class QueueFull(ServiceError):
    status = 503
    code = "queue_full"
    default_detail = "Too many requests are waiting for the engine. Try again shortly."


class QueueTimeout(ServiceError):
    status = 503
    code = "queue_timeout"
    default_detail = "No engine slot came free in time. Try again shortly."


class TooManyWaiting(ServiceError):
    status = 429
    code = "too_many_waiting"
    default_detail = "Too many of your requests are waiting already. Let some of them finish."


class CallerGone(Exception):
    """The caller left while waiting; there is nobody to answer."""
