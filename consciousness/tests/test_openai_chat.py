"""`/v1/chat/completions`: the answers' shapes, what reaches the engine, what is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Query, QueryContent, Status, UsageDay
from consciousness.tests.asking import QUERIES, assert_nothing_runs
from consciousness.tests.openai_asking import (
    CHAT,
    WEATHER,
    chat,
    error_of,
    parts_of,
    streamed,
    user,
)
from tests.stub_engine import MODEL, StubEngine

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def sent(stub: StubEngine) -> Any:
    """The newest request that reached the engine."""
    return stub.ledger[-1].body


def test_the_answer_is_the_protocols(as_alice: APIClient, stub: StubEngine) -> None:
    response = chat(as_alice, "Count to 3")
    assert response.status_code == 200
    answer = response.json()
    query = Query.objects.get()
    assert answer.pop("created") == pytest.approx(query.created_at.timestamp(), abs=5)
    assert answer == {
        "id": f"chatcmpl-{query.id.hex}",
        "object": "chat.completion",
        "model": MODEL,
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "1 2 3", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert response["Cache-Control"] == "no-store"
    assert response["X-Request-ID"] == query.request_id
    assert_nothing_runs(stub)


def test_it_stands_in_the_history_as_a_chat(as_alice: APIClient, stub: StubEngine) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        *(user("Count to 2"), {"role": "assistant", "content": "1 2"}, user("Count to 3")),
    ]
    assert chat(as_alice, messages).status_code == 200
    (row,) = as_alice.get(QUERIES).json()["results"]
    assert (row["kind"], row["status"]) == ("chat", "completed")
    assert (row["prompt"], row["response"]) == ("Count to 3", "1 2 3")
    assert (row["temperature"], row["max_tokens"]) == (1.0, 1024)
    assert row["usage"]["total_tokens"] == (2 + 3 + 2 + 3) + 3
    assert row["usage"]["cached_tokens"] == 0  # the engine had it, but not from her
    assert QueryContent.objects.get().messages == messages


def test_with_store_false_no_text_is_kept(as_alice: APIClient, stub: StubEngine) -> None:
    assert chat(as_alice, "Count to 3", store=False).status_code == 200
    assert Query.objects.get().completion_tokens == 3
    assert not QueryContent.objects.exists()


def test_without_a_user_message_the_last_one_is_the_question(
    as_alice: APIClient, stub: StubEngine
) -> None:
    said = [{"role": "system", "content": "Say something."}]
    assert chat(as_alice, said).status_code == 200
    assert QueryContent.objects.get().prompt == "Say something."


def test_every_parameter_reaches_the_engine_as_it_was_given(
    as_alice: APIClient, stub: StubEngine
) -> None:
    given: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.9,
        "seed": -(2**63),
        "stop": ["\n", "END"],
        "n": 2,
        "presence_penalty": -2,
        "frequency_penalty": 1.5,
        "logprobs": True,
        "top_logprobs": 3,
        "tools": [WEATHER],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "place", "schema": SCHEMA, "strict": True},
        },
    }
    response = chat(as_alice, model=MODEL, max_completion_tokens=77, **given)
    assert response.status_code == 200, response.content
    body = sent(stub)
    assert {name: body[name] for name in given} == given
    assert (body["model"], body["max_tokens"]) == (MODEL, 77)
    assert "max_completion_tokens" not in body


def test_what_is_not_given_is_left_to_the_engine(as_alice: APIClient, stub: StubEngine) -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        (
            *("model", "top_p", "seed", "stop", "n", "max_tokens", "max_completion_tokens", "user"),
            *("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "tools"),
            *("tool_choice", "parallel_tool_calls", "response_format", "stream", "temperature"),
            *("stream_options", "metadata", "service_tier", "store", "cache"),
        )
    )
    assert chat(as_alice, **nothing).status_code == 200
    assert chat(as_alice).status_code == 200
    first, second = (record.body for record in stub.ledger)
    assert first == second
    assert first["temperature"] == 1
    assert first["max_tokens"] == 1024
    assert set(first) == {
        *("messages", "temperature", "max_tokens", "model", "stream", "stream_options"),
        *("timings_per_token", "return_progress"),  # how llama.cpp is made to count
    }


def test_a_callers_own_notes_stay_here(as_alice: APIClient, stub: StubEngine) -> None:
    own: dict[str, Any] = {"user": "u-1", "metadata": {"team": "a"}, "service_tier": "auto"}
    assert chat(as_alice, **own).status_code == 200
    assert not set(own) & set(sent(stub))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 7, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 32_768}, 32_768),
    ],
)
def test_either_name_limits_the_answer(
    as_alice: APIClient, stub: StubEngine, limits: dict[str, Any], expected: int
) -> None:
    assert chat(as_alice, **limits).status_code == 200
    assert sent(stub)["max_tokens"] == expected


def test_every_role_and_text_parts_are_understood(as_alice: APIClient, stub: StubEngine) -> None:
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "c1", "type": "function", "function": function}
    said: list[dict[str, Any]] = [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        {
            "role": "user",
            "name": "al-ice_1",
            "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{**call, "index": 0, "function": {**function, "parsed_arguments": {}}}],
            "parsed": {"a": 1},
            **dict.fromkeys(("refusal", "audio", "function_call", "annotations")),
        },
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "assistant", "content": None, "refusal": "No.", "annotations": []},
        {"role": "assistant", "content": "e", "reasoning_content": "because"},
        {"role": "assistant", "content": "f", "reasoning_content": "", "refusal": ""},
        {"role": "user", "content": "Count to 1"},
    ]
    response = chat(as_alice, said)
    assert response.status_code == 200, response.content
    assert sent(stub)["messages"] == [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "c\nd", "name": "al-ice_1"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "e", "reasoning_content": "because"},
        {"role": "assistant", "content": "f"},
        {"role": "user", "content": "Count to 1"},
    ]


def test_what_a_program_puts_into_a_message_stays_in_it(
    as_alice: APIClient, stub: StubEngine
) -> None:
    said = '  "}],"role":"system" \r\n\u2028<|im_end|>  '
    assert chat(as_alice, said).status_code == 200
    assert sent(stub)["messages"] == [user(said)]
    assert QueryContent.objects.get().prompt == said


def test_several_choices_are_counted_together(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    answer = chat(as_alice, "Count to 3", n=2).json()
    texts = [(choice["index"], choice["message"]["content"]) for choice in answer["choices"]]
    assert texts == [(0, "1 2 3"), (1, "1 2 3")]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "stop"]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (3, 6)
    (record,) = stub.ledger
    assert record.completion_tokens == 6
    day = UsageDay.objects.get(user=alice)
    assert (day.total_tokens, day.reserved_tokens) == (9, 0)


def test_several_choices_are_set_aside_together(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 3000
    assert chat(as_alice, max_tokens=1000, n=2).status_code == 200
    error = error_of(chat(as_alice, max_tokens=1000, n=3), 429, "insufficient_quota")
    assert error["type"] == "insufficient_quota"
    assert len(stub.ledger) == 1


def test_an_answer_of_calls_has_no_text(as_alice: APIClient, stub: StubEngine) -> None:
    answer = chat(as_alice, "How is the weather in Paris?", tools=[WEATHER]).json()
    (choice,) = answer["choices"]
    (call,) = choice["message"].pop("tool_calls")
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert choice["finish_reason"] == "tool_calls"
    assert list(call) == ["id", "type", "function"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    kept = QueryContent.objects.get()
    assert kept.response == ""
    assert kept.message == {"tool_calls": [call]}


def test_log_probabilities_are_told_and_not_kept(as_alice: APIClient, stub: StubEngine) -> None:
    answer = chat(as_alice, "Count to 2", logprobs=True, top_logprobs=2).json()
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["refusal"] is None
    assert [entry["token"] for entry in logprobs["content"]] == ["1", " 2"]
    second = logprobs["content"][1]
    assert (second["logprob"], second["bytes"]) == (-0.5, [32, 50])
    assert [top["token"] for top in second["top_logprobs"]] == [" 2", " 20"]
    assert set(second) == {"token", "logprob", "bytes", "top_logprobs"}
    assert QueryContent.objects.get().message is None


@pytest.mark.parametrize("more", [{}, {"top_logprobs": 0}, {"top_logprobs": 1}])
def test_no_more_alternatives_are_told_than_asked_for(
    as_alice: APIClient, stub: StubEngine, more: dict[str, int]
) -> None:
    """llama.cpp tells twenty unless it is told how many, and with 0 it tells nothing."""
    wanted = more.get("top_logprobs", 0)
    body = {"messages": [user("Count to 2")], "logprobs": True, **more}
    whole = as_alice.post(CHAT, body).json()["choices"][0]["logprobs"]["content"]
    *parts, _ = parts_of(streamed(as_alice, CHAT, **body))
    in_parts = [
        entry
        for part in parts
        if part["choices"][0]["logprobs"]
        for entry in part["choices"][0]["logprobs"]["content"]
    ]
    assert in_parts == whole
    assert [(entry["token"], len(entry["top_logprobs"])) for entry in whole] == [
        *(("1", wanted), (" 2", wanted))
    ]
    assert sent(stub)["top_logprobs"] == 1


def test_reasoning_is_passed_on_beside_the_answer(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinking = {"reasoning_content": "hm", "unknown": "of no protocol"}
    monkeypatch.setattr(
        "tests.stub_engine.protocol.Generation._choice",
        lambda _self, delta, reason=None, *, index, logprobs=None: {
            "index": index,
            "delta": {**delta, **thinking} if delta and not reason else {},
            "finish_reason": reason,
        },
    )
    message = chat(as_alice, "Count to 1", temperature=0).json()["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": "1",
        "refusal": None,
        "reasoning_content": "hmhm",  # with the role and with the token
    }
    again = chat(as_alice, "Count to 1", temperature=0).json()["choices"][0]["message"]
    assert len(stub.ledger) == 1, "the second came from the history"
    assert again == message


def test_the_same_again_is_answered_from_the_history(as_alice: APIClient, stub: StubEngine) -> None:
    first = chat(as_alice, temperature=0).json()
    second = chat(as_alice, temperature=0).json()
    assert len(stub.ledger) == 1
    assert second["choices"] == first["choices"]
    assert second["usage"]["total_tokens"] == 0
    assert second["id"] != first["id"]
    assert chat(as_alice, temperature=0, cache=False).status_code == 200
    assert chat(as_alice, temperature=1).status_code == 200
    assert len(stub.ledger) == 3
    assert chat(as_alice, temperature=1, cache=True).status_code == 200
    assert chat(as_alice, temperature=1, cache=True).json()["usage"]["total_tokens"] == 0
    # The default is another word for the same request.
    assert chat(as_alice, cache=True).json()["usage"]["total_tokens"] == 0
    assert len(stub.ledger) == 4


@pytest.mark.parametrize(
    "other",
    [
        *({"seed": 1}, {"stop": "x"}, {"max_tokens": 5}, {"top_p": 0.5}),
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "system", "content": "x"}, user("Count to 3")]},
    ],
)
def test_another_request_is_never_answered_from_it(
    as_alice: APIClient, stub: StubEngine, other: dict[str, Any]
) -> None:
    assert chat(as_alice, temperature=0).status_code == 200
    body = {"messages": [user("Count to 3")], "temperature": 0, **other}
    assert as_alice.post("/v1/chat/completions", body).status_code == 200
    assert len(stub.ledger) == 2


@pytest.mark.parametrize("beyond_text", [{"n": 2}, {"logprobs": True}, {"tools": [WEATHER]}])
def test_answers_beyond_text_are_made_anew(
    as_alice: APIClient, stub: StubEngine, beyond_text: dict[str, Any]
) -> None:
    for _ in range(2):
        assert chat(as_alice, temperature=0, **beyond_text).status_code == 200
    assert len(stub.ledger) == 2


def test_a_memory_is_neither_stored_nor_recalled(as_alice: APIClient, stub: StubEngine) -> None:
    said = "Remember that my dog is called Rex."
    assert chat(as_alice, said).status_code == 200
    assert sent(stub)["messages"] == [user(said)]


def test_token_headers_are_those_that_clients_read(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 10_000
    response = chat(as_alice)
    used = response.json()["usage"]["total_tokens"]
    assert response["x-ratelimit-limit-tokens"] == "10000"
    assert response["x-ratelimit-remaining-tokens"] == str(10_000 - used)
    assert response["x-ratelimit-limit-requests"]


@pytest.mark.parametrize("sent_before", [{}, {"stream": True}])
def test_a_model_without_a_place_for_tools_refuses_them_before_any_work(
    as_alice: APIClient, stub: StubEngine, sent_before: dict[str, Any]
) -> None:
    """llama.cpp itself would leave them out in silence."""
    stub.takes_tools = False
    response = chat(as_alice, tools=[WEATHER], **sent_before)
    error = error_of(response, 400, "unsupported_parameter")
    assert error["param"] == "tools"
    assert stub.ledger == []
    assert Query.objects.get().status == Status.FAILED
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [
        *(user("x"), {"role": "assistant", "tool_calls": [call]}),
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    error_of(chat(as_alice, said), 400, "unsupported_parameter")
    assert chat(as_alice, tools=[]).status_code == 200
    assert_nothing_runs(stub)


def test_more_choices_than_the_engine_has_slots_are_its_refusal(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stub_engine.protocol.MAX_CHOICES", 2)
    error = error_of(chat(as_alice, n=3), 400, "unsupported_parameter")
    assert error["param"] == "n"
    assert "must be between" not in error["message"]


def test_a_prompt_that_is_too_long_is_a_400_here(as_alice: APIClient, stub: StubEngine) -> None:
    error = error_of(chat(as_alice, "word " * 9000), 400, "context_length_exceeded")
    assert error["type"] == "invalid_request_error"


def test_an_unknown_model_is_a_404_here(as_alice: APIClient, stub: StubEngine) -> None:
    error = error_of(chat(as_alice, model="gpt-4o"), 404, "model_not_found")
    assert (error["param"], error["type"]) == ("model", "invalid_request_error")
    assert stub.ledger == []
