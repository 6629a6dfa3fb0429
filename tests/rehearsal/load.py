"""Callers who ask through nginx all the time, over kept connections and new ones, and note whatever
was not answered as it should be."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.chaos.grown import PROCESS, within
from tests.rehearsal.topology import Topology

_TIMEOUT_S = 60.0
_ME = "/api/v1/auth/me"
_ANSWER = {"prompt": "Count to 3", "use_memory": False}
_STREAM = {"prompt": "Count to 100", "use_memory": False, "stream": True}
_TOKENS_AT_LEAST = 100
_NEW = "new connections"


class Load:
    """`done` counts the good answers by kind, `failures` says what was wrong with the others."""

    def __init__(self, parts: Topology, *, keeps_connections: bool = True) -> None:
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self._parts = parts
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        kinds: tuple[tuple[str, str, Callable[[http.client.HTTPSConnection, str], str]], ...] = (
            ("read", "alice", _read),
            (f"read, {_NEW}", "alice", _read),
            ("answer", "bob", _answer),
            (f"answer, {_NEW}", "bob", _answer),
            ("stream", "carol", _stream),
            (f"stream, {_NEW}", "carol", _stream),
        )
        self._threads = [
            threading.Thread(target=self._ask_on, args=kind, daemon=True)
            for kind in kinds
            if keeps_connections or _NEW in kind[0]
        ]

    def _ask_on(
        self, kind: str, user: str, ask: Callable[[http.client.HTTPSConnection, str], str]
    ) -> None:
        nginx, key = self._parts.nginx, self._parts.keys[user]

        def connect() -> http.client.HTTPSConnection:
            return http.client.HTTPSConnection(
                "127.0.0.1", nginx.port, timeout=_TIMEOUT_S, context=nginx.context
            )

        connection = connect()
        while not self._is_over.is_set():
            if _NEW in kind:
                connection.close()
                connection = connect()
            began_s = time.monotonic()
            try:
                wrong = ask(connection, key)
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
                connection.close()
                connection = connect()
            with self._lock:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                if wrong:
                    self.failures.append(f"{kind}: {wrong}")
                else:
                    self.done[kind] += 1
        connection.close()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Until so many were answered."""
        within(_TIMEOUT_S, lambda: self.done.total() >= count, f"{count} answers")

    def end(self) -> None:
        """After the answers that are still to come."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    def check(self) -> None:
        """All were answered, and there were some of each kind."""
        print(f"\n  {dict(self.done)}, slowest {self.slowest_s:.1f} s")
        assert not self.failures, "\n".join(self.failures[:20])
        assert len(self.done) == len(self._threads)


def _told(connection: http.client.HTTPSConnection, key: str, body: object) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if body is None:
        connection.request("GET", _ME, headers=headers)
    else:
        connection.request("POST", PROCESS, json.dumps(body), headers)
    reply = connection.getresponse()
    return reply.status, reply.read()


def _read(connection: http.client.HTTPSConnection, key: str) -> str:
    status, said = _told(connection, key, None)
    return "" if status == 200 else f"{status} {said[:300]!r}"


def _answer(connection: http.client.HTTPSConnection, key: str) -> str:
    status, said = _told(connection, key, _ANSWER)
    is_whole = status == 200 and bool(json.loads(said)["response"])
    return "" if is_whole else f"{status} {said[:300]!r}"


def _stream(connection: http.client.HTTPSConnection, key: str) -> str:
    status, said = _told(connection, key, _STREAM)
    is_whole = (
        status == 200
        and said.count(b"event: token\n") >= _TOKENS_AT_LEAST
        and said.count(b"event: done\n") == 1
    )
    return "" if is_whole else f"{status}, {said.count(b'event: token')} tokens, {said[-300:]!r}"


@contextmanager
def loaded(parts: Topology, *, keeps_connections: bool = True) -> Iterator[Load]:
    load = Load(parts, keeps_connections=keeps_connections)
    load.start()
    try:
        yield load
    finally:
        load.end()
