"""The real web process under test: gunicorn with the shipped configuration, seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx2

from tests.environment import test_environment
from tests.migrated import ROOT, manage, own_database
from tests.server_process import die_with_parent

PASSWORD = "Correct-Horse-7-Battery"
# For who measures, or judges what hashing does to others: see tests/live_settings.py.
REAL_SETTINGS = "sovereigncore.settings"
# Loading the system's certificates costs more than most tests here.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 45.0
_PATIENCE_S = 60.0


@dataclass(kw_only=True)
class Platform:
    """A running web process (with its workers) and what is needed to talk about it."""

    port: int
    environment: dict[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    root: Path = ROOT  # where its code is

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self, token: str = "") -> httpx2.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.Client(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=_NO_TLS
        )

    def register_and_log_in(self, username: str) -> str:
        """A new account's access token."""
        return self.log_in(self.register(username))["access_token"]

    def register(self, username: str) -> str:
        form = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
        with self.client() as http:
            reply = until_heard(lambda: http.post("/api/v1/users/register", json=form))
        assert reply.status_code == httpx2.codes.CREATED, reply.text
        return username

    def log_in(self, username: str) -> dict[str, str]:
        form = {"username": username, "password": PASSWORD}
        with self.client() as http:
            reply = until_heard(lambda: http.post("/api/v1/auth/token", data=form))
        assert reply.status_code == httpx2.codes.OK, reply.text
        pair: dict[str, str] = reply.json()
        return pair

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return manage(self.environment, *arguments, root=self.root)

    def log_lines(self) -> list[str]:
        return self.log_path.read_text(encoding="utf-8").splitlines()

    def stop(self) -> int:
        """SIGTERM, as a supervisor would; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(_STOP_TIMEOUT_S)
            raise

    def kill(self) -> None:
        """SIGKILL to the master, as a crash would; its workers end with it."""
        self.process.kill()
        self.process.wait(_STOP_TIMEOUT_S)

    def start_again(self) -> None:
        """On the same port and data, after `stop` or `kill`."""
        self.process = _launch(self.environment, self.log_path, self.root)
        _wait_until_live(self)


def until_heard(send: Callable[[], httpx2.Response]) -> httpx2.Response:
    """The answer once there is room to hash a password: many at once take turns."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        reply = send()
        is_busy = reply.status_code == httpx2.codes.SERVICE_UNAVAILABLE
        if not is_busy or "hashing_busy" not in reply.text:
            return reply
        assert time.monotonic() < until_s, "there was no room to hash a password"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EngineAddress(Protocol):
    @property
    def url(self) -> str: ...

    @property
    def api_key(self) -> str: ...


@contextlib.contextmanager
def running_platform(engine: EngineAddress, **overrides: str) -> Iterator[Platform]:
    """Start a web process on a database of its own: SQLite, or a new one in DATABASE_URL's server.

    Limits that would get in a test's way are high unless overridden.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sovereigncore-live-") as folder,
        own_database(folder, server=overrides.pop("DATABASE_URL", None)) as database,
    ):
        environment = {
            **os.environ,
            **test_environment(folder),
            "DJANGO_SETTINGS_MODULE": "tests.live_settings",
            "PORT": str(free_port()),
            "ENGINE_URL": engine.url,
            "ENGINE_API_KEY": engine.api_key,
            "RATE_LIMIT_AUTH": "1000/m",
            "RATE_LIMIT_REGISTER": "1000/h",
            "RATE_LIMIT_RESET": "1000/h",
            **database,
            **overrides,
        }
        with web_process(environment, Path(folder) / "web.log") as platform:
            yield platform


@contextlib.contextmanager
def web_process(environment: dict[str, str], log_path: Path) -> Iterator[Platform]:
    """One on a database that is there and migrated."""
    platform = Platform(
        port=int(environment["PORT"]),
        environment=environment,
        log_path=log_path,
        process=_launch(environment, log_path),
    )
    try:
        _wait_until_live(platform)
        yield platform
    finally:
        platform.stop()


def _launch(
    environment: dict[str, str], log_path: Path, root: Path = ROOT
) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "sovereigncore.wsgi"],
            cwd=root,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - sets a flag, no more
        )


def _wait_until_live(platform: Platform) -> None:
    until_s = time.monotonic() + _START_TIMEOUT_S
    with platform.client() as http:
        while time.monotonic() < until_s and platform.process.poll() is None:
            with contextlib.suppress(httpx2.TransportError):
                if http.get("/live").status_code == httpx2.codes.OK:
                    return
            time.sleep(0.05)
    tail = "\n".join(platform.log_lines()[-20:])
    raise AssertionError(f"the web process did not start:\n{tail}")
