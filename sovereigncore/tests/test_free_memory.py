"""What nobody uses any more is the system's again."""

from __future__ import annotations

import threading

import psutil
import pytest

from sovereigncore import free_memory, web_worker

pytestmark = pytest.mark.once

_MEGABYTE = 1024 * 1024


def rss_mb() -> float:
    return float(psutil.Process().memory_info().rss / _MEGABYTE)


def test_what_threads_freed_between_what_they_kept_is_given_back() -> None:
    kept = []

    def work() -> None:
        made = [bytes(1000) for _ in range(20_000)]
        kept.extend(made[::100])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held_mb = rss_mb()
    assert free_memory.give_back()
    assert held_mb - rss_mb() > 30  # of 76
    assert len(kept) == 4 * 200


def test_it_is_asked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    given: list[float] = []
    monkeypatch.setattr("sovereigncore.free_memory.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr(free_memory, "give_back", lambda: given.append(now_s[0]))
    giving_back = free_memory.GivingBack()
    for _ in range(700):
        now_s[0] += 0.1
        giving_back.now_and_then()
    assert [round(at_s) for at_s in given] == [130, 160]


def test_a_library_without_it_is_none_the_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sovereigncore.free_memory.ctypes.CDLL", lambda name: object())
    assert not free_memory.give_back()


def test_a_web_process_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its main loop calls `notify` every second."""
    asked = []
    worker = object.__new__(web_worker.Worker)
    worker._readers = web_worker._Readers()
    worker._free_memory = free_memory.GivingBack()
    worker.cfg = type("Config", (), {"threads": 4})
    monkeypatch.setattr("gunicorn.workers.gthread.ThreadWorker.notify", lambda worker: None)
    monkeypatch.setattr(worker._free_memory, "now_and_then", lambda: asked.append(1))
    worker.notify()
    assert asked == [1]
