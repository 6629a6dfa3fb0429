"""A short load of all that dashboards show: people, answers, streams, refusals, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from tests.chaos.grown import PROCESS
from tests.ops.watched import Watched
from tests.outbox import token_in
from tests.platform import PASSWORD

_PAUSE_S = 0.1
_MAIL_TIMEOUT_S = 60.0
_CHAT = "/v1/chat/completions"
_READ = (
    *("/api/v1/auth/me", "/api/v1/consciousness/queries", "/api/v1/consciousness/memories"),
    *("/api/v1/usage", "/nowhere"),
)


def use_once(watched: Watched) -> None:
    """What happens to a person now and then: an account, a login, a wrong one, a reset, limits."""
    platform = watched.parts.platform
    platform.register_and_log_in("bob")
    with platform.client() as http:
        wrong = {"username": "alice", "password": "wrong"}
        guesses = [http.post("/api/v1/auth/token", data=wrong).status_code for _ in range(7)]
        assert guesses == [401] * 5 + [429] * 2  # from the sixth on there is a delay
        ask = {"email": "bob@example.org"}
        before = len(watched.app_mail.received)
        asked = http.post("/api/v1/users/password-reset/request", json=ask)
        assert asked.status_code == httpx2.codes.ACCEPTED, asked.text
        new = {"token": _reset_token(watched, before), "new_password": f"{PASSWORD}-2"}
        done = http.post("/api/v1/users/password-reset/confirm", json=new)
        assert done.status_code == httpx2.codes.OK, done.text
        limited = [http.post("/api/v1/users/password-reset/request", json=ask) for _ in range(4)]
    assert httpx2.codes.TOO_MANY_REQUESTS in {reply.status_code for reply in limited}
    with watched.parts.client("alice") as http:
        kept = http.post("/api/v1/consciousness/memories", json={"text": "My dog is called Rex."})
        assert kept.status_code == httpx2.codes.CREATED, kept.text


def _reset_token(watched: Watched, before: int) -> str:
    until_s = time.monotonic() + _MAIL_TIMEOUT_S
    while True:
        for delivery in watched.app_mail.received[before:]:
            if "reset" in str(delivery.message["Subject"]).lower():
                return token_in(delivery.message)
        assert time.monotonic() < until_s, "the worker sent no mail"
        time.sleep(0.1)


def fail_once(watched: Watched) -> None:
    """An engine that fails: a 5xx, and a query that ends as failed. Callers who ask at the same
    time may be the ones whom it fails, and then it is tried again."""
    with watched.parts.client("alice") as http:
        for _ in range(20):
            watched.parts.engine.behave("error_500_with_secret", times=2)
            reply = http.post(PROCESS, json={"prompt": "Count to 3, and fail"})
            if reply.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
                return
    raise AssertionError(reply.text)


def ask_around(http: httpx2.Client) -> None:
    """One round of one caller: reads, an answer that is kept, one from the cache, two streams."""
    for path in _READ:
        http.get(path)
    same = {"prompt": "Count to 3", "temperature": 0}
    streamed = {"prompt": "Count to 5", "stream": True}
    question = {"messages": [{"role": "user", "content": "Count to 4"}], "model": "default"}
    for body in (same, streamed):
        http.post(PROCESS, json=body)
    http.post(_CHAT, json={**question, "stream": True})


@contextmanager
def loaded(watched: Watched, *, callers: int = 2) -> Iterator[None]:
    """Callers who ask on and on."""
    is_over = threading.Event()

    def ask_on() -> None:
        with watched.parts.client("alice") as http:
            while not is_over.is_set():
                try:
                    ask_around(http)
                except httpx2.TransportError:
                    is_over.wait(1.0)  # a drill may have taken the platform away
                is_over.wait(_PAUSE_S)

    threads = [threading.Thread(target=ask_on, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
