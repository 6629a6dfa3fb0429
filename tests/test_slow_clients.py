"""Clients that are slow, stuck or no clients at all: what they hold, and for how long."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
from pytest_django import Settings

from sovereigncore import free_memory, web_worker
from sovereigncore.web_worker import Worker, _Queue, _Readers
from tests.platform import Platform, running_platform
from tests.stub_engine import StubEngine

pytestmark = [pytest.mark.xdist_group(__name__), pytest.mark.once]

TIMEOUT_S = 30.0
THREADS = 100
REGISTER = "/api/v1/users/register"
KEPT_ALIVE_S = 5  # as in gunicorn.conf.py


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with StubEngine() as stub, running_platform(stub, WEB_THREADS=str(THREADS)) as running:
        yield running


@contextlib.contextmanager
def connections(platform: Platform, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    """`count` connections that have said so much and say no more."""
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", platform.port), TIMEOUT_S))
            for _ in range(count)
        ]
        for connection in opened:
            connection.sendall(said)
        yield opened


def exchange(platform: Platform, request: bytes, *, ends: bool = False) -> tuple[bytes, bytes]:
    """Head and body of the answer to raw bytes."""
    with socket.create_connection(("127.0.0.1", platform.port), TIMEOUT_S) as connection:
        connection.sendall(request)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def is_live(platform: Platform, *, within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    with platform.client() as http:
        while time.monotonic() < until_s:
            with contextlib.suppress(Exception):
                if http.get("/live", timeout=within_s).status_code == 200:
                    return True
    return False


@pytest.mark.parametrize(
    "said",
    [
        b"GET /",
        b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        b"POST /api/v1/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{",
    ],
    ids=["line", "head", "body"],
)
def test_more_unfinished_requests_than_threads_stop_nobody(platform: Platform, said: bytes) -> None:
    with connections(platform, 2 * THREADS, said):
        assert is_live(platform, within_s=20)
    assert is_live(platform, within_s=5)


def test_connections_that_say_nothing_cost_no_thread(platform: Platform) -> None:
    with connections(platform, 3 * THREADS, b""), platform.client() as http:
        started_s = time.monotonic()
        for _ in range(20):
            assert http.get("/live").status_code == 200
        assert time.monotonic() - started_s < TIMEOUT_S / 2


def test_clients_that_never_close_do_not_hold_up_the_main_loop(platform: Platform) -> None:
    said = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with connections(platform, 60, said), platform.client() as http:
        started_s = time.monotonic()
        for _ in range(10):
            assert http.get("/live").status_code == 200
        # The stock worker's main loop waits two seconds for each of them.
        assert time.monotonic() - started_s < TIMEOUT_S


def test_a_request_that_does_not_come_is_cut_at_its_deadline(platform: Platform) -> None:
    with connections(platform, 1, b"GET / HTTP/1.1\r\nHost:") as (connection,):
        connection.settimeout(web_worker.HEAD_TIMEOUT_S + TIMEOUT_S)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("is_first", [True, False], ids=["new", "kept alive"])
def test_who_asks_while_the_worker_is_stopped_is_answered(
    platform: Platform, *, is_first: bool
) -> None:
    (worker,) = psutil.Process(platform.pid).children()
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.connect()
        if not is_first:
            connection.request("GET", "/live")
            assert connection.getresponse().read()
        time.sleep(0.5)  # it waits for what comes next
        worker.suspend()
        try:
            connection.request("GET", "/live")
            time.sleep(KEPT_ALIVE_S + 1)
        finally:
            worker.resume()
        assert connection.getresponse().status == 200


def test_a_body_that_ends_early_is_no_request(platform: Platform) -> None:
    body = b'{"username":"cut","email":"cut@example.org","password":"Correct-Horse-7"}'
    head, answer = exchange(
        platform,
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (REGISTER.encode(), len(body) + 1, body),
        ends=True,
    )
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer)["code"] == "incomplete_body"
    with platform.client() as http:
        whole = http.post(REGISTER, json=json.loads(body))
    assert whole.status_code == 201, "nobody was registered by a part of it"


def test_a_body_in_pieces_is_a_request(platform: Platform) -> None:
    body = b'{"username":"bits","email":"bits@example.org","password":"Correct-Horse-7"}'
    with socket.create_connection(("127.0.0.1", platform.port), TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (REGISTER.encode(), len(body))
        )
        for start in range(0, len(body), 10):
            connection.sendall(body[start : start + 10])
            time.sleep(0.01)
        assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417, "expectation_failed"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: tea\r\n\r\n",
            501,
            "unsupported_transfer_coding",
        ),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nBad Name: <b>x</b>\r\n\r\n", 400, "bad_request"),
    ],
)
def test_what_is_no_http_is_refused_in_our_shape(
    platform: Platform, request_bytes: bytes, status: int, code: str
) -> None:
    head, body = exchange(platform, request_bytes)
    told = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert (told["status"], told["code"]) == (status, code)
    assert b"X-Request-ID: %s\r\n" % told["request_id"].encode() in head
    assert b"Content-Type: application/problem+json\r\n" in head
    assert b"<b>" not in body


def test_asking_for_the_head_only_fills_no_log(platform: Platform) -> None:
    with platform.client() as http:
        for path in ("/live", "/health", "/", "/api/v1/auth/me"):
            assert http.head(path).content == b""
    assert not [line for line in platform.log_lines() if "no-body response" in line]


# --- The bookkeeping, with a clock of its own


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("sovereigncore.web_worker.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_readers_have_until_their_deadline(
    clock: list[float], pair: tuple[socket.socket, socket.socket]
) -> None:
    readers, (one, other) = _Readers(), pair
    readers.begin(one, 10)
    readers.begin(other, 30)
    clock[0] = 10.0
    assert readers.overdue(at_most=9) == []
    clock[0] = 10.1
    assert readers.overdue(at_most=9) == [one]
    readers.end(one)
    clock[0] = 30.1
    assert readers.overdue(at_most=9) == [other]


def test_where_threads_are_short_the_longest_waiting_goes_first(
    clock: list[float], pair: tuple[socket.socket, socket.socket]
) -> None:
    readers, (one, other) = _Readers(), pair
    readers.begin(one, 10)
    clock[0] = 0.5
    readers.begin(other, 10)
    assert readers.overdue(at_most=1) == [], "an honest request takes milliseconds"
    clock[0] = 1.1
    assert readers.overdue(at_most=1) == [one]
    assert readers.overdue(at_most=2) == []


def test_worker_and_application_agree_on_the_largest_body(settings: Settings) -> None:
    assert settings.MAX_BODY_BYTES == web_worker.MAX_BODY_BYTES


def test_a_worker_that_was_stopped_looks_before_it_takes_anybody_for_late() -> None:
    worker = Worker.__new__(Worker)
    worker.poller, worker.nr_conns = selectors.DefaultSelector(), 4
    for is_late, left in [(False, 1), (True, 0)]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection = SimpleNamespace(sock=ours, timeout=0.0, close=ours.close)
            worker.keepalived_conns, worker.pending_conns = deque([connection]), deque([connection])
            slept_s = 0.0 if is_late else web_worker._SLEPT_AFTER_S + 1
            worker._looked_s, worker._has_spared = time.monotonic() - slept_s, False
            worker.murder_keepalived()
            worker.murder_pending()
            assert (len(worker.keepalived_conns), len(worker.pending_conns)) == (left, left)


def test_a_worker_whose_every_look_is_late_cuts_slow_clients_all_the_same() -> None:
    worker = Worker.__new__(Worker)
    worker.tmp = SimpleNamespace(notify=lambda: None)
    worker._free_memory = free_memory.GivingBack()
    worker.cfg, worker.log = SimpleNamespace(threads=2), SimpleNamespace(info=lambda _said: None)
    worker._readers, worker._has_spared = _Readers(), False
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        worker._readers.begin(ours, timeout_s=-1)
        for is_cut in (False, True):
            worker._looked_s = time.monotonic() - web_worker._SLEPT_AFTER_S - 1
            worker.notify()
            if is_cut:
                assert theirs.recv(1) == b""
            else:
                with pytest.raises(BlockingIOError):
                    theirs.recv(1)


def test_a_thread_that_outlives_its_worker_writes_to_nobody() -> None:
    queue = _Queue()
    queue.init()
    done: list[str] = []
    queue.defer(done.append, "in time")
    queue.run_callbacks(None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        queue.close()
        os.dup2(ours.fileno(), queue._write_fd)  # whoever asks next is given it by the kernel
        try:
            queue.defer(done.append, "too late")
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
        finally:
            os.close(queue._write_fd)
    assert done == ["in time"]
