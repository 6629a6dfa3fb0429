"""Processes of all kinds killed at random while callers ask: what was answered is on record, and
each query is settled once. `CHAOS_ROUNDS=63` are five hundred kills."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from tests.chaos.callers import Crowd, busy
from tests.chaos.grown import (
    BACK_WITHIN_S,
    PROCESS,
    QUERIES,
    ROUNDS,
    Grown,
    grown,
    queue_of,
    within,
    working,
)
from tests.server_process import ServerProcess
from tests.settled import settled_rows
from tests.worker import Worker

pytestmark = pytest.mark.chaos

_USERS, _SLOTS = 12, 8
# In each round, in some order. SIGKILL to PostgreSQL's first process is the end of all of them.
_VICTIMS = ("web", "web", "web", "web", "database", "redis", "engine", "worker")
_EVERY_S = 1.2
_REDIS_PAUSE_S = 2.5  # processes leave it alone for 2 s after a failure, and count by themselves
_LEASE_S = 30.0  # of a slot whose holder was killed


def kill(victim: str, parts: Grown, worker: Worker, chance: random.Random) -> None:
    """What gunicorn does not start again is away for up to half a second."""
    if victim == "web":
        chance.choice(psutil.Process(parts.platform.pid).children()).send_signal(signal.SIGKILL)
        return
    servers: dict[str, ServerProcess | Worker] = {
        "database": parts.database,
        "redis": parts.redis,
        "engine": parts.engine,
        "worker": worker,
    }
    servers[victim].kill()
    time.sleep(chance.random() / 2)
    servers[victim].start()


def history(parts: Grown, user: str) -> dict[str, dict[str, Any]]:
    """All of a user's queries by id."""
    found: dict[str, dict[str, Any]] = {}
    with parts.client(user) as http:
        url: str | None = f"{QUERIES}?limit=100"
        while url:
            page = http.get(url).json()
            found |= {row["id"]: row for row in page["results"]}
            url = page["next"]
    return found


def shuffled(victims: Sequence[str], chance: random.Random) -> list[str]:
    return chance.sample(victims, len(victims))


def test_what_was_answered_is_on_record_whoever_is_killed() -> None:
    names = [f"u{number}" for number in range(_USERS)]
    chance = random.Random(1)
    with (
        grown(names, token_delay_s=0.02, ENGINE_SLOTS=str(_SLOTS), QUEUE_LIMIT="32") as parts,
        working(parts) as worker,
    ):
        numbers = iter(range(10**9))
        lock = threading.Lock()

        def question() -> dict[str, Any]:
            with lock:
                return {"prompt": f"Count to 12 #{next(numbers)}", "use_memory": False}

        crowds = [
            Crowd(
                parts.platform.port,
                parts.keys[name],
                name,
                count=1,
                body=question,
            )
            for name in names
        ]
        killed: Counter[str] = Counter()
        with busy(*crowds):
            for victim in (each for _ in range(ROUNDS) for each in shuffled(_VICTIMS, chance)):
                time.sleep(_EVERY_S)
                kill(victim, parts, worker, chance)
                killed[victim] += 1
            time.sleep(_REDIS_PAUSE_S)
            within(BACK_WITHIN_S, lambda: queue_of(parts)[0] > _SLOTS // 2, "slots held")
            for process in psutil.Process(parts.platform.pid).children():
                process.send_signal(signal.SIGKILL)  # now none of its holders gives a slot back
        assert queue_of(parts) != (0, 0), "no slot was held by the killed"
        back_s = within(_LEASE_S + 5, lambda: queue_of(parts) == (0, 0), "all slots free")
        print(f"all slots free after {back_s:.1f} s")
        with parts.client("u0") as http:
            assert http.post(PROCESS, json={"prompt": "Hi"}).status_code == 200
        usage = {
            row["id"]: (row["prompt_tokens"], row["completion_tokens"])
            for row in settled_rows(parts.platform)
        }
        outcomes: Counter[str] = Counter()
        for crowd in crowds:
            rows = history(parts, crowd.told[0].caller)
            for told in crowd.told:
                outcomes[told.code or str(told.status)] += 1
                if told.status == 200:
                    row = rows[told.body["query_id"]]
                    assert row["status"] == "completed"
                    assert row["response"] == told.body["response"]
                    said = told.body["usage"]
                    assert usage[row["id"]] == (said["prompt_tokens"], said["completion_tokens"])
        print(f"killed {dict(killed)}; {dict(outcomes)}")
        assert outcomes["200"] > 50
        assert set(killed) == set(_VICTIMS)
