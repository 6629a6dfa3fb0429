"""The bundled model, really served: `manage.py runengine` as a supervisor runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests import environment, platform

_ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0


def engine_environment(data_dir: Path, **overrides: str) -> dict[str, str]:
    return {
        **os.environ,
        **environment.test_environment(str(data_dir)),
        "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "ENGINE_PORT": str(platform.free_port()),
        **overrides,
    }


@dataclass(frozen=True, kw_only=True)
class RunningEngine:
    pid: int
    port: int
    http: httpx2.Client
    said: str  # until it was ready
    log_path: Path

    def chat(self, *messages: tuple[str, str], **options: Any) -> dict[str, Any]:
        body = {
            "messages": [{"role": role, "content": content} for role, content in messages],
            "temperature": 0,
            "max_tokens": 40,
            **options,
        }
        reply = self.http.post("/v1/chat/completions", json=body)
        assert reply.status_code == httpx2.codes.OK, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def says(self, *messages: tuple[str, str]) -> str:
        text: str = self.chat(*messages)["choices"][0]["message"]["content"]
        return text

    def metric(self, name: str) -> float:
        for line in self.http.get("/metrics").text.splitlines():
            key, _, value = line.partition(" ")
            if key == f"llamacpp:{name}":
                return float(value)
        raise AssertionError(f"no metric {name}")


def launch(env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "manage.py", "runengine"],
            cwd=_ROOT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_until_said(words: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + _START_TIMEOUT_S
    while words not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < until_s, log.read_text(errors="replace")
        time.sleep(0.02)


def start(env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    process = launch(env, log)
    try:
        wait_until_said("engine ready", process, log)
    except BaseException:
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        raise
    return process


@dataclass(frozen=True, kw_only=True)
class Served:
    """Where a platform finds the engine."""

    url: str
    api_key: str


@contextlib.contextmanager
def served_model(folder: Path, **overrides: str) -> Iterator[Served]:
    """The bundled model behind a port of its own, ready to be asked."""
    env = engine_environment(folder, **overrides)
    process = start(env, folder / "engine.log")
    try:
        yield Served(
            url=f"http://127.0.0.1:{env['ENGINE_PORT']}",
            api_key=env["ENGINE_API_KEY"],
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
