"""Asking over HTTP, and what must be so afterwards."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

from django.http import StreamingHttpResponse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.admission import admission
from consciousness.models import ACTIVE, Query, Status
from tests.stub_engine import StubEngine

PROCESS = "/api/v1/consciousness/process"
QUERY = "/api/v1/consciousness/query"
QUERIES = "/api/v1/consciousness/queries"
STATE = "/api/v1/consciousness/state"
STATUS = "/api/v1/consciousness/status"
LOGOUT = "/api/v1/auth/logout"
CAPITAL = "What is the capital of France?"


def ask(client: APIClient, prompt: str = CAPITAL, **more: Any) -> Any:
    return client.post(PROCESS, {"prompt": prompt, **more})


def ask_streamed(client: APIClient, prompt: str = CAPITAL, **more: Any) -> StreamingHttpResponse:
    response = ask(client, prompt, stream=True, **more)
    assert response.status_code == 200, response.content
    return cast("StreamingHttpResponse", response)


def chunks(response: StreamingHttpResponse) -> Iterator[bytes]:
    return cast("Iterator[bytes]", response.streaming_content)


def event_of(chunk: bytes) -> tuple[str, Any]:
    """The name and the data of one server-sent event."""
    name, data, *end = chunk.split(b"\n")
    assert name.startswith(b"event: ")
    assert data.startswith(b"data: ")
    assert end == [b"", b""]
    return name[7:].decode(), json.loads(data[6:])


def hang_up(response: StreamingHttpResponse) -> None:
    """The client closes its connection, and the server the response.

    Through the test client's own iterator: `close()` would close the database as well, which does
    not go with a test inside a transaction. That closes only what the test has begun to read.
    """
    response._iterator.close()  # type: ignore[attr-defined]


@contextlib.contextmanager
def leaving_once_heard(stub: StubEngine) -> Iterator[dict[str, Any]]:
    """The environ of a caller who closes the connection as soon as the engine has the question.

    Not before: an engine that never heard of it would still have in its queue what this question
    was to meet, and the next one would.
    """
    ours, client = socket.socketpair()
    heard = len(stub.ledger)

    def leave() -> None:
        until_s = time.monotonic() + 10
        with client:
            while len(stub.ledger) == heard and time.monotonic() < until_s:
                time.sleep(0.002)

    leaver = threading.Thread(target=leave)
    leaver.start()
    with ours:
        yield {"gunicorn.socket": ours}
    leaver.join()
    assert len(stub.ledger) > heard, "the engine never had the question"


def wait_until_sent(stub: StubEngine, tokens: int) -> None:
    """Until the newest generation has written so many tokens to its socket."""
    until_s = time.monotonic() + 10
    while stub.ledger[-1].completion_tokens < tokens:
        assert time.monotonic() < until_s
        time.sleep(0.002)


def assert_nothing_runs(stub: StubEngine) -> None:
    """No generation upstream, no slot taken, nobody waiting, no query unsettled."""
    assert stub.wait_idle()
    snapshot = admission.snapshot(0)
    assert (snapshot["busy"], snapshot["waiting"]) == (0, 0)
    assert list(Query.objects.active()) == []


def a_query(user: User, **values: Any) -> Query:
    """A row as the services leave it behind, completed unless `values` say otherwise."""
    now = timezone.now()
    known: dict[str, Any] = {
        "status": Status.COMPLETED,
        "model": "stub-model",
        "temperature": 0.7,
        "max_tokens": 500,
        "created_at": now,
        "lease_expires_at": now + timedelta(minutes=10),
        **values,
    }
    if known["status"] not in ACTIVE:
        known.setdefault("finished_at", known["created_at"] + timedelta(seconds=1))
    return Query.objects.create(user=user, **known)
