"""The platform with short leases: what is given up after a minute and a half is given up after
seconds, so that a test can stop a process for longer than that."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from django.apps import AppConfig

_LEASE_S = 6.0  # of a query, and of a key until it has one
_SLOT_US, _TICKET_US = 4_000_000, 1_000_000
_LOOKS_EVERY_S = 2.0  # housekeeping, for those that are over


class Hasty(AppConfig):
    """The last app: it changes what the others have made ready."""

    name = "tests.hasty"

    def ready(self) -> None:
        from consciousness import idempotency, settlement
        from consciousness.admission import Admission, Terms, admission
        from monitoring import jobs

        settlement._LEASE = idempotency._LEASE = timedelta(seconds=_LEASE_S)
        settlement._RENEW_S = _LEASE_S / 4
        terms = Terms(lease_us=_SLOT_US, ticket_us=_TICKET_US)
        vars(admission).update(vars(Admission(terms)))  # everybody has this very object
        for name in ("settle_orphans", "forget_idempotent_requests"):
            every = timedelta(seconds=_LOOKS_EVERY_S)
            jobs._jobs[name] = replace(jobs._jobs[name], interval=every)
