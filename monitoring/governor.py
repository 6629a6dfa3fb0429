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
# Readings are taken when somebody asks, be it Prometheus every 15 s: those further apart tell
# nothing of the time between them.
UNSEEN_AFTER_S = 30.0
# The way back is wider: below the threshold by this many percent points or degrees.
RECOVERY_MARGIN = 5.0


@dataclass(frozen=True, kw_only=True)
class GovernorState:
    """The mode in force, and why.

    `since_s` tells of each mode that the picture now reaches or passes, since when (monotonic
    seconds) it has done so without a break; `read_at_s`, when somebody last looked.
    """

    mode: Mode = Mode.FULL
    reasons: tuple[str, ...] = ()
    since_s: Mapping[Mode, float] = field(default_factory=dict)
    read_at_s: float | None = None


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
    picture, reasons = _picture(readings, limits, margin=0.0)
    eased, eased_reasons = _picture(readings, limits, margin=RECOVERY_MARGIN)
    mode, since_s = _follow(state, picture=picture, eased=eased, now_s=now_s)
    if mode is Mode.FULL:
        reasons = ()
    elif _rank(picture) < _rank(mode):  # on the way back, or inside the margin of it
        reasons = state.reasons if _rank(eased) < _rank(mode) else eased_reasons
    return GovernorState(mode=mode, reasons=reasons, since_s=since_s, read_at_s=now_s)


def _follow(
    state: GovernorState, *, picture: Mode, eased: Mode, now_s: float
) -> tuple[Mode, dict[Mode, float]]:
    """The mode, and the clocks of those beyond it.

    Each mode has a clock of its own: a picture that flickers between two worse modes is worse all
    the time. Worse and better clocks never run together, for `eased` is no better than `picture`.
    """
    here = _rank(state.mode)
    since_s = {
        mode: _begun_s(state, mode, now_s=now_s)
        for mode in Mode
        if here < _rank(mode) <= _rank(picture) or _rank(eased) <= _rank(mode) < here
    }
    new = state.mode
    for mode in sorted(since_s, key=lambda mode: abs(_rank(mode) - here)):
        patience_s = WORSEN_AFTER_S if _rank(mode) > here else RECOVER_AFTER_S
        if now_s - since_s[mode] < patience_s:
            break
        new = mode
        del since_s[mode]
    return new, since_s


def _begun_s(state: GovernorState, mode: Mode, *, now_s: float) -> float:
    """Since when the picture is as good or bad as `mode`.

    Where nobody looked for long, what is worse begins now. What is better is taken to have begun
    when somebody last looked: a host that recovered meanwhile does not refuse its first caller.
    """
    seen_s = now_s if state.read_at_s is None else state.read_at_s
    if now_s - seen_s <= UNSEEN_AFTER_S:
        return state.since_s.get(mode, now_s)
    return now_s if _rank(mode) > _rank(state.mode) else state.since_s.get(mode, seen_s)


def _rank(mode: Mode) -> int:
    return _SEVERITY[mode]


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
                mode = max(mode, level, key=_rank)
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
