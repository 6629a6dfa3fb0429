"""Slowing down who guesses passwords, without locking out whose they are.

Attempts are counted by name *and* network: an attacker closes the door from where they are, and
the owner still gets in from anywhere else. Unknown names count like known ones, so that being
refused tells nothing.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest

from monitoring import metrics
from sovereigncore import ratelimit

_FREE_FAILURES = 5
_FIRST_DELAY_S = 30
_LONGEST_DELAY_S = 900
_FORGET_AFTER_S = 3600
_PREFIX_LENGTHS = {4: 24, 6: 48}  # what one attacker easily has many addresses of


def network_of(address: str) -> str:
    ip = ip_address(address)
    return str(ip_network((ip, _PREFIX_LENGTHS[ip.version]), strict=False))


def delay_s(failures: int) -> int:
    """Seconds to wait after that many failures in a row: none for five, then twice as long each
    time, up to a quarter of an hour."""
    if failures < _FREE_FAILURES:
        return 0
    doublings = min(failures - _FREE_FAILURES, 20)
    return min(_FIRST_DELAY_S << doublings, _LONGEST_DELAY_S)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One login from one network to one name, which need not exist."""

    request: HttpRequest
    name: str

    @property
    def _key(self) -> str:
        place = f"{self.name}|{network_of(self.request.META['REMOTE_ADDR'])}"
        return hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()

    def check(self) -> None:
        """Raises RateLimited. To be asked before hashing, which is what an attacker would make us
        do."""
        ratelimit.enforce(
            self.request, group="account", rate=settings.RATE_LIMIT_AUTH, caller=self._key
        )
        left_s = (caches["ratelimit"].get(f"blocked:{self._key}") or 0) - time.time()
        if left_s > 0:
            metrics.RATE_LIMITED.labels("account").inc()
            raise ratelimit.RateLimited(retry_after_s=int(left_s) + 1)

    def failed(self) -> None:
        cache = caches["ratelimit"]
        counter = f"failures:{self._key}"
        cache.add(counter, 0, _FORGET_AFTER_S)
        try:
            failures = cache.incr(counter)
        except ValueError:  # it was forgotten this very moment
            failures = 1
        delay = delay_s(failures)
        if delay:
            cache.set(f"blocked:{self._key}", time.time() + delay, delay)

    def succeeded(self) -> None:
        caches["ratelimit"].delete_many([f"failures:{self._key}", f"blocked:{self._key}"])
