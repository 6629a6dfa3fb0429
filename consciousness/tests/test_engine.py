"""The engine client: what it asks for, what it believes, and what it never does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from consciousness import engine as engine_module
from consciousness import engine_errors as errors
from consciousness import engines
from consciousness.bundled_model import BUNDLED_CREATED_S, BUNDLED_NAME
from consciousness.engine import Engine, Model, Prompt
from consciousness.tests.generating import LONG_S, takes_at_most
from consciousness.tests.raw_server import (
    RawRequest,
    RawServer,
    http_reply,
    json_reply,
    models_reply,
)
from consciousness.tests.several import eventually
from tests.stub_engine import MODEL, Behaviour, StubEngine

pytestmark = pytest.mark.once

HELLO = Prompt(messages=({"role": "user", "content": "Hello"},), temperature=0.5, max_tokens=9)
WITH_TOOLS = replace(HELLO, options={"tools": [{"type": "function"}]})
LLAMA = Model(id="any", owned_by="llamacpp", context_tokens=None)
NONE = Model(id="any", owned_by="", context_tokens=None)
STREAM_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
A_STREAM = (
    STREAM_HEAD + 'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
).encode()


def engine_at(server: StubEngine | RawServer) -> Engine:
    key = server.api_key if isinstance(server, StubEngine) else ""
    return Engine(url=server.url, api_key=key)


def answer(engine: Engine, *, model: Model = NONE) -> str:
    generation = engine.generate(HELLO, model=model)
    try:
        return "".join(chunk.text for chunk in generation if chunk)
    finally:
        generation.close()


def models_or_stream(request: RawRequest) -> bytes:
    return models_reply("m") if request.line.startswith("GET") else A_STREAM


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(engine_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))


def test_models_are_asked_for_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with RawServer(lambda _request: models_reply("first", "second")) as server:
        engine = engine_at(server)
        assert [model.id for model in engine.models()] == ["first", "second"]
        clock.now_s += 9.9
        assert engine.models()[0].id == "first"
        assert len(server.requests) == 1
        clock.now_s += 0.1
        server.reply = lambda _request: models_reply("third")
        assert engine.models()[0].id == "third"
        assert [request.line for request in server.requests] == ["GET /v1/models HTTP/1.1"] * 2


def test_a_fresh_question_is_always_asked_and_what_it_learns_is_kept() -> None:
    with RawServer(lambda _request: models_reply("old")) as server:
        engine = engine_at(server)
        engine.models()
        server.reply = lambda _request: models_reply("new")
        assert engine.models()[0].id == "old"
        assert engine.models(fresh=True)[0].id == "new"
        assert engine.models()[0].id == "new"
        assert len(server.requests) == 2


def test_a_failed_question_is_not_kept_as_an_answer() -> None:
    with RawServer(lambda _request: http_reply(b"", status="503 Busy")) as server:
        engine = engine_at(server)
        with pytest.raises(errors.EngineBusy):
            engine.models()
        server.reply = lambda _request: models_reply("m")
        assert engine.models()[0].id == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>It works!</html>",
        b'{"data": [{"id": "cut off',
        b"[]",
        b'"data"',
        b"null",
        b"{}",
        b'{"data": []}',
        b'{"data": {}}',
        b'{"data": "m"}',
        b'{"data": [5, null, [], "m"]}',
        b'{"data": [{"id": 5}, {"id": null}, {"name": "m"}, {"id": ""}]}',
        b'{"data": [{"id": "with \\u0000"}]}',
        b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_a_list_of_no_models_is_a_bad_reply(body: bytes) -> None:
    with (
        RawServer(lambda _request: http_reply(body)) as server,
        pytest.raises(errors.EngineBadReply),
    ):
        engine_at(server).models()


def test_the_good_entries_of_a_list_are_taken() -> None:
    entries: list[Any] = [
        None,
        {"id": 7},
        {"id": "llama", "owned_by": "llamacpp", "meta": {"n_ctx": 8192}},
        {"id": "vllm", "owned_by": "vllm", "max_model_len": 4096},
        {"id": "odd", "owned_by": ["x"], "meta": "x"},
        {"id": "odder", "meta": {"n_ctx": "many"}},
    ]
    with RawServer(lambda _request: json_reply({"data": entries})) as server:
        assert engine_at(server).models() == (
            Model(id="llama", owned_by="llamacpp", context_tokens=8192),
            Model(id="vllm", owned_by="vllm", context_tokens=4096),
            Model(id="odd", owned_by="", context_tokens=None),
            Model(id="odder", owned_by="", context_tokens=None),
        )


@pytest.mark.parametrize(
    ("name", "owned_by", "created"),
    [
        ("m", "llamacpp", 0),
        ("m", "vllm", 0),
        (BUNDLED_NAME, "llamacpp", BUNDLED_CREATED_S),
        ("m", "library", 1001),  # Ollama's is a time of the model's own
    ],
)
def test_the_time_of_asking_is_no_time_of_the_model(name: str, owned_by: str, created: int) -> None:
    """Each web process asks when it likes, and all of them have to say the same."""
    entry = {"id": name, "owned_by": owned_by, "created": 1001}
    with RawServer(lambda _request: json_reply({"data": [entry]})) as server:
        (model,) = engine_at(server).models()
    assert model.created == created


def test_a_list_without_end_is_cut_off(stub: StubEngine) -> None:
    stub.behave_probes(Behaviour.HUGE_LINE)
    started_s = time.monotonic()
    with pytest.raises(errors.EngineBadReply):
        engine_at(stub).models()
    assert time.monotonic() - started_s < 2.0


def endlessly(start: bytes, part: bytes) -> Iterator[bytes]:
    """Until the client goes, half a minute at most, and never silent for long."""
    yield start
    for _ in range(1500):
        time.sleep(0.02)
        yield part


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
    ],
    ids=["head", "hints", "chunks", "body"],
)
def test_an_answer_that_trickles_in_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, start: bytes, part: bytes
) -> None:
    monkeypatch.setattr(engine_module, "_MODELS_TIMEOUT_S", 0.2)

    def reply(request: RawRequest) -> bytes | Iterator[bytes]:
        return endlessly(start, part) if request.line.startswith("GET") else A_STREAM

    with RawServer(reply) as server:
        engine = engine_at(server)
        with takes_at_most(5.0), pytest.raises(errors.EngineUnavailable) as raised:
            engine.models()
        assert not raised.value.is_unreachable
        with takes_at_most(5.0):
            generation = engine.generate(WITH_TOOLS, model=LLAMA)  # which asks for `/props`
        assert list(generation)
        generation.close()


def test_an_answer_in_time_leaves_nobody_waiting_for_its_end() -> None:
    with RawServer(lambda _request: models_reply("m")) as server:
        engine_at(server).models(timeout_s=LONG_S)
    eventually(lambda: "engine-deadline" not in {t.name for t in threading.enumerate()}, within_s=1)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour.HANG_BEFORE_HEADERS, errors.EngineUnavailable),
        (Behaviour.HANG_BEFORE_FIRST_TOKEN, errors.EngineUnavailable),
        (Behaviour.LOADING_503, errors.EngineLoading),
        (Behaviour.BUSY_429, errors.EngineBusy),
        (Behaviour.UNAUTHORIZED_401, errors.EngineMisconfigured),
        (Behaviour.ERROR_500_WITH_SECRET, errors.EngineBadReply),
    ],
)
def test_engines_that_tell_no_models(
    stub: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: Behaviour,
    error: type[errors.EngineError],
) -> None:
    monkeypatch.setattr(engine_module, "_MODELS_TIMEOUT_S", 0.2)
    stub.behave_probes(behaviour)
    with pytest.raises(error):
        engine_at(stub).models()


def test_no_cookie_is_taken() -> None:
    def reply(request: RawRequest) -> bytes:
        head, body = models_or_stream(request).split(b"\r\n\r\n", 1)
        return head + b"\r\nSet-Cookie: seen=1; Path=/; Max-Age=9999\r\n\r\n" + body

    with RawServer(reply) as server:
        engine = engine_at(server)
        engine.models()
        assert [answer(engine) for _ in range(2)] == ["Hi"] * 2
        assert len(server.requests) == 3
        assert not any("cookie" in request.headers for request in server.requests)


def test_connections_are_not_used_twice() -> None:
    with RawServer(models_or_stream) as server:
        engine = engine_at(server)
        engine.models(fresh=True)
        engine.models(fresh=True)
        assert answer(engine) == "Hi"
        assert [request.connection for request in server.requests] == [1, 2, 3]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirects_are_not_followed(status: str) -> None:
    with RawServer(models_or_stream) as elsewhere:
        moved = (
            f"HTTP/1.1 {status}\r\nLocation: {elsewhere.url}/v1/models\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        with RawServer(lambda _request: moved) as server:
            engine = engine_at(server)
            with pytest.raises(errors.EngineBadReply):
                engine.models()
            with pytest.raises(errors.EngineBadReply):
                answer(engine)
            assert len(server.requests) == 2
        assert elsewhere.connections == 0


def test_no_proxy_of_the_environment_sees_a_prompt(
    stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(models_or_stream) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        engine = engine_at(stub)
        (model,) = engine.models()
        assert answer(engine, model=model) == "Echo: Hello"
        assert proxy.connections == 0


def test_nothing_is_tried_twice() -> None:
    with RawServer(lambda _request: b"", keeps_open=False) as server:
        engine = engine_at(server)
        with pytest.raises(errors.EngineUnavailable):
            engine.models()
        with pytest.raises(errors.EngineUnavailable):
            answer(engine)
        assert server.connections == len(server.requests) == 2


def test_what_is_asked_for() -> None:
    with RawServer(models_or_stream) as server:
        engine = Engine(url=server.url, api_key="the-key")
        assert answer(engine, model=Model(id="m", owned_by="", context_tokens=None)) == "Hi"
        (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == "Bearer the-key"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("owned_by", "expected"),
    [
        (
            "llamacpp",
            {
                "timings_per_token": True,
                "return_progress": True,
                "stream_options": {"include_usage": True},
            },
        ),
        (
            "vllm",
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
    ],
)
def test_engines_that_can_are_asked_to_count_as_they_go(
    owned_by: str, expected: dict[str, Any]
) -> None:
    with RawServer(models_or_stream) as server:
        answer(engine_at(server), model=Model(id="m", owned_by=owned_by, context_tokens=None))
        (request,) = server.requests
    assert {name: request.json[name] for name in expected} == expected


def test_without_a_key_no_credential_is_sent() -> None:
    with RawServer(models_or_stream) as server:
        engine_at(server).models()
        assert "authorization" not in server.requests[0].headers


def test_the_health_probe_asks_the_engine_itself(stub: StubEngine) -> None:
    engines.ask_engines()
    stub.behave_probes(Behaviour.LOADING_503)
    with pytest.raises(errors.EngineLoading):
        engines.ask_engines()
    assert engine_module.default_engine().models()[0].id == MODEL
