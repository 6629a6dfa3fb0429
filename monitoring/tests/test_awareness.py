"""Awareness: read at most once a second, by one caller, and told as it is."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from monitoring.awareness import Awareness, SelfState
from monitoring.governor import RECOVER_AFTER_S, WORSEN_AFTER_S, Mode
from monitoring.sensors import HostReadings
from monitoring.tests.readings import LIMITS, NOTHING_KNOWN, some
from tests.log_capture import LogCapture
from tests.metrics import value_of
from tests.parallel import in_parallel

TIMEOUT_S = 10.0
ROOMY = some(memory_percent=10.0)


class World:
    """What a test makes the sensors, the engine and the clock say."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.readings = ROOMY
        self.is_engine_up: bool | None = True
        self.reads = 0
        self.gate = threading.Event()
        self.gate.set()
        self.awareness = Awareness(
            read=self._read, ask_engine=lambda: self.is_engine_up, clock=lambda: self.now_s
        )

    def _read(self) -> HostReadings:
        self.reads += 1
        assert self.gate.wait(TIMEOUT_S)
        return self.readings

    def at(self, now_s: float) -> SelfState:
        self.now_s = now_s
        return self.awareness.current()


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    settings.GOVERNOR = LIMITS
    world = World()
    yield world
    world.gate.set()


def test_the_host_is_read_at_most_once_a_second(world: World) -> None:
    first = world.at(100.0)
    assert world.at(100.5) is first
    assert world.at(100.99) is first
    assert world.reads == 1
    second = world.at(101.0)
    assert second is not first
    assert world.reads == 2


def test_a_slow_read_holds_up_nobody_else(world: World) -> None:
    before = world.at(100.0)
    world.gate.clear()
    world.now_s = 105.0
    reader = threading.Thread(target=world.awareness.current)
    reader.start()
    until_read = threading.Event()
    while world.reads < 2 and not until_read.wait(0.01):
        assert reader.is_alive()
    assert world.awareness.current() is before  # at once, however long the read takes
    assert world.reads == 2
    world.gate.set()
    reader.join(TIMEOUT_S)
    assert world.awareness.current().read_at_s == 105.0


def test_everybody_waits_for_the_very_first_reading_and_one_takes_it(world: World) -> None:
    states = in_parallel(8, lambda _number: world.awareness.current())
    assert world.reads == 1
    assert {id(state) for state in states} == {id(states[0])}


def test_a_failed_read_does_not_block_the_next(world: World) -> None:
    world.readings = "broken"  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        world.at(100.0)
    world.readings = ROOMY
    assert world.at(100.0).cognitive_mode is Mode.FULL


def test_a_change_of_the_decision_is_logged_once(world: World, logs: LogCapture) -> None:
    world.at(0.0)
    world.readings = some(memory_percent=96.0)
    for second in range(1, 20):
        world.at(float(second))
    world.readings = ROOMY
    for second in range(20, 60):
        world.at(float(second))
    changes = [(e["before"], e["now"]) for e in logs.events("cognitive_mode_changed")]
    assert changes == [("full", "survival"), ("survival", "full")]
    assert logs.events("cognitive_mode_changed")[0]["reasons"] == ["memory 96 percent"]


def test_an_exhausted_host_is_told_from_a_dead_engine(world: World) -> None:
    world.is_engine_up = False
    dead_engine = world.at(0.0)
    assert dead_engine.cognitive_mode is Mode.SURVIVAL
    assert dead_engine.reasons == ("engine down",)
    assert not dead_engine.is_host_exhausted
    world.is_engine_up = True
    assert world.at(1.0).cognitive_mode is Mode.FULL
    world.readings = some(disk_percent=99.0)
    world.at(2.0)
    exhausted = world.at(2.0 + WORSEN_AFTER_S)
    assert exhausted.is_host_exhausted
    assert exhausted.reasons == ("disk 99 percent",)


def test_a_dead_engine_does_not_disturb_the_clocks_of_the_host(world: World) -> None:
    world.readings = some(memory_percent=96.0)
    world.at(0.0)
    world.is_engine_up = False
    world.at(2.0)
    world.is_engine_up = True
    assert world.at(WORSEN_AFTER_S).is_host_exhausted
    world.readings = ROOMY
    world.at(10.0)
    assert world.at(10.0 + RECOVER_AFTER_S).cognitive_mode is Mode.FULL


def test_what_is_unknown_is_called_so(world: World) -> None:
    world.readings = some(memory_percent=10.0, cpu_percent=0.0)
    described = world.at(0.0).described()
    assert described.pop("silicon_id")
    assert described == {
        "consciousness_level": 0.8,
        "thermal_state": "unknown",
        "cognitive_mode": "full",
        "reasons": [],
        "scope": "this host",
        "readings": {
            "cpu_percent": 0.0,  # nothing is not unknown
            "engine_cpu_percent": "unknown",
            "memory_percent": 10.0,
            "memory_used_bytes": "unknown",
            "memory_limit_bytes": "unknown",
            "disk_percent": "unknown",
            "disk_free_bytes": "unknown",
            "temp_c": "unknown",
        },
    }


def gauge(name: str, **labels: str) -> float:
    value = value_of(f"sovereigncore_{name}", **labels)
    assert value is not None
    return value


def test_the_gauges_follow(world: World) -> None:
    world.readings = some(memory_percent=12.5, temp_c=41.0)
    state = world.at(0.0)
    assert gauge("host_reading", reading="memory_percent") == 12.5
    assert gauge("host_reading", reading="temp_c") == 41.0
    assert gauge("consciousness_level") == state.consciousness_level
    assert gauge("cognitive_mode", mode="full") == 1
    world.is_engine_up = False
    world.readings = NOTHING_KNOWN
    world.at(1.0)
    assert gauge("cognitive_mode", mode="full") == 0
    assert gauge("cognitive_mode", mode="survival") == 1
    # A sensor that has gone does not leave its last value behind.
    assert math.isnan(gauge("host_reading", reading="memory_percent"))
    assert math.isnan(gauge("host_reading", reading="temp_c"))
