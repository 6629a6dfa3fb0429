"""The platform's awareness of itself: the newest readings and the governor's decision on them.

One `Awareness` serves a process. Readings are taken when somebody asks, at most once a second.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from django.conf import settings

from monitoring import governor, health, metrics
from monitoring.governor import GovernorState, Mode, ThermalState
from monitoring.sensors import HostReadings, HostSensors, silicon_id

_FRESH_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SelfState:
    """What the platform knows of itself at one moment."""

    silicon_id: str
    consciousness_level: float
    thermal_state: ThermalState
    cognitive_mode: Mode
    reasons: tuple[str, ...]
    readings: HostReadings
    is_engine_up: bool | None
    is_host_conserving: bool  # by the host itself, or worse: less work, whatever the engine says
    is_host_exhausted: bool  # survival by the host itself: no new work, whatever the engine says
    read_at_s: float

    def described(self) -> dict[str, Any]:
        """The JSON form: an unknown reading is the word, so that nobody takes it for zero."""
        readings = {
            name: "unknown" if value is None else value
            for name, value in asdict(self.readings).items()
        }
        return {
            "silicon_id": self.silicon_id,
            "consciousness_level": self.consciousness_level,
            "thermal_state": self.thermal_state,
            "cognitive_mode": self.cognitive_mode,
            "reasons": list(self.reasons),
            "scope": "this host",
            "readings": readings,
        }


class Awareness:
    def __init__(
        self,
        *,
        read: Callable[[], HostReadings],
        ask_engine: Callable[[], bool | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._ask_engine, self._clock = read, ask_engine, clock
        self._lock = threading.Lock()
        self._governor = GovernorState()
        self._newest: SelfState | None = None

    def current(self) -> SelfState:
        """The state, read anew when the last reading is over a second old.

        One caller reads; others get the last state meanwhile rather than wait for the engine.
        """
        newest = self._newest
        if newest is not None and self._clock() - newest.read_at_s < _FRESH_S:
            return newest
        if not self._lock.acquire(blocking=newest is None):
            assert newest is not None
            return newest
        try:
            again = self._newest
            if again is not None and self._clock() - again.read_at_s < _FRESH_S:
                return again
            return self._refresh()
        finally:
            self._lock.release()

    def _refresh(self) -> SelfState:
        readings, is_engine_up = self._read(), self._ask_engine()
        limits = settings.GOVERNOR
        before = self._newest.cognitive_mode if self._newest else Mode.FULL
        self._governor = governor.decide(
            self._governor,
            readings,
            limits=limits,
            now_s=self._clock(),
        )
        verdict = governor.with_engine(self._governor, is_engine_up)
        if verdict.mode != before:
            log.warning(
                "cognitive_mode_changed",
                before=before,
                now=verdict.mode,
                reasons=verdict.reasons,
            )
        self._newest = SelfState(
            silicon_id=silicon_id(),
            consciousness_level=governor.consciousness_level(
                readings, is_engine_up=is_engine_up, limits=limits
            ),
            thermal_state=governor.thermal_state(readings, limits),
            cognitive_mode=verdict.mode,
            reasons=verdict.reasons,
            is_host_conserving=self._governor.mode is not Mode.FULL,
            is_host_exhausted=self._governor.mode is Mode.SURVIVAL,
            readings=readings,
            is_engine_up=is_engine_up,
            read_at_s=self._clock(),
        )
        _record(self._newest)
        return self._newest


def _record(state: SelfState) -> None:
    for name, value in asdict(state.readings).items():
        # Not left at its last value when the host no longer gives it, and labels cannot be removed
        # where several processes count.
        metrics.HOST_READING.labels(name).set(math.nan if value is None else value)
    metrics.AWARENESS_LEVEL.set(state.consciousness_level)
    for mode in Mode:
        metrics.COGNITIVE_MODE.labels(mode).set(mode == state.cognitive_mode)


def _ask_engine() -> bool | None:
    # A loaded engine may take a moment; a hung one must not hold a request for long.
    return health.registry.ask("engine", deadline_s=1.0)["engine"].is_up


awareness = Awareness(read=HostSensors().read, ask_engine=_ask_engine)
