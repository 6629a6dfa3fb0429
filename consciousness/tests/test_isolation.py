"""Many users at once: everybody gets their own answer, whatever happens to the others'."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import engine_generation
from consciousness.models import Query, QueryContent, Status
from consciousness.tests.asking import (
    QUERIES,
    ask,
    ask_streamed,
    assert_nothing_runs,
    chunks,
    event_of,
)
from tests.parallel import in_parallel
from tests.stub_engine import Behaviour, StubEngine

USERS = 20
ROUNDS = 3

pytestmark = pytest.mark.django_db(transaction=True)


def canary(number: int, turn: int) -> str:
    return f"canary-{number:03d}-{turn}"


@pytest.fixture
def clients(db: None, client_of: Callable[..., APIClient]) -> list[APIClient]:
    users = [
        User.objects.create_user(f"user{n}", f"user{n}@example.org", "Correct-Horse-7-Battery")
        for n in range(USERS)
    ]
    return [client_of(user) for user in users]


def asked_whole(client: APIClient, prompt: str) -> str:
    response = ask(client, prompt)
    assert response.status_code == 200, response.content
    return str(response.json()["response"])


def asked_streamed(client: APIClient, prompt: str) -> str:
    events = [event_of(chunk) for chunk in chunks(ask_streamed(client, prompt))]
    assert events[-1][0] == "done"
    return "".join(data["text"] for name, data in events if name == "token")


def given_up_after_one_token(client: APIClient, prompt: str) -> None:
    response = ask_streamed(client, prompt)
    next(chunks(response))
    response.close()


@pytest.fixture
def patient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty share two slots, on whatever machine this runs."""
    settings.ENGINE_SLOTS, settings.QUEUE_TIMEOUT_S = 2, 60
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", 20.0)


@pytest.mark.usefixtures("patient")
def test_nobody_gets_anybody_elses_text(clients: list[APIClient], stub: StubEngine) -> None:
    stub.behave(Behaviour.SLOW, token_delay_s=0.001)

    def work(number: int) -> list[str]:
        client, answers = clients[number], []
        for turn in range(ROUNDS):
            words = f"{canary(number, turn)} " * 5
            if (number + turn) % 4 == 3:
                given_up_after_one_token(client, words)
                continue
            asker = asked_streamed if (number + turn) % 2 else asked_whole
            answers.append(asker(client, words))
            assert answers[-1] == f"Echo: {words}".strip()
        return answers

    answers = in_parallel(USERS, work)
    assert stub.wait_idle()
    for number, own in enumerate(answers):
        others = {
            canary(other, turn)
            for other in range(USERS)
            for turn in range(ROUNDS)
            if other != number
        }
        history = json.dumps(clients[number].get(QUERIES).json())
        assert not [text for text in others if text in history or text in "".join(own)]
        assert history.count(canary(number, 0)) > 0
    assert stub.peak_active == 2
    assert_nothing_runs(stub)
    assert Query.objects.count() == USERS * ROUNDS


@pytest.mark.usefixtures("patient")
def test_what_is_settled_is_what_the_engine_sent(
    clients: list[APIClient], stub: StubEngine
) -> None:
    """Answered, cut off by the caller, or died: each row against the engine's own ledger."""
    for behaviour in (Behaviour.SLOW, Behaviour.DIE_MID_STREAM, Behaviour.ERROR_MID_STREAM):
        stub.enqueue(behaviour, token_delay_s=0.002, after_tokens=4, times=6)
    stub.behave(Behaviour.SLOW, token_delay_s=0.001)

    def work(number: int) -> Any:
        text = f"{canary(number, 0)} one two three four five six seven eight nine"
        if number % 3 == 0:
            return given_up_after_one_token(clients[number], text)
        return ask(clients[number], text).status_code

    in_parallel(USERS, work)
    assert_nothing_runs(stub)
    sent = {
        record.body["messages"][0]["content"]: (record.prompt_tokens, record.completion_tokens)
        for record in stub.ledger
    }
    settled = {
        content.prompt: (content.query.prompt_tokens, content.query.completion_tokens)
        for content in QueryContent.objects.select_related("query")
    }
    assert settled == sent
    assert len(settled) == USERS
    statuses = set(Query.objects.values_list("status", flat=True))
    assert statuses == {Status.COMPLETED, Status.CANCELLED, Status.FAILED}
