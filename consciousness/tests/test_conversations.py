"""Conversations: turns that are kept, sent along, cut to the window, renamed and deleted."""

from __future__ import annotations

import contextlib
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import conversations
from consciousness.asks import Ask
from consciousness.conversations import Turn, fitting, title_for
from consciousness.engine_errors import EngineError
from consciousness.maintenance import delete_old_queries
from consciousness.models import Conversation, Query, QueryContent, Status, UsageDay
from consciousness.services import start_query
from consciousness.tests.asking import (
    PROCESS,
    ask,
    ask_streamed,
    chunks,
    event_of,
    hang_up,
)
from tests.stub_engine import Behaviour, StubEngine

CONVERSATIONS = "/api/v1/consciousness/conversations"


def sent(stub: StubEngine) -> list[tuple[str, str]]:
    """The messages of the newest generation."""
    messages = stub.ledger[-1].body["messages"]
    return [(message["role"], message["content"]) for message in messages]


def begun(client: APIClient, prompt: str = "Count to 2", **more: Any) -> str:
    response = ask(client, prompt, conversation="new", **more)
    assert response.status_code == 200, response.content
    conversation: str = response.json()["conversation"]
    assert uuid.UUID(conversation)
    return conversation


def test_earlier_turns_are_sent_along(as_alice: APIClient, stub: StubEngine) -> None:
    conversation = begun(as_alice)
    body = ask(as_alice, "Count to 3", conversation=conversation).json()
    assert (body["conversation"], body["turns_dropped"]) == (conversation, 0)
    assert sent(stub) == [
        ("user", "Count to 2"),
        ("assistant", "1 2"),
        ("user", "Count to 3"),
    ]


def test_a_query_without_one_begins_none(as_alice: APIClient, stub: StubEngine) -> None:
    assert ask(as_alice).json()["conversation"] is None
    assert not Conversation.objects.exists()


def test_a_stream_belongs_to_one_too(as_alice: APIClient, stub: StubEngine) -> None:
    events = [event_of(chunk) for chunk in chunks(ask_streamed(as_alice, conversation="new"))]
    conversation = events[-1][1]["conversation"]
    ask(as_alice, "Count to 3", conversation=conversation)
    assert len(sent(stub)) == 3


@pytest.mark.parametrize("given", ["", "newest", "0" * 35, 7, None, [], "../1"])
def test_what_is_no_conversation(as_alice: APIClient, stub: StubEngine, given: object) -> None:
    response = ask(as_alice, conversation=given)
    assert (response.status_code, list(response.json()["errors"])) == (422, ["conversation"])
    assert stub.ledger == []


def test_somebody_elses_is_as_good_as_none(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine
) -> None:
    conversation = begun(as_alice)
    foreign = ask(as_bob, conversation=conversation)
    unknown = ask(as_bob, conversation=str(uuid.uuid4()))
    assert foreign.status_code == unknown.status_code == 404
    bodies = [response.json() for response in (foreign, unknown)]
    for body in bodies:
        del body["request_id"]
    assert bodies[0] == bodies[1]
    assert len(stub.ledger) == 1


def test_one_that_keeps_its_turns_cannot_forget_them(as_alice: APIClient, stub: StubEngine) -> None:
    response = ask(as_alice, conversation="new", store=False)
    assert (response.status_code, list(response.json()["errors"])) == (422, ["store"])


def test_a_turn_that_was_cut_short_is_kept_as_far_as_it_came(
    as_alice: APIClient, stub: StubEngine
) -> None:
    conversation = begun(as_alice)
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    response = ask_streamed(as_alice, "Count to 9", conversation=conversation)
    received = chunks(response)
    next(received)
    next(received)
    hang_up(response)
    stub.behave(Behaviour.NORMAL)
    ask(as_alice, "Count to 3", conversation=conversation)
    assert sent(stub)[2:] == [("user", "Count to 9"), ("assistant", "1 2"), ("user", "Count to 3")]


def test_a_failed_turn_is_no_part_of_it(as_alice: APIClient, stub: StubEngine) -> None:
    conversation = begun(as_alice)
    stub.behave(Behaviour.DIE_MID_STREAM, after_tokens=1)
    assert ask(as_alice, "Count to 9", conversation=conversation).status_code == 502
    stub.behave(Behaviour.NORMAL)
    ask(as_alice, "Count to 3", conversation=conversation)
    assert len(sent(stub)) == 3


def test_a_failure_begins_none(as_alice: APIClient, stub: StubEngine) -> None:
    stub.behave(Behaviour.HTML)
    assert ask(as_alice, conversation="new").status_code == 502
    assert not Conversation.objects.exists()


def test_an_empty_answer_begins_one_too(as_alice: APIClient, stub: StubEngine) -> None:
    conversation = begun(as_alice, "Count to 0")
    assert ask(as_alice, "Count to 2", conversation=conversation).status_code == 200
    assert sent(stub) == [("user", "Count to 2")]


# --- the window --------------------------------------------------------------------------------


def test_the_oldest_turns_go_first_and_the_caller_is_told(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    conversation = begun(as_alice, "Count to 1")
    long = "word " * 1900
    for number in (2, 3, 4):
        ask(as_alice, f"Count to {number}. {long}", conversation=conversation, max_tokens=100)
    body = ask(as_alice, "Count to 5", conversation=conversation, max_tokens=100).json()
    # The stub's window of 8,192 tokens holds two of the long turns by estimate.
    assert body["turns_dropped"] == 2
    assert [text.split(".")[0] for role, text in sent(stub) if role == "user"] == [
        "Count to 3",
        "Count to 4",
        "Count to 5",
    ]


def test_turns_beyond_the_number_that_is_sent_along_are_told_as_well(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "_MAX_TURNS", 2)
    conversation = begun(as_alice, "Count to 1")
    for number, dropped in ((2, 0), (3, 0), (4, 1), (5, 2)):
        body = ask(as_alice, f"Count to {number}", conversation=conversation).json()
        assert body["turns_dropped"] == dropped
    assert len(sent(stub)) == 2 * 2 + 1


def test_where_the_engine_counts_more_than_was_estimated_half_is_dropped(
    as_alice: APIClient, stub: StubEngine
) -> None:
    conversation = begun(as_alice, "Count to 1")
    for number in (2, 3):
        ask(as_alice, f"Count to {number}", conversation=conversation)
    stub.enqueue(Behaviour.OVERLONG_400)
    response = ask(as_alice, "Count to 4", conversation=conversation)
    assert response.status_code == 200
    assert response.json()["turns_dropped"] == 2
    assert [text for role, text in sent(stub) if role == "user"] == ["Count to 3", "Count to 4"]


def test_a_prompt_that_is_too_long_by_itself_is_refused(
    as_alice: APIClient, stub: StubEngine
) -> None:
    conversation = begun(as_alice, "Count to 1")
    stub.behave(Behaviour.OVERLONG_400)
    response = ask(as_alice, "Count to 4", conversation=conversation)
    assert (response.status_code, response.json()["code"]) == (422, "context_length_exceeded")
    assert len(stub.ledger) == 3  # the first turn's, with it, and without it


def turns(*sizes: int) -> list[Turn]:
    return [Turn(prompt=f"{number}", response="x" * size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "budget", "kept"),
    [
        ((), 100, ""),
        ((30, 30), 1000, "01"),
        ((3000, 30), 200, "1"),
        ((30, 3000), 200, ""),
        ((30, 3000, 30), 200, "2"),
        ((30, 30), -5, ""),
    ],
)
def test_the_newest_that_fit_are_kept(sizes: tuple[int, ...], budget: int, kept: str) -> None:
    assert "".join(turn.prompt for turn in fitting(turns(*sizes), budget_tokens=budget)) == kept


# --- titles, lists, deletion -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Why is the sky blue?", "Why is the sky blue?"),
        ("  two\nlines\t here ", "two lines here"),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_the_title_is_the_first_prompts_first_words(prompt: str, title: str) -> None:
    assert title_for(prompt) == title


def test_they_are_listed_by_their_last_activity(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine
) -> None:
    first, second = begun(as_alice, "Count to 1"), begun(as_alice, "Count to 2")
    begun(as_bob)
    ask(as_alice, "Count to 3", conversation=first)
    listed = as_alice.get(CONVERSATIONS).json()["results"]
    assert [row["id"] for row in listed] == [first, second]
    assert listed[1]["title"] == "Count to 2"
    assert listed[0]["updated_at"] > listed[0]["created_at"]
    page = as_alice.get(CONVERSATIONS, {"limit": "1"}).json()
    assert [row["id"] for row in as_alice.get(page["next"]).json()["results"]] == [second]


def test_one_is_renamed(as_alice: APIClient, stub: StubEngine) -> None:
    path = f"{CONVERSATIONS}/{begun(as_alice)}"
    assert as_alice.patch(path, {"title": "Numbers"}).json()["title"] == "Numbers"
    assert as_alice.get(path).json()["title"] == "Numbers"
    expected = {"a\x00b": 400}  # refused before any field is looked at
    for title in ("", " ", "x" * 101, None, 5, "a\x00b"):
        status = as_alice.patch(path, {"title": title}).status_code
        assert status == expected.get(str(title), 422)
    assert as_alice.patch(path, {"user": "x"}).status_code == 422


def test_its_messages_are_told_oldest_first(as_alice: APIClient, stub: StubEngine) -> None:
    conversation = begun(as_alice)
    ask(as_alice, "Count to 3", conversation=conversation)
    path = f"{CONVERSATIONS}/{conversation}/messages"
    messages = as_alice.get(path).json()["results"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("user", "Count to 2"),
        ("assistant", "1 2"),
        ("user", "Count to 3"),
        ("assistant", "1 2 3"),
    ]
    page = as_alice.get(path, {"limit": "1"}).json()
    assert [message["content"] for message in page["results"]] == ["Count to 2", "1 2"]
    rest = as_alice.get(page["next"]).json()["results"]
    assert [message["content"] for message in rest] == ["Count to 3", "1 2 3"]


def test_deleting_one_deletes_what_was_said_and_leaves_what_was_used(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    conversation = begun(as_alice)
    ask(as_alice, "Count to 3", conversation=conversation)
    kept = ask(as_alice, "Count to 4").json()["query_id"]
    assert as_alice.delete(f"{CONVERSATIONS}/{conversation}").status_code == 204
    assert as_alice.get(f"{CONVERSATIONS}/{conversation}").status_code == 404
    assert [str(query.id) for query in Query.objects.all()] == [kept]
    assert QueryContent.objects.count() == 1
    assert UsageDay.objects.get().completion_tokens == 9
    assert ask(as_alice, conversation=conversation).status_code == 404


def test_one_deleted_while_it_is_answered_keeps_nothing(
    as_alice: APIClient, stub: StubEngine
) -> None:
    conversation = begun(as_alice)
    response = ask_streamed(as_alice, "Count to 3", conversation=conversation)
    assert as_alice.delete(f"{CONVERSATIONS}/{conversation}").status_code == 204
    list(chunks(response))
    assert not Conversation.objects.exists()
    assert not QueryContent.objects.exists()
    assert Query.objects.get().completion_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "behaviour", "status"),
    [
        ("Count to 0", Behaviour.NORMAL, Status.COMPLETED),
        ("Count to 9", Behaviour.HTML, Status.FAILED),
        ("Count to 9", Behaviour.HANG_BEFORE_FIRST_TOKEN, Status.CANCELLED),
    ],
)
def test_one_deleted_before_the_first_word_keeps_no_question(
    as_alice: APIClient,
    alice: User,
    stub: StubEngine,
    *,
    prompt: str,
    behaviour: Behaviour,
    status: Status,
) -> None:
    conversation = begun(as_alice)
    stub.behave(behaviour)
    with (
        contextlib.suppress(EngineError),
        start_query(user=alice, ask=Ask(prompt=prompt, conversation=conversation)) as running,
    ):
        assert as_alice.delete(f"{CONVERSATIONS}/{conversation}").status_code == 204
        for event in running:
            if event is None and status == Status.CANCELLED:
                break
    assert Query.objects.get().status == status
    assert not QueryContent.objects.exists()


def test_a_question_that_found_no_model_goes_with_its_conversation(
    as_alice: APIClient, stub: StubEngine
) -> None:
    conversation = begun(as_alice)
    refused = ask(as_alice, "Count to 3", conversation=conversation, model="unknown")
    assert refused.status_code == 422
    assert QueryContent.objects.count() == 2
    assert as_alice.delete(f"{CONVERSATIONS}/{conversation}").status_code == 204
    assert ask(as_alice, conversation=conversation, model="unknown").status_code == 422
    assert not QueryContent.objects.exists()


def test_retention_counts_from_the_last_activity(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.RETENTION_DAYS = 30
    active, idle = begun(as_alice, "Count to 1"), begun(as_alice, "Count to 2")
    long_ago = timezone.now() - timedelta(days=31)
    Query.objects.update(created_at=long_ago)
    Conversation.objects.update(updated_at=long_ago)
    ask(as_alice, "Count to 3", conversation=active)
    delete_old_queries()
    assert [str(row.id) for row in Conversation.objects.all()] == [active]
    assert sorted(QueryContent.objects.values_list("prompt", flat=True)) == [
        "Count to 1",
        "Count to 3",
    ]
    assert idle != active


def test_what_the_engine_still_had_of_the_prompt_is_told(
    as_alice: APIClient, stub: StubEngine
) -> None:
    body = as_alice.post(PROCESS, {"prompt": "Count to 2"}).json()
    assert body["usage"]["cached_tokens"] == 0
    assert Query.objects.get().cached_tokens == 0
