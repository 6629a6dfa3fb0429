"""Metrics that the database holds: absent rather than old, and never in the way of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from rest_framework.test import APIClient

from monitoring.stored import StoredMetrics
from tests.log_capture import LogCapture

UP = "sovereigncore_stored_metrics_up"


def gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, "A test's.", value=value)


@pytest.fixture
def stored() -> StoredMetrics:
    return StoredMetrics(deadline_s=0.2, keep_s=60.0)


def told(stored: StoredMetrics) -> str:
    registry = CollectorRegistry()
    registry.register(stored)
    return generate_latest(registry).decode()


def test_what_readers_give_is_told(stored: StoredMetrics) -> None:
    stored.register("numbers", lambda: [gauge("one", 1), gauge("two", 2)])
    lines = told(stored).splitlines()
    assert {"one 1.0", "two 2.0", f'{UP}{{reader="numbers"}} 1.0'} <= set(lines)


def test_a_reading_serves_for_a_while(stored: StoredMetrics) -> None:
    readings = []

    def read() -> Iterable[Metric]:
        readings.append(1)
        return [gauge("one", len(readings))]

    stored.register("numbers", read)
    assert "one 1.0" in told(stored)
    assert "one 1.0" in told(stored)
    stored._keep_s = 0.0
    assert "one 2.0" in told(stored)


def test_a_reader_that_fails_takes_only_its_own_away(
    stored: StoredMetrics, logs: LogCapture
) -> None:
    def fail() -> Iterator[Metric]:
        yield gauge("half", 1)
        raise RuntimeError("with a secret in it")

    stored.register("broken", fail)
    stored.register("numbers", lambda: [gauge("one", 1)])
    lines = told(stored).splitlines()
    assert {"one 1.0", f'{UP}{{reader="broken"}} 0.0', f'{UP}{{reader="numbers"}} 1.0'} <= set(
        lines
    )
    assert "half" not in str(lines)
    (event,) = logs.events("stored_metrics_failed")
    assert (event["reader"], event["error"]) == ("broken", "RuntimeError")


def test_a_failure_is_not_kept(stored: StoredMetrics) -> None:
    outcomes = iter([OSError(), None])

    def read() -> Iterable[Metric]:
        if error := next(outcomes):
            raise error
        return [gauge("one", 1)]

    stored.register("numbers", read)
    assert "one 1.0" not in told(stored)
    assert "one 1.0" in told(stored)


def test_a_reader_that_hangs_costs_the_scrape_a_deadline_and_one_thread(
    stored: StoredMetrics,
) -> None:
    go_on = threading.Event()

    def hang() -> Iterable[Metric]:
        go_on.wait(20)
        return [gauge("late", 1)]

    stored.register("hung", hang)
    stored.register("numbers", lambda: [gauge("one", 1)])
    before = threading.active_count()
    for _ in range(3):
        text = told(stored)
        assert "one 1.0" in text
        assert "late" not in text
        assert f'{UP}{{reader="hung"}} 0.0' in text
    assert threading.active_count() <= before + 1
    go_on.set()
    until_s = time.monotonic() + 10
    while "late 1.0" not in told(stored):
        assert time.monotonic() < until_s


def test_the_exposition_has_them(anonymous: APIClient) -> None:
    assert f"# TYPE {UP} gauge" in anonymous.get("/metrics").content.decode()
