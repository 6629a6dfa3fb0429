"""Processes stopped for a while, as by a host that swaps, a frozen container or a suspended virtual
machine, and for longer than leases are: counts, turns and slots stay true.

Leases are seconds here (tests/hasty.py). `CHAOS_ROUNDS=10` are ten minutes of it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.grown import PROCESS, ROUNDS, Grown, grown, queue_of, within, working
from tests.settled import Row, settled_rows
from tests.worker import Worker

pytestmark = pytest.mark.chaos

_USERS = [f"u{number}" for number in range(6)]
_CALLERS = 12
_ROUND_S = 60
_LENGTHS_S = (
    0.2,
    0.5,
    1,
    1.5,
    2.5,
    3,
    5,
    7,
    14,
)  # slots are leased for 4 s, queries and keys for 6
_WEIGHTS = {"web": 3, "all web": 2, "database": 3, "redis": 2, "host": 2}  # of others: 1
_DEPENDENCIES = ("redis", "database")  # whom the web processes wait for
_AT_MOST_S = 5  # of those, or nothing at all would be answered
_OVER_WITHIN_S = 30
_MAX_TOKENS = 60
_CONVERSATIONS = 4  # of each caller; then they go on with those
_PATIENCE_S = 60  # of one who asks again under its key

Victims = dict[str, Callable[[], list[psutil.Process]]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """An answer that its caller had to the end."""

    query_id: str
    conversation: str | None


class Restless(threading.Thread):
    """Asks, streams, leaves, and asks again under its key. Each prompt begins with a word of its
    own, by which what became of it is found; `told` are the answers by that word."""

    def __init__(self, parts: Grown, name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.told: dict[str, Told] = {}
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._port, self._key = parts.platform.port, parts.keys[name]
        self._chance = random.Random(seed)
        self._conversations = ["new"]
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(self._chance.random() / 10):
            self.ask()

    def end(self) -> None:
        self._is_over.set()

    def ask(self) -> None:
        chance, word = self._chance, f"m{uuid.uuid4().hex[:12]}"
        body: dict[str, Any] = {
            "prompt": " ".join([word] * chance.randint(4, 40)),
            "max_tokens": _MAX_TOKENS,
            "use_memory": False,
            "stream": chance.random() < 0.5,
        }
        if chance.random() < 0.6:
            body["conversation"] = chance.choice(self._conversations)
        key = f"key-{word}" if chance.random() < 0.7 else ""
        if chance.random() < 0.25:
            self._send(body, key, leaves_after_s=chance.random() + 0.01)
            self.outcomes["left"] += 1
            if not key:
                return
        until_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until_s:
            status, answer = self._send(body, key)
            self.outcomes[str(status)] += 1
            if answer:
                self._note(word, body, answer)
            if answer or not key or status in (404, 422) or self._is_over.wait(0.5):
                break

    def _note(self, word: str, body: dict[str, Any], answer: dict[str, Any]) -> None:
        said, whole = answer["response"], f"Echo: {body['prompt']}"
        if said != whole and not (whole.startswith(said) and answer["finish_reason"] == "length"):
            self.wrong.append(f"{word} was told {said[:100]}")
        conversation = answer.get("conversation")
        self.told[word] = Told(query_id=answer["query_id"], conversation=conversation)
        if conversation and len(self._conversations) < _CONVERSATIONS:
            self._conversations.append(conversation)

    def _send(
        self, body: dict[str, Any], key: str, *, leaves_after_s: float | None = None
    ) -> tuple[int, dict[str, Any] | None]:
        """Status and whole answer. 0 is a broken connection, or patience that was at its end."""
        timeout_s = leaves_after_s or self._chance.choice([3, 8, 20])
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout_s)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        with contextlib.closing(connection):
            try:
                connection.request("POST", PROCESS, json.dumps(body), headers)
                reply = connection.getresponse()
                raw = reply.read(60) if leaves_after_s else reply.read()
            except (OSError, http.client.HTTPException):
                return 0, None
        if leaves_after_s or reply.status != 200:
            return reply.status, None
        return reply.status, _streamed(raw) if body["stream"] else json.loads(raw)


def _streamed(raw: bytes) -> dict[str, Any] | None:
    """The whole answer of a stream that came to its end."""
    text, done = "", None
    for event in raw.decode().split("\n\n"):
        name, _, data = event.partition("\ndata: ")
        if name == "event: token":
            text += json.loads(data)["text"]
        elif name == "event: done":
            done = json.loads(data)
    return {**done, "response": text} if done else None


@contextlib.contextmanager
def asking(callers: list[Restless]) -> Iterator[None]:
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        for caller in callers:
            caller.end()
        for caller in callers:
            caller.join(2 * _PATIENCE_S)
    assert not any(caller.is_alive() for caller in callers)


def tree(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *children(pid)]


def children(pid: int) -> list[psutil.Process]:
    return list(psutil.Process(pid).children())


def victims_of(parts: Grown, worker: Worker, chance: random.Random) -> Victims:
    """Whom to stop, by name; those of that moment."""

    def web() -> list[psutil.Process]:
        return children(parts.platform.pid)

    def database() -> list[psutil.Process]:
        return tree(parts.database.pid)

    def others() -> list[psutil.Process]:
        pids = (parts.redis.pid, worker.pid, parts.engine.pid)
        return [psutil.Process(pid) for pid in pids]

    return {
        "web": lambda: [chance.choice(web())],
        "all web": web,
        "worker": lambda: [psutil.Process(worker.pid)],
        "redis": lambda: [psutil.Process(parts.redis.pid)],
        "database": database,
        "backend": lambda: [chance.choice(children(parts.database.pid))],
        "engine": lambda: [psutil.Process(parts.engine.pid)],
        "host": lambda: [*web(), *database(), *others()],
    }


def stall(processes: list[psutil.Process], chance: random.Random, *, for_s: float) -> None:
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(for_s)
    finally:
        # A host wakes in any order.
        for process in chance.sample(processes, len(processes)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def is_over(parts: Grown) -> bool:
    """Whether nobody is answered any more, by the line of all processes and by their metrics."""
    with parts.platform.client() as http_:
        families = text_string_to_metric_families(http_.get("/metrics").text)
        told = {family.name: sum(each.value for each in family.samples) for family in families}
    requests = told["sovereigncore_http_requests_in_progress"] - 1  # this very one
    gauges = told["sovereigncore_slots_busy"], told["sovereigncore_queue_waiting"]
    return (requests, *gauges, *queue_of(parts)) == (0, 0, 0, 0, 0)


def spent(rows: list[Row]) -> int:
    return sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)


def by_word(rows: list[Row]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[row["content__prompt"].split()[0]].append(row)
    return found


def work_of(parts: Grown) -> Counter[str]:
    """By word, the tokens that the engine says it worked on for it."""
    found: Counter[str] = Counter()
    for record in parts.engine.ask("GET", "/_stub/ledger")["records"]:
        if record["body"]:  # or its caller was cut off in the middle of sending it
            word = record["body"]["messages"][-1]["content"].split()[0]
            found[word] += record["prompt_tokens"] + record["completion_tokens"]
    return found


def test_who_was_stopped_counts_and_tells_the_truth() -> None:
    chance = random.Random(1)
    limits = {
        "ENGINE_SLOTS": "4",
        "ENGINE_FIRST_TOKEN_TIMEOUT_S": "6",
        "ENGINE_SILENCE_TIMEOUT_S": "4",
        "QUEUE_TIMEOUT_S": "10",
        "DJANGO_SETTINGS_MODULE": "tests.hasty_settings",
    }
    with grown(_USERS, token_delay_s=0.02, **limits) as parts, working(parts) as worker:
        callers = [Restless(parts, _USERS[seed % len(_USERS)], seed) for seed in range(_CALLERS)]
        victims, stopped = victims_of(parts, worker, chance), Counter[str]()
        weights = [_WEIGHTS.get(name, 1) for name in victims]
        with asking(callers):
            until_s = time.monotonic() + ROUNDS * _ROUND_S
            while time.monotonic() < until_s:
                (victim,) = chance.choices(list(victims), weights)
                for_s = chance.choice(_LENGTHS_S)
                stall(
                    victims[victim](),
                    chance,
                    for_s=min(for_s, _AT_MOST_S) if victim in _DEPENDENCIES else for_s,
                )
                stopped[victim] += 1
                time.sleep(chance.random() * 1.5)
        within(_OVER_WITHIN_S, lambda: is_over(parts), "nobody is answered any more")
        rows = settled_rows(parts.platform)
        outcomes = sum((caller.outcomes for caller in callers), Counter())
        print(f"{len(rows)} queries; stopped {dict(stopped)}; told {dict(outcomes)}")
        work = work_of(parts)
    assert [wrong for caller in callers for wrong in caller.wrong] == []
    found = by_word(rows)
    told = {word: answer for caller in callers for word, answer in caller.told.items()}
    for word, own in found.items():
        if not any(row["is_estimated"] for row in own):
            assert spent(own) == work[word], own
        turns = [row for row in own if row["conversation_id"] and row["status"] != "failed"]
        assert len(turns) <= 1, own
    assert work.keys() <= found.keys()
    for word, answer in told.items():
        (row,) = (row for row in found[word] if row["id"] == answer.query_id)
        assert row["status"] == "completed"
        assert row["conversation_id"] == answer.conversation, found[word]
    assert len(told) > ROUNDS * 50
