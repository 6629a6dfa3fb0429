"""Several processes share one line; what a killed one had comes back by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from consciousness.admission import Admission, Terms
from consciousness.tests.admitting import (
    TIMEOUT_S,
    Asker,
    counts,
    ended,
    holding,
    queued,
    wait_until,
)
from tests import environment
from tests.servers import RedisServer

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
LEASE_S, TICKET_S = 3.0, 1.5
CAPACITY = 2


class SlotProcess:
    """One of `slot_process`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def says(self) -> str:
        assert self._process.stdout is not None
        line: str = self._process.stdout.readline()
        return line.strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT_S)

    def end(self) -> str:
        """What it says when it has given its slot back."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.says()


@pytest.fixture
def admission(valkey: RedisServer, use_redis: Callable[[str], None]) -> Admission:
    use_redis(valkey.url)
    return Admission(Terms(lease_us=int(LEASE_S * 1e6), ticket_us=int(TICKET_S * 1e6)))


@pytest.fixture
def start(valkey: RedisServer, tmp_path: Path) -> Iterator[Callable[[str], SlotProcess]]:
    """Starts a process that asks for a slot for that caller."""
    variables = environment.test_environment(
        str(tmp_path), REDIS_URL=valkey.url, DJANGO_SETTINGS_MODULE="sovereigncore.settings"
    )
    with ExitStack() as processes:

        def started(caller: str) -> SlotProcess:
            arguments = [caller, str(CAPACITY), str(LEASE_S), str(TICKET_S)]
            return processes.enter_context(_running(arguments, variables))

        yield started


@contextmanager
def _running(arguments: list[str], variables: dict[str, str]) -> Iterator[SlotProcess]:
    process = subprocess.Popen(
        [sys.executable, "-m", "consciousness.tests.slot_process", *arguments],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield SlotProcess(process)
        finally:
            process.kill()


def test_processes_share_the_slots_and_the_line(
    admission: Admission, start: Callable[[str], SlotProcess]
) -> None:
    one, other = start("a"), start("b")
    assert [one.says(), one.says()] == ["asking", "holding"]
    assert [other.says(), other.says()] == ["asking", "holding"]
    assert counts(admission) == (2, 0)
    waiting = queued(admission, "c")
    with ended(waiting):
        third = start("d")
        assert third.says() == "asking"
        wait_until(lambda: counts(admission) == (2, 2))
        assert one.end() == "done"
        assert waiting[0].has_slot.wait(TIMEOUT_S)
        assert counts(admission) == (2, 1)
        waiting[0].end()
        assert third.says() == "holding"
        assert (other.end(), third.end()) == ("done", "done")
    assert counts(admission) == (0, 0)


def test_a_holder_that_is_killed_gives_its_slot_back_by_its_lease(
    admission: Admission, start: Callable[[str], SlotProcess]
) -> None:
    killed = start("a")
    assert [killed.says(), killed.says()] == ["asking", "holding"]
    holders = holding(admission, "x")
    waiting = queued(admission, "b")
    with ended(holders, waiting):
        assert counts(admission) == (2, 1)
        killed.kill()
        assert waiting[0].has_slot.wait(TIMEOUT_S)
        assert counts(admission) == (2, 0)
    assert counts(admission) == (0, 0)


def test_one_who_waits_and_is_killed_holds_up_nobody_behind(
    admission: Admission, start: Callable[[str], SlotProcess]
) -> None:
    holders = holding(admission, "x", "y")
    with ended(holders):
        killed = start("a")
        assert killed.says() == "asking"
        wait_until(lambda: counts(admission) == (2, 1))
        behind = Asker(admission, "b")
        with ended([behind]):
            wait_until(lambda: counts(admission) == (2, 2))
            killed.kill()
            holders[0].end()  # granted to the dead one, for as long as its place would last
            assert behind.has_slot.wait(TIMEOUT_S)
            wait_until(lambda: counts(admission) == (2, 0))
    assert counts(admission) == (0, 0)
