"""Whether a client is still there, asked of a real socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from django.test import RequestFactory
from rest_framework.test import APIClient

from consciousness.callers import abandonment_of
from consciousness.models import Query, Status
from consciousness.tests.asking import PROCESS, assert_nothing_runs, leaving_once_heard
from tests.stub_engine import Behaviour, StubEngine


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(ours, the client's) of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, client:
        yield ours, client


def question(connection: object) -> Callable[[], bool]:
    request = RequestFactory().get("/")
    request.META["gunicorn.socket"] = connection
    return abandonment_of(request)


def test_a_client_that_waits_is_there(ends: tuple[socket.socket, socket.socket]) -> None:
    is_abandoned = question(ends[0])
    assert [is_abandoned() for _ in range(3)] == [False] * 3


def test_a_client_that_closed_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    is_abandoned = question(ours)
    assert not is_abandoned()
    client.close()
    assert is_abandoned()
    assert is_abandoned()


def test_a_client_that_broke_off_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST
    client.close()
    assert question(ours)()


def test_the_next_request_of_a_client_is_no_end_and_stays_to_be_read(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    is_abandoned = question(ours)
    client.sendall(b"GET /live HTTP/1.1\r\n")
    assert [is_abandoned() for _ in range(3)] == [False] * 3
    assert ours.recv(100) == b"GET /live HTTP/1.1\r\n"


def test_a_client_that_sent_more_and_closed_is_gone(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    client.sendall(b"\r\n")
    client.close()
    assert question(ours)()
    assert ours.recv(100) == b"\r\n"


def test_a_socket_of_ours_that_is_closed_already(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = ends
    is_abandoned = question(ours)
    ours.close()
    assert is_abandoned()


@pytest.mark.parametrize("nothing", [None, object(), "socket"])
def test_a_server_that_shows_no_socket_has_no_vanished_clients(nothing: object) -> None:
    assert not question(nothing)()


@pytest.mark.parametrize("behaviour", [Behaviour.HANG_BEFORE_HEADERS, Behaviour.HANG_MID_STREAM])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.usefixtures("looks_often")
def test_a_client_that_went_away_stops_the_engine(
    as_alice: APIClient,
    stub: StubEngine,
    behaviour: Behaviour,
    stream: bool,
) -> None:
    stub.behave(behaviour, after_tokens=2)
    body = {"prompt": "Count to 9", "stream": stream}
    with leaving_once_heard(stub) as environ:
        response = as_alice.post(PROCESS, body, **environ)
    if response.streaming:
        assert list(response.streaming_content) == []  # type: ignore[attr-defined]
    else:
        assert response.status_code == 499
        assert response.content == b""
    assert_nothing_runs(stub)
    (record,) = stub.ledger
    assert record.disconnected
    query = Query.objects.get()
    assert (query.status, query.error_code) == (Status.CANCELLED, "")
    assert query.completion_tokens == record.completion_tokens
