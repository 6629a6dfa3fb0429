"""`POST /api/v1/consciousness/process`, the main job, for callers who wait for the whole answer."""

from __future__ import annotations

import uuid

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Query, QueryContent, Status
from consciousness.tests.asking import CAPITAL, PROCESS, QUERIES, ask, assert_nothing_runs
from monitoring.sensors import silicon_id
from tests.stub_engine import MODEL, StubEngine


def test_a_question_is_answered_counted_and_recorded(as_alice: APIClient, stub: StubEngine) -> None:
    response = ask(as_alice, f" {CAPITAL}\n")
    assert response.status_code == 200, response.content
    body = response.json()
    assert "Paris" in body["response"]
    assert body["finish_reason"] == "stop"
    (record,) = stub.ledger
    assert record.body["messages"] == [{"role": "user", "content": CAPITAL}]
    assert body["usage"] == {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
        "cached_tokens": 0,
    }
    query = Query.objects.get(id=body["query_id"])
    assert query.status == Status.COMPLETED
    assert query.content.response == body["response"]


def test_the_answer_has_every_field_of_the_contract(as_alice: APIClient, stub: StubEngine) -> None:
    response = as_alice.post(
        PROCESS, {"prompt": CAPITAL}, headers={"X-Request-ID": "trace-0123456789"}
    )
    body = response.json()
    assert set(body) == {
        *("response", "silicon_id", "consciousness_level", "thermal_state", "cognitive_mode"),
        *("processing_time_ms", "request_id", "query_id", "model", "usage", "finish_reason"),
        *("cached", "conversation", "turns_dropped", "memories_used", "memory_stored"),
    }
    assert body["silicon_id"] == silicon_id()
    assert 0 <= body["consciousness_level"] <= 1
    assert body["thermal_state"] in {"nominal", "elevated", "critical", "unknown"}
    assert body["cognitive_mode"] == "full"
    assert isinstance(body["processing_time_ms"], int)
    assert 0 <= body["processing_time_ms"] < 60_000
    assert body["request_id"] == "trace-0123456789" == response["X-Request-ID"]
    assert str(uuid.UUID(body["query_id"])) == body["query_id"]
    assert body["model"] == MODEL
    assert body["cached"] is False
    assert body["conversation"] is None
    assert body["turns_dropped"] == 0
    assert body["memories_used"] == []
    assert body["memory_stored"] is None
    assert response["Cache-Control"] == "no-store"


def test_the_row_tells_the_same_as_the_answer(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    body = ask(as_alice, "Count to 5", temperature=0.25, max_tokens=77).json()
    query = Query.objects.get()
    assert query.user == alice
    assert (query.status, query.error_code) == (Status.COMPLETED, "")
    assert (query.temperature, query.max_tokens) == (0.25, 77)
    assert query.model == body["model"]
    assert (query.prompt_tokens, query.completion_tokens) == (3, 5)
    assert not query.is_estimated
    assert query.finish_reason == body["finish_reason"]
    assert query.processing_time_ms is not None
    assert 0 <= query.processing_time_ms <= body["processing_time_ms"]
    assert query.request_id == body["request_id"]
    assert query.finished_at is not None
    assert query.created_at <= query.finished_at < query.lease_expires_at
    assert query.content.prompt == "Count to 5"
    assert query.content.response == body["response"] == "1 2 3 4 5"
    assert_nothing_runs(stub)


def test_parameters_have_the_defaults_of_the_contract(
    as_alice: APIClient, stub: StubEngine
) -> None:
    ask(as_alice)
    (record,) = stub.ledger
    assert record.body["temperature"] == 0.7
    assert record.body["max_tokens"] == 500
    assert record.body["model"] == MODEL
    assert Query.objects.get().content.prompt == CAPITAL  # it is stored


@pytest.mark.parametrize("temperature", [0, 0.0, 1, 1.234567, 2, 2.0])
@pytest.mark.parametrize("max_tokens", [1, 4096])
def test_parameters_reach_the_engine_as_they_are(
    as_alice: APIClient, stub: StubEngine, temperature: float, max_tokens: int
) -> None:
    assert ask(as_alice, temperature=temperature, max_tokens=max_tokens).status_code == 200
    (record,) = stub.ledger
    assert record.body["temperature"] == temperature
    assert record.body["max_tokens"] == max_tokens
    assert type(record.body["max_tokens"]) is int


def test_an_answer_that_is_cut_off_says_so(as_alice: APIClient, stub: StubEngine) -> None:
    body = ask(as_alice, "Count to 10", max_tokens=4).json()
    assert body["response"] == "1 2 3 4"
    assert body["finish_reason"] == "length"
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "cached_tokens": 0,
    }
    assert Query.objects.get().finish_reason == "length"


@pytest.mark.parametrize(
    "prompt",
    [
        "Grüße, 世界! 👩‍👩‍👧‍👦 \U0001f1eb\U0001f1f7",
        "שלום עולם",
        "a\u0301 versus \u00e1, zero\u200bwidth",
        "line one\nline two\r\nline\u2028three",
        'quotes " and \\ and </script> and {{ jinja }} and {% raw %}',
        "control \x01\x1b[31m characters",
        "=1+1",
        "; DROP TABLE consciousness_query; --",
    ],
)
def test_any_text_goes_there_and_back(as_alice: APIClient, stub: StubEngine, prompt: str) -> None:
    body = ask(as_alice, prompt).json()
    (record,) = stub.ledger
    assert record.body["messages"][0]["content"] == prompt
    assert body["response"] == f"Echo: {prompt}"
    (row,) = as_alice.get(QUERIES).json()["results"]
    assert row["prompt"] == prompt
    assert row["response"] == f"Echo: {prompt}"


@pytest.mark.parametrize("letter", ["x", "界", "👍"])
def test_the_longest_prompt_goes_there_and_back(
    as_alice: APIClient, stub: StubEngine, letter: str
) -> None:
    prompt = letter * 10_000
    assert ask(as_alice, f"  {prompt}\t").json()["response"] == f"Echo: {prompt}"
    assert Query.objects.get().content.prompt == prompt


def test_what_is_not_to_be_stored_is_counted_and_not_kept(
    as_alice: APIClient, stub: StubEngine
) -> None:
    body = ask(as_alice, store=False).json()
    assert body["response"] == "Paris."
    assert not QueryContent.objects.exists()
    (row,) = as_alice.get(QUERIES).json()["results"]
    assert (row["prompt"], row["response"]) == (None, None)
    assert row["usage"] == body["usage"]


def test_what_failed_is_not_stored_either_if_it_was_not_to_be(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.stop()
    assert ask(as_alice, store=False).status_code == 503
    assert Query.objects.get().status == Status.FAILED
    assert not QueryContent.objects.exists()


def test_a_model_can_be_chosen(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = {"data": [{"id": name, "owned_by": "vllm"} for name in ("first", "second")]}
    monkeypatch.setattr("tests.stub_engine.server.describe_models", lambda *_: served)
    assert ask(as_alice).json()["model"] == "first"
    assert ask(as_alice, model="second").json()["model"] == "second"
    assert [record.body["model"] for record in stub.ledger] == ["first", "second"]
    assert list(Query.objects.order_by("created_at").values_list("model", flat=True)) == [
        "first",
        "second",
    ]


def test_an_unknown_model_is_refused_without_asking_the_engine_for_an_answer(
    as_alice: APIClient, stub: StubEngine
) -> None:
    response = ask(as_alice, model="gpt-5")
    assert response.status_code == 422
    body = response.json()
    assert body["code"] == "model_not_found"
    assert body["errors"] == {"model": ["There is no such model here."]}
    assert stub.ledger == []
    query = Query.objects.get()
    assert (query.status, query.error_code) == (Status.FAILED, "model_not_found")
    assert query.model == "gpt-5"
    assert_nothing_runs(stub)


def test_a_model_that_is_called_by_its_long_path_can_be_used(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/srv/models/" + "deep/" * 40 + "model.gguf"
    served = {"data": [{"id": path, "owned_by": "llamacpp"}]}
    monkeypatch.setattr("tests.stub_engine.server.describe_models", lambda *_: served)
    body = ask(as_alice).json()
    assert body["model"] == path
    assert Query.objects.get().model == path[:128]


def test_the_engine_is_given_its_key_and_nothing_of_the_callers(
    as_alice: APIClient, stub: StubEngine
) -> None:
    ask(as_alice)
    (record,) = stub.ledger
    assert record.headers["authorization"] == f"Bearer {stub.api_key}"
    assert "alice" not in str(record.headers) + str(record.body)
    assert set(record.body) == {
        *("model", "messages", "temperature", "max_tokens", "stream", "stream_options"),
        *("timings_per_token", "return_progress"),
    }


def test_a_trailing_slash_is_as_good(as_alice: APIClient, stub: StubEngine) -> None:
    assert as_alice.post(f"{PROCESS}/", {"prompt": CAPITAL}).status_code == 200


def test_a_caller_who_wants_events_only_gets_json_all_the_same(
    as_alice: APIClient, stub: StubEngine
) -> None:
    response = as_alice.post(PROCESS, {"prompt": CAPITAL}, headers={"Accept": "text/event-stream"})
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
