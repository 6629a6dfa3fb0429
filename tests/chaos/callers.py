"""Callers that ask the platform again and again, each on a connection of its own, and note what
they were told and when.

`http.client` and threads: a caller that waits costs whoever measures next to nothing.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.grown import PROCESS

_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer: `code` is the problem's, empty for a 200; `status` 0 is a broken connection."""

    caller: str
    status: int
    code: str
    asked_s: float
    took_s: float
    retry_after_s: float
    body: Any = field(repr=False)

    @property
    def at_s(self) -> float:
        return self.asked_s + self.took_s


class Asking:
    """One connection that is opened again when it breaks."""

    def __init__(self, port: int, key: str, caller: str) -> None:
        self._port, self._key, self._caller = port, key, caller
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self,
        path: str = PROCESS,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Told:
        asked_s = time.monotonic()
        status, said, retry_after_s = 0, None, 0.0
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=_TIMEOUT_S
            )
        try:
            self._connection.request(
                "GET" if body is None else "POST",
                path,
                None if body is None else json.dumps(body),
                {
                    "Authorization": f"Bearer {self._key}",
                    "Content-Type": "application/json",
                    **(headers or {}),
                },
            )
            reply = self._connection.getresponse()
            raw = reply.read()
            status = reply.status
            retry_after_s = float(reply.headers.get("Retry-After", "0"))
            said = json.loads(raw)
        except (OSError, http.client.HTTPException):
            status = 0
            self.close()
        return Told(
            caller=self._caller,
            status=status,
            code=str(said.get("code", "")) if isinstance(said, dict) else "",
            asked_s=asked_s,
            took_s=time.monotonic() - asked_s,
            retry_after_s=retry_after_s,
            body=said,
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Crowd:
    """`count` threads of one caller that ask on and on; `pause_s` between an answer and the next
    question; where the answer was none, what Retry-After says and a little more."""

    def __init__(
        self,
        port: int,
        key: str,
        caller: str,
        *,
        count: int,
        body: Callable[[], dict[str, Any]],
        pause_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.told: list[Told] = []
        self._port, self._key, self._caller = port, key, caller
        self._body, self._pause_s = body, pause_s
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(count)]

    def _ask_on(self) -> None:
        asking = Asking(self._port, self._key, self._caller)
        self._is_over.wait(self._pause_s())
        while not self._is_over.is_set():
            told = asking.ask(body=self._body())
            self.told.append(told)
            # Not all of them in the same moment again.
            later_s = told.retry_after_s * random.uniform(1, 1.5)
            if later_s:
                asking.close()  # the server does not keep an idle connection for so long
            self._is_over.wait(self._pause_s() if told.status == 200 else later_s)
        asking.close()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Ask nothing more."""
        self._is_over.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(_TIMEOUT_S)


@contextmanager
def busy(*crowds: Crowd) -> Iterator[None]:
    for crowd in crowds:
        crowd.start()
    try:
        yield
    finally:
        for crowd in crowds:
            crowd.end()
        for crowd in crowds:
            crowd.join()
