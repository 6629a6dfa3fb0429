"""Metrics of several web processes, one of which is killed: counters stay, gauges do not lie."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.platform import Platform, running_platform
from tests.servers import RedisServer
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.once

PROCESS = "/api/v1/consciousness/process"
LOOKS, STREAMS = 12, 6
_SOON_S = 20.0


@pytest.fixture
def two() -> Iterator[tuple[Platform, StubEngine]]:
    with (
        RedisServer() as redis,
        StubEngine() as stub,
        running_platform(
            stub,
            WEB_CONCURRENCY="2",
            REDIS_URL=redis.url,
            ENGINE_SLOTS=str(STREAMS),
            QUEUE_LIMIT="8",
        ) as platform,
    ):
        yield platform, stub


def scrape(platform: Platform) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with platform.client() as http:
        text = http.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def gauge(platform: Platform, name: str) -> float:
    return scrape(platform)[f"sovereigncore_{name}", frozenset()]


def eventually(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _SOON_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def callers_of(process: psutil.Process, port: int) -> int:
    """How many connections of clients it serves."""
    return sum(
        connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in process.net_connections("tcp")
    )


def test_a_killed_process_keeps_its_counts_and_leaves_the_gauges(
    two: tuple[Platform, StubEngine],
) -> None:
    platform, stub = two
    token = platform.register_and_log_in("watched")
    for _ in range(LOOKS):
        with platform.client(token) as http:
            assert http.get("/live").status_code == httpx2.codes.OK
            assert http.post(PROCESS, json={"prompt": "Hello"}).status_code == httpx2.codes.OK
    stub.behave(Behaviour.SLOW, token_delay_s=0.3)
    with contextlib.ExitStack() as stack:
        texts: list[Iterator[str]] = []
        for _ in range(STREAMS):
            http = stack.enter_context(platform.client(token))
            question = {"prompt": "Count to 1000", "max_tokens": 1000, "stream": True}
            reply = stack.enter_context(http.stream("POST", PROCESS, json=question))
            texts.append(reply.iter_text())  # an iterator that is let go closes its stream
            assert next(texts[-1])
        before = scrape(platform)
        assert before["sovereigncore_slots_busy", frozenset()] == STREAMS
        assert before["sovereigncore_http_requests_in_progress", frozenset()] == STREAMS + 1

        killed = psutil.Process(platform.pid).children()[0]
        left = STREAMS - callers_of(killed, platform.port)
        killed.kill()
        eventually(lambda: gauge(platform, "slots_busy") == left)
        assert gauge(platform, "http_requests_in_progress") == left + 1

        after = scrape(platform)
        live = frozenset({"route": "live", "method": "GET", "status_class": "2xx"}.items())
        counted = "sovereigncore_http_request_duration_seconds_count"
        assert after[counted, live] == before[counted, live] >= LOOKS
        for (name, labels), value in before.items():
            if name.endswith(("_total", "_count", "_bucket", "_sum")):
                assert after[name, labels] >= value, (name, labels)
        eventually(lambda: len(psutil.Process(platform.pid).children()) == 2)
    assert stub.wait_idle()
