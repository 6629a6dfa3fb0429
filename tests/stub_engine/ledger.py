"""What the stub engine did, request by request: the truth that usage accounting is held against."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# A long load test must not fill the memory; the oldest records go first.
LEDGER_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One chat request. Times are `time.monotonic()`, which on Linux all processes share.

    `prompt_tokens` is 0 until an answer begins, and for a refused request. `completion_tokens`
    counts what was written to the socket; it is final once `ended_at` is set, which for a whole
    answer is just before its last bytes go out.
    """

    number: int
    behaviour: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    started_at: float
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended_at: float | None = None
    disconnected_at: float | None = None

    @property
    def disconnected(self) -> bool:
        """Whether the client left before it had the whole answer."""
        return self.disconnected_at is not None


class Ledger:
    """Thread-safe. Changes to a record that was cleared or dropped are ignored."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: dict[int, RequestRecord] = {}
        self._running: set[int] = set()
        self._count = 0
        self._peak = 0

    def open(self, behaviour: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> int:
        """Record a request that has arrived; returns its number, counted from 1."""
        with self._changed:
            self._count += 1
            number = self._count
            self._records[number] = RequestRecord(
                number, behaviour, body, headers, time.monotonic()
            )
            self._running.add(number)
            self._peak = max(self._peak, len(self._running))
            if len(self._records) > LEDGER_LIMIT:
                del self._records[next(iter(self._records))]
        return number

    def update(self, number: int, *, status: int, prompt_tokens: int = 0) -> None:
        self._change(number, status=status, prompt_tokens=prompt_tokens)

    def add_tokens(self, number: int, count: int) -> None:
        """Count tokens as written; a negative count takes back what could not be written."""
        with self._changed:
            if record := self._records.get(number):
                total = record.completion_tokens + count
                self._records[number] = replace(record, completion_tokens=total)

    def close(self, number: int) -> None:
        """The request is over (a second call changes nothing)."""
        with self._changed:
            if number not in self._running:
                return
            self._running.remove(number)
            self._changed.notify_all()
            if record := self._records.get(number):
                self._records[number] = replace(record, ended_at=time.monotonic())

    def mark_disconnected(self, number: int) -> None:
        self._change(number, disconnected_at=time.monotonic())

    def _change(self, number: int, **changes: Any) -> None:
        with self._changed:
            if record := self._records.get(number):
                self._records[number] = replace(record, **changes)

    @property
    def records(self) -> list[RequestRecord]:
        """A copy, in the order of arrival."""
        with self._changed:
            return list(self._records.values())

    @property
    def active(self) -> int:
        """How many requests are being answered now."""
        with self._changed:
            return len(self._running)

    @property
    def peak_active(self) -> int:
        """The most there have been at once."""
        with self._changed:
            return self._peak

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether no request was being answered at some moment within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def clear(self) -> None:
        with self._changed:
            self._records.clear()
            self._peak = len(self._running)
