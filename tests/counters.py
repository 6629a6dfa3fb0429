"""Counts of limits forgotten between tests.

The platform's own user of Redis may not empty it, so an administrator does: the one of
REDIS_ADMIN_URL, which `tests.servers` sets; a Redis that was given by REDIS_URL alone has one user.
"""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.core.cache import caches

CACHES = ("default", "prompts", "ratelimit", "ratelimit_local")


def forget_counts(*names: str) -> None:
    """Empty those caches, or all: what is in Redis is one database."""
    configured: dict[str, Any] = settings.CACHES
    for name in names or CACHES:
        if "LocMem" in configured[name]["BACKEND"]:
            caches[name].clear()
        else:
            _administrator(configured[name]["LOCATION"]).flushdb()


@functools.cache
def _administrator(url: str) -> redis.Redis:
    """Of the same server and database."""
    user = urlsplit(os.environ.get("REDIS_ADMIN_URL") or url).netloc
    return redis.Redis.from_url(urlsplit(url)._replace(netloc=user).geturl())
