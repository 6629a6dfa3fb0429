"""Rate limits: django-ratelimit counts, this module names the caller and tells them.

Counts live in Redis, shared by all processes, or in this process when it is the only one. When
Redis is away each process counts for itself until it is back: limits loosen, they never vanish.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import structlog
from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponseBase
from django_prometheus.cache.backends.redis import RedisCache
from django_ratelimit.core import get_usage
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from monitoring import metrics
from sovereigncore.errors import ServiceError

if TYPE_CHECKING:
    # Views import REST framework's settings, which import this module.
    from rest_framework.views import APIView

log = structlog.get_logger(__name__)


class RateLimited(ServiceError):
    status = 429
    code = "rate_limited"
    default_detail = "Too many requests. See Retry-After."


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One caller's standing in one window. `reset_s` is never shorter than the truth."""

    group: str
    limit: int
    window_s: int
    remaining: int
    reset_s: int
    is_exceeded: bool


_PERIODS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def window_s(rate: str) -> int:
    """The length of the window of a rate such as `100/m` or `5/10m`, in seconds."""
    period = rate.partition("/")[2]
    return int(period[:-1] or 1) * _PERIODS_S[period[-1]]


def enforce(request: HttpRequest, *, group: str, rate: str, caller: str = "") -> Usage:
    """Count this request against `caller`, by default its address (an IPv6 one by its /64).

    Raises RateLimited when that is one too many. The response's headers tell the usage; of several
    limits, the one that is nearest.
    """
    counted = get_usage(
        request,
        group=group,
        key=(lambda _group, _request: caller) if caller else "ip",
        rate=rate,
        increment=True,
    )
    usage = Usage(
        group=group,
        limit=counted["limit"],
        window_s=window_s(rate),
        remaining=max(0, counted["limit"] - counted["count"]),
        # The window ends after its last second, which `time_left` counts as 0.
        reset_s=max(counted["time_left"], 0) + 1,
        is_exceeded=counted["should_limit"],
    )
    known: Usage | None = request.META.get("RATE_LIMIT_USAGE")
    if known is None or usage.remaining < known.remaining:
        request.META["RATE_LIMIT_USAGE"] = usage
    if usage.is_exceeded:
        metrics.RATE_LIMITED.labels(group).inc()
        raise RateLimited(retry_after_s=usage.reset_s)
    return usage


class TokenStanding(Protocol):
    """Where a caller stands in its quota of tokens; `limit` 0 is none."""

    @property
    def limit(self) -> int: ...

    @property
    def remaining(self) -> int: ...

    @property
    def reset_s(self) -> int: ...


def tell_tokens(request: HttpRequest, standing: TokenStanding) -> None:
    """Let the response's headers tell it."""
    request.META["TOKEN_STANDING"] = standing


class DefaultRateLimit(BaseThrottle):
    """`RATE_LIMIT_DEFAULT`, by account when there is one, whatever credential it came with."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        caller = f"user:{request.user.pk}" if request.user.is_authenticated else ""
        enforce(request._request, group="default", rate=settings.RATE_LIMIT_DEFAULT, caller=caller)
        return True


class RateLimitHeadersMiddleware:
    """Tells callers where they stand: the IETF draft's headers and the ones OpenAI clients read."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = self.get_response(request)
        usage: Usage | None = request.META.get("RATE_LIMIT_USAGE")
        if usage is not None:
            response["RateLimit-Policy"] = f'"{usage.group}";q={usage.limit};w={usage.window_s}'
            response["RateLimit"] = f'"{usage.group}";r={usage.remaining};t={usage.reset_s}'
            response["x-ratelimit-limit-requests"] = str(usage.limit)
            response["x-ratelimit-remaining-requests"] = str(usage.remaining)
            response["x-ratelimit-reset-requests"] = f"{usage.reset_s}s"
        standing: TokenStanding | None = request.META.get("TOKEN_STANDING")
        if standing is not None and standing.limit:
            response["x-ratelimit-limit-tokens"] = str(standing.limit)
            response["x-ratelimit-remaining-tokens"] = str(standing.remaining)
            response["x-ratelimit-reset-tokens"] = f"{standing.reset_s}s"
        return response


class FailoverRedisCache(RedisCache):  # type: ignore[misc]
    """django-redis that counts in this process while Redis does not answer.

    After a failure Redis is left alone for `PAUSE_S`, so that an outage costs one timeout every
    few seconds and not one a request.
    """

    PAUSE_S: ClassVar[float] = 2.0
    _paused_until: ClassVar[float] = 0.0

    def _with_failover(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= FailoverRedisCache._paused_until:
            try:
                return getattr(super(), operation)(*args, **kwargs)
            except (ConnectionInterrupted, RedisError, OSError):
                FailoverRedisCache._paused_until = time.monotonic() + self.PAUSE_S
                log.warning("redis_unavailable", cache="ratelimit")
        return self._without_redis(operation, *args, **kwargs)

    def _without_redis(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(caches["ratelimit_local"], operation)(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_failover("add", *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_failover("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_failover("set", *args, **kwargs)

    def delete_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_failover("delete_many", *args, **kwargs)

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        # Both `add` and `incr` run for one count; when Redis goes or comes back between the two,
        # the key is missing where `incr` looks, and the count starts there.
        try:
            return self._with_failover("incr", *args, **kwargs)
        except ValueError:
            self._with_failover("add", args[0], 1, settings.RATELIMIT_FAILOVER_TTL_S)
            return 1


class ForgetfulRedisCache(FailoverRedisCache):
    """The same for what all processes have to know: while Redis does not answer, nothing is known,
    and every operation gives None."""

    def _without_redis(self, operation: str, *args: Any, **kwargs: Any) -> None:
        return None
