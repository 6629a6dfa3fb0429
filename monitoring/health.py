"""Asking components whether they are well, within a deadline that holds when one hangs.

Apps register probes in `AppConfig.ready()`. A probe that hangs keeps its one thread until it
returns; it is never started a second time meanwhile, so that a hung component costs one thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from monitoring import metrics

DEADLINE_S = 1.5  # /ready and /health promise an answer within 2 s

log = structlog.get_logger(__name__)


class Status(StrEnum):
    UP = "up"
    DOWN = "down"
    TIMEOUT = "timeout"


@dataclass(frozen=True, kw_only=True)
class ComponentHealth:
    status: Status
    latency_ms: float

    @property
    def is_up(self) -> bool:
        return self.status is Status.UP


class _Asking:
    """One run of one probe in a thread of its own."""

    def __init__(self, name: str, probe: Callable[[], None]) -> None:
        self.done = threading.Event()
        self.started_s = time.monotonic()
        self.health: ComponentHealth | None = None
        self.error = ""
        self._probe = probe
        threading.Thread(target=self._run, name=f"probe-{name}", daemon=True).start()

    def _run(self) -> None:
        status = Status.UP
        try:
            self._probe()
        except Exception as error:  # whatever a probe raises means that its component is down
            status = Status.DOWN
            self.error = type(error).__name__
        self.health = ComponentHealth(status=status, latency_ms=self._elapsed_ms())
        self.done.set()

    def _elapsed_ms(self) -> float:
        return round((time.monotonic() - self.started_s) * 1000, 1)

    def result(self, deadline_s: float) -> ComponentHealth:
        """The answer, or TIMEOUT at `deadline_s` (monotonic seconds)."""
        self.done.wait(max(0.0, deadline_s - time.monotonic()))
        return self.health or ComponentHealth(status=Status.TIMEOUT, latency_ms=self._elapsed_ms())


class HealthRegistry:
    def __init__(self) -> None:
        self._probes: dict[str, Callable[[], None]] = {}
        self._asking: dict[str, _Asking] = {}
        self._newest: dict[str, Status] = {}
        self._lock = threading.Lock()

    def register(self, name: str, probe: Callable[[], None]) -> None:
        """`probe` returns when the component answered and raises when it did not."""
        self._probes[name] = probe

    def ask(self, *names: str, deadline_s: float = DEADLINE_S) -> dict[str, ComponentHealth]:
        """Ask the named components, all when none is named, at once and within `deadline_s`."""
        until = time.monotonic() + deadline_s
        asked = {name: self._ask_one(name) for name in names or self._probes}
        answers = {name: asking.result(until) for name, asking in asked.items()}
        for name, health in answers.items():
            self._record(name, health, asked[name].error)
        return answers

    def _record(self, name: str, health: ComponentHealth, error: str) -> None:
        metrics.COMPONENT_UP.labels(name).set(health.is_up)
        with self._lock:
            before, self._newest[name] = self._newest.get(name, Status.UP), health.status
        if before != health.status:  # one line a change, not one a question
            log.warning("component_changed", component=name, status=health.status, error=error)

    def _ask_one(self, name: str) -> _Asking:
        with self._lock:
            current = self._asking.get(name)
            if current is None or current.done.is_set():
                current = self._asking[name] = _Asking(name, self._probes[name])
            return current


registry = HealthRegistry()
