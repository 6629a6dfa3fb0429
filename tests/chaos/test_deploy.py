"""Through nginx: deploys under load until a rare race would have shown, and what slow clients cost
others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.grown import ROUNDS, median, percentile
from tests.rehearsal import programs
from tests.rehearsal.load import loaded
from tests.rehearsal.rolling import reload_each, restart_each
from tests.rehearsal.slow import SLOW, UNFINISHED, ask_for_a_while, unfinished
from tests.rehearsal.topology import Topology, topology

pytestmark = pytest.mark.chaos

_RESTARTS = 20 * ROUNDS
_RELOADS = 50 * ROUNDS
_EACH_TIME = 2  # web processes
_TIMES = 5
_AT_MOST = 2.0  # SECURITY: p99 beside slow clients, of the one without


@pytest.fixture(scope="module")
def parts() -> Iterator[Topology]:
    programs.check("nginx", "openssl")
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


@pytest.mark.parametrize("said", UNFINISHED.values(), ids=UNFINISHED)
def test_slow_clients_cost_others_little(parts: Topology, said: bytes) -> None:
    """In turns, so that whatever else the machine does is in both."""
    alone_s, beside_s = [], []
    for _ in range(_TIMES):
        alone_s.append(percentile(ask_for_a_while(parts), 0.99))
        with unfinished(parts, said):
            beside_s.append(percentile(ask_for_a_while(parts), 0.99))
    ratio = median(beside_s) / median(alone_s)
    print(
        f"\n  p99 {median(alone_s) * 1000:.1f} ms alone,"
        f" {median(beside_s) * 1000:.1f} ms beside {SLOW}: {ratio:.2f} times"
    )
    assert ratio <= _AT_MOST
