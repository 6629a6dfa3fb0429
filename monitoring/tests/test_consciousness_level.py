"""`thermal_state`, and the formula of `consciousness_level` in docs/explanation/awareness.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.governor import ThermalState, consciousness_level, thermal_state
from monitoring.sensors import HostReadings
from monitoring.tests.readings import LIMITS, NOTHING_KNOWN, some

NAMES = ("cpu_percent", "memory_percent", "disk_percent", "temp_c")
ROOMY = {"cpu_percent": 1.0, "memory_percent": 10.0, "disk_percent": 20.0}


def level(readings: HostReadings, *, is_engine_up: bool | None = True) -> float:
    return consciousness_level(readings, is_engine_up=is_engine_up, limits=LIMITS)


@pytest.mark.parametrize(
    ("temp_c", "expected"),
    [
        (None, ThermalState.UNKNOWN),
        (0.5, ThermalState.NOMINAL),
        (79.9, ThermalState.NOMINAL),
        (80.0, ThermalState.ELEVATED),
        (91.9, ThermalState.ELEVATED),
        (92.0, ThermalState.CRITICAL),
        (149.0, ThermalState.CRITICAL),
    ],
)
def test_thermal_state(temp_c: float | None, expected: ThermalState) -> None:
    assert thermal_state(some(temp_c=temp_c), LIMITS) is expected


@pytest.mark.parametrize(
    ("readings", "is_engine_up", "expected"),
    [
        (some(**ROOMY, temp_c=30.0), True, 1.0),
        (some(**ROOMY), True, 0.9),  # no temperature sensor
        (some(**ROOMY), False, 0.4),  # and its engine down
        (some(**ROOMY, temp_c=30.0), None, 0.9),
        (NOTHING_KNOWN, None, 0.0),
        (NOTHING_KNOWN, True, 0.6),
        (some(memory_percent=47.5), True, 0.7),  # half the threshold of 95
        (some(memory_percent=71.25), True, 0.45),  # three quarters: half the headroom
        (some(memory_percent=95.0), True, 0.2),
        (some(memory_percent=100.0), True, 0.2),
        (some(cpu_percent=75.0, memory_percent=10.0), True, 0.55),  # the least headroom counts
    ],
)
def test_the_formula(readings: HostReadings, is_engine_up: bool | None, expected: float) -> None:
    assert level(readings, is_engine_up=is_engine_up) == expected


values = {
    "cpu_percent": st.floats(0, 100),
    "memory_percent": st.floats(0, 100),
    "disk_percent": st.floats(0, 100),
    "temp_c": st.floats(0.1, 149),
}
known = st.fixed_dictionaries({}, optional=values)


@given(known, st.none() | st.booleans())
def test_it_is_from_0_to_1(readings: dict[str, float], is_engine_up: bool | None) -> None:
    assert 0 <= level(some(**readings), is_engine_up=is_engine_up) <= 1


@given(known, st.sampled_from(NAMES), st.data())
def test_more_of_anything_never_raises_it(
    readings: dict[str, float], name: str, data: st.DataObject
) -> None:
    less, more = sorted((data.draw(values[name]), data.draw(values[name])))
    at_less, at_more = some(**{**readings, name: less}), some(**{**readings, name: more})
    assert level(at_less) >= level(at_more)


@given(known)
def test_a_dead_engine_never_raises_it(readings: dict[str, float]) -> None:
    assert level(some(**readings), is_engine_up=False) <= level(some(**readings))


@given(known, st.sampled_from(NAMES))
def test_losing_a_sensor_costs_its_share_of_coverage(readings: dict[str, float], name: str) -> None:
    with_it = some(**{**readings, name: 0.1})  # full headroom, so that only coverage differs
    without = some(**{**readings, name: None})
    assert level(with_it) - level(without) == pytest.approx(0.1, abs=0.0011)
