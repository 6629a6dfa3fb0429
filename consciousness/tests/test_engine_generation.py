"""One generation: its deadlines, and its end from our side."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from consciousness import engine_errors as errors
from consciousness import engine_generation
from consciousness.engine import Engine, Prompt
from consciousness.engine_generation import Generation, Timeouts
from consciousness.engine_stream import Usage
from consciousness.tests.raw_server import RawServer
from tests.log_capture import LogCapture
from tests.stub_engine import Behaviour, StubEngine

SHORT_S, LONG_S, BOUND_S = 0.2, 30.0, 1.0


def timeouts(
    *,
    connect_s: float = 2,
    first_s: float = LONG_S,
    silence_s: float = LONG_S,
    total_s: float = LONG_S,
) -> Timeouts:
    return Timeouts(
        connect_s=connect_s, first_token_s=first_s, silence_s=silence_s, total_s=total_s
    )


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_generation, "_IDLE_S", 0.02)


def started(
    stub: StubEngine, *, limits: Timeouts | None = None, text: str = "Count to 9"
) -> Generation:
    engine = Engine(url=stub.url, api_key=stub.api_key)
    (model,) = engine.models()
    prompt = Prompt(messages=({"role": "user", "content": text},), temperature=0, max_tokens=4096)
    return engine.generate(prompt, model=model, timeouts=limits or timeouts())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine-reader"]


def wait_for_request(stub: StubEngine) -> None:
    until_s = time.monotonic() + BOUND_S
    while not stub.active:
        assert time.monotonic() < until_s
        time.sleep(0.005)


@contextlib.contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < seconds


def test_the_chunks_are_the_answer_and_the_count_is_the_engines(stub: StubEngine) -> None:
    generation = started(stub)
    assert generation.usage == Usage()
    assert "".join(text for text in generation if text) == "1 2 3 4 5 6 7 8 9"
    assert generation.usage == Usage(prompt_tokens=3, completion_tokens=9, is_estimated=False)
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
    assert next(item for item in items if item is not None) == "1"
    assert [next(items) for _ in range(3)] == [None] * 3
    generation.close()


@pytest.mark.parametrize(
    ("behaviour", "limits"),
    [
        (Behaviour.HANG_BEFORE_HEADERS, timeouts(first_s=SHORT_S)),
        (Behaviour.HANG_BEFORE_FIRST_TOKEN, timeouts(first_s=SHORT_S)),
        (Behaviour.HANG_MID_STREAM, timeouts(silence_s=SHORT_S)),
        (Behaviour.HANG_BEFORE_HEADERS, timeouts(total_s=SHORT_S)),
        (Behaviour.HANG_MID_STREAM, timeouts(total_s=SHORT_S)),
        (Behaviour.ENDLESS, timeouts(total_s=SHORT_S)),
    ],
)
def test_each_deadline_holds_alone(
    stub: StubEngine, behaviour: Behaviour, limits: Timeouts
) -> None:
    stub.behave(behaviour, token_delay_s=0.005)
    generation = started(stub, limits=limits)
    started_s = time.monotonic()
    with pytest.raises(errors.EngineTimeout):
        list(generation)
    assert SHORT_S - 0.1 < time.monotonic() - started_s < SHORT_S + BOUND_S
    generation.close()
    assert stub.wait_idle()
    assert readers() == []


def test_the_deadlines_are_those_of_the_settings(settings: object) -> None:
    for number, name in enumerate(("CONNECT", "FIRST_TOKEN", "SILENCE", "TOTAL"), 11):
        setattr(settings, f"ENGINE_{name}_TIMEOUT_S", number)
    assert Timeouts() == Timeouts(connect_s=11, first_token_s=12, silence_s=13, total_s=14)


@pytest.mark.parametrize(
    ("behaviour", "sent"),
    [
        (Behaviour.HANG_BEFORE_HEADERS, 0),
        (Behaviour.HANG_BEFORE_FIRST_TOKEN, 0),
        (Behaviour.HANG_MID_STREAM, 2),
    ],
)
def test_closing_wakes_the_reader_and_the_engine(
    stub: StubEngine, logs: LogCapture, behaviour: Behaviour, sent: int
) -> None:
    stub.behave(behaviour, after_tokens=2)
    generation = started(stub)
    wait_for_request(stub)
    with takes_at_most(BOUND_S):
        generation.close()
        assert stub.wait_idle(BOUND_S)
    assert stub.ledger[0].disconnected
    assert generation.usage.completion_tokens == stub.ledger[0].completion_tokens <= sent
    assert readers() == []
    with takes_at_most(0.1):
        generation.close()  # a second time changes nothing
    assert logs.events("engine_connection_failed") == []  # it is what we wanted


@pytest.mark.parametrize("attempt", range(5))
def test_closing_counts_what_was_on_its_way(
    stub: StubEngine, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", LONG_S)
    generation = started(stub, text="Count to 100000")
    next(text for text in generation if text)
    generation.close()
    assert stub.wait_idle()
    assert generation.usage.completion_tokens == stub.ledger[0].completion_tokens < 100_000
    assert not generation.usage.is_estimated
    assert readers() == []


def test_closing_an_engine_that_will_not_stop_is_bounded() -> None:
    """One that notices nothing and is never done sending."""
    block = b'data: {"choices":[{"delta":{"content":"more"}}]}\n\n' * 1000
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def flood() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                while not stop.is_set():
                    connection.sendall(block)

        thread = threading.Thread(target=flood)
        thread.start()
        http = httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        generation = Generation(http, b"{}", timeouts())
        next(text for text in generation if text)
        with takes_at_most(BOUND_S):
            generation.close()
        assert readers() == []
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_closing_an_engine_that_does_not_react_is_bounded() -> None:
    """One that was stopped with its connections open, as by SIGSTOP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        generation = Generation(http, b"{}", timeouts())
        connection, _ = listener.accept()
        with connection, takes_at_most(BOUND_S):
            generation.close()
    assert readers() == []


def test_a_slow_reader_slows_the_engine_instead_of_filling_memory(stub: StubEngine) -> None:
    stub.behave(Behaviour.ENDLESS)
    generation = started(stub)
    next(text for text in generation if text)
    assert generation._received.maxsize == 64
    until_s = time.monotonic() + BOUND_S
    while not generation._received.full():
        assert time.monotonic() < until_s
        time.sleep(0.005)
    generation.close()
    assert stub.wait_idle()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose backlog is full, so that connecting to it takes for ever."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


def test_connecting_has_a_deadline_of_its_own(deaf_port: int) -> None:
    http = httpx2.Client(base_url=f"http://127.0.0.1:{deaf_port}")
    generation = Generation(http, b"{}", timeouts(connect_s=SHORT_S))
    with takes_at_most(BOUND_S), pytest.raises(errors.EngineUnavailable):
        list(generation)
    generation.close()
    assert readers() == []


def test_closing_while_connecting_waits_no_longer_than_connecting(deaf_port: int) -> None:
    http = httpx2.Client(base_url=f"http://127.0.0.1:{deaf_port}")
    generation = Generation(http, b"{}", timeouts(connect_s=SHORT_S))
    with takes_at_most(BOUND_S):
        generation.close()
    assert readers() == []


OK, STREAM = "HTTP/1.1 200 OK\r\n", "Content-Type: text/event-stream\r\n"


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


def self_signed(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's) contexts of a certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engine")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "both.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


def test_closing_wakes_a_reader_behind_tls_too(tmp_path: Path) -> None:
    server_tls, client_tls = self_signed(tmp_path)
    with RawServer(lambda _request: None, tls=server_tls) as server:
        http = httpx2.Client(base_url=server.url, verify=client_tls)
        generation = Generation(http, orjson.dumps({}), timeouts())
        until_s = time.monotonic() + 5
        while not server.requests:
            assert time.monotonic() < until_s
            assert next(iter(generation)) is None
        with takes_at_most(BOUND_S):
            generation.close()
        assert readers() == []
        assert server.hung_up.wait(BOUND_S)
