"""`process` with `stream: true`: the events on the wire, exactly as the contract has them."""

from __future__ import annotations

import json
import time

import pytest
from django.db import OperationalError
from pytest_django import Settings
from rest_framework.test import APIClient

from consciousness import engine_generation, sse
from consciousness.models import Query, QueryContent, Status
from consciousness.tests.asking import (
    LOGOUT,
    ask,
    ask_streamed,
    assert_nothing_runs,
    chunks,
    event_of,
    hang_up,
    wait_until_sent,
)
from tests.log_capture import LogCapture
from tests.stub_engine import Behaviour, StubEngine


def test_the_bytes_are_those_of_the_contract(as_alice: APIClient, stub: StubEngine) -> None:
    response = ask_streamed(as_alice, "Count to 3")
    *tokens, done = list(chunks(response))
    assert tokens == [
        b'event: token\ndata: {"text":"1"}\n\n',
        b'event: token\ndata: {"text":" 2"}\n\n',
        b'event: token\ndata: {"text":" 3"}\n\n',
    ]
    assert done.startswith(b'event: done\ndata: {"')
    assert done.endswith(b"}\n\n")
    assert done.count(b"\n") == 3
    assert_nothing_runs(stub)


def test_headers(as_alice: APIClient, stub: StubEngine) -> None:
    response = ask_streamed(as_alice)
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Accel-Buffering"] == "no"
    assert response["X-Request-ID"]
    assert response["RateLimit-Policy"]
    assert "Content-Length" not in response
    assert list(chunks(response))


@pytest.mark.parametrize(
    "prompt", ["Count to 20", "Zeilen\nund Umbrüche\r\n\n, 世界 👍 \u2028 data: x\n\nevent: done"]
)
def test_the_tokens_together_are_what_is_stored(
    as_alice: APIClient, stub: StubEngine, prompt: str
) -> None:
    events = [event_of(chunk) for chunk in chunks(ask_streamed(as_alice, prompt))]
    text = "".join(data["text"] for name, data in events if name == "token")
    assert text == QueryContent.objects.get().response
    assert text == ask(as_alice, prompt).json()["response"]


def test_done_is_the_whole_answer_less_the_response(as_alice: APIClient, stub: StubEngine) -> None:
    response = ask_streamed(as_alice, "Count to 5", max_tokens=3)
    name, done = event_of(list(chunks(response))[-1])
    assert name == "done"
    whole = ask(as_alice, "Count to 5", max_tokens=3).json()
    assert set(done) == set(whole) - {"response"}
    own = {"query_id", "request_id", "processing_time_ms", "consciousness_level"}
    assert {k: done[k] for k in set(done) - own} == {k: whole[k] for k in set(done) - own}
    assert done["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "cached_tokens": 0,
    }
    assert done["finish_reason"] == "length"
    assert done["request_id"] == response["X-Request-ID"]
    query = Query.objects.get(id=done["query_id"])
    assert query.status == Status.COMPLETED


def test_an_answer_without_text_is_done_at_once(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stub_engine.protocol.compose_answer", lambda _body: [])
    events = [event_of(chunk)[0] for chunk in chunks(ask_streamed(as_alice))]
    assert events == ["done"]
    assert Query.objects.get().status == Status.COMPLETED


@pytest.mark.usefixtures("looks_often")
def test_silence_is_filled_with_comments(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.2)
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    began_s = time.monotonic()
    response = ask_streamed(as_alice, "Count to 3")
    stream = chunks(response)
    assert event_of(next(stream)) == ("token", {"text": "1"})
    assert [next(stream) for _ in range(3)] == [b": still working\n\n"] * 3
    assert time.monotonic() - began_s >= 3 * 0.2
    hang_up(response)


def test_a_stream_that_talks_needs_no_comments(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 5.0)
    stub.behave(Behaviour.SLOW, token_delay_s=0.01)
    assert b": " not in [chunk[:2] for chunk in chunks(ask_streamed(as_alice, "Count to 20"))]


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_a_client_that_hangs_up_stops_the_engine_and_pays_for_what_it_sent(
    as_alice: APIClient, stub: StubEngine, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", 20.0)
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=5)
    response = ask_streamed(as_alice, "Count to 100")
    stream = chunks(response)
    for _ in range(taken):
        next(stream)
    wait_until_sent(stub, 5)
    hang_up(response)
    assert_nothing_runs(stub)
    (record,) = stub.ledger
    assert record.disconnected
    query = Query.objects.get()
    assert query.status == Status.CANCELLED
    assert (query.prompt_tokens, query.completion_tokens) == (record.prompt_tokens, 5)
    assert record.completion_tokens == 5
    assert not query.is_estimated
    assert query.content.response == " ".join(str(n + 1) for n in range(taken))


@pytest.mark.parametrize("attempt", range(5))
def test_what_a_fast_engine_sent_until_it_noticed_is_counted_too(
    as_alice: APIClient, stub: StubEngine, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long the stub takes to notice is the test machine's business, not what is tested here.
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", 20.0)
    stub.behave(Behaviour.ENDLESS)
    response = ask_streamed(as_alice)
    next(chunks(response))
    hang_up(response)
    assert_nothing_runs(stub)
    (record,) = stub.ledger
    assert record.disconnected
    assert record.completion_tokens > 0
    assert Query.objects.get().completion_tokens == record.completion_tokens


def test_what_an_engine_sent_after_nobody_listened_is_not_claimed_to_be_known(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", 0.0)
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=5)
    response = ask_streamed(as_alice, "Count to 100")
    next(chunks(response))
    hang_up(response)
    query = Query.objects.get()
    assert 1 <= query.completion_tokens <= 5
    assert query.is_estimated


@pytest.mark.django_db(transaction=True)
def test_a_response_that_nobody_began_to_read_is_cancelled_too(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    response = ask_streamed(as_alice, "Count to 100")
    wait_until_sent(stub, 2)
    response.close()
    assert_nothing_runs(stub)
    (record,) = stub.ledger
    assert record.disconnected
    query = Query.objects.get()
    assert query.status == Status.CANCELLED
    assert query.completion_tokens == record.completion_tokens == 2


def test_a_stream_read_to_its_end_is_not_cancelled_by_closing_it(
    as_alice: APIClient, stub: StubEngine
) -> None:
    response = ask_streamed(as_alice)
    assert len(list(chunks(response))) == 2
    hang_up(response)
    query = Query.objects.get()
    assert query.status == Status.COMPLETED
    assert not stub.ledger[0].disconnected


def test_a_revoked_credential_ends_its_open_streams(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    stub.behave(Behaviour.SLOW, token_delay_s=0.02)
    response = ask_streamed(as_alice, "Count to 500")
    stream = chunks(response)
    assert event_of(next(stream)) == ("token", {"text": "1"})
    assert as_alice.post(LOGOUT).status_code == 204
    *_, last = [event_of(chunk) for chunk in stream]
    assert last[0] == "error"
    assert (last[1]["status"], last[1]["code"]) == (401, "credential_revoked")
    assert last[1]["request_id"] == response["X-Request-ID"]
    assert_nothing_runs(stub)
    query = Query.objects.get()
    assert query.status == Status.CANCELLED
    assert query.completion_tokens == stub.ledger[0].completion_tokens < 500


@pytest.mark.parametrize("code", ["credential_revoked", "database_unavailable", "internal_error"])
def test_a_stream_that_fails_runs_no_more_when_its_error_is_written(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Its client may have stopped reading."""
    errors = {
        "credential_revoked": sse.CredentialRevoked(),
        "database_unavailable": OperationalError(),
        "internal_error": RuntimeError(),
    }

    def fail(_is_live: object) -> None:
        raise errors[code]

    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = ask_streamed(as_alice, "Count to 500")
    stream = chunks(response)
    next(stream)
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    monkeypatch.setattr(sse, "_check_credential", fail)
    assert event_of(next(stream))[1]["code"] == code
    assert_nothing_runs(stub)
    assert Query.objects.get().status == Status.CANCELLED


def test_a_live_credential_is_asked_for_again_and_the_stream_goes_on(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    events = [event_of(chunk)[0] for chunk in chunks(ask_streamed(as_alice, "Count to 5"))]
    assert events == ["token"] * 5 + ["done"]


def test_a_database_that_goes_away_during_the_stream_is_told_in_the_stream(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_is_live: object) -> None:
        raise OperationalError("at 10.0.0.3")

    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    monkeypatch.setattr(sse, "_check_credential", away)
    ((name, problem),) = [event_of(chunk) for chunk in chunks(ask_streamed(as_alice, "Count to 5"))]
    assert name == "error"
    assert (problem["status"], problem["code"]) == (503, "database_unavailable")
    assert "10.0.0.3" not in json.dumps(problem)
    assert_nothing_runs(stub)


def test_a_fault_of_our_own_in_the_middle_is_logged_and_told(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    response = ask_streamed(as_alice, "Count to 3")

    def broken(*_args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("consciousness.views.asking.AnswerResponse", broken)
    *tokens, (name, problem) = [event_of(chunk) for chunk in chunks(response)]
    assert len(tokens) == 3
    assert name == "error"
    assert (problem["status"], problem["code"]) == (500, "internal_error")
    assert "a bug" not in json.dumps(problem)
    (logged,) = logs.events("unhandled_error")
    assert "a bug" in logged["exception"]
    assert_nothing_runs(stub)


def test_a_queue_that_is_full_is_an_ordinary_error(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT = 1, 0
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    first = ask_streamed(as_alice, "Count to 3")
    next(chunks(first))
    second = ask(as_alice, stream=True)
    assert second.status_code == 503
    assert second.json()["code"] == "queue_full"
    assert int(second["Retry-After"]) >= 1
    hang_up(first)
    assert_nothing_runs(stub)
    failed = Query.objects.get(status=Status.FAILED)
    assert failed.error_code == "queue_full"
    assert failed.completion_tokens == 0
