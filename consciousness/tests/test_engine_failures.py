"""Each way an engine can fail, as the caller of `process` meets it, and what remains: nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import engine_generation
from consciousness.models import Query, Status, UsageDay
from consciousness.tests.asking import ask, ask_streamed, assert_nothing_runs, chunks, event_of
from consciousness.tests.openai_asking import CHAT, parts_of, streamed, user
from tests.log_capture import LogCapture
from tests.stub_engine import CANARY_SECRET, Behaviour, StubEngine

BOUND_S = 5.0
COUNTING = "Count to 50"

# What was answered with a 200, which may have cost something, and told no count.
ACCEPTED = (Behaviour.HTML, Behaviour.HANG_BEFORE_FIRST_TOKEN)
# What it does, status, code, Retry-After.
BEFORE_ANY_TOKEN = [
    (Behaviour.LOADING_503, 503, "engine_loading", "2"),
    (Behaviour.BUSY_429, 503, "engine_busy", "7"),  # the engine's own word, being longer
    (Behaviour.UNAUTHORIZED_401, 502, "engine_misconfigured", None),
    (Behaviour.HTML, 502, "engine_bad_reply", None),
    (Behaviour.ERROR_500_WITH_SECRET, 502, "engine_bad_reply", None),
    (Behaviour.OVERLONG_400, 422, "context_length_exceeded", None),
    (Behaviour.HANG_BEFORE_HEADERS, 504, "engine_timeout", None),
    (Behaviour.HANG_BEFORE_FIRST_TOKEN, 504, "engine_timeout", None),
]
AFTER_TWO_TOKENS = [
    (Behaviour.HANG_MID_STREAM, 504, "engine_timeout"),
    (Behaviour.DIE_MID_STREAM, 502, "engine_bad_reply"),
    (Behaviour.ERROR_MID_STREAM, 502, "engine_bad_reply"),
    (Behaviour.HALF_JSON, 502, "engine_bad_reply"),
]


def the_failed_query(stub: StubEngine, *, code: str) -> Query:
    """The one row there is, settled once and for what the engine sent."""
    query = Query.objects.select_related("content").get()
    assert (query.status, query.error_code) == (Status.FAILED, code)
    assert query.finished_at is not None
    assert_nothing_runs(stub)
    return query


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("behaviour", "status", "code", "retry_after"), BEFORE_ANY_TOKEN)
def test_failures_before_any_token(
    as_alice: APIClient,
    stub: StubEngine,
    logs: LogCapture,
    behaviour: Behaviour,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    stub.behave(behaviour)
    started_s = time.monotonic()
    response = ask(as_alice)
    assert time.monotonic() - started_s < BOUND_S
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code
    assert response.get("Retry-After") == retry_after
    query = the_failed_query(stub, code=code)
    assert query.completion_tokens == 0
    assert query.is_estimated is (behaviour in ACCEPTED)
    assert len(stub.ledger) == 1  # nothing is tried twice
    assert CANARY_SECRET not in response.content.decode() + logs.text
    assert CANARY_SECRET not in query.content.response


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("behaviour", "status", "code"), AFTER_TWO_TOKENS)
def test_failures_in_the_middle(
    as_alice: APIClient,
    stub: StubEngine,
    logs: LogCapture,
    behaviour: Behaviour,
    status: int,
    code: str,
) -> None:
    stub.behave(behaviour, after_tokens=2)
    response = ask(as_alice, COUNTING)
    assert response.status_code == status
    assert response.json()["code"] == code
    assert "1 2" not in response.json()["detail"]
    query = the_failed_query(stub, code=code)
    (record,) = stub.ledger
    assert (query.prompt_tokens, query.completion_tokens) == (record.prompt_tokens, 2)
    assert record.completion_tokens == 2
    assert not query.is_estimated
    assert query.content.response == "1 2"
    assert CANARY_SECRET not in response.content.decode() + logs.text + query.content.response


@pytest.mark.usefixtures("impatient")
def test_a_line_without_end_is_cut_off(as_alice: APIClient, stub: StubEngine) -> None:
    stub.behave(Behaviour.HUGE_LINE)
    started_s = time.monotonic()
    response = ask(as_alice)
    assert time.monotonic() - started_s < BOUND_S
    assert response.status_code == 502
    assert response.json()["code"] == "engine_bad_reply"
    assert the_failed_query(stub, code="engine_bad_reply").content.response == ""


@pytest.mark.usefixtures("impatient")
def test_an_endless_answer_is_ended_by_the_total_timeout(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.behave(Behaviour.ENDLESS, token_delay_s=0.01)
    started_s = time.monotonic()
    response = ask(as_alice, max_tokens=4096)
    assert 1.0 <= time.monotonic() - started_s < BOUND_S
    assert response.status_code == 504
    assert response.json()["code"] == "engine_timeout"
    query = the_failed_query(stub, code="engine_timeout")
    assert query.completion_tokens == stub.ledger[0].completion_tokens > 10


def test_an_endless_answer_is_ended_by_its_size(
    as_alice: APIClient,
    stub: StubEngine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_generation, "_MAX_REPLY_BYTES", 100_000)
    monkeypatch.setattr(engine_generation, "_TOKEN_BYTES", 1)
    settings.ENGINE_TOTAL_TIMEOUT_S = 20.0
    stub.behave(Behaviour.ENDLESS)
    response = ask(as_alice, max_tokens=4096)
    assert response.status_code == 502
    assert response.json()["code"] == "engine_bad_reply"
    query = the_failed_query(stub, code="engine_bad_reply")
    assert 100 < query.completion_tokens < 1000


def test_an_engine_that_ignores_max_tokens_is_ended_there(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings, logs: LogCapture
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1000
    stub.behave(Behaviour.ENDLESS, token_delay_s=0.01)
    response = ask(as_alice, max_tokens=30)
    assert response.status_code == 200
    assert response.json()["response"] == " more" * 30
    query = Query.objects.get()
    assert_nothing_runs(stub)
    (record,) = stub.ledger
    assert record.disconnected
    assert (query.status, query.finish_reason) == (Status.COMPLETED, "length")
    assert (query.prompt_tokens, query.completion_tokens) == (
        record.prompt_tokens,
        record.completion_tokens,
    )
    assert 30 < query.completion_tokens < 100
    assert not query.is_estimated
    day = UsageDay.objects.get(user=alice)
    assert day.prompt_tokens + day.completion_tokens == query.total_tokens
    assert len(logs.events("engine_ignores_max_tokens")) == 1


@pytest.mark.parametrize("n", [1, 2])
def test_each_choice_of_a_stream_that_ignores_max_tokens_ends_with_length(
    as_alice: APIClient, stub: StubEngine, n: int
) -> None:
    stub.behave(Behaviour.ENDLESS, token_delay_s=0.01)
    body = {"messages": [user(COUNTING)], "max_tokens": 5, "n": n}
    *parts, end = parts_of(streamed(as_alice, CHAT, **body))
    assert end == "[DONE]"
    said = [choice for part in parts for choice in part["choices"]]
    for index in range(n):
        own = [choice for choice in said if choice["index"] == index]
        assert sum(bool(choice["delta"].get("content")) for choice in own) == 5
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["length"]
        assert own[-1]["finish_reason"] == "length"
    assert_nothing_runs(stub)
    assert Query.objects.get().completion_tokens == stub.ledger[0].completion_tokens > 5 * n


@pytest.fixture
def dead_port(settings: Settings) -> Iterator[None]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings.ENGINE_URL = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield


def test_an_engine_that_is_not_running(
    as_alice: APIClient, stub: StubEngine, dead_port: None
) -> None:
    response = ask(as_alice)
    assert response.status_code == 503
    assert response.json()["code"] == "engine_unavailable"
    assert response["Retry-After"] == "2"
    query = the_failed_query(stub, code="engine_unavailable")
    assert query.content.prompt
    assert (query.content.response, query.prompt_tokens, query.completion_tokens) == ("", 0, 0)


def test_an_engine_that_was_there_a_moment_ago(as_alice: APIClient, stub: StubEngine) -> None:
    assert ask(as_alice).status_code == 200  # its models are known for ten seconds
    stub.stop()
    response = ask(as_alice)
    assert response.status_code == 503
    assert response.json()["code"] == "engine_unavailable"
    assert response["Retry-After"] == "2"
    stub.start()
    assert ask(as_alice).status_code == 200
    assert list(Query.objects.order_by("created_at").values_list("status", flat=True)) == [
        *(Status.COMPLETED, Status.FAILED, Status.COMPLETED)
    ]
    assert_nothing_runs(stub)


def test_a_wrong_key_is_the_operators_fault(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.ENGINE_API_KEY = "not-the-key"
    response = ask(as_alice)
    assert response.status_code == 502
    assert response.json()["code"] == "engine_misconfigured"
    assert "not-the-key" not in response.content.decode()
    the_failed_query(stub, code="engine_misconfigured")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("behaviour", "status", "code", "retry_after"), BEFORE_ANY_TOKEN)
def test_a_stream_that_fails_before_its_first_token_is_an_ordinary_error(
    as_alice: APIClient,
    stub: StubEngine,
    behaviour: Behaviour,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    stub.behave(behaviour)
    response = ask(as_alice, stream=True)
    assert not response.streaming
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code
    assert response.get("Retry-After") == retry_after
    the_failed_query(stub, code=code)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("behaviour", "status", "code"), AFTER_TWO_TOKENS)
def test_a_stream_that_fails_in_the_middle_ends_with_an_error_event(
    as_alice: APIClient,
    stub: StubEngine,
    logs: LogCapture,
    behaviour: Behaviour,
    status: int,
    code: str,
) -> None:
    stub.behave(behaviour, after_tokens=2)
    response = ask_streamed(as_alice, COUNTING)
    received = list(chunks(response))
    *tokens, (name, problem) = map(event_of, received)
    assert tokens == [("token", {"text": "1"}), ("token", {"text": " 2"})]
    assert name == "error"
    assert problem.pop("detail")
    assert problem == {
        "type": f"urn:sovereigncore:error:{code}",
        "title": {502: "Bad Gateway", 504: "Gateway Timeout"}[status],
        "status": status,
        "code": code,
        "request_id": response["X-Request-ID"],
    }
    query = the_failed_query(stub, code=code)
    assert query.completion_tokens == stub.ledger[0].completion_tokens == 2
    assert CANARY_SECRET not in b"".join(received).decode() + logs.text
