"""`manage.py worker` as a process of its own, on a database of its own."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import environment

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
STOP_WITHIN_S = 5.0


class Worker:
    """A worker process and what it has logged."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._variables = environment.test_environment(str(data_dir))
        self._log_path = data_dir / "worker.log"
        self.manage("migrate", "--verbosity", "0")
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "worker"], cwd=ROOT, env=self._variables, stderr=log
            )

    def manage(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self._variables,
            timeout=TIMEOUT_S,
            check=True,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self._log_path.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_for(self, name: str, *, count: int) -> list[dict[str, Any]]:
        until_s = time.monotonic() + TIMEOUT_S
        while len(found := self.events(name)) < count:
            assert self.process.poll() is None, self._log_path.read_text()
            assert time.monotonic() < until_s, self._log_path.read_text()
            time.sleep(0.05)
        return found


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    if worker.process.poll() is None:
        worker.process.kill()
    worker.process.wait(TIMEOUT_S)


def test_it_runs_every_job_and_ends_on_sigterm(worker: Worker) -> None:
    (started,) = worker.wait_for("worker_started", count=1)
    needed = set(started["jobs"])
    finished = worker.wait_for("job_finished", count=len(needed))
    assert {event["job"] for event in finished} == needed
    assert {"settle_orphans", "delete_old_queries"} <= set(started["jobs"])
    assert worker.events("job_failed") == []

    stopped_s = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(TIMEOUT_S) == 0
    assert time.monotonic() - stopped_s < STOP_WITHIN_S
    assert len(worker.events("worker_stopped")) == 1

    with sqlite3.connect(worker.data_dir / "db.sqlite3") as database:
        leases = database.execute("SELECT name, error, finished_at FROM monitoring_joblease")
        assert {name: (error, bool(finished)) for name, error, finished in leases} == dict.fromkeys(
            needed, ("", True)
        )
