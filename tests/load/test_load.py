"""The callers of `make load`, a few of them for a few seconds: they do what they say they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Platform, running_platform
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.load

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_SECONDS = 12
_EVERYTHING = {
    *("/api/v1/users/register", "/api/v1/auth/token", "/api/v1/auth/token/refresh"),
    *("/api/v1/consciousness/state", "/api/v1/consciousness/queries", "/api/v1/usage"),
    *("/api/v1/consciousness/process", "/api/v1/consciousness/process (stream)"),
    *("/api/v1/keys", "/v1/models", "/v1/chat/completions", "/v1/chat/completions (stream)"),
    *("/api/v1/auth/logout", "/api/v1/users/me"),
}


@pytest.fixture
def platform() -> Iterator[Platform]:
    limits = {"RATE_LIMIT_DEFAULT": "1000000/m", "DAILY_TOKEN_QUOTA": "0"}
    with StubEngine() as stub, running_platform(stub, **limits) as running:
        yield running


def _locust(platform: Platform, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command of `make load` with fewer callers, who hardly pause."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless"),
            *("--host", platform.url, "--users", "8", "--spawn-rate", "8"),
            *("--run-time", f"{_SECONDS}s", "--stop-timeout", "30", "--only-summary"),
            *("--json-file", str(folder / "load"), *options),
        ],
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "LOAD_PAUSE_S": "0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _stats(folder: Path) -> list[dict[str, Any]]:
    """Written when all callers have ended, with what they did last."""
    rows: list[dict[str, Any]] = json.loads((folder / "load.json").read_text(encoding="utf-8"))
    return rows


def test_every_scenario_is_run_without_a_failure(platform: Platform, tmp_path: Path) -> None:
    done = _locust(platform, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    failures = {row["name"]: row["num_failures"] for row in _stats(tmp_path)}
    assert failures == dict.fromkeys(_EVERYTHING, 0)


def test_what_the_server_refuses_is_a_failure(tmp_path: Path) -> None:
    with StubEngine() as stub, running_platform(stub, RATE_LIMIT_DEFAULT="3/m") as platform:
        done = _locust(platform, tmp_path, "Person")
    assert done.returncode == 1, done.stdout + done.stderr
    failures = {row["name"]: row["num_failures"] for row in _stats(tmp_path)}
    assert failures["/api/v1/users/register"] > 0
