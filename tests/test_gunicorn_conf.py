"""What `gunicorn.conf.py` promises beyond serving: quiet logs, no orphans, clear refusals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests import environment
from tests.migrated import ROOT
from tests.platform import Platform, running_platform
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.once

_CANARY = "canary-that-must-not-be-logged"
_GONE_WITHIN_S = 5.0


def _send(platform: Platform, raw: str) -> bytes:
    with socket.create_connection(("127.0.0.1", platform.port), timeout=10) as connection:
        connection.sendall(raw.encode())
        return connection.recv(200)


def _wait_until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _GONE_WITHIN_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def _refusals(platform: Platform, known: int) -> list[str]:
    return [line for line in platform.log_lines()[known:] if "Invalid request: " in line]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (f"GET /live?token={_CANARY} HTTP/7.1\r\nHost: localhost\r\n\r\n", b"400"),
        (f"GET /live HTTP/1.1\r\nHost: localhost\r\nAutho rization: {_CANARY}\r\n\r\n", b"400"),
        (f"{_CANARY}\r\n\r\n", b"400"),
        (f"GET /{'a' * 4096}{_CANARY} HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (f"GET /live HTTP/1.1\r\nX: {'a' * 8190}{_CANARY}\r\n\r\n", b"431"),
    ],
)
def test_a_request_that_is_refused_unread_is_not_quoted_in_the_log(
    platform: Platform, raw: str, status: bytes
) -> None:
    known = len(platform.log_lines())
    assert _send(platform, raw).split()[1] == status
    _wait_until(lambda: _refusals(platform, known) != [])
    (line,) = _refusals(platform, known)
    assert json.loads(line)["logger"] == "gunicorn.error"
    assert _CANARY not in platform.log_path.read_text()


def test_a_killed_master_leaves_no_worker_behind_that_holds_the_port(
    live_stub: StubEngine,
) -> None:
    with running_platform(live_stub) as platform:
        (worker,) = psutil.Process(platform.pid).children()
        os.kill(platform.pid, signal.SIGKILL)
        platform.process.wait(_GONE_WITHIN_S)
        gone, _ = psutil.wait_procs([worker], timeout=_GONE_WITHIN_S)
        assert gone or worker.status() == psutil.STATUS_ZOMBIE
        socket.create_server(("127.0.0.1", platform.port)).close()


def test_workers_that_slept_with_their_master_are_not_killed_when_they_wake(
    live_stub: StubEngine,
) -> None:
    timeout_s = 12
    with running_platform(live_stub, GUNICORN_CMD_ARGS=f"--timeout {timeout_s}") as platform:
        master = psutil.Process(platform.pid)
        (worker,) = master.children()
        frozen = [master, worker]
        for process in frozen:
            process.suspend()
        try:
            time.sleep(timeout_s + 1)
        finally:
            for process in frozen:
                process.resume()
                time.sleep(0.5)
        with platform.client() as http:
            assert http.get("/live").status_code == 200
        assert master.children() == [worker]
        assert not [line for line in platform.log_lines() if "WORKER TIMEOUT" in line]


_MASTERS_LOOKS = """
import runpy
import sys
import time
from types import SimpleNamespace

conf = runpy.run_path("gunicorn.conf.py")
looks, now_s = [], 0.0
time.monotonic = lambda: now_s
master = SimpleNamespace(murder_workers=lambda: looks.append(now_s), master_pid=0)
conf["_spare_who_slept"](master)
for now_s in map(float, sys.argv[1:]):
    master.murder_workers()
conf["on_exit"](master)
print(*looks)
"""


def test_a_worker_that_does_not_wake_with_its_master_is_killed_in_the_end(tmp_path: Path) -> None:
    seconds = ["1", "2", "100", "101", "109", "110", "111", "119"]
    looks = subprocess.run(
        [sys.executable, "-c", _MASTERS_LOOKS, *seconds],
        cwd=ROOT,
        env={
            **os.environ,
            **environment.test_environment(str(tmp_path)),
            "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert looks.stdout.split() == ["1.0", "2.0", "110.0", "111.0", "119.0"]


def test_a_dead_workers_requests_in_progress_are_no_longer_counted(live_stub: StubEngine) -> None:
    with running_platform(live_stub) as platform, platform.client() as http:
        http.get("/live")
        (worker,) = psutil.Process(platform.pid).children()
        counts = _metrics_directory(worker)
        assert (counts / f"gauge_livesum_{worker.pid}.db").exists()
        worker.kill()
        _wait_until(lambda: not (counts / f"gauge_livesum_{worker.pid}.db").exists())
        assert (counts / f"counter_{worker.pid}.db").exists()  # what was counted stays counted


def _metrics_directory(worker: psutil.Process) -> Path:
    """Where the worker maps its counts into memory, by what it has mapped."""
    mapped = {Path(entry.path) for entry in worker.memory_maps() if "livesum" in entry.path}
    (path,) = mapped
    assert path.is_relative_to("/dev/shm"), "a full data disk must not kill it"  # noqa: S108
    assert path.parent.stat().st_mode & 0o077 == 0
    return path.parent


def test_metrics_leave_nothing_behind(live_stub: StubEngine) -> None:
    with running_platform(live_stub) as platform, platform.client() as http:
        http.get("/live")
        (worker,) = psutil.Process(platform.pid).children()
        counts = _metrics_directory(worker)
    assert not counts.exists()


def test_wrong_settings_end_it_with_a_sentence(tmp_path: Path) -> None:
    wrong = environment.test_environment(str(tmp_path), LOG_LEVEL="LOUD")
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "sovereigncore.wsgi"],
        cwd=ROOT,
        env={**os.environ, **wrong, "DJANGO_SETTINGS_MODULE": "sovereigncore.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("SovereignCore cannot start:")
    assert "Traceback" not in done.stderr
