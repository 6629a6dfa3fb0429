"""Two web processes in front of one engine: its slots and the line for them are everybody's."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.parallel import in_parallel
from tests.platform import Platform, running_platform
from tests.servers import RedisServer
from tests.stub_engine import Behaviour, StubEngine

PROCESS = "/api/v1/consciousness/process"
STATUS = "/api/v1/consciousness/status"
_USERS, _REQUESTS = 4, 16


def metric(platform: Platform, name: str) -> float:
    with platform.client() as http:
        text = http.get("/metrics").text
    samples = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"sovereigncore_{name}"
    ]
    (sample,) = samples
    return float(sample.value)


def test_no_more_generations_than_slots_over_all_processes() -> None:
    with (
        RedisServer() as server,
        StubEngine() as stub,
        running_platform(
            stub, WEB_CONCURRENCY="2", REDIS_URL=server.url, ENGINE_SLOTS="2", QUEUE_LIMIT="60"
        ) as platform,
    ):
        tokens = [platform.register_and_log_in(f"user{number}") for number in range(_USERS)]
        stub.behave(Behaviour.SLOW, token_delay_s=0.02)

        def ask(number: int) -> int:
            with platform.client(tokens[number % _USERS]) as http:
                return http.post(PROCESS, json={"prompt": "Count to 5"}).status_code

        assert in_parallel(_REQUESTS, ask) == [httpx2.codes.OK] * _REQUESTS
        assert stub.peak_active == 2
        with platform.client(tokens[0]) as http:
            queue = http.get(STATUS).json()["queue"]
        assert queue == {"slots": 2, "busy": 0, "waiting": 0, "limit": 60}
        assert metric(platform, "slots_busy") == metric(platform, "queue_waiting") == 0
        assert metric(platform, "queue_wait_seconds_count") == _REQUESTS
