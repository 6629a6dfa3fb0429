"""Deploys under load, through nginx, until a rare race would have shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.grown import ROUNDS
from tests.rehearsal import programs
from tests.rehearsal.load import loaded
from tests.rehearsal.rolling import reload_each, restart_each
from tests.rehearsal.topology import Topology, topology

pytestmark = pytest.mark.chaos

_RESTARTS = 20 * ROUNDS
_RELOADS = 50 * ROUNDS
_EACH_TIME = 2  # web processes


@pytest.fixture(scope="module")
def parts() -> Iterator[Topology]:
    programs.check_all()
    with topology() as up:
        yield up


def test_restarts_fail_no_request(parts: Topology) -> None:
    with loaded(parts) as load:
        for _ in range(_RESTARTS // _EACH_TIME):
            restart_each(parts)
    load.check()


def test_reloads_fail_no_request(parts: Topology) -> None:
    with loaded(parts) as load:
        for _ in range(_RELOADS // _EACH_TIME):
            reload_each(parts)
    load.check()
