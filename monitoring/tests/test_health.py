"""Health probes: an answer within the deadline, whatever a component does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from monitoring.health import HealthRegistry, Status
from tests.log_capture import LogCapture
from tests.metrics import value_of
from tests.parallel import in_parallel

TIMEOUT_S = 10.0
SHORT_S = 0.05


class Component:
    """Answers, refuses or hangs, as it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        assert self.answers.wait(TIMEOUT_S)
        if self.error:
            raise self.error


@pytest.fixture
def component() -> Iterator[Component]:
    component = Component()
    yield component
    component.answers.set()


@pytest.fixture
def registry(component: Component) -> HealthRegistry:
    registry = HealthRegistry()
    registry.register("thing", component)
    return registry


def probe_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "probe-thing"]


def status(registry: HealthRegistry, *, deadline_s: float = TIMEOUT_S) -> Status:
    return registry.ask("thing", deadline_s=deadline_s)["thing"].status


def test_a_component_that_answers_is_up(registry: HealthRegistry) -> None:
    health = registry.ask(deadline_s=TIMEOUT_S)["thing"]
    assert health.status is Status.UP
    assert health.is_up
    assert 0 <= health.latency_ms < TIMEOUT_S * 1000


def test_a_component_that_raises_is_down_until_it_does_not(
    registry: HealthRegistry, component: Component, logs: LogCapture
) -> None:
    component.error = ValueError("password=hunter2")
    assert status(registry) is Status.DOWN
    assert status(registry) is Status.DOWN
    component.error = None
    assert status(registry) is Status.UP
    assert status(registry) is Status.UP
    changes = [(e["status"], e["error"]) for e in logs.events("component_changed")]
    assert changes == [("down", "ValueError"), ("up", "")]  # one line a change
    assert "hunter2" not in logs.text


def test_a_component_that_hangs_costs_one_thread_and_no_more_than_the_deadline(
    registry: HealthRegistry, component: Component
) -> None:
    component.answers.clear()
    for _ in range(20):
        started_s = time.monotonic()
        health = registry.ask("thing", deadline_s=SHORT_S)["thing"]
        assert time.monotonic() - started_s < TIMEOUT_S
        assert health.status is Status.TIMEOUT
        assert not health.is_up
    assert component.asked == 1
    assert len(probe_threads()) == 1
    assert registry.ask("thing", deadline_s=SHORT_S)["thing"].latency_ms >= 20 * SHORT_S * 1000


def test_many_who_ask_at_once_share_one_probe(
    registry: HealthRegistry, component: Component
) -> None:
    component.answers.clear()
    answers = in_parallel(16, lambda _number: status(registry, deadline_s=SHORT_S))
    assert answers == [Status.TIMEOUT] * 16
    assert component.asked == 1
    assert len(probe_threads()) == 1


def test_a_component_that_hung_is_asked_anew_once_it_answers(
    registry: HealthRegistry, component: Component
) -> None:
    component.answers.clear()
    assert status(registry, deadline_s=SHORT_S) is Status.TIMEOUT
    component.answers.set()
    assert status(registry) is Status.UP
    assert status(registry) is Status.UP
    assert component.asked >= 2
    component.error = OSError()
    assert status(registry) is Status.DOWN


def test_a_component_that_hangs_does_not_delay_the_others(
    registry: HealthRegistry, component: Component
) -> None:
    component.answers.clear()
    registry.register("other", lambda: None)
    answers = registry.ask(deadline_s=SHORT_S)
    assert {name: health.status for name, health in answers.items()} == {
        "thing": Status.TIMEOUT,
        "other": Status.UP,
    }


def test_components_are_asked_at_once_and_not_one_after_another() -> None:
    registry, meeting = HealthRegistry(), threading.Barrier(3)

    def probe() -> None:
        meeting.wait(TIMEOUT_S)

    for name in ("a", "b", "c"):
        registry.register(name, probe)
    answers = registry.ask(deadline_s=TIMEOUT_S)
    assert {health.status for health in answers.values()} == {Status.UP}


def test_only_those_named_are_asked(registry: HealthRegistry, component: Component) -> None:
    registry.register("other", lambda: None)
    assert set(registry.ask("other", deadline_s=TIMEOUT_S)) == {"other"}
    assert component.asked == 0


def test_the_gauge_says_whether_it_answered(registry: HealthRegistry, component: Component) -> None:
    def gauge() -> float | None:
        return value_of("sovereigncore_component_up", component="thing")

    status(registry)
    assert gauge() == 1
    component.error = OSError()
    status(registry)
    assert gauge() == 0
    component.error = None
    status(registry)
    assert gauge() == 1
    component.answers.clear()
    status(registry, deadline_s=SHORT_S)
    assert gauge() == 0
