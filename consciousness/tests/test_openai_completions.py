"""`/v1/completions`: a text and what continues it."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from consciousness.models import Query, QueryContent
from consciousness.tests.asking import QUERIES, assert_nothing_runs
from consciousness.tests.openai_asking import COMPLETIONS, error_of, parts_of, streamed
from tests.stub_engine import MODEL, StubEngine


@pytest.mark.parametrize("prompt", ["Count to 3", ["Count to 3"]])
def test_the_answer_is_the_protocols(as_alice: APIClient, stub: StubEngine, prompt: Any) -> None:
    answer = as_alice.post(COMPLETIONS, {"prompt": prompt}).json()
    query = Query.objects.get()
    assert answer.pop("created") == pytest.approx(query.created_at.timestamp(), abs=5)
    assert answer == {
        "id": f"cmpl-{query.id.hex}",
        "object": "text_completion",
        "model": MODEL,
        "system_fingerprint": None,
        "choices": [{"index": 0, "text": "1 2 3", "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    (record,) = stub.ledger
    assert (record.body["prompt"], record.body["max_tokens"]) == ("Count to 3", 16)
    assert "messages" not in record.body
    (row,) = as_alice.get(QUERIES).json()["results"]
    assert (row["kind"], row["prompt"], row["response"]) == ("completion", "Count to 3", "1 2 3")
    assert QueryContent.objects.get().messages is None
    assert_nothing_runs(stub)


def test_a_prompts_white_space_is_part_of_it(as_alice: APIClient, stub: StubEngine) -> None:
    assert as_alice.post(COMPLETIONS, {"prompt": " \n x \t"}).status_code == 200
    assert stub.ledger[0].body["prompt"] == " \n x \t"


def test_the_stream_is_the_protocols(as_alice: APIClient, stub: StubEngine) -> None:
    usage = {"stream_options": {"include_usage": True}}
    *parts, last, done = parts_of(streamed(as_alice, COMPLETIONS, prompt="Count to 2", **usage))
    assert done == "[DONE]"
    assert {part["object"] for part in parts} == {"text_completion"}
    assert len({(part["id"], part["created"], part["model"]) for part in [*parts, last]}) == 1
    assert [part["choices"] for part in parts] == [
        [{"index": 0, "text": text, "logprobs": None, "finish_reason": end}]
        for text, end in (("1", None), (" 2", None), ("", "stop"))
    ]
    assert [part["usage"] for part in parts] == [None] * 3
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (3, 2)


def test_log_probabilities_are_in_the_older_form(as_alice: APIClient, stub: StubEngine) -> None:
    body = {"prompt": "Count to 3", "logprobs": 2}
    told = as_alice.post(COMPLETIONS, body).json()["choices"][0]["logprobs"]
    assert told == {
        "tokens": ["1", " 2", " 3"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{token: -0.5, f"{token}0": -1.5} for token in ("1", " 2", " 3")],
        "text_offset": [0, 1, 3],
    }
    *parts, _ = parts_of(streamed(as_alice, COMPLETIONS, **body))
    in_parts = [part["choices"][0]["logprobs"] for part in parts]
    for name, whole in told.items():
        assert [entry for part in in_parts[:-1] for entry in part[name]] == whole
    assert in_parts[-1] is None


def test_an_engine_that_answers_in_the_older_form_is_passed_on(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM does."""
    older = {"tokens": ["1"], "token_logprobs": [-1.0], "top_logprobs": [{"1": -1.0}]}
    monkeypatch.setattr(
        "tests.stub_engine.protocol.compose_logprobs", lambda *_: {**older, "more": 1}
    )
    answer = as_alice.post(COMPLETIONS, {"prompt": "Count to 1", "logprobs": 1}).json()
    assert answer["choices"][0]["logprobs"] == {**older, "text_offset": None}


def test_several_choices_in_one_stream(as_alice: APIClient, stub: StubEngine) -> None:
    *parts, _ = parts_of(streamed(as_alice, COMPLETIONS, prompt="Count to 2", n=2, logprobs=1))
    for index in (0, 1):
        own = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in own) == "1 2"
        assert [choice["logprobs"]["text_offset"] for choice in own[:-1]] == [[0], [1]]
        assert own[-1]["finish_reason"] == "stop"
    assert Query.objects.get().completion_tokens == 4


@pytest.mark.parametrize(
    "harmless", [{"echo": False}, {"best_of": 1}, {"suffix": ""}, {"suffix": None}]
)
def test_what_is_not_supported_may_be_sent_with_its_default(
    as_alice: APIClient, stub: StubEngine, harmless: dict[str, Any]
) -> None:
    assert as_alice.post(COMPLETIONS, {"prompt": "x", **harmless}).status_code == 200
    assert not set(harmless) & set(stub.ledger[0].body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": "x" * 200_001}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "echo": 0}, "echo"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "best_of": True}, "best_of"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "logprobs": 0}, "logprobs"),
        ({"prompt": "x", "logprobs": 6}, "logprobs"),
        ({"prompt": "x", "messages": []}, "messages"),
        ({"prompt": "x", "tools": []}, "tools"),
        ({"prompt": "x", "max_tokens": 32_769}, "max_tokens"),
        ({"prompt": "x", "max_completion_tokens": 5}, "max_completion_tokens"),
        ({"prompt": "x", "logit_bias": {"5": 1}}, "logit_bias"),
    ],
)
def test_what_is_not_understood_is_named(
    as_alice: APIClient, stub: StubEngine, body: dict[str, Any], param: str
) -> None:
    error = error_of(as_alice.post(COMPLETIONS, body), 400, "validation_error")
    assert error["param"] == param
    assert stub.ledger == []
    assert not Query.objects.exists()
