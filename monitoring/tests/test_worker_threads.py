"""What one thread of the worker does with its job, and how the worker ends with one that hangs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.core.management import call_command

from monitoring import jobs
from monitoring.management.commands import worker
from tests.log_capture import LogCapture

pytestmark = pytest.mark.django_db(transaction=True)
TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def _quick_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jobs, "_jobs", {})
    monkeypatch.setattr(worker, "_POLL_S", 0.01)
    monkeypatch.setattr(worker, "_AFTER_FAILURE_S", 0.01)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def register(name: str, run: Callable[[], int]) -> None:
    jobs.register(name, run, interval=timedelta(0))


def test_a_failing_job_is_logged_and_tried_again_and_ends_nothing(logs: LogCapture) -> None:
    attempts: list[str] = []

    def fail_twice() -> int:
        attempts.append("x")
        if len(attempts) < 3:
            raise OSError
        done.set()
        return 0

    def stop_when_done() -> None:
        done.wait(TIMEOUT_S)
        signal.pthread_kill(main, signal.SIGTERM)

    done, main = threading.Event(), threading.get_ident()
    register("shaky", fail_twice)
    stopper = threading.Thread(target=stop_when_done)
    stopper.start()
    call_command("worker")
    stopper.join(TIMEOUT_S)
    assert done.is_set()
    assert [event["job"] for event in logs.events("job_failed")] == ["shaky", "shaky"]
    assert len(logs.events("worker_stopped")) == 1


def test_jobs_that_hang_together_get_one_grace_period(
    monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    monkeypatch.setattr(worker, "_STOP_WITHIN_S", 0.3)
    released, running = threading.Event(), threading.Semaphore(0)

    def hang() -> int:
        running.release()
        released.wait(TIMEOUT_S)
        return 0

    for number in range(6):
        register(f"hangs-{number}", hang)
    main = threading.get_ident()
    stopped_s: list[float] = []

    def stop_when_all_hang() -> None:
        for _ in range(6):
            running.acquire(timeout=TIMEOUT_S)
        stopped_s.append(time.monotonic())
        signal.pthread_kill(main, signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_all_hang)
    stopper.start()
    try:
        call_command("worker")
        took_s = time.monotonic() - stopped_s[0]
    finally:
        released.set()
        stopper.join(TIMEOUT_S)
        for thread in threading.enumerate():
            if thread.name.startswith("hangs-"):
                thread.join(TIMEOUT_S)
    assert 0.3 <= took_s < 1.5  # not 6 x 0.3
