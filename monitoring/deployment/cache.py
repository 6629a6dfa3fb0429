"""Redis: that it answers, and that the platform's user there can do no more than it needs."""

from __future__ import annotations

from urllib.parse import urlsplit

import redis
from django.conf import settings
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from monitoring.deployment.findings import Finding, failed, not_checked, ok

_TIMEOUT_S = 2.0


def ask_redis() -> Finding:
    """The question for its configuration, which Redis should refuse, is then in its `ACL LOG`."""
    if not settings.REDIS_URL:
        return not_checked("REDIS_URL is not set: one web process counts by itself")
    client = redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        driver_info=None,  # or it introduces itself, which our user may not
    )
    with client:
        try:
            client.ping()
        except AuthenticationError:
            return failed("Redis does not know the name or the password in REDIS_URL")
        except RedisError as error:
            return failed(f"Redis does not answer: {type(error).__name__}")
        if (urlsplit(settings.REDIS_URL).username or "default") == "default":
            return failed("the platform is Redis' user `default`: see docs/how-to/redis.md")
        try:
            client.config_get("maxmemory")
        except ResponseError:  # NoPermissionError is one
            return ok("answers; the platform's user cannot configure it")
    return failed("the platform's user can configure Redis: see docs/how-to/redis.md")
