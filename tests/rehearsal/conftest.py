"""One installation for all rehearsals that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rehearsal import programs
from tests.rehearsal.topology import Topology, topology


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    programs.check(*programs.PACKAGES)


@pytest.fixture(scope="session")
def parts(_programs: None) -> Iterator[Topology]:
    with topology() as up:
        yield up
