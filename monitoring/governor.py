"""The governor: readings and limits in, decision out. Pure, so that every rule can be tested.

Inference is meant to use the CPU: the engine's own time is not in `cpu_percent`, and CPU pressure
alone never goes beyond CONSERVING. A reading that is unknown (None) decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from monitoring.sensors import HostReadings


class Mode(StrEnum):
    FULL = "full"
    CONSERVING = "conserving"
    SURVIVAL = "survival"


class ThermalState(StrEnum):
    NOMINAL = "nominal"
    ELEVATED = "elevated"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


_SEVERITY = {Mode.FULL: 0, Mode.CONSERVING: 1, Mode.SURVIVAL: 2}

# How long a worse (or better) picture must last before the mode follows it.
WORSEN_AFTER_S = 5.0
RECOVER_AFTER_S = 15.0
# The way back is wider: below the threshold by this many percent points or degrees.
RECOVERY_MARGIN = 5.0


@dataclass(frozen=True, kw_only=True)
class GovernorState:
    """The mode in force, and since when (monotonic seconds) the picture has pointed elsewhere."""

    mode: Mode = Mode.FULL
    pending: Mode | None = None
    pending_since_s: float = 0.0
    reasons: tuple[str, ...] = field(default=())


def decide(
    state: GovernorState,
    readings: HostReadings,
    *,
    limits: Mapping[str, float],
    now_s: float,
) -> GovernorState:
    """The next state, by the host alone.

    A change needs its picture to last; a way back also needs a margin.
    """
    wanted, reasons = _picture(readings, limits, margin=0.0)
    if _SEVERITY[wanted] < _SEVERITY[state.mode]:
        wanted, reasons = _picture(readings, limits, margin=RECOVERY_MARGIN)
        if _SEVERITY[wanted] > _SEVERITY[state.mode]:
            wanted = state.mode  # inside the margin: neither worse nor better
    if wanted == state.mode:
        return GovernorState(mode=state.mode, reasons=reasons)
    since = state.pending_since_s if state.pending == wanted else now_s
    worse = _SEVERITY[wanted] > _SEVERITY[state.mode]
    if now_s - since >= (WORSEN_AFTER_S if worse else RECOVER_AFTER_S):
        return GovernorState(mode=wanted, reasons=reasons)
    return GovernorState(
        mode=state.mode, pending=wanted, pending_since_s=since, reasons=state.reasons
    )


def _picture(
    readings: HostReadings, limits: Mapping[str, float], *, margin: float
) -> tuple[Mode, tuple[str, ...]]:
    """What the readings alone ask for, and why."""
    mode, reasons = Mode.FULL, []
    for name, value in (
        ("cpu", readings.cpu_percent),
        ("memory", readings.memory_percent),
        ("disk", readings.disk_percent),
        ("temp", readings.temp_c),
    ):
        if value is None:
            continue
        unit = "c" if name == "temp" else "percent"
        for level, word in ((Mode.SURVIVAL, "survive"), (Mode.CONSERVING, "conserve")):
            limit = limits.get(f"{name}_{word}_{unit}")
            if limit is not None and value >= limit - margin:
                reasons.append(f"{name} {value:g} {unit}")
                mode = max(mode, level, key=_SEVERITY.__getitem__)
                break
    return mode, tuple(reasons)


def with_engine(state: GovernorState, is_engine_up: bool | None) -> GovernorState:
    """`state` as long as the engine answers, SURVIVAL while it does not.

    At once in both directions: a dead engine needs no proof over time, and one that is back must
    be used again within seconds.
    """
    if is_engine_up is not False:
        return state
    return GovernorState(mode=Mode.SURVIVAL, reasons=(*state.reasons, "engine down"))


def thermal_state(readings: HostReadings, limits: Mapping[str, float]) -> ThermalState:
    if readings.temp_c is None:
        return ThermalState.UNKNOWN
    if readings.temp_c >= limits["temp_survive_c"]:
        return ThermalState.CRITICAL
    if readings.temp_c >= limits["temp_conserve_c"]:
        return ThermalState.ELEVATED
    return ThermalState.NOMINAL


def consciousness_level(
    readings: HostReadings, *, is_engine_up: bool | None, limits: Mapping[str, float]
) -> float:
    """How well the platform knows its state and how much room it has: 0 to 1.

    Half is coverage: the share of the five readings (CPU, memory, disk, temperature, engine) that
    are known. Half is headroom: the least, over the known ones, of 1 at half the harshest
    threshold or below, falling in a straight line to 0 at that threshold; a dead engine is 0.
    """
    headrooms = [
        None if value is None else min(1.0, max(0.0, 2 * (1 - value / limit)))
        for value, limit in (
            (readings.cpu_percent, 100.0),  # CPU has no harshest threshold but saturation
            (readings.memory_percent, limits["memory_survive_percent"]),
            (readings.disk_percent, limits["disk_survive_percent"]),
            (readings.temp_c, limits["temp_survive_c"]),
        )
    ]
    headrooms.append(None if is_engine_up is None else float(is_engine_up))
    known = [value for value in headrooms if value is not None]
    coverage = len(known) / len(headrooms)
    return round(0.5 * coverage + 0.5 * min(known, default=0.0), 3)
