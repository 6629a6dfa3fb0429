"""One `Idempotency-Key` against real processes: many at once, and one whose process is killed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx2
import psutil
import pytest

from tests.platform import Platform, running_platform
from tests.stub_engine import Behaviour, StubEngine
from tests.stub_engine.behaviours import PLAYS, Script
from tests.stub_engine.exchange import Exchange

pytestmark = pytest.mark.xdist_group(__name__)

PROCESS = "/api/v1/consciousness/process"
QUERIES = "/api/v1/consciousness/queries"
QUESTION = {"prompt": "What is the capital of France?"}
_SOON_S = 20.0


def eventually(is_so: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + _SOON_S
    while not is_so():
        assert time.monotonic() < until_s, f"not within {_SOON_S} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What answers slowly goes on and on until it is set."""
    opened = threading.Event()

    def until_opened() -> Iterator[str]:
        while not opened.is_set():
            yield " so"

    def play_gated(exchange: Exchange, script: Script) -> None:
        assert exchange.generation is not None
        exchange.open_stream(exchange.generation)
        exchange.send_tokens(exchange.generation, until_opened())
        exchange.close_stream(exchange.generation.final_events())

    monkeypatch.setitem(PLAYS, Behaviour.SLOW, play_gated)
    return opened


def ask(platform: Platform, token: str, key: str, **more: Any) -> httpx2.Response:
    """On a connection of its own, so that any of the processes may get it."""
    with platform.client(token) as http:
        return http.post(PROCESS, json={**QUESTION, **more}, headers={"Idempotency-Key": key})


def history(platform: Platform, token: str) -> list[dict[str, Any]]:
    with platform.client(token) as http:
        found: list[dict[str, Any]] = http.get(QUERIES).json()["results"]
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_fifty_at_once_have_one_effect_whichever_process_gets_them(
    platform: Platform, live_stub: StubEngine, gate: threading.Event, stream: bool
) -> None:
    token = platform.register_and_log_in(f"user-{uuid.uuid4().hex[:12]}")
    live_stub.behave(Behaviour.SLOW, token_delay_s=0.05)

    def work(_number: int) -> httpx2.Response:
        return ask(platform, token, "one-key-for-all", stream=stream)

    with ThreadPoolExecutor(50) as pool:
        answers = as_completed([pool.submit(work, number) for number in range(50)], timeout=60)
        refused = [next(answers).result() for _ in range(49)]
        gate.set()
        first = next(answers).result()
        again = list(pool.map(work, range(20)))
    assert {reply.status_code for reply in refused} == {httpx2.codes.CONFLICT}
    assert {reply.json()["code"] for reply in refused} == {"idempotency_in_progress"}
    assert first.status_code == httpx2.codes.OK
    assert "Idempotent-Replayed" not in first.headers
    assert {reply.status_code for reply in again} == {httpx2.codes.OK}
    assert {reply.headers["Idempotent-Replayed"] for reply in again} == {"true"}
    assert len({reply.content for reply in again}) == 1
    assert again[0].text.endswith(first.text.rpartition("event: done")[2])
    assert len(live_stub.ledger) == len(history(platform, token)) == 1


_END_ALL_LEASES = """
from django.utils import timezone
from consciousness.models import IdempotentRequest, Query
for model in (IdempotentRequest, Query):
    model.objects.update(lease_expires_at=timezone.now())
"""


def test_a_key_outlives_its_process_by_the_lease_and_is_good_again(live_stub: StubEngine) -> None:
    live_stub.reset()
    with running_platform(live_stub) as platform:
        token = platform.register_and_log_in("bereaved")
        live_stub.behave(Behaviour.ENDLESS, token_delay_s=0.05)
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(ask, platform, token, "key-of-the-dead")
            eventually(lambda: live_stub.active == 1, "the generation runs")
            (worker,) = psutil.Process(platform.pid).children()
            worker.kill()
            with pytest.raises(httpx2.TransportError):
                lost.result(_SOON_S)
        live_stub.behave(Behaviour.NORMAL)
        assert ask(platform, token, "key-of-the-dead").status_code == httpx2.codes.CONFLICT
        done = platform.manage("shell", "--no-imports", "-c", _END_ALL_LEASES)
        assert done.returncode == 0, done.stderr
        retried = ask(platform, token, "key-of-the-dead")
        assert retried.status_code == httpx2.codes.OK
        assert "Idempotent-Replayed" not in retried.headers
        assert ask(platform, token, "key-of-the-dead").content == retried.content
    live_stub.reset()
