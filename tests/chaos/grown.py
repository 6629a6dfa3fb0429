"""The platform grown: two web processes, PostgreSQL, Redis and an engine, each a process of its own
that a test may kill, stop and start again."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.migrated import ROOT
from tests.platform import Platform, running_platform
from tests.server_process import ServerProcess
from tests.servers import PostgresServer, RedisServer
from tests.worker import Worker

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
PROCESS = "/api/v1/consciousness/process"
QUERIES = "/api/v1/consciousness/queries"
STATUS = "/api/v1/consciousness/status"
BACK_WITHIN_S = 10.0  # SECURITY: unaided, after whatever failed is there again

_MAKE_KEYS = """
import json, secrets
from accounts import api_keys
from accounts.models import APIKey, User
made = {}
for name in json.loads('''%s'''):
    user = User(username=name, email=name + "@example.org", password="!")
    user.save()
    made[name] = api_keys.generate()
    APIKey.objects.create(user=user, name="chaos", digest=api_keys.digest(made[name]),
                          hint="sk-", scope="read write")
print("KEYS" + json.dumps(made))
"""


class EngineServer(ServerProcess):
    """The stub engine as a program."""

    name = "engine"

    def __init__(self, *, token_delay_s: float = 0.0) -> None:
        super().__init__()
        self.api_key = secrets.token_hex(16)
        self._token_delay_s = token_delay_s

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        delay = ["--token-delay-ms", str(self._token_delay_s * 1000)]
        where = ["--port", str(self.port), "--api-key", self.api_key]
        return [sys.executable, "-m", "tests.stub_engine", *where, *delay]

    def _spawn(self, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        # As ourselves, where our own modules are: it is no foreign program.
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def probe(self) -> None:
        self.ask("GET", "/health")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        reply = httpx2.request(
            method, self.url + path, json=body, headers=headers, timeout=5, trust_env=False
        )
        reply.raise_for_status()
        return reply.json()

    def behave(self, behaviour: str = "normal", **numbers: float) -> None:
        self.ask("POST", "/_stub/behaviour", {"behaviour": behaviour, **numbers})


@dataclass(kw_only=True)
class Grown:
    """`keys` are the API keys of its users, by name."""

    platform: Platform
    database: PostgresServer
    redis: RedisServer
    engine: EngineServer
    keys: dict[str, str]

    def client(self, user: str) -> httpx2.Client:
        return self.platform.client(self.keys[user])


@contextlib.contextmanager
def grown(users: Sequence[str], *, token_delay_s: float = 0.0, **overrides: str) -> Iterator[Grown]:
    """A platform of its own, whose servers nobody else uses."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(PostgresServer())
        redis = stack.enter_context(RedisServer())
        engine = stack.enter_context(EngineServer(token_delay_s=token_delay_s))
        platform = stack.enter_context(
            running_platform(
                engine,
                **{
                    "DATABASE_URL": database.url,
                    "REDIS_URL": redis.url,
                    "WEB_CONCURRENCY": "2",
                    "RATE_LIMIT_DEFAULT": "1000000/m",
                    "DAILY_TOKEN_QUOTA": "0",
                    # A busy machine would halve the slots in the middle of a measurement.
                    "GOVERNOR_CPU_CONSERVE_PERCENT": "100",
                    "GOVERNOR_MEMORY_CONSERVE_PERCENT": "100",
                    "GOVERNOR_DISK_CONSERVE_PERCENT": "100",
                    "GOVERNOR_TEMP_CONSERVE_C": "150",
                    **overrides,
                },
            )
        )
        yield Grown(
            platform=platform,
            database=database,
            redis=redis,
            engine=engine,
            keys=make_keys(platform, users),
        )


@contextlib.contextmanager
def working(parts: Grown) -> Iterator[Worker]:
    """Its worker, which does the periodic jobs."""
    environment = parts.platform.environment
    worker = Worker(environment, Path(environment["DATA_DIR"]) / "worker.log")
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def queue_of(parts: Grown) -> tuple[int, int]:
    """Over all processes: how many slots are busy, and how many wait."""
    with parts.client("u0") as http:
        queue = http.get(STATUS).json()["queue"]
    return queue["busy"], queue["waiting"]


def make_keys(platform: Platform, users: Sequence[str]) -> dict[str, str]:
    """New accounts, and an API key of each by its name."""
    made = platform.manage("shell", "-v", "0", "-c", _MAKE_KEYS % json.dumps(list(users)))
    assert made.returncode == 0, made.stderr
    keys: dict[str, str] = json.loads(made.stdout.partition("KEYS")[2])
    return keys


def percentile(times_s: Sequence[float], part: float) -> float:
    """The smallest of them that so large a part does not exceed."""
    ordered = sorted(times_s)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def median(times_s: Sequence[float]) -> float:
    return statistics.median(times_s)


def within(limit_s: float, is_so: Callable[[], bool], what: str) -> float:
    """How long it took until it was so, in seconds. Fails after `limit_s`."""
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - began_s < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began_s
