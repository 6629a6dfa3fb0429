"""`make bench`: CPU milliseconds per request and requests per second, route by route.

Starts the real web process (gunicorn, this repository's configuration) on SQLite, or with
`--processes 2` that many of them on PostgreSQL and Redis, with a stub engine, and drives it with
kept-alive connections from this process. CPU time of the web processes is the figure to compare,
beside that of a fixed piece of Python on the same machine at the same time: shared machines change
their speed by the minute, by half or more.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import psutil

from tests.platform import REAL_SETTINGS, Platform, running_platform
from tests.servers import postgres_server, redis_server
from tests.stub_engine import StubEngine

_WARM_UP = 50
_STREAMS = 100
_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str = "GET"
    path: str
    body: dict[str, object] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def send(self, connection: http.client.HTTPConnection, token: str) -> int:
        """The status. The standard library's client: callers' CPU time is not what is measured, but
        it is of the same machine."""
        headers = {"Authorization": f"Bearer {token}"}
        data = None
        if self.body is not None:
            data = json.dumps(self.body)
            headers["Content-Type"] = "application/json"
        connection.request(self.method, self.path, data, headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status


ROUTES = (
    Route(path="/live"),
    Route(path="/api/v1/auth/me"),
    Route(path="/api/v1/consciousness/state"),
    Route(path="/api/v1/consciousness/queries"),
    Route(
        method="POST",
        path="/api/v1/consciousness/process",
        body={"prompt": "What is the capital of France?", "max_tokens": 8},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    cpu_ms: float
    per_s: float
    p95_ms: float
    errors: int


def yardstick_ms() -> float:
    """CPU milliseconds of ten million additions in Python: how fast this machine is just now."""
    started_s = time.process_time()
    total = 0
    for number in range(10_000_000):
        total += number
    return 1000 * (time.process_time() - started_s)


def cpu_s(platform: Platform) -> float:
    """CPU seconds of all web processes so far."""
    total = 0.0
    for process in [psutil.Process(platform.pid), *psutil.Process(platform.pid).children(True)]:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def measure(
    platform: Platform, route: Route, token: str, *, requests: int, connections: int
) -> Result:
    times_ms: list[float] = []
    errors = [0]

    def work(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            for _ in range(count):
                started_s = time.perf_counter()
                if route.send(connection, token) != http.client.OK:
                    errors[0] += 1
                times_ms.append((time.perf_counter() - started_s) * 1000)

    def work_together(count: int) -> None:
        threads = [threading.Thread(target=work, args=(count,)) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    work_together(_WARM_UP)
    times_ms.clear()
    errors[0] = 0
    before_s, started_s = cpu_s(platform), time.perf_counter()
    work_together(requests // connections)
    elapsed_s, spent_s = time.perf_counter() - started_s, cpu_s(platform) - before_s
    return Result(
        cpu_ms=1000 * spent_s / len(times_ms),
        per_s=len(times_ms) / elapsed_s,
        p95_ms=statistics.quantiles(times_ms, n=20)[-1],
        errors=errors[0],
    )


def first_word_ms(http: httpx2.Client, path: str, body: dict[str, object]) -> float:
    """From sending the request to the first piece of text of its stream."""
    started_s = time.perf_counter()
    with http.stream("POST", path, json=body) as reply:
        for line in reply.iter_lines():
            if '"text":' in line or '"content":"' in line.replace(" ", ""):
                return (time.perf_counter() - started_s) * 1000
    raise AssertionError("a stream without text")


def added_first_word_ms(platform: Platform, stub: StubEngine, token: str) -> tuple[float, float]:
    """Medians of the same question put to the engine itself and to the platform, in turns."""
    question = {"role": "user", "content": "What is the capital of France?"}
    direct: list[float] = []
    through: list[float] = []
    with (
        httpx2.Client(
            base_url=stub.url, headers={"Authorization": f"Bearer {stub.api_key}"}
        ) as engine,
        platform.client(token) as http,
    ):
        for _ in range(_STREAMS):
            body: dict[str, object] = {"messages": [question], "stream": True}
            direct.append(first_word_ms(engine, "/v1/chat/completions", body))
            body = {"prompt": question["content"], "stream": True}
            through.append(first_word_ms(http, "/api/v1/consciousness/process", body))
    return statistics.median(direct), statistics.median(through)


@contextlib.contextmanager
def installation(stub: StubEngine, processes: int) -> Iterator[Platform]:
    real = {"DJANGO_SETTINGS_MODULE": REAL_SETTINGS, "RATE_LIMIT_DEFAULT": "1000000/m"}
    with contextlib.ExitStack() as stack:
        if processes > 1:
            real["DATABASE_URL"] = stack.enter_context(postgres_server())
            real["REDIS_URL"] = stack.enter_context(redis_server())
            real["WEB_CONCURRENCY"] = str(processes)
        yield stack.enter_context(running_platform(stub, **real))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="a route (1000)")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--processes", type=int, default=1, help="of the web (1)")
    options = parser.parse_args(arguments)
    counts = {"requests": options.requests, "connections": options.connections}
    with StubEngine() as stub, installation(stub, options.processes) as platform:
        token = platform.register_and_log_in("bench")
        print(f"yardstick: {yardstick_ms():.0f} CPU ms for ten million additions")
        print(f"{'route':40} {'CPU ms/req':>10} {'req/s':>8} {'p95 ms':>8} {'errors':>7}")
        for route in ROUTES:
            result = measure(platform, route, token, **counts)
            print(
                f"{route!s:40} {result.cpu_ms:10.2f} {result.per_s:8.0f}"
                f" {result.p95_ms:8.1f} {result.errors:7d}"
            )
        direct_ms, through_ms = added_first_word_ms(platform, stub, token)
        print(
            f"first word of a stream: {through_ms:.1f} ms, of the engine's own {direct_ms:.1f} ms:"
            f" {through_ms - direct_ms:.1f} ms added"
        )
        print(f"yardstick: {yardstick_ms():.0f} CPU ms")
        memory = sum(
            process.memory_info().rss
            for process in [
                psutil.Process(platform.pid),
                *psutil.Process(platform.pid).children(True),
            ]
        )
        print(f"resident memory of the web processes with their master: {memory / 2**20:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
