"""A request whose engine fails: once more elsewhere before the first byte, never after it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import engines, running
from consciousness.admission import Candidate, admission, gate
from consciousness.engine_errors import EngineGone, EngineLoading, EngineUnavailable
from consciousness.models import Query, UsageDay
from consciousness.tests.asking import ask, ask_streamed, assert_nothing_runs, chunks, event_of
from consciousness.tests.openai_asking import chat
from consciousness.tests.several import Several, ask_one, known
from tests.metrics import value_of
from tests.stub_engine import Behaviour, StubEngine
from tests.stub_engine.behaviours import PLAYS, Script
from tests.stub_engine.exchange import Exchange, ExchangeEnded


@pytest.fixture
def spare(several: Several, stub: StubEngine, second: StubEngine, settings: Settings) -> StubEngine:
    """Asked only where the default engine fails."""
    settings.ENGINE_FIRST_TOKEN_TIMEOUT_S = 1.0
    several.add("spare", second, priority=9)
    return second


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.HTML,
        Behaviour.ERROR_500_WITH_SECRET,
        Behaviour.LOADING_503,
        Behaviour.BUSY_429,
        Behaviour.UNAUTHORIZED_401,
        Behaviour.HANG_BEFORE_HEADERS,
        Behaviour.HANG_BEFORE_FIRST_TOKEN,
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_one_cannot_answer_another_one_does(
    as_alice: APIClient,
    stub: StubEngine,
    spare: StubEngine,
    behaviour: Behaviour,
    is_streamed: bool,
) -> None:
    stub.behave(behaviour)
    if is_streamed:
        events = [event_of(part) for part in chunks(ask_streamed(as_alice, "Count to 3"))]
        assert "".join(data["text"] for name, data in events if name == "token") == "1 2 3"
    else:
        assert ask(as_alice, "Count to 3").json()["response"] == "1 2 3"
    query = Query.objects.get()
    assert (query.engine, query.status, query.completion_tokens) == ("spare", "completed", 3)
    assert (len(stub.ledger), len(spare.ledger)) == (1, 1)
    assert_nothing_runs(stub)
    assert spare.wait_idle()


def test_one_that_is_dead_is_no_obstacle(
    as_alice: APIClient, stub: StubEngine, spare: StubEngine
) -> None:
    stub.stop()
    assert [ask(as_alice, "Count to 3").status_code for _ in range(5)] == [200] * 5
    assert len(spare.ledger) == 5


def test_after_the_first_byte_nobody_else_goes_on(
    as_alice: APIClient, alice: User, stub: StubEngine, spare: StubEngine
) -> None:
    stub.behave(Behaviour.DIE_MID_STREAM, after_tokens=2)
    response = ask(as_alice, "Count to 9")
    assert (response.status_code, response.json()["code"]) == (502, "engine_bad_reply")
    assert spare.ledger == []
    assert UsageDay.objects.get(user=alice).completion_tokens == 2


def test_after_an_end_without_a_word_nobody_else_goes_on_either(
    as_alice: APIClient, stub: StubEngine, spare: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play_end_and_die(exchange: Exchange, _script: Script) -> None:
        exchange.send_head(200, "text/event-stream")
        exchange.send_chunk(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n')
        raise ExchangeEnded

    monkeypatch.setitem(PLAYS, Behaviour.DIE_MID_STREAM, play_end_and_die)
    stub.behave(Behaviour.DIE_MID_STREAM)
    *_, end, error = list(chunks(chat(as_alice, stream=True)))
    assert b'"finish_reason":"stop"' in end
    assert b'"code":"engine_bad_reply"' in error
    assert spare.ledger == []


@pytest.mark.parametrize(
    ("reads_s", "total_s", "code"),
    [(1.3, 9, "engine_bad_reply"), (9, 1.3, "engine_timeout")],
)
def test_after_a_long_reading_of_the_prompt_nobody_else_begins(
    as_alice: APIClient,
    stub: StubEngine,
    spare: StubEngine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    reads_s: float,
    total_s: float,
    code: str,
) -> None:
    def play_read_and_die(exchange: Exchange, _script: Script) -> None:
        exchange.send_head(200, "text/event-stream")
        until_s = time.monotonic() + reads_s
        while time.monotonic() < until_s:
            exchange.send_chunk(b'data: {"choices":[{"delta":{}}]}\n\n')
            exchange.wait(0.02)
        raise ExchangeEnded

    monkeypatch.setattr(running, "_ENDING_S", 0)
    settings.ENGINE_FIRST_TOKEN_TIMEOUT_S, settings.ENGINE_TOTAL_TIMEOUT_S = 1, total_s
    monkeypatch.setitem(PLAYS, Behaviour.DIE_MID_STREAM, play_read_and_die)
    stub.behave(Behaviour.DIE_MID_STREAM)
    assert ask(as_alice).json()["code"] == code
    assert spare.ledger == []


def test_what_is_the_callers_own_fault_is_nobody_elses_business(
    as_alice: APIClient, stub: StubEngine, spare: StubEngine
) -> None:
    stub.behave(Behaviour.OVERLONG_400)
    assert ask(as_alice).status_code == 422
    assert spare.ledger == []


def test_where_all_fail_the_last_ones_failure_is_told(
    as_alice: APIClient, stub: StubEngine, spare: StubEngine
) -> None:
    stub.behave(Behaviour.HTML)
    spare.behave(Behaviour.BUSY_429)
    response = ask(as_alice)
    assert (response.status_code, response.json()["code"]) == (503, "engine_busy")
    assert (len(stub.ledger), len(spare.ledger)) == (1, 1)
    assert_nothing_runs(stub)


def test_one_that_is_removed_while_a_request_waits_does_not_get_it(
    as_alice: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several.add("gpu", second)
    known("default").error = EngineLoading()  # so "gpu" comes first
    slot, standing_in_line = admission.slot, ["gpu"]

    def slot_after_a_while(**terms: Any) -> Any:
        if standing_in_line:
            several.remove(standing_in_line.pop())
        return slot(**terms)

    monkeypatch.setattr(admission, "slot", slot_after_a_while)
    assert ask(as_alice, "Count to 3").json()["response"] == "1 2 3"
    assert Query.objects.get().engine == "default"
    assert (second.ledger, len(stub.ledger), standing_in_line) == ([], 1, [])


@pytest.mark.parametrize("deed", ["opens", "disable"])
def test_who_waits_for_one_that_is_out_goes_elsewhere(
    as_alice: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
    deed: str,
) -> None:
    monkeypatch.setattr(engines.roster._watch, "start", lambda: None)
    monkeypatch.setattr(gate, "_CHOOSE_AGAIN_S", 0.01)
    several.add("gpu", second, slots=1)
    known("default").error = EngineLoading()  # so "gpu" comes first
    deeds = {
        "opens": lambda: known("gpu").note_failure(EngineUnavailable(is_unreachable=True)),
        "disable": lambda: several.change("gpu", is_enabled=False),
    }
    to_do, wait = [deeds[deed]], gate._Waiter.wait

    def wait_after_the_deed(*terms: Any, **more: Any) -> None:
        if to_do:
            to_do.pop()()
        wait(*terms, **more)

    monkeypatch.setattr(gate._Waiter, "wait", wait_after_the_deed)
    taken = [Candidate(name="gpu", capacity=1)]
    with admission.slot(caller="x", candidates=lambda: taken, is_abandoned=lambda: False):
        assert ask(as_alice, "Count to 3").json()["response"] == "1 2 3"
    assert Query.objects.get().engine == "default"
    assert (second.ledger, len(stub.ledger), to_do) == ([], 1, [])


def test_who_waits_gets_a_slot_of_one_that_was_out_for_a_moment(
    as_alice: APIClient,
    stub: StubEngine,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    monkeypatch.setattr(engines.roster._watch, "start", lambda: None)
    monkeypatch.setattr(gate, "_CHOOSE_AGAIN_S", 0)
    monkeypatch.setattr(gate, "_LOOK_UP_S", 0.01)
    settings.ENGINE_SLOTS, settings.QUEUE_TIMEOUT_S = 1, 0.5
    several.add("gpu", second, slots=1)
    known("default").error = EngineLoading()  # so "gpu" comes first
    of_default, of_gpu = (
        [Candidate(name="default", capacity=1)],
        [Candidate(name="gpu", capacity=1)],
    )
    with (
        admission.slot(caller="x", candidates=lambda: of_default, is_abandoned=bool),
        ExitStack() as taken,
    ):
        taken.enter_context(
            admission.slot(caller="y", candidates=lambda: of_gpu, is_abandoned=bool)
        )
        to_do = [
            lambda: known("gpu").note_failure(EngineUnavailable(is_unreachable=True)),
            lambda: known("gpu").ask(),
            taken.close,
        ]
        wait = gate._Waiter.wait

        def wait_after_a_deed(*terms: Any, **more: Any) -> None:
            if to_do:
                to_do.pop(0)()
            wait(*terms, **more)

        monkeypatch.setattr(gate._Waiter, "wait", wait_after_a_deed)
        assert ask(as_alice, "Count to 3").json()["response"] == "1 2 3"
    assert Query.objects.get().engine == "gpu"
    assert (len(second.ledger), stub.ledger, to_do) == (1, [], [])


@pytest.mark.parametrize("deed", ["remove", "change"])
def test_nothing_goes_where_an_engine_was(
    stub: StubEngine, second: StubEngine, several: Several, deed: str
) -> None:
    several.add("gpu", second)
    failures = value_of("sovereigncore_engine_failures_total", engine="gpu", reason="engine_busy")
    (gpu,) = [choice for choice in engines.choices() if choice.name == "gpu"]
    if deed == "remove":
        several.remove("gpu")
    else:
        several.change("gpu", url="http://127.0.0.1:9")
    with pytest.raises(EngineGone) as refused:
        ask_one(gpu)
    assert (refused.value.status, refused.value.retry_after_s) == (503, 5)
    assert second.ledger == []
    assert failures == value_of(
        "sovereigncore_engine_failures_total", engine="gpu", reason="engine_busy"
    )
