"""A storm of questions: callers that ask, stream, leave early, while web processes are killed.

Afterwards every query must be settled once: at exactly what the engine's own ledger says; where
its process was killed, at its reservation at most and flagged; and where the engine could not tell
any more what it had done, for its caller left before the first token told a count, or it took
longer than three seconds to hear of it, at what was heard until then and flagged.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from operator import gt

import psutil

from tests.platform import Platform, running_platform
from tests.settled import Row, is_orphaned, settled_rows
from tests.stub_engine import Behaviour, StubEngine

PROCESS = "/api/v1/consciousness/process"
_CALLERS = 16
_USERS = 8
_LEAVE_SHARE = 0.2
_TIMEOUT_S = 60.0
_PAUSE_S = 0.05  # of a caller whose connection was refused or broke
_UNHEARD_SHARE = 0.01


@dataclass(kw_only=True)
class Storm:
    """`acknowledged` are the answers that callers received in full: usage by query id."""

    platform: Platform
    stub: StubEngine
    requests: int
    kills: int
    acknowledged: dict[str, dict[str, int]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    killed: int = 0

    def rage(self) -> None:
        tokens = [self.platform.register_and_log_in(f"storm-{number}") for number in range(_USERS)]
        numbers = itertools.count()
        callers = [
            threading.Thread(target=self._ask_on, args=(tokens[place % _USERS], numbers, place))
            for place in range(_CALLERS)
        ]
        for caller in callers:
            caller.start()
        self._kill_now_and_then(callers)
        for caller in callers:
            caller.join()

    def _kill_now_and_then(self, callers: list[threading.Thread]) -> None:
        """The next worker is killed each time another share of the requests is through."""
        while any(caller.is_alive() for caller in callers):
            done = sum(self.outcomes.values())
            if self.killed < self.kills and done * (self.kills + 1) > self.requests * (
                self.killed + 1
            ):
                workers = psutil.Process(self.platform.pid).children()
                if workers:
                    workers[self.killed % len(workers)].send_signal(signal.SIGKILL)
                    self.killed += 1
            time.sleep(0.01)

    def _ask_on(self, token: str, numbers: itertools.count[int], seed: int) -> None:
        chance = random.Random(seed)
        connection: http.client.HTTPConnection | None = None
        for number in numbers:
            if number >= self.requests:
                break
            is_streamed = chance.random() < 0.5
            leaves = chance.random() < _LEAVE_SHARE
            asking = connection or http.client.HTTPConnection(
                "127.0.0.1", self.platform.port, timeout=_TIMEOUT_S
            )
            body = {"prompt": f"Count to {number % 7 + 3} #{number}", "max_tokens": 20}
            connection = None
            try:
                asking.request(
                    "POST",
                    PROCESS,
                    json.dumps({**body, "stream": is_streamed}),
                    {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                )
                if leaves:
                    self._leave(asking, is_streamed=is_streamed, after_s=chance.random() / 50)
                else:
                    self._hear_out(asking, is_streamed=is_streamed)
                    connection = asking
            except (OSError, http.client.HTTPException):  # its process was killed
                self.outcomes["broken"] += 1
                asking.close()
                time.sleep(_PAUSE_S)

    def _leave(
        self, connection: http.client.HTTPConnection, *, is_streamed: bool, after_s: float
    ) -> None:
        """Now, after a moment, or in the middle of a stream."""
        if is_streamed and after_s > 0.01:
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = connection.getresponse()
                reply.read(40)
                reply.close()  # it has taken the socket over
        else:
            time.sleep(after_s)
        connection.close()
        self.outcomes["left"] += 1

    def _hear_out(self, connection: http.client.HTTPConnection, *, is_streamed: bool) -> None:
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            self.outcomes[f"status {reply.status}"] += 1
            return
        if is_streamed:
            last = body.rstrip().rpartition(b"\n\n")[2]
            if not last.startswith(b"event: done\ndata: "):
                self.outcomes["broken"] += 1
                return
            body = last.removeprefix(b"event: done\ndata: ")
        answer = json.loads(body)
        self.acknowledged[answer["query_id"]] = answer["usage"]
        self.outcomes["answered"] += 1

    def check(self) -> None:
        """Fails unless the database, the callers and the engine's ledger tell the same story."""
        rows = self._rows()
        ledger = {
            record.body["messages"][-1]["content"]: (
                record.prompt_tokens,
                record.completion_tokens,
            )
            for record in self.stub.ledger
            if record.body  # or its caller left, or its process died, in the middle of sending it
        }
        assert self.killed == self.kills
        assert self.outcomes["answered"] > self.requests * 0.7
        finished = list(itertools.filterfalse(is_orphaned, rows))
        assert len(finished) < len(rows), "no killed process had a query in hand"
        unheard = [row for row in finished if row["is_estimated"]]
        self.outcomes["unheard"] = len(unheard)
        assert len(unheard) <= self.requests * _UNHEARD_SHARE
        wrong = [
            (row, told)
            for row in finished
            for told in [ledger.get(row["content__prompt"], (0, 0))]
            for heard in [(row["prompt_tokens"], row["completion_tokens"])]
            if (any(map(gt, heard, told)) if row["is_estimated"] else heard != told)
        ]
        assert not wrong, f"{len(wrong)} are settled at other than the ledger says: {wrong[:5]}"
        by_id = {row["id"]: row for row in rows}
        for query_id, usage in self.acknowledged.items():
            row = by_id[query_id]
            assert row["status"] == "completed"
            assert row["prompt_tokens"] == usage["prompt_tokens"]
            assert row["completion_tokens"] == usage["completion_tokens"]

    def _rows(self) -> list[Row]:
        assert self.stub.wait_idle(), "a generation outlived its callers"
        until_s = time.monotonic() + 10
        while self._running() and time.monotonic() < until_s:
            time.sleep(0.05)
        return settled_rows(self.platform)

    def _running(self) -> bool:
        with self.platform.client() as client:
            metrics = client.get("/metrics").text
        for line in metrics.splitlines():
            if line.startswith("sovereigncore_http_requests_in_progress "):
                return float(line.split()[1]) > 1  # this very request
        return False


def weather(*, requests: int, kills: int) -> Storm:
    """Over, and found in order."""
    with (
        StubEngine(Behaviour.NORMAL, token_delay_s=0.001) as stub,
        running_platform(
            stub,
            WEB_CONCURRENCY="2" if os.environ.get("REDIS_URL") else "1",
            # What the killed held comes back in half a minute; the storm does not wait for it.
            ENGINE_SLOTS="200",
            WEB_THREADS="300",
            RATE_LIMIT_DEFAULT="1000000/m",
            DAILY_TOKEN_QUOTA="0",
        ) as platform,
    ):
        storm = Storm(platform=platform, stub=stub, requests=requests, kills=kills)
        storm.rage()
        storm.check()
    return storm
