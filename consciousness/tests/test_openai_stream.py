"""The OpenAI protocol's streams: the bytes, the end, and what happens to those that have none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from consciousness import engine_generation, sse
from consciousness.models import Query, QueryContent, Status
from consciousness.tests.asking import (
    LOGOUT,
    assert_nothing_runs,
    chunks,
    hang_up,
    wait_until_sent,
)
from consciousness.tests.openai_asking import (
    CHAT,
    COMPLETIONS,
    WEATHER,
    chat,
    error_of,
    parts_of,
    streamed,
    user,
)
from tests.log_capture import LogCapture
from tests.stub_engine import CANARY_SECRET, MODEL, Behaviour, StubEngine

USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


def chat_stream(client: APIClient, said: str = "Count to 3", **more: Any) -> Any:
    return streamed(client, CHAT, messages=[user(said)], **more)


def text_of(parts: list[Any], index: int = 0) -> str:
    choices = [choice for part in parts for choice in part["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_the_parts_are_those_of_the_protocol(as_alice: APIClient, stub: StubEngine) -> None:
    *parts, done = parts_of(chat_stream(as_alice, "Count to 2"))
    query = Query.objects.get()
    assert done == "[DONE]"
    heads = {json.dumps({**part, "choices": None}, sort_keys=True) for part in parts}
    (head,) = map(json.loads, heads)
    assert head.pop("created") == pytest.approx(query.created_at.timestamp(), abs=5)
    assert head == {
        "id": f"chatcmpl-{query.id.hex}",
        "object": "chat.completion.chunk",
        "model": MODEL,
        "system_fingerprint": None,
        "choices": None,
    }
    ends: list[Any] = [None, None, None, "stop"]
    deltas: list[Any] = [
        {"role": "assistant", "content": "", "refusal": None},
        *({"content": "1"}, {"content": " 2"}, {}),
    ]
    assert [part["choices"] for part in parts] == [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]
        for delta, end in zip(deltas, ends, strict=True)
    ]
    assert query.status == Status.COMPLETED
    assert_nothing_runs(stub)


def test_the_bytes_of_an_event(as_alice: APIClient, stub: StubEngine) -> None:
    response = chat_stream(as_alice, "Count to 1")
    assert response["Content-Type"] == "text/event-stream"
    assert response["X-Accel-Buffering"] == "no"
    events = b"".join(chunks(response))
    assert events.endswith(b"}\n\ndata: [DONE]\n\n")
    for event in events.removesuffix(b"\n\n").split(b"\n\n"):
        assert event.startswith(b"data: ")
        assert b"\n" not in event


def test_usage_comes_last_and_is_null_before(as_alice: APIClient, stub: StubEngine) -> None:
    *parts, last, done = parts_of(chat_stream(as_alice, **USAGE))
    assert done == "[DONE]"
    assert [part["usage"] for part in parts] == [None] * 5
    assert last["choices"] == []
    assert last["id"] == parts[0]["id"]
    assert last["usage"] == chat(as_alice).json()["usage"]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
def test_without_being_asked_for_there_is_no_usage(
    as_alice: APIClient, stub: StubEngine, options: dict[str, Any]
) -> None:
    parts = parts_of(chat_stream(as_alice, **options))
    assert [part for part in parts[:-1] if "usage" in part or not part["choices"]] == []


@pytest.mark.parametrize(
    "said", ["Count to 30", 'Zeilen\nund\r\n\ndata: [DONE]\n\n, "世界" 👍 \u2028 <script>']
)
def test_the_parts_together_are_what_is_kept(
    as_alice: APIClient, stub: StubEngine, said: str
) -> None:
    *parts, done = parts_of(chat_stream(as_alice, said))
    assert done == "[DONE]"
    assert text_of(parts) == QueryContent.objects.get().response
    assert text_of(parts) == chat(as_alice, said).json()["choices"][0]["message"]["content"]


def test_each_choice_has_its_role_its_text_and_its_end(
    as_alice: APIClient, stub: StubEngine
) -> None:
    *parts, last, _ = parts_of(chat_stream(as_alice, "Count to 3", n=3, **USAGE))
    for index in range(3):
        own = [choice for part in parts for choice in part["choices"] if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in own] == [None] * 4 + ["stop"]
        assert text_of(parts, index) == "1 2 3"
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (3, 9)


def test_calls_keep_their_places(as_alice: APIClient, stub: StubEngine) -> None:
    clock = {"type": "function", "function": {"name": "get_time"}}
    *parts, _ = parts_of(chat_stream(as_alice, "Use each tool for Paris", tools=[WEATHER, clock]))
    deltas = [part["choices"][0]["delta"] for part in parts]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    heads = [call for call in calls if "id" in call]
    assert [(call["index"], call["function"]["name"]) for call in heads] == [
        (0, "get_weather"),
        (1, "get_time"),
    ]
    assert len({call["id"] for call in heads}) == 2
    arguments = "".join(call["function"]["arguments"] for call in calls if call["index"] == 0)
    assert json.loads(arguments) == {"city": "Paris"}
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert text_of(parts) == ""


def test_log_probabilities_come_with_their_token(as_alice: APIClient, stub: StubEngine) -> None:
    *parts, _ = parts_of(chat_stream(as_alice, "Count to 2", logprobs=True, top_logprobs=1))
    told = [part["choices"][0]["logprobs"] for part in parts]
    assert [part and part["content"][0]["token"] for part in told] == [None, "1", " 2", None]


def test_an_answer_from_the_history_is_a_stream_too(as_alice: APIClient, stub: StubEngine) -> None:
    first = parts_of(chat_stream(as_alice, temperature=0))
    *parts, last, done = parts_of(chat_stream(as_alice, temperature=0, **USAGE))
    assert len(stub.ledger) == 1
    assert text_of(parts) == text_of(first[:-1]) == "1 2 3"
    assert [part["choices"][0]["finish_reason"] for part in parts] == [None, None, "stop"]
    assert (last["usage"]["total_tokens"], done) == (0, "[DONE]")


@pytest.mark.usefixtures("looks_often")
def test_silence_is_filled_with_comments(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.1)
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = chat_stream(as_alice)
    comments = (chunk for chunk in chunks(response) if chunk.startswith(b":"))
    assert [next(comments) for _ in range(3)] == [b": still working\n\n"] * 3
    hang_up(response)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour.HANG_MID_STREAM, "engine_timeout"),
        (Behaviour.DIE_MID_STREAM, "engine_bad_reply"),
        (Behaviour.ERROR_MID_STREAM, "engine_bad_reply"),
        (Behaviour.HALF_JSON, "engine_bad_reply"),
    ],
)
def test_a_failure_in_the_middle_is_an_error_and_not_done(
    as_alice: APIClient, stub: StubEngine, path: str, behaviour: Behaviour, code: str
) -> None:
    stub.behave(behaviour)
    said = {"messages": [user("Count to 9")]} if path == CHAT else {"prompt": "Count to 9"}
    *parts, last = parts_of(streamed(as_alice, path, **said))
    assert len(parts) >= 2
    assert list(last) == ["error"]
    assert list(last["error"]) == ["message", "type", "param", "code"]
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", code)
    assert CANARY_SECRET not in json.dumps(last)
    query = Query.objects.get()
    assert (query.status, query.error_code) == (Status.FAILED, code)
    assert query.completion_tokens == stub.ledger[0].completion_tokens == 2
    assert_nothing_runs(stub)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour.LOADING_503, 503, "engine_loading"),
        (Behaviour.BUSY_429, 503, "engine_busy"),
        (Behaviour.UNAUTHORIZED_401, 502, "engine_misconfigured"),
        (Behaviour.HTML, 502, "engine_bad_reply"),
        (Behaviour.ERROR_500_WITH_SECRET, 502, "engine_bad_reply"),
        (Behaviour.OVERLONG_400, 400, "context_length_exceeded"),
        (Behaviour.HANG_BEFORE_HEADERS, 504, "engine_timeout"),
    ],
)
def test_a_failure_before_the_first_part_is_an_ordinary_error(
    as_alice: APIClient, stub: StubEngine, behaviour: Behaviour, status: int, code: str
) -> None:
    stub.behave(behaviour)
    error = error_of(chat(as_alice, stream=True), status, code)
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert CANARY_SECRET not in json.dumps(error)
    assert_nothing_runs(stub)


def test_a_fault_of_our_own_in_the_middle_is_logged_and_told(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("a bug")

    response = chat_stream(as_alice, **USAGE)
    monkeypatch.setattr("consciousness.openai_stream.described_usage", broken)
    *_, last = parts_of(response)
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "internal_error")
    assert "a bug" not in json.dumps(last)
    assert len(logs.events("unhandled_error")) == 1
    assert_nothing_runs(stub)


@pytest.mark.parametrize("n", [1, 2])
def test_a_client_that_hangs_up_stops_the_engine_and_pays_for_what_it_sent(
    as_alice: APIClient, stub: StubEngine, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", 20.0)
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=5)
    response = chat_stream(as_alice, "Count to 100", n=n)
    next(chunks(response))
    wait_until_sent(stub, 5 * n)
    hang_up(response)
    assert_nothing_runs(stub)
    (record,) = stub.ledger
    assert record.disconnected
    query = Query.objects.get()
    assert query.status == Status.CANCELLED
    assert query.completion_tokens == record.completion_tokens == 5 * n
    assert not query.is_estimated


def test_a_revoked_credential_ends_its_open_streams(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    stub.behave(Behaviour.SLOW, token_delay_s=0.02)
    response = chat_stream(as_alice, "Count to 500")
    assert as_alice.post(LOGOUT).status_code == 204
    *_, last = parts_of(response)
    assert last["error"]["type"] == "authentication_error"
    assert last["error"]["code"] == "credential_revoked"
    assert_nothing_runs(stub)
    assert Query.objects.get().status == Status.CANCELLED
