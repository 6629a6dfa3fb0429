"""A host that conserves: half the slots, shorter answers, and it says so."""

from __future__ import annotations

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from consciousness import engines
from consciousness.tests.asking import ask, ask_streamed, assert_nothing_runs, chunks, hang_up
from monitoring.awareness import awareness
from monitoring.governor import GovernorState, Mode
from tests.stub_engine import Behaviour, StubEngine


@pytest.fixture
def conserving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awareness, "_governor", GovernorState(mode=Mode.CONSERVING))


def test_answers_are_shorter_and_say_why(
    as_alice: APIClient, stub: StubEngine, settings: Settings, conserving: None
) -> None:
    settings.GOVERNOR_CONSERVE_MAX_TOKENS = 4
    body = ask(as_alice, "Count to 9", max_tokens=100).json()
    assert (body["response"], body["finish_reason"]) == ("1 2 3 4", "length")
    assert body["cognitive_mode"] == "conserving"
    assert stub.ledger[0].body["max_tokens"] == 4


def test_shorter_ones_are_left_alone(
    as_alice: APIClient, stub: StubEngine, conserving: None
) -> None:
    ask(as_alice, "Count to 9", max_tokens=100)
    assert stub.ledger[0].body["max_tokens"] == 100


def test_an_engine_that_misses_a_probe_ends_nothing_of_it(
    as_alice: APIClient,
    as_bob: APIClient,
    stub: StubEngine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    conserving: None,
) -> None:
    settings.GOVERNOR_CONSERVE_MAX_TOKENS = 4
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT = 2, 0
    monkeypatch.setattr(awareness, "_ask_engine", lambda: False)
    body = ask(as_alice, "Count to 9", max_tokens=100).json()
    assert (body["response"], body["cognitive_mode"]) == ("1 2 3 4", "survival")
    assert engines.slots_now() == {"default": 1}
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    stream = ask_streamed(as_alice, "Count to 3")
    next(chunks(stream))
    assert ask(as_bob).json()["code"] == "queue_full"
    hang_up(stream)
    assert_nothing_runs(stub)


@pytest.mark.parametrize(("slots", "together"), [(4, 2), (3, 1), (1, 1)])
def test_half_the_slots_are_given(
    as_alice: APIClient,
    as_bob: APIClient,
    as_staff: APIClient,
    stub: StubEngine,
    settings: Settings,
    conserving: None,
    slots: int,
    together: int,
) -> None:
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT = slots, 0
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    streams = [ask_streamed(client, "Count to 3") for client in (as_alice, as_bob)[:together]]
    for stream in streams:
        next(chunks(stream))
    assert ask(as_staff).json()["code"] == "queue_full"
    for stream in streams:
        hang_up(stream)
    assert_nothing_runs(stub)


def test_a_cached_answer_needs_no_slot_and_is_the_same(
    as_alice: APIClient, stub: StubEngine, conserving: None
) -> None:
    assert [ask(as_alice, temperature=0).json()["cached"] for _ in range(2)] == [False, True]
