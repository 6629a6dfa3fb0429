"""Metrics that the database holds: what the worker did, what waits in queues, who was there.

Processes that share nothing but the database are seen through it, at the moment of the scrape.
Apps register readers in `AppConfig.ready()`. A reader that fails or hangs costs the scrape its own
metrics alone: they are absent then rather than old, and `sovereigncore_stored_metrics_up` is 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import structlog
from django.db import connection
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Read = Callable[[], Iterable[Metric]]

DEADLINE_S = 2.0
KEEP_S = 5.0  # scrapers and curious people together cost no more than one reading in this time
KEEP_COUNTS_S = 60.0  # of readers that count whole tables, whose trends are what is asked for

log = structlog.get_logger(__name__)


class _Reading:
    """One run of one reader in a thread of its own."""

    def __init__(self, name: str, read: Read) -> None:
        self.started_s = time.monotonic()
        self.done = threading.Event()
        self.found: list[Metric] | None = None
        self._name, self._read = name, read
        threading.Thread(target=self._run, name=f"metrics-{name}", daemon=True).start()

    def is_over(self, keep_s: float) -> bool:
        """Whether there is to be another: a failure is not kept."""
        if not self.done.is_set():
            return False
        return self.found is None or time.monotonic() - self.started_s >= keep_s

    def _run(self) -> None:
        try:
            self.found = list(self._read())
        except Exception as error:  # whatever it is, the other metrics must still be told
            log.warning("stored_metrics_failed", reader=self._name, error=type(error).__name__)
        finally:
            connection.close()
            self.done.set()


class StoredMetrics(Collector):
    def __init__(self, *, deadline_s: float = DEADLINE_S, keep_s: float = KEEP_S) -> None:
        self._deadline_s, self._keep_s = deadline_s, keep_s
        self._readers: dict[str, tuple[Read, float | None]] = {}
        self._readings: dict[str, _Reading] = {}
        self._lock = threading.Lock()

    def register(self, name: str, read: Read, *, keep_s: float | None = None) -> None:
        """`read` gives whole metric families, also where they have no samples, so that what there
        is can be listed; it may take `DEADLINE_S` seconds, and serves for `keep_s`."""
        self._readers[name] = (read, keep_s)

    def collect(self) -> Iterator[Metric]:
        until_s = time.monotonic() + self._deadline_s
        with self._lock:
            readings = {name: self._reading(name) for name in self._readers}
        up = GaugeMetricFamily(
            "sovereigncore_stored_metrics_up",
            "Whether the metrics that the database holds could be read.",
            labels=["reader"],
        )
        for name, reading in readings.items():
            reading.done.wait(max(0.0, until_s - time.monotonic()))
            found = reading.found
            up.add_metric([name], found is not None)
            yield from found or ()
        yield up

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry asks when it is built, before there is a database to read."""
        return iter(())

    def _reading(self, name: str) -> _Reading:
        """The newest reading while it is fresh or still under way: a hung one costs one thread."""
        read, keep_s = self._readers[name]
        newest = self._readings.get(name)
        if newest is None or newest.is_over(self._keep_s if keep_s is None else keep_s):
            newest = self._readings[name] = _Reading(name, read)
        return newest


stored = StoredMetrics()
