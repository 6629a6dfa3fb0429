"""An hour of ordinary use: nothing grows that should not.

`make soak`; SOAK_MINUTES=15 is a shorter one, whose slope says less.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from dataclasses import dataclass

import psutil
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.grown import BACK_WITHIN_S, Grown, grown, within
from tests.chaos.people import Person

pytestmark = pytest.mark.soak

_MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
_USERS = 20
_PAUSE_S = 0.5
_SAMPLE_EVERY_S = 10.0
# Of the time, and without pauses: as many threads as there can be are made, each with a connection
# and buffers of its own. What comes after must not be more.
_WARM_UP_S = _MINUTES * 60 / 3
# As many people do not always have as many connections; one kept of 20,000 answers shows.
_FLUCTUATION = 0.05
_MEGABYTE = 1024 * 1024
_RSS_SLOPE_MB_PER_H = 1.0  # SECURITY's line


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Of all web processes together."""

    at_s: float
    rss_mb: float
    files: int
    connections: int


def take_sample(parts: Grown, began_s: float) -> Sample:
    workers = psutil.Process(parts.platform.pid).children()
    return Sample(
        at_s=time.monotonic() - began_s,
        rss_mb=sum(worker.memory_info().rss for worker in workers) / _MEGABYTE,
        files=sum(worker.num_fds() for worker in workers),
        connections=database_connections(parts),
    )


def database_connections(parts: Grown) -> int:
    with psycopg.connect(parts.database.superuser_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'sovereigncore%'"
        ).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def slots_in_use(parts: Grown) -> float:
    with parts.platform.client() as http:
        text = http.get("/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "sovereigncore_slots_busy":
                return float(sample.value)
    raise AssertionError("no metric tells the slots in use")


def slope_per_h(samples: list[Sample]) -> float:
    """Megabytes of RSS an hour, by the line that fits best."""
    line = statistics.linear_regression(
        [sample.at_s for sample in samples], [sample.rss_mb for sample in samples]
    )
    return line.slope * 3600


def test_nothing_grows() -> None:
    names = [f"person{number}" for number in range(_USERS)]
    with grown(names, token_delay_s=0.002) as parts:
        workers = {worker.pid for worker in psutil.Process(parts.platform.pid).children()}
        people = [Person(parts, name, seed) for seed, name in enumerate(names)]
        for person in people:
            person.start()
        began_s = time.monotonic()
        samples = []
        while time.monotonic() - began_s < _MINUTES * 60:
            time.sleep(_SAMPLE_EVERY_S)
            samples.append(take_sample(parts, began_s))
            if samples[-1].at_s > _WARM_UP_S:
                for person in people:
                    person.pause_s = _PAUSE_S
        for person in people:
            person.end()
        for person in people:
            person.join(60)
            assert not person.is_alive()
        within(BACK_WITHIN_S, lambda: slots_in_use(parts) == 0, "all slots free")
        assert {each.pid for each in psutil.Process(parts.platform.pid).children()} == workers
    told = sum((person.told for person in people), Counter[str]())
    assert [found for person in people for found in person.foreign] == []
    warm = [sample for sample in samples if sample.at_s > _WARM_UP_S]
    half = len(warm) // 2
    slope = slope_per_h(warm)
    print(f"{told['answers']} answers; {dict(told)}")
    print("RSS by tenths:", *(f"{sample.rss_mb:.1f}" for sample in samples[:: len(samples) // 10]))
    print(f"RSS {warm[0].rss_mb:.1f} to {warm[-1].rss_mb:.1f} MB: {slope:+.2f} MB/h")
    for name in ("files", "connections"):
        counts = [getattr(sample, name) for sample in warm]
        before, after = statistics.median(counts[:half]), statistics.median(counts[half:])
        print(f"{name}: {min(counts)} to {max(counts)}, by halves {before} and {after}")
        assert after <= before * (1 + _FLUCTUATION), name
    assert told["500"] == told["broken"] == 0
    assert slope < _RSS_SLOPE_MB_PER_H
