"""A web process that is to end leaves its port at once, so that a proxy goes elsewhere, and hears
those who have come already."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable

import httpx2
import psutil
import pytest

from tests.platform import Platform, free_port, running_platform
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.once

_PROCESS = "/api/v1/consciousness/process"
_STREAM = {"prompt": "Count to 300", "stream": True, "use_memory": False}
_TOKEN_DELAY_S = 0.01
_LEAVES_WITHIN_S = 2.0
_LIVE = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_ALIVE = b'{"status": "alive"}'


def _within(limit_s: float, is_so: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until_s, what
        time.sleep(0.02)


def _refuses(platform: Platform) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", platform.port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


def test_while_a_stream_goes_on_nobody_new_is_let_in(live_stub: StubEngine) -> None:
    live_stub.behave(Behaviour.NORMAL, token_delay_s=_TOKEN_DELAY_S)
    with running_platform(live_stub) as platform:
        token = platform.register_and_log_in("streamer")
        with platform.client(token) as http, http.stream("POST", _PROCESS, json=_STREAM) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: token"
            platform.process.send_signal(signal.SIGTERM)
            _within(_LEAVES_WITHIN_S, lambda: _refuses(platform), "the port is left")
            rest = list(lines)
        assert rest.count("event: done") == 1
        assert rest.count("event: token") >= 299
        assert platform.stop() == 0


def test_a_request_on_a_kept_connection_is_answered_and_is_the_last(
    live_stub: StubEngine,
) -> None:
    """What nginx' own, shorter, timeout relies on."""
    with (
        running_platform(live_stub) as platform,
        socket.create_connection(("127.0.0.1", platform.port), timeout=10) as kept,
    ):
        kept.sendall(_LIVE)
        answer = b""
        while not answer.endswith(_ALIVE):
            answer += kept.recv(4096)
        assert b"Connection: close" not in answer
        platform.process.send_signal(signal.SIGTERM)
        _within(_LEAVES_WITHIN_S, lambda: _refuses(platform), "the port is left")
        kept.sendall(_LIVE)
        answer = b""
        while part := kept.recv(4096):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(_ALIVE)
        assert b"Connection: close" in answer
        assert platform.stop() == 0


def test_who_has_connected_before_is_heard(live_stub: StubEngine) -> None:
    """They wait in the kernel for a worker that hangs and is told to end before it sees them."""
    with running_platform(live_stub) as platform, contextlib.ExitStack() as stack:
        (worker,) = psutil.Process(platform.pid).children()
        worker.suspend()
        waiting = [
            stack.enter_context(socket.create_connection(("127.0.0.1", platform.port), timeout=10))
            for _ in range(20)
        ]
        platform.process.send_signal(signal.SIGTERM)
        for connection in waiting:
            connection.sendall(_LIVE)
        worker.resume()
        answers = [connection.recv(4096) for connection in waiting]
        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
        assert platform.stop() == 0


def test_two_web_processes_of_one_data_directory_count_apart(live_stub: StubEngine) -> None:
    """The end of one takes nothing from the other."""
    with running_platform(live_stub) as first:
        shared = {"DATA_DIR": first.environment["DATA_DIR"], "PORT": str(free_port())}
        with running_platform(live_stub, **shared) as second:
            for platform in (first, second):
                with platform.client() as http:
                    assert http.get("/live").status_code == httpx2.codes.OK
            counted = _lives(first)
            assert counted == _lives(second) == 2
        with first.client() as http:
            assert http.get("/live").status_code == httpx2.codes.OK
        assert _lives(first) == counted + 1


def _lives(platform: Platform) -> float:
    """How many requests for /live it has counted, its start's included."""
    with platform.client() as http:
        lines = http.get("/metrics").text.splitlines()
    (count,) = [
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("sovereigncore_http_request_duration_seconds_count{")
        and 'route="live"' in line
    ]
    return count
