"""The governor's decisions: sustained, with a margin on the way back, never on what is unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.governor import (
    RECOVER_AFTER_S,
    RECOVERY_MARGIN,
    UNSEEN_AFTER_S,
    WORSEN_AFTER_S,
    GovernorState,
    Mode,
    decide,
    with_engine,
)
from monitoring.sensors import HostReadings
from monitoring.tests.readings import LIMITS, NOTHING_KNOWN, some

pytestmark = pytest.mark.once

FULL, CONSERVING, SURVIVAL = Mode.FULL, Mode.CONSERVING, Mode.SURVIVAL
GOOD, TIGHT, DIRE = (some(memory_percent=value) for value in (50.0, 90.0, 96.0))
IN_THE_MARGIN = some(memory_percent=82.0)


def drive(state: GovernorState, *steps: tuple[float, HostReadings]) -> list[Mode]:
    """The mode after each step of (monotonic seconds, readings)."""
    modes = []
    for now_s, readings in steps:
        state = decide(state, readings, limits=LIMITS, now_s=now_s)
        modes.append(state.mode)
    return modes


def settled(mode: Mode) -> GovernorState:
    return GovernorState(mode=mode, reasons=("memory 96 percent",) if mode is not FULL else ())


def test_a_worse_picture_counts_once_it_has_lasted() -> None:
    steps = [(100.0, DIRE), (100.0 + WORSEN_AFTER_S - 0.1, DIRE), (100.0 + WORSEN_AFTER_S, DIRE)]
    assert drive(settled(FULL), *steps) == [FULL, FULL, SURVIVAL]


def test_one_good_reading_starts_the_waiting_anew() -> None:
    steps = [(0.0, TIGHT), (4.0, TIGHT), (4.5, GOOD), (5.0, TIGHT), (9.9, TIGHT), (10.0, TIGHT)]
    assert drive(settled(FULL), *steps) == [FULL, FULL, FULL, FULL, FULL, CONSERVING]


@pytest.mark.parametrize("name", ["memory_percent", "disk_percent", "temp_c"])
def test_memory_disk_and_temperature_lead_to_survival(name: str) -> None:
    limit = LIMITS[name.replace("_", "_survive_")]
    below, at = some(**{name: limit - 0.1}), some(**{name: limit})
    assert drive(settled(FULL), (0, below), (WORSEN_AFTER_S, below)) == [FULL, CONSERVING]
    assert drive(settled(FULL), (0, at), (WORSEN_AFTER_S, at)) == [FULL, SURVIVAL]


@pytest.mark.parametrize("name", ["cpu_percent", "memory_percent", "disk_percent", "temp_c"])
def test_each_reading_conserves_at_its_threshold_and_not_below(name: str) -> None:
    limit = LIMITS[name.replace("_", "_conserve_")]
    below, at = some(**{name: limit - 0.1}), some(**{name: limit})
    assert drive(settled(FULL), (0, below), (60, below)) == [FULL, FULL]
    assert drive(settled(FULL), (0, at), (WORSEN_AFTER_S, at)) == [FULL, CONSERVING]


def test_cpu_alone_never_goes_beyond_conserving() -> None:
    steps = [(float(second), some(cpu_percent=100.0)) for second in range(0, 7200, 10)]
    assert drive(settled(FULL), *steps)[1:] == [CONSERVING] * (len(steps) - 1)


def test_a_worse_picture_does_not_last_while_nobody_looks() -> None:
    steps = [(0.0, DIRE), (3600.0, DIRE), (3600.0 + WORSEN_AFTER_S, DIRE)]
    assert drive(settled(FULL), *steps) == [FULL, FULL, SURVIVAL]
    steps = [(0.0, DIRE), (UNSEEN_AFTER_S, DIRE)]
    assert drive(settled(FULL), *steps) == [FULL, SURVIVAL]


def test_a_host_that_recovered_while_nobody_looked_refuses_nobody() -> None:
    mild = some(memory_percent=87.0)
    for better, mode in ((GOOD, FULL), (mild, CONSERVING)):
        steps = [(0.0, DIRE), (UNSEEN_AFTER_S + 0.1, better)]
        assert drive(settled(SURVIVAL), *steps) == [SURVIVAL, mode]


def test_the_way_back_is_longer() -> None:
    steps = [(0.0, GOOD), (RECOVER_AFTER_S - 0.1, GOOD), (RECOVER_AFTER_S, GOOD)]
    assert drive(settled(CONSERVING), *steps) == [CONSERVING, CONSERVING, FULL]
    assert drive(settled(SURVIVAL), *steps) == [SURVIVAL, SURVIVAL, FULL]


def test_inside_the_margin_there_is_no_way_back() -> None:
    at_its_edge = some(memory_percent=LIMITS["memory_conserve_percent"] - RECOVERY_MARGIN)
    steps = [(0.0, IN_THE_MARGIN), (1000.0, IN_THE_MARGIN), (2000.0, at_its_edge)]
    assert drive(settled(CONSERVING), *steps) == [CONSERVING] * 3
    below_it = some(memory_percent=79.9)
    steps += [(2001.0, below_it), (2001.0 + RECOVER_AFTER_S, below_it)]
    assert drive(settled(CONSERVING), *steps)[-2:] == [CONSERVING, FULL]


def test_from_survival_the_way_back_may_end_at_conserving() -> None:
    tight = some(memory_percent=89.9)  # below 95 - 5, not below 85 - 5
    steps = [(0.0, TIGHT), (50.0, TIGHT), (51.0, tight), (51.0 + RECOVER_AFTER_S, tight)]
    assert drive(settled(SURVIVAL), *steps) == [SURVIVAL, SURVIVAL, SURVIVAL, CONSERVING]


def test_a_picture_that_flickers_between_two_worse_modes_is_worse_all_the_time() -> None:
    steps = [(float(second), (TIGHT, DIRE)[second % 2]) for second in range(30)]
    assert drive(settled(FULL), *steps) == [FULL] * 5 + [CONSERVING] * 25


def test_a_picture_that_flickers_between_two_better_modes_is_better_all_the_time() -> None:
    better = some(memory_percent=87.0)
    steps = [(float(second), (better, GOOD)[second % 2]) for second in range(40)]
    assert drive(settled(SURVIVAL), *steps) == [SURVIVAL] * 15 + [CONSERVING] * 25


def test_the_clock_of_a_worse_mode_runs_on_through_a_milder_change() -> None:
    steps = [(0.0, TIGHT), (3.0, DIRE), (5.0, DIRE), (7.9, DIRE), (8.0, DIRE)]
    assert drive(settled(FULL), *steps) == [FULL, FULL, CONSERVING, CONSERVING, SURVIVAL]


def test_the_clock_of_a_milder_change_is_not_kept_for_the_way_back() -> None:
    mild = some(memory_percent=87.0)
    steps = [(0.0, DIRE), (5.0, DIRE), (6.0, mild), (20.9, mild), (21.0, mild)]
    assert drive(settled(FULL), *steps) == [FULL, SURVIVAL, SURVIVAL, SURVIVAL, CONSERVING]


def test_what_is_unknown_decides_nothing() -> None:
    assert drive(settled(FULL), (0, NOTHING_KNOWN), (3600, NOTHING_KNOWN)) == [FULL, FULL]
    cool_but_full = some(memory_percent=96.0, temp_c=None, disk_percent=None)
    assert drive(settled(FULL), (0, cool_but_full), (5, cool_but_full)) == [FULL, SURVIVAL]


def test_reasons_are_those_of_the_mode() -> None:
    both = some(memory_percent=96.25, disk_percent=91.0, cpu_percent=12.0)
    state = decide(settled(FULL), both, limits=LIMITS, now_s=0)
    assert state.reasons == ()
    state = decide(state, both, limits=LIMITS, now_s=WORSEN_AFTER_S)
    assert state.reasons == ("memory 96.25 percent", "disk 91 percent")
    state = decide(state, some(memory_percent=91.0), limits=LIMITS, now_s=20)
    assert state.reasons == ("memory 91 percent",)  # inside the margin, which is why
    state = decide(state, GOOD, limits=LIMITS, now_s=30)
    assert state.reasons == ("memory 91 percent",)  # on the way back
    state = decide(state, GOOD, limits=LIMITS, now_s=60)
    assert (state.mode, state.reasons) == (FULL, ())


def test_temperatures_are_told_in_their_unit() -> None:
    hot = some(temp_c=93.5)
    state = decide(settled(SURVIVAL), hot, limits=LIMITS, now_s=0)
    assert state.reasons == ("temp 93.5 c",)


def test_a_dead_engine_is_survival_at_once_and_a_live_one_ends_it_at_once() -> None:
    host = settled(CONSERVING)
    down = with_engine(host, is_engine_up=False)
    assert down.mode is SURVIVAL
    assert down.reasons == ("memory 96 percent", "engine down")
    assert with_engine(host, is_engine_up=True) is host
    assert with_engine(host, is_engine_up=None) is host


percents = st.none() | st.floats(0, 100)
readings_of_any_kind = st.builds(
    lambda cpu, memory, disk, temp: some(
        cpu_percent=cpu, memory_percent=memory, disk_percent=disk, temp_c=temp
    ),
    percents,
    percents,
    percents,
    st.none() | st.floats(1, 149),
)
SEVERITY = {FULL: 0, CONSERVING: 1, SURVIVAL: 2}


def severity_of(readings: HostReadings) -> int:
    """What the readings ask for, told in another way than the governor's own."""
    survive = (
        (readings.memory_percent or 0) >= 95
        or (readings.disk_percent or 0) >= 97
        or (readings.temp_c or 0) >= 92
    )
    conserve = (
        (readings.cpu_percent or 0) >= 85
        or (readings.memory_percent or 0) >= 85
        or (readings.disk_percent or 0) >= 90
        or (readings.temp_c or 0) >= 80
    )
    return 2 if survive else 1 if conserve else 0


@given(st.lists(readings_of_any_kind, max_size=40))
def test_whatever_is_read_a_worse_mode_had_a_picture_that_lasted(
    history: list[HostReadings],
) -> None:
    state = GovernorState()
    for second, readings in enumerate(history):
        before, state = state, decide(state, readings, limits=LIMITS, now_s=float(second))
        if SEVERITY[state.mode] > SEVERITY[before.mode]:
            lasted = history[second - int(WORSEN_AFTER_S) : second + 1]
            assert len(lasted) == WORSEN_AFTER_S + 1
            assert min(map(severity_of, lasted)) >= SEVERITY[state.mode]
        if SEVERITY[state.mode] < SEVERITY[before.mode]:
            lasted = history[second - int(RECOVER_AFTER_S) : second + 1]
            assert len(lasted) == RECOVER_AFTER_S + 1
            assert max(map(severity_of, lasted)) <= SEVERITY[state.mode]


@given(st.lists(st.floats(80.0, 94.9), min_size=1, max_size=60))
def test_noise_around_a_threshold_does_not_flap(noise: list[float]) -> None:
    steps = [(float(second), some(memory_percent=value)) for second, value in enumerate(noise)]
    modes = drive(settled(FULL), *steps)
    assert sum(a is not b for a, b in zip([FULL, *modes], modes, strict=False)) <= 1
