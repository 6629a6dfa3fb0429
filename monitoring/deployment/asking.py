"""The checks that there are, and asking one of them so that it always ends with a finding."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from django.db import DatabaseError, connection

from monitoring.deployment.findings import Finding, failed

# Of a check that asks over the network: longer than its own timeouts, which a name server that says
# nothing knows nothing of.
DEADLINE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """`asks_elsewhere`: over the network, other than the database, whose own deadlines hold."""

    name: str
    ask: Callable[[], Finding]
    asks_elsewhere: bool = False


_checks: dict[str, Check] = {}


def register(name: str, ask: Callable[[], Finding], *, asks_elsewhere: bool = False) -> None:
    _checks[name] = Check(name=name, ask=ask, asks_elsewhere=asks_elsewhere)


def registered() -> list[Check]:
    return list(_checks.values())


def run(check: Check, *, deadline_s: float = DEADLINE_S) -> Finding:
    """Never raises: what a check does not expect is a failure, too."""
    if not check.asks_elsewhere:
        return _answer(check)
    answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(_answer(check))
        finally:
            connection.close()  # this thread's own

    threading.Thread(target=answer, name=f"check-{check.name}", daemon=True).start()
    try:
        return answers.get(timeout=deadline_s)
    except queue.Empty:
        return failed(f"no answer within {deadline_s:g} s")


def _answer(check: Check) -> Finding:
    try:
        return check.ask()
    except DatabaseError as error:
        name = type(error).__name__
        return failed(f"the database does not answer, or was never migrated: {name}")
    except Exception as error:  # by its name alone: its text may hold what a server repeated
        return failed(f"could not be asked: {type(error).__name__}")
