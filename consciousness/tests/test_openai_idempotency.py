"""`Idempotency-Key` on the routes of the OpenAI protocol: the first result again, in its form."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from consciousness.models import Query
from consciousness.tests.keyed import is_replay, send, the_key_is_free
from consciousness.tests.openai_asking import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    WEATHER,
    error_of,
    parts_of,
    user,
)
from tests.stub_engine import Behaviour, StubEngine

SAID = {"messages": [user("Count to 3")]}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def replayed_parts(response: Any) -> list[Any]:
    assert is_replay(response)
    assert response["Content-Type"] == "text/event-stream"
    response.streaming_content = [response.content]
    return parts_of(response)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, SAID),
        (CHAT, {**SAID, "n": 2, "logprobs": True}),
        (CHAT, {**SAID, "tools": [WEATHER]}),
        (COMPLETIONS, {"prompt": "Count to 3", "logprobs": 1}),
    ],
)
def test_the_same_again_is_the_first_result(
    as_alice: APIClient, stub: StubEngine, path: str, body: dict[str, Any]
) -> None:
    first, second = send(as_alice, body, path=path), send(as_alice, body, path=path)
    assert (first.status_code, second.status_code) == (200, 200)
    assert (is_replay(first), is_replay(second)) == (False, True)
    assert second.json() == first.json()
    assert len(stub.ledger) == Query.objects.count() == 1


def joined(parts: list[Any], index: int) -> tuple[str, list[Any], list[Any]]:
    """The text, the calls' arguments and the ends of one choice in a stream."""
    choices = [choice for part in parts for choice in part["choices"] if choice["index"] == index]
    deltas = [choice.get("delta", choice) for choice in choices]
    text = "".join(delta.get("content") or delta.get("text") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    arguments = "".join(call["function"]["arguments"] for call in calls)
    names = [
        (call["index"], call["id"], call["function"]["name"]) for call in calls if "id" in call
    ]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return text, [arguments, names], ends


@pytest.mark.parametrize(
    ("path", "body", "choices"),
    [
        (CHAT, {**SAID, **USAGE}, 1),
        (CHAT, {**SAID, **USAGE, "n": 2}, 2),
        (CHAT, {**SAID, "stream": True}, 1),
        (CHAT, {"messages": [user("Weather in Paris")], "tools": [WEATHER], "stream": True}, 1),
        (COMPLETIONS, {"prompt": "Count to 3", **USAGE}, 1),
        (COMPLETIONS, {"prompt": "Count to 3", "stream": True}, 1),
    ],
)
def test_a_stream_is_replayed_as_a_stream_that_says_it_at_once(
    as_alice: APIClient, stub: StubEngine, path: str, body: dict[str, Any], choices: int
) -> None:
    *first, done = parts_of(send(as_alice, body, path=path))
    *second, done_again = replayed_parts(send(as_alice, body, path=path))
    assert done == done_again == "[DONE]"
    assert len(stub.ledger) == 1
    heads = [{**part, "choices": None, "usage": None} for part in (first[0], *second)]
    assert [head for head in heads if head != heads[0]] == []
    for index in range(choices):
        assert joined(second, index) == joined(first, index)
    if "stream_options" in body:
        assert second[-1] == first[-1]
        assert [part["usage"] for part in second[:-1]] == [None] * (len(second) - 1)
    else:
        assert [part for part in second if "usage" in part] == []


def test_after_a_failure_in_the_middle_the_key_is_free(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.enqueue(Behaviour.DIE_MID_STREAM)
    body = {**SAID, "stream": True}
    first = send(as_alice, body, path=CHAT)
    assert "error" in parts_of(first)[-1]
    first._iterator.close()
    assert the_key_is_free()
    assert parts_of(send(as_alice, body, path=CHAT))[-1] == "[DONE]"


def test_where_nothing_is_kept_a_key_is_refused(as_alice: APIClient, stub: StubEngine) -> None:
    for path, body in ((EMBEDDINGS, {"input": "a"}), (CHAT, {**SAID, "store": False})):
        error = error_of(send(as_alice, body, path=path), 422, "validation_error")
        assert error["param"] == "Idempotency-Key"
    assert stub.ledger == []
    assert the_key_is_free()


def test_another_body_under_the_same_key(as_alice: APIClient, stub: StubEngine) -> None:
    assert send(as_alice, SAID, path=CHAT).status_code == 200
    other = {"messages": [user("Count to 4")]}
    error_of(send(as_alice, other, path=CHAT), 422, "idempotency_key_reused")
