"""The stub engine speaks llama.cpp's protocol, misbehaves as told, and counts what it sent."""

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.stub_engine import CANARY_SECRET, MODEL, Behaviour, RequestRecord, StubEngine

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 5.0
NOTICE_LIMIT_S = 2.0  # it takes under 1 ms; the rest is for a busy machine
# Reading the system's certificates takes longer than most of these tests, and none is used.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
HANGS = [
    Behaviour.HANG_BEFORE_HEADERS,
    Behaviour.HANG_BEFORE_FIRST_TOKEN,
    Behaviour.HANG_MID_STREAM,
]


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with StubEngine() as stub:
        yield stub


@pytest.fixture
def client(engine: StubEngine) -> Iterator[httpx2.Client]:
    with connect(engine.url, engine.api_key) as http:
        yield http


def connect(url: str, api_key: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx2.Client(
        base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False, verify=NO_CERTIFICATES
    )


def ask(client: httpx2.Client, prompt: str = "one two three", **fields: Any) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": prompt}], **fields}
    return client.post("/v1/chat/completions", json=body)


def read_events(response: httpx2.Response) -> list[Any]:
    """The stream's JSON objects; asserts that it is well-formed and complete."""
    *lines, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def read_text(events: list[Any]) -> str:
    choices = [event["choices"][0] for event in events if event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@contextlib.contextmanager
def open_stream(engine: StubEngine, prompt: str = "hello") -> Iterator[socket.socket]:
    """A streaming request on a bare socket, for what an HTTP client would smooth over."""
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": prompt}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: stub\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", engine.port), TIMEOUT_S) as connection:
        connection.sendall(f"{head}Authorization: Bearer {engine.api_key}\r\n\r\n".encode() + body)
        yield connection


def read_until(connection: socket.socket, marker: bytes) -> bytes:
    received = b""
    while marker not in received:
        data = connection.recv(65536)
        assert data, f"ended without {marker!r}"
        received += data
    return received


@contextlib.contextmanager
def start_program(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.stub_engine", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def wait_for(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.002)
    return is_true()


def only_record(engine: StubEngine) -> RequestRecord:
    (record,) = engine.ledger
    return record


def test_probes_are_llama_cpps(engine: StubEngine, client: httpx2.Client) -> None:
    assert client.get("/health", headers={"Authorization": ""}).json() == {"status": "ok"}
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["owned_by"], model["meta"]["n_ctx"]) == (MODEL, "llamacpp", 8192)
    assert client.get("/nothing").status_code == 404


@pytest.mark.parametrize("api_key", ["", "wrong"])
def test_the_key_is_required(engine: StubEngine, api_key: str) -> None:
    with connect(engine.url, api_key) as stranger:
        replies = [stranger.get("/v1/models"), stranger.get("/_stub/ledger"), ask(stranger)]
    error = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
    assert [(reply.status_code, reply.json()) for reply in replies] == [(401, {"error": error})] * 3
    assert only_record(engine).prompt_tokens == 0


def test_a_whole_answer(engine: StubEngine, client: httpx2.Client) -> None:
    answer = ask(client, "one  two three").json()
    assert answer["choices"][0]["message"]["content"] == "Echo: one  two three"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 4
    assert (
        ask(client, "The capital of France is").json()["choices"][0]["message"]["content"]
        == "Paris."
    )
    assert engine.ledger[0].body["messages"][0]["content"] == "one  two three"
    assert [record.completion_tokens for record in engine.ledger] == [4, 1]


def test_a_stream_with_usage_and_timings(engine: StubEngine, client: httpx2.Client) -> None:
    system = {"role": "system", "content": "be very brief"}
    messages = [system, {"role": "user", "content": "count to 5"}]
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}, "timings_per_token": True}
    response = ask(client, stream=True, messages=messages, **fields)
    events = read_events(response)
    assert response.headers["content-type"] == "text/event-stream"
    assert read_text(events) == "1 2 3 4 5"
    assert len({(event["id"], event["created"]) for event in events}) == 1
    tokens = events[1:-2]
    assert [event["timings"]["predicted_n"] for event in tokens] == [1, 2, 3, 4, 5]
    # The prompt is prompt_n + cache_n, never prompt_n alone.
    assert {(e["timings"]["prompt_n"], e["timings"]["cache_n"]) for e in tokens} == {(3, 3)}
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["prompt_tokens"] == 6
    assert events[-1]["usage"]["completion_tokens"] == 5
    record = only_record(engine)
    assert (record.prompt_tokens, record.completion_tokens, record.disconnected) == (6, 5, False)
    assert record.ended_at is not None


def test_max_tokens_and_no_usage_unless_asked(engine: StubEngine, client: httpx2.Client) -> None:
    events = read_events(ask(client, "count to 9", stream=True, max_tokens=3))
    assert read_text(events) == "1 2 3"
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("usage" in event for event in events)
    assert not any("timings" in event for event in events[:-1])
    assert only_record(engine).completion_tokens == 3


def test_bad_requests(client: httpx2.Client) -> None:
    replies = [client.post("/v1/chat/completions", content=body) for body in (b"{bad", b'{"x":1}')]
    assert [reply.status_code for reply in replies] == [400, 400]
    assert replies[1].json()["error"]["message"] == "'messages' is required"
    assert {reply.json()["error"]["type"] for reply in replies} == {"invalid_request_error"}


REFUSALS = {
    Behaviour.ERROR_500_WITH_SECRET: (500, "server_error"),
    Behaviour.OVERLONG_400: (400, "exceed_context_size_error"),
    Behaviour.LOADING_503: (503, "unavailable_error"),
    Behaviour.BUSY_429: (429, "rate_limit_error"),
    Behaviour.UNAUTHORIZED_401: (401, "authentication_error"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", REFUSALS)
def test_refusals(
    engine: StubEngine, client: httpx2.Client, behaviour: Behaviour, stream: bool
) -> None:
    engine.enqueue(behaviour)
    refused, normal = ask(client, stream=stream), ask(client)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == REFUSALS[behaviour]
    assert error["code"] == refused.status_code
    assert (CANARY_SECRET in refused.text) == (behaviour is Behaviour.ERROR_500_WITH_SECRET)
    assert normal.status_code == 200
    tokens = [(record.prompt_tokens, record.completion_tokens) for record in engine.ledger]
    assert tokens == [(0, 0), (3, 4)]


def test_an_overlong_prompt_is_refused_unasked(client: httpx2.Client) -> None:
    error = ask(client, "word " * 8193).json()["error"]
    assert error["type"] == "exceed_context_size_error"
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (8193, 8192)


@pytest.mark.parametrize("stream", [False, True])
def test_html_and_half_json(engine: StubEngine, client: httpx2.Client, stream: bool) -> None:
    engine.enqueue(Behaviour.HTML)
    engine.enqueue(Behaviour.HALF_JSON, after_tokens=3)
    page, half = ask(client, stream=stream), ask(client, stream=stream)
    assert (page.status_code, half.status_code) == (200, 200)
    assert page.headers["content-type"].startswith("text/html")
    last = half.text.strip().split("\n\n")[-1].removeprefix("data: ")
    assert last.startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(last)
    assert [r.completion_tokens for r in engine.ledger] == [0, 3 if stream else 0]


def test_an_error_in_mid_stream(engine: StubEngine, client: httpx2.Client) -> None:
    engine.enqueue(Behaviour.ERROR_MID_STREAM)
    response = ask(client, stream=True)
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert (response.status_code, last["error"]["code"]) == (200, 500)
    assert only_record(engine).completion_tokens == 2


def test_death_in_mid_stream_resets_the_connection(engine: StubEngine) -> None:
    engine.behave(Behaviour.DIE_MID_STREAM, after_tokens=3)
    with open_stream(engine) as connection, pytest.raises(ConnectionResetError):
        read_until(connection, b"[DONE]")
    assert engine.wait_idle()
    record = only_record(engine)
    assert (record.completion_tokens, record.disconnected) == (3, False)


def test_death_of_an_answer_in_one_piece(engine: StubEngine, client: httpx2.Client) -> None:
    engine.behave(Behaviour.DIE_MID_STREAM)
    with pytest.raises(httpx2.TransportError):
        ask(client)
    assert engine.wait_idle()
    assert only_record(engine).completion_tokens == 0


@pytest.mark.parametrize("behaviour", HANGS)
def test_a_hang_ends_when_the_client_goes(engine: StubEngine, behaviour: Behaviour) -> None:
    engine.behave(behaviour, after_tokens=4)
    with open_stream(engine) as connection:
        if behaviour is Behaviour.HANG_MID_STREAM:
            read_until(connection, b" more")
        assert wait_for(lambda: bool(engine.active))
        assert not engine.wait_idle(0.05)
        left_at = time.monotonic()
    assert engine.wait_idle()
    record = only_record(engine)
    assert record.disconnected_at is not None
    assert 0 <= record.disconnected_at - left_at < NOTICE_LIMIT_S
    assert record.completion_tokens == (4 if behaviour is Behaviour.HANG_MID_STREAM else 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", [*HANGS, Behaviour.ENDLESS, Behaviour.HUGE_LINE])
def test_stopping_ends_what_never_ends(
    engine: StubEngine, client: httpx2.Client, behaviour: Behaviour, stream: bool
) -> None:
    engine.behave(behaviour, token_delay_s=0.01)

    def stop_when_busy() -> None:
        wait_for(lambda: bool(engine.active))
        engine.stop()

    stopper = threading.Thread(target=stop_when_busy)
    stopper.start()
    with pytest.raises(httpx2.TransportError):
        ask(client, stream=stream)
    stopper.join(TIMEOUT_S)
    assert engine.active == 0
    assert not only_record(engine).disconnected


def test_endless_tokens_are_counted_until_the_client_goes(engine: StubEngine) -> None:
    engine.behave(Behaviour.ENDLESS, token_delay_s=0.001)
    with open_stream(engine) as connection:
        received = b"".join(read_until(connection, b" more") for _ in range(3))
    assert engine.wait_idle()
    record = only_record(engine)
    assert record.disconnected
    assert record.completion_tokens >= received.count(b" more") >= 3


def test_a_huge_line_has_no_end(engine: StubEngine) -> None:
    engine.behave(Behaviour.HUGE_LINE)
    with open_stream(engine) as connection:
        read_until(connection, b"aaaa")
        size = sum(len(connection.recv(1 << 20)) for _ in range(20))
    assert size > 100_000
    assert engine.wait_idle()
    assert only_record(engine).completion_tokens == 0


def test_slow_takes_its_time_and_notices_the_client(engine: StubEngine) -> None:
    engine.enqueue(Behaviour.SLOW, token_delay_s=0.02)
    started = time.monotonic()
    with open_stream(engine, "count to 5") as connection:
        read_until(connection, b"[DONE]")
    assert time.monotonic() - started >= 5 * 0.02
    engine.enqueue(Behaviour.SLOW, token_delay_s=60)
    with open_stream(engine) as connection:
        read_until(connection, b"assistant")
    assert engine.wait_idle()
    assert [record.disconnected for record in engine.ledger] == [False, True]


def test_probes_have_a_behaviour_of_their_own(engine: StubEngine, client: httpx2.Client) -> None:
    engine.behave_probes(Behaviour.LOADING_503)
    assert client.get("/health").status_code == 503
    assert client.get("/v1/models").json()["error"]["message"] == "Loading model"
    assert ask(client).status_code == 200
    engine.reset()
    assert client.get("/health").status_code == 200
    assert engine.ledger == []


def test_a_restart_keeps_port_and_ledger(engine: StubEngine, client: httpx2.Client) -> None:
    url = engine.url
    assert ask(client).status_code == 200
    engine.stop()
    with pytest.raises(httpx2.TransportError):
        ask(client)
    engine.start()
    assert engine.url == url
    assert ask(client).status_code == 200
    assert len(engine.ledger) == 2


def test_many_hanging_streams_at_once(engine: StubEngine) -> None:
    engine.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    with contextlib.ExitStack() as streams:
        connections = [streams.enter_context(open_stream(engine)) for _ in range(100)]
        for connection in connections:
            read_until(connection, b"Echo:")
        assert engine.active == 100
    assert engine.wait_idle()
    assert engine.peak_active == 100
    assert [r.completion_tokens for r in engine.ledger if r.disconnected] == [1] * 100


def test_as_a_program_it_is_scripted_over_http() -> None:
    with start_program("--port", "0", "--api-key", "key", "--token-delay-ms", "1") as program:
        assert program.stdout is not None
        url = program.stdout.readline().split()[-1]
        with connect(url, "key") as client:
            script = {"behaviour": "busy_429", "times": 1}
            assert client.post("/_stub/behaviour", json=script).status_code == 200
            assert client.post("/_stub/behaviour", json={"behaviour": "?"}).status_code == 400
            assert [ask(client).status_code for _ in range(2)] == [429, 200]
            state = client.get("/_stub/ledger").json()
            assert [record["completion_tokens"] for record in state["records"]] == [0, 4]
            assert (state["active"], state["peak_active"]) == (0, 1)
            client.post("/_stub/reset")
            assert client.get("/_stub/ledger").json()["records"] == []
        program.send_signal(signal.SIGTERM)
        assert program.wait(TIMEOUT_S) == 0
