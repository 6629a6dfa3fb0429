"""The circuit breaker by itself, on a clock that only the test moves."""

from __future__ import annotations

import threading

import pytest

from consciousness.engine_breaker import FAILURES_TO_OPEN, QUIET_S, TRIAL_S, Breaker, Circuit

pytestmark = pytest.mark.once


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def state(breaker: Breaker) -> str:
    return breaker.circuit.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock)


@pytest.fixture
def half_open(breaker: Breaker) -> Breaker:
    breaker.record_failure(at_once=True)
    breaker.record_answer()
    assert state(breaker) == Circuit.HALF_OPEN
    return breaker


def test_it_begins_closed(breaker: Breaker) -> None:
    assert state(breaker) == Circuit.CLOSED
    assert [breaker.admits() for _ in range(5)] == [True] * 5


def test_three_failures_in_a_row_open_it(breaker: Breaker) -> None:
    assert FAILURES_TO_OPEN == 3
    for _ in range(2):
        breaker.record_failure()
        assert breaker.admits()
    breaker.record_failure()
    assert state(breaker) == Circuit.OPEN
    assert not breaker.admits()


def test_a_success_between_failures_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.record_failure()
        breaker.record_failure()
        breaker.record_success()
    assert state(breaker) == Circuit.CLOSED


def test_first_tokens_do_not_excuse_failures(breaker: Breaker) -> None:
    """An engine may begin each answer and die in the middle of it."""
    for _ in range(3):
        breaker.record_first_token()
        breaker.record_failure()
    assert state(breaker) == Circuit.OPEN


def test_a_first_token_is_an_answer_to_questions_how_it_is(breaker: Breaker) -> None:
    """An engine at work may be slow to say so."""
    for _ in range(3):
        breaker.record_silence()
        breaker.record_silence()
        breaker.record_first_token()
    assert state(breaker) == Circuit.CLOSED


def test_one_failure_that_leaves_no_doubt_is_enough(breaker: Breaker) -> None:
    breaker.record_failure(at_once=True)
    assert state(breaker) == Circuit.OPEN


def test_requests_without_a_verdict_neither_open_it_nor_start_the_count_anew(
    breaker: Breaker,
) -> None:
    for _ in range(10):
        breaker.record_no_verdict()
    breaker.record_failure()
    breaker.record_failure()
    breaker.record_no_verdict()
    assert state(breaker) == Circuit.CLOSED
    breaker.record_failure()
    assert state(breaker) == Circuit.OPEN


def test_three_questions_in_a_row_without_an_answer_open_it(breaker: Breaker) -> None:
    breaker.record_silence()
    breaker.record_silence()
    breaker.record_answer()
    breaker.record_silence()
    breaker.record_silence()
    assert state(breaker) == Circuit.CLOSED
    breaker.record_silence()
    assert state(breaker) == Circuit.OPEN


def test_answers_do_not_excuse_failed_requests(breaker: Breaker) -> None:
    """An engine may well tell its models and fail each generation."""
    for _ in range(3):
        breaker.record_answer()
        breaker.record_failure()
    assert state(breaker) == Circuit.OPEN


def test_time_alone_does_not_close_it(breaker: Breaker, clock: Clock) -> None:
    breaker.record_failure(at_once=True)
    clock.now_s += 86400
    assert not breaker.admits()
    breaker.record_failure()
    breaker.record_silence()
    assert state(breaker) == Circuit.OPEN


def test_half_open_it_admits_one_trial_at_a_time(half_open: Breaker) -> None:
    assert [half_open.admits() for _ in range(3)] == [True, False, False]
    half_open.record_success()
    assert state(half_open) == Circuit.CLOSED
    assert [half_open.admits() for _ in range(3)] == [True] * 3


def test_the_first_token_of_a_trial_lets_everybody_in_and_proves_nothing_yet(
    half_open: Breaker,
) -> None:
    assert half_open.admits()
    half_open.record_first_token()
    assert state(half_open) == Circuit.CLOSED
    assert [half_open.admits() for _ in range(3)] == [True] * 3
    half_open.record_failure()
    assert state(half_open) == Circuit.OPEN


def test_whether_there_is_room_can_be_asked_without_taking_it(
    breaker: Breaker, clock: Clock
) -> None:
    assert breaker.has_room
    breaker.record_failure(at_once=True)
    assert not breaker.has_room
    breaker.record_answer()
    assert [breaker.has_room for _ in range(3)] == [True] * 3
    assert breaker.admits()
    assert not breaker.has_room
    clock.now_s += TRIAL_S
    assert breaker.has_room


def test_of_many_threads_one_gets_the_trial(half_open: Breaker) -> None:
    together = threading.Barrier(16)
    admitted: list[bool] = []

    def ask() -> None:
        together.wait()
        admitted.append(half_open.admits())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [False] * 15 + [True]


def test_a_trial_that_fails_opens_it_again(half_open: Breaker) -> None:
    assert half_open.admits()
    half_open.record_failure()
    assert state(half_open) == Circuit.OPEN
    half_open.record_answer()
    assert half_open.admits()  # a new trial, whatever became of the last one


def test_a_trial_without_a_verdict_makes_room_for_the_next(half_open: Breaker) -> None:
    assert half_open.admits()
    half_open.record_no_verdict()
    assert state(half_open) == Circuit.HALF_OPEN
    assert half_open.admits()


def test_a_trial_of_which_nothing_is_heard_does_not_block_for_ever(
    half_open: Breaker, clock: Clock
) -> None:
    assert half_open.admits()
    clock.now_s += TRIAL_S - 0.1
    assert not half_open.admits()
    clock.now_s += 0.1
    assert half_open.admits()
    assert not half_open.admits()


def test_a_question_without_an_answer_opens_it_again(half_open: Breaker) -> None:
    half_open.record_silence()
    assert state(half_open) == Circuit.OPEN


def test_an_engine_that_nobody_tries_comes_back_by_its_answers(
    half_open: Breaker, clock: Clock
) -> None:
    clock.now_s += QUIET_S - 0.1
    half_open.record_answer()
    assert state(half_open) == Circuit.HALF_OPEN
    clock.now_s += 0.1
    half_open.record_answer()
    assert state(half_open) == Circuit.CLOSED
    half_open.record_failure()  # it had proved nothing
    assert state(half_open) == Circuit.OPEN


def test_a_request_that_succeeds_is_the_whole_proof(half_open: Breaker, clock: Clock) -> None:
    clock.now_s += QUIET_S
    half_open.record_answer()
    half_open.record_success()
    half_open.record_failure()
    half_open.record_failure()
    assert state(half_open) == Circuit.CLOSED


def test_answers_do_not_close_it_while_a_trial_runs(half_open: Breaker, clock: Clock) -> None:
    assert half_open.admits()
    clock.now_s += TRIAL_S - 0.1
    half_open.record_answer()
    assert state(half_open) == Circuit.HALF_OPEN
    clock.now_s += 0.1
    half_open.record_answer()
    assert state(half_open) == Circuit.CLOSED


def test_what_succeeds_while_it_is_open_closes_it(breaker: Breaker) -> None:
    """As the last resort, an engine may be tried all the same."""
    breaker.record_failure(at_once=True)
    breaker.record_first_token()
    assert state(breaker) == Circuit.CLOSED
    breaker.record_failure()
    assert state(breaker) == Circuit.OPEN
    breaker.record_success()
    assert state(breaker) == Circuit.CLOSED


def test_an_answer_that_began_before_it_opened_proves_nothing_yet(breaker: Breaker) -> None:
    breaker.record_failure(at_once=True)
    breaker.record_success()
    breaker.record_failure()
    assert state(breaker) == Circuit.OPEN
