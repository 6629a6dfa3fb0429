"""What nobody uses any more is the system's again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import psutil
import pytest
from django.conf import settings

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


_ARENAS = """
import ctypes, sys, tempfile, threading
from sovereigncore import free_memory
if sys.argv[1] == "one":
    assert free_memory.share_one_arena()
together = threading.Barrier(4)
def work():
    kept = bytes(1000)
    together.wait(10)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    told = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, told)
    libc.fclose(told)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.parametrize(("how", "expected"), [("one", {1}), ("glibc's way", set(range(2, 6)))])
def test_threads_share_one_arena(how: str, expected: set[int]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ARENAS, how],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert int(done.stdout) in expected


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
    assert not free_memory.share_one_arena()


def test_a_web_process_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its main loop calls `notify` every second."""
    asked = []
    worker = object.__new__(web_worker.Worker)
    worker._readers = web_worker._Readers()
    worker._looked_s, worker._has_spared = time.monotonic(), False
    worker._free_memory = free_memory.GivingBack()
    worker.cfg = type("Config", (), {"threads": 4})
    monkeypatch.setattr("gunicorn.workers.gthread.ThreadWorker.notify", lambda worker: None)
    monkeypatch.setattr(worker._free_memory, "now_and_then", lambda: asked.append(1))
    worker.notify()
    assert asked == [1]
