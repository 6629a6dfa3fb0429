"""`make bench`: CPU milliseconds per request and requests per second, route by route.

Starts the real web process (gunicorn, this repository's configuration) on SQLite with a stub
engine in a process of its own, and drives it with kept-alive connections from this process. CPU
time of the web process is the figure to compare, beside that of a fixed piece of Python on the same
machine at the same time: shared machines change their speed by the minute, by half or more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import psutil

from tests.platform import REAL_SETTINGS, Platform, running_platform
from tests.stub_engine import StubEngine

_WARM_UP = 50
_STREAMS = 100


@dataclass(frozen=True, kw_only=True)
class Result:
    route: str
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
    platform: Platform,
    route: str,
    send: Callable[[httpx2.Client], httpx2.Response],
    *,
    requests: int,
    connections: int,
) -> Result:
    times_ms: list[float] = []
    errors = [0]

    def work(count: int) -> None:
        with httpx2.Client(base_url=platform.url, timeout=30) as client:
            for _ in range(count):
                started_s = time.perf_counter()
                if send(client).status_code != httpx2.codes.OK:
                    errors[0] += 1
                times_ms.append((time.perf_counter() - started_s) * 1000)

    work(_WARM_UP)
    times_ms.clear()
    threads = [
        threading.Thread(target=work, args=(requests // connections,)) for _ in range(connections)
    ]
    before_s, started_s = cpu_s(platform), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s, spent_s = time.perf_counter() - started_s, cpu_s(platform) - before_s
    return Result(
        route=route,
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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="a route (1000)")
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args(arguments)
    counts = {"requests": options.requests, "connections": options.connections}
    real = {"DJANGO_SETTINGS_MODULE": REAL_SETTINGS, "RATE_LIMIT_DEFAULT": "1000000/m"}
    with StubEngine() as stub, running_platform(stub, **real) as platform:
        token = platform.register_and_log_in("bench")
        headers = {"Authorization": f"Bearer {token}"}
        question = {"prompt": "What is the capital of France?", "max_tokens": 8}
        routes: list[tuple[str, Callable[[httpx2.Client], httpx2.Response]]] = [
            ("GET /live", lambda http: http.get("/live")),
            ("GET /api/v1/auth/me", lambda http: http.get("/api/v1/auth/me", headers=headers)),
            (
                "GET /api/v1/consciousness/state",
                lambda http: http.get("/api/v1/consciousness/state", headers=headers),
            ),
            (
                "GET /api/v1/consciousness/queries",
                lambda http: http.get("/api/v1/consciousness/queries", headers=headers),
            ),
            (
                "POST /api/v1/consciousness/process",
                lambda http: http.post(
                    "/api/v1/consciousness/process", headers=headers, json=question
                ),
            ),
        ]
        print(f"yardstick: {yardstick_ms():.0f} CPU ms for ten million additions")
        print(f"{'route':40} {'CPU ms/req':>10} {'req/s':>8} {'p95 ms':>8} {'errors':>7}")
        for name, send in routes:
            result = measure(platform, name, send, **counts)
            print(
                f"{result.route:40} {result.cpu_ms:10.2f} {result.per_s:8.0f}"
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
        print(f"resident memory of the web process tree: {memory / 2**20:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
