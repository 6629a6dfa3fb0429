"""One generation: its chunks, its count and its deadlines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import orjson
import pytest

from consciousness import engine_errors as errors
from consciousness import engine_generation
from consciousness.engine_generation import Generation, Timeouts, read_stream
from consciousness.engine_stream import Usage
from consciousness.tests.generating import (
    BOUND_S,
    SHORT_S,
    a_deaf_port,
    readers,
    started,
    takes_at_most,
    timeouts,
    wait_for_request,
)
from consciousness.tests.raw_server import RawServer
from tests.log_capture import LogCapture
from tests.stub_engine import Behaviour, StubEngine

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("looks_often")]

OK, STREAM = "HTTP/1.1 200 OK\r\n", "Content-Type: text/event-stream\r\n"


def test_the_chunks_are_the_answer_and_the_count_is_the_engines(stub: StubEngine) -> None:
    generation = started(stub)
    assert generation.usage == Usage()
    assert "".join(chunk.text for chunk in generation if chunk) == "1 2 3 4 5 6 7 8 9"
    assert generation.usage == Usage(
        prompt_tokens=3, completion_tokens=9, cached_tokens=0, is_estimated=False
    )
    assert generation.finish_reason == "stop"
    assert generation.first_token_after_s is not None
    assert 0 < generation.first_token_after_s < BOUND_S
    generation.close()
    assert readers() == []
    assert not stub.ledger[0].disconnected


def test_while_nothing_comes_nothing_is_said_now_and_then(stub: StubEngine) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    generation = started(stub)
    items = iter(generation)
    assert next(item for item in items if item is not None).text == "1"
    assert [next(items) for _ in range(3)] == [None] * 3
    generation.close()


@pytest.mark.parametrize(
    ("behaviour", "limits", "is_fault"),
    [
        (Behaviour.HANG_BEFORE_HEADERS, timeouts(first_s=SHORT_S), True),
        (Behaviour.HANG_BEFORE_FIRST_TOKEN, timeouts(first_s=SHORT_S), True),
        (Behaviour.HANG_MID_STREAM, timeouts(silence_s=SHORT_S), True),
        (Behaviour.HANG_BEFORE_HEADERS, timeouts(total_s=SHORT_S), True),
        # Nothing is wrong with it as long as it is not silent for too long.
        (Behaviour.HANG_MID_STREAM, timeouts(total_s=1), False),
        (Behaviour.ENDLESS, timeouts(total_s=1), False),
    ],
)
def test_each_deadline_holds_alone(
    stub: StubEngine, behaviour: Behaviour, limits: Timeouts, is_fault: bool
) -> None:
    stub.behave(behaviour, token_delay_s=0.005)
    generation = started(stub, limits=limits)
    started_s = time.monotonic()
    with pytest.raises(errors.EngineTimeout) as raised:
        list(generation)
    assert raised.value.is_fault is is_fault
    assert SHORT_S - 0.1 < time.monotonic() - started_s < SHORT_S + BOUND_S
    generation.close()
    assert stub.wait_idle()
    assert readers() == []


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """This process is stopped for so many seconds."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(slept))
    monkeypatch.setattr(engine_generation, "time", clock)
    return slept.append


@pytest.mark.parametrize(
    ("behaviour", "limits"),
    [
        (Behaviour.HANG_BEFORE_FIRST_TOKEN, timeouts(first_s=3, total_s=1000)),
        (Behaviour.HANG_MID_STREAM, timeouts(silence_s=3, total_s=1000)),
    ],
)
def test_a_process_that_slept_calls_no_engine_silent(
    stub: StubEngine, sleep: Callable[[float], None], behaviour: Behaviour, limits: Timeouts
) -> None:
    stub.behave(behaviour, after_tokens=1)
    generation = started(stub, limits=limits)
    items = iter(generation)
    wait_for_request(stub)
    if behaviour is Behaviour.HANG_MID_STREAM:
        assert next(item for item in items if item is not None).text == "1"
    sleep(500)
    assert next(items) is None
    with pytest.raises(errors.EngineTimeout) as raised:  # but it has no more time than others
        list(items)
    assert raised.value.is_fault
    generation.close()


def test_an_answer_that_was_slept_away_is_no_fault_of_the_engine(
    stub: StubEngine, sleep: Callable[[float], None]
) -> None:
    stub.behave(Behaviour.HANG_BEFORE_FIRST_TOKEN)
    generation = started(stub, limits=timeouts(total_s=400))
    wait_for_request(stub)
    sleep(500)
    with pytest.raises(errors.EngineTimeout) as raised:
        list(generation)
    assert not raised.value.is_fault
    generation.close()


def test_the_reader_gives_no_engine_up_before_its_time() -> None:
    asked: list[httpx2.Timeout] = []

    def note(request: httpx2.Request) -> httpx2.Response:
        asked.append(httpx2.Timeout(**request.extensions["timeout"]))
        raise httpx2.ConnectError("nobody there")

    http = httpx2.Client(base_url="http://engine", transport=httpx2.MockTransport(note))
    generation = Generation(http, b"{}", timeouts(first_s=1, silence_s=2, total_s=300))
    with pytest.raises(errors.EngineUnavailable):
        list(generation)
    generation.close()
    assert [limit.read for limit in asked] == [305]


def test_the_deadlines_are_those_of_the_settings(settings: object) -> None:
    for number, name in enumerate(("CONNECT", "FIRST_TOKEN", "SILENCE", "TOTAL"), 11):
        setattr(settings, f"ENGINE_{name}_TIMEOUT_S", number)
    assert Timeouts() == Timeouts(connect_s=11, first_token_s=12, silence_s=13, total_s=14)


def test_a_slow_reader_slows_the_engine_instead_of_filling_memory(stub: StubEngine) -> None:
    stub.behave(Behaviour.ENDLESS)
    generation = started(stub)
    next(chunk for chunk in generation if chunk)
    assert generation._received.maxsize == 64
    until_s = time.monotonic() + BOUND_S
    while not generation._received.full():
        assert time.monotonic() < until_s
        time.sleep(0.005)
    generation.close()
    assert stub.wait_idle()


def streamed(*events: dict[str, Any]) -> bytes:
    said = b"".join(b"data: %s\n\n" % orjson.dumps(event) for event in events)
    return f"{OK}{STREAM}\r\n".encode() + said


def piece(text: str, *, index: int = 0, end: str | None = None, **counts: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": end}
    return {"choices": [choice], **counts}


def total_of(completion: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 3, "completion_tokens": completion}}


THINKING = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}


@pytest.mark.parametrize(
    ("events", "said", "end", "counted"),
    [
        # It tells no count: each piece is one, and there may be 2 * 3 + 16 of them.
        ([piece("a")] * 30, "a" * 22, "length", 30),
        ([THINKING] * 30, "", "length", 30),
        ([piece("a", **total_of(2)), piece("b", **total_of(4))], "a", "length", 4),
        # More than one token a piece, and pieces that are less than one.
        ([piece("abc", **total_of(3)), piece("", end="stop")], "abc", "stop", 3),
        ([piece("a", **total_of(1))] * 9 + [piece("", end="stop")], "a" * 9, "stop", 1),
        # The count of an answer that has ended is no reason to change its end.
        ([piece("a"), piece("", end="stop"), {"choices": [], **total_of(4)}], "a", "stop", 4),
        ([piece("a"), piece("", end="stop", **total_of(4))], "a", "stop", 4),
        # What ends after it was ended here ended here.
        ([*[piece("a")] * 23, piece("", end="stop")], "a" * 22, "length", 23),
    ],
)
def test_more_tokens_than_asked_for_end_the_answer(
    events: list[dict[str, Any]], said: str, end: str, counted: int, logs: LogCapture
) -> None:
    with RawServer(lambda _request: streamed(*events), keeps_open=False) as server:
        http = httpx2.Client(base_url=server.url)
        generation = Generation(http, b"{}", timeouts(), max_tokens=3)
        chunks = [chunk for chunk in generation if chunk]
        generation.close()
    assert "".join(chunk.text for chunk in chunks) == said
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [end]
    assert generation.finish_reason == end
    assert generation.usage.completion_tokens == counted
    assert len(logs.events("engine_ignores_max_tokens")) == (end == "length")
    assert readers() == []


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([piece("a"), piece("", end="stop")], errors.UnsupportedByEngine),
        ([piece("a", end="stop"), piece("b", index=1)], errors.EngineBadReply),
        ([piece("a"), piece("b", index=1, end="stop")], errors.EngineBadReply),
        ([piece("b", index=1, end="stop")], errors.EngineBadReply),
    ],
)
def test_fewer_answers_than_asked_for_are_no_answer(
    events: list[dict[str, Any]], error: type[errors.EngineError]
) -> None:
    with RawServer(lambda _request: streamed(*events), keeps_open=False) as server:
        generation = Generation(
            httpx2.Client(base_url=server.url), b"{}", timeouts(), max_tokens=3, choices=2
        )
        with pytest.raises(error) as raised:
            list(generation)
        generation.close()
    assert raised.type is error
    assert list(raised.value.errors or ()) == (["n"] if not raised.value.is_fault else [])


@pytest.mark.parametrize(
    ("asked_for", "is_read"),
    [
        ({"max_tokens": 1}, False),
        ({"max_tokens": 100}, True),
        ({"max_tokens": 100, "alternatives": 0}, True),
        ({"max_tokens": 10_000, "alternatives": 20}, False),
    ],
)
def test_as_much_is_read_as_was_asked_for_and_no_more_than_memory_holds(
    monkeypatch: pytest.MonkeyPatch, asked_for: dict[str, int], is_read: bool
) -> None:
    monkeypatch.setattr(engine_generation, "_MAX_REPLY_BYTES", 1000)
    monkeypatch.setattr(engine_generation, "_MAX_PROBABILITIES_BYTES", 20_000)
    pieces = 300 if asked_for.get("alternatives") else 100
    _, body = streamed(*[piece("a")] * pieces).split(b"\r\n\r\n")
    reply = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)
    with contextlib.nullcontext() if is_read else pytest.raises(errors.EngineBadReply):
        assert len(list(read_stream(reply, **asked_for))) == pieces


def test_connecting_has_a_deadline_of_its_own() -> None:
    with a_deaf_port() as port:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{port}")
        generation = Generation(http, b"{}", timeouts(connect_s=SHORT_S))
        with takes_at_most(BOUND_S), pytest.raises(errors.EngineUnavailable):
            list(generation)
        generation.close()
        assert readers() == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("rubbish\r\n\r\n", errors.EngineUnavailable),
        (f"{OK}Content-Length: nine\r\n\r\n", errors.EngineUnavailable),
        (f"{OK}Content-Type: application/json\r\n\r\n{{}}", errors.EngineBadReply),
        (f"{OK}\r\n", errors.EngineBadReply),
        ("HTTP/1.1 204 No Content\r\n\r\n", errors.EngineBadReply),
        ("HTTP/1.1 404 Not Found\r\n\r\nnope", errors.EngineBadReply),
        (f"{OK}{STREAM}\r\n", errors.EngineBadReply),
        (f"{OK}{STREAM}\r\n: nothing but a comment\n\n", errors.EngineBadReply),
        (f"{OK}{STREAM}\r\ndata: [DONE]\n\n", errors.EngineBadReply),
        (f"{OK}{STREAM}Content-Length: 99\r\n\r\n: cut off", errors.EngineBadReply),
        (f"{OK}{STREAM}Content-Encoding: gzip\r\n\r\nnot gzip", errors.EngineBadReply),
    ],
)
def test_replies_that_are_no_stream(reply: str, error: type[errors.EngineError]) -> None:
    with RawServer(lambda _request: reply.encode(), keeps_open=False) as server:
        generation = Generation(httpx2.Client(base_url=server.url), b"{}", timeouts())
        with takes_at_most(BOUND_S), pytest.raises(error) as raised:
            list(generation)
        assert raised.type is error
        generation.close()
    assert readers() == []
