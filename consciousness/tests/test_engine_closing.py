"""Ending a generation from our side: at once, whatever the engine does, and with a true count."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from cryptography.x509 import IPAddress

from consciousness import engine_generation
from consciousness.engine_errors import EngineError, EngineTimeout
from consciousness.engine_generation import Generation
from consciousness.tests.generating import (
    BOUND_S,
    LONG_S,
    SHORT_S,
    a_deaf_port,
    readers,
    started,
    takes_at_most,
    timeouts,
    wait_for_request,
)
from consciousness.tests.raw_server import RawServer
from tests.certificates import contexts
from tests.log_capture import LogCapture
from tests.stub_engine import Behaviour, StubEngine

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("looks_often")]


def wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.002)


@pytest.fixture
def _is_soon_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", SHORT_S)


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
    with takes_at_most(BOUND_S):
        generation.close()  # a second time changes nothing
    assert logs.events("engine_connection_failed") == []  # it is what we wanted


@pytest.mark.parametrize("attempt", range(5))
def test_closing_counts_what_was_on_its_way(
    stub: StubEngine, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", LONG_S)
    stub.behave(Behaviour.ENDLESS)
    generation = started(stub)
    next(text for text in generation if text)
    generation.close()
    assert stub.wait_idle()
    assert stub.ledger[0].disconnected
    assert generation.usage.completion_tokens == stub.ledger[0].completion_tokens > 0
    assert not generation.usage.is_estimated
    assert readers() == []


@pytest.mark.usefixtures("_is_soon_deaf")
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


@pytest.mark.usefixtures("_is_soon_deaf")
def test_closing_an_engine_that_does_not_react_is_bounded_and_its_count_no_more_than_that() -> None:
    """One that was stopped with its connections open, as by SIGSTOP."""
    told: dict[str, Any] = {"choices": [{"delta": {"content": "1"}}], "usage": {}}
    told["usage"] = {"prompt_tokens": 3, "completion_tokens": 1}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        generation = Generation(http, b"{}", timeouts())
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4)  # the request is under way
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            connection.sendall(b"data: %s\n\n" % orjson.dumps(told))
            next(text for text in generation if text)
            assert not generation.usage.is_open
            with takes_at_most(BOUND_S):
                generation.close()
    assert readers() == []
    assert generation.usage.total_tokens == 4
    assert generation.usage.is_open


def test_an_answer_that_had_begun_and_told_no_count_is_not_known_to_have_cost_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        generation = Generation(http, b"{}", timeouts())
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            connection.sendall(b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n')
            wait_until(lambda: not generation._received.empty())
        generation.close()  # the engine noticed: its connection is closed
    assert (generation.usage.total_tokens, generation.usage.is_open) == (0, True)


def test_an_engine_that_accepted_and_told_no_count_is_not_known_to_have_cost_nothing(
    stub: StubEngine,
) -> None:
    """It reads the prompt: its headers are all that has come."""
    stub.behave(Behaviour.HANG_BEFORE_FIRST_TOKEN)
    generation = started(stub)
    wait_until(lambda: bool(stub.ledger and stub.ledger[0].prompt_tokens))
    generation.close()
    assert (generation.usage.total_tokens, generation.usage.is_open) == (0, True)


def test_an_engine_that_never_accepted_cost_nothing(stub: StubEngine) -> None:
    stub.behave(Behaviour.HANG_BEFORE_HEADERS)
    generation = started(stub)
    wait_for_request(stub)
    generation.close()
    assert stub.ledger[0].prompt_tokens == 0
    assert (generation.usage.total_tokens, generation.usage.is_open) == (0, False)


def test_a_refusal_cost_nothing(stub: StubEngine) -> None:
    stub.behave(Behaviour.BUSY_429)
    generation = started(stub)
    with pytest.raises(EngineError):
        list(generation)
    generation.close()
    assert (generation.usage.total_tokens, generation.usage.is_open) == (0, False)


def test_a_caller_who_is_told_of_a_passed_deadline_waits_no_longer_for_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_generation, "_LAST_WORDS_S", LONG_S)
    monkeypatch.setattr(engine_generation, "_LATE_LAST_WORDS_S", SHORT_S)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        generation = Generation(http, b"{}", timeouts(first_s=SHORT_S))
        with pytest.raises(EngineTimeout):
            list(generation)
        with takes_at_most(BOUND_S):
            generation.close()


@pytest.mark.usefixtures("_is_soon_deaf")
def test_closing_while_connecting_waits_no_longer_than_connecting() -> None:
    with a_deaf_port() as port:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{port}")
        generation = Generation(http, b"{}", timeouts(connect_s=SHORT_S))
        with takes_at_most(BOUND_S):
            generation.close()
        assert readers() == []


def test_closing_wakes_a_reader_behind_tls_too(tmp_path: Path) -> None:
    server_tls, client_tls = contexts(IPAddress(ip_address("127.0.0.1")), tmp_path)
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
