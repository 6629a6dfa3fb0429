"""From a prompt to an answer, with a row for each query that is finished exactly once.

No network call happens inside a transaction, and no database connection is held while the model
thinks. `start_query` is the one way; `process_query` is the same without the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings

from consciousness import cache, engines, memory, settlement
from consciousness.admission import CallerGone
from consciousness.asks import Answer, Ask
from consciousness.models import Memory
from consciousness.prompting import make_plan
from consciousness.running import RunningQuery
from monitoring.awareness import SelfState, awareness
from sovereigncore.api import ServiceError
from sovereigncore.connections import release_connection


class HostExhausted(ServiceError):
    status = 503
    code = "survival_mode"
    default_detail = "This host is short of resources and takes no new work."


def never_abandoned() -> bool:
    return False


def process_query(
    *, user: Any, ask: Ask, is_abandoned: Callable[[], bool] = never_abandoned
) -> Answer:
    """The whole answer. Raises a ServiceError, or CallerGone when nobody waits any more."""
    with start_query(user=user, ask=ask, is_abandoned=is_abandoned) as running:
        for event in running:
            if isinstance(event, Answer):
                return event
            if is_abandoned():
                raise CallerGone
    raise AssertionError("a query's events end with its answer")


def start_query(
    *, user: Any, ask: Ask, is_abandoned: Callable[[], bool] = never_abandoned
) -> RunningQuery:
    """Accept a query. Close what comes back, whatever happens.

    Raises a ServiceError where it cannot be accepted: no such model, no quota, no host for it.
    """
    state = awareness.current()
    if state.is_host_exhausted:
        raise HostExhausted(
            f"{HostExhausted.default_detail} ({', '.join(state.reasons)})", retry_after_s=15
        )
    stored = _remember(user, ask)
    release_connection()  # an engine that is new to this process is asked for its models now
    try:
        choices = engines.choices(ask.model)
    except ServiceError as error:
        settlement.record_unbegun(user, ask, error.code)
        raise
    plan = make_plan(user, ask, max_tokens=_allowed_tokens(ask, state), noted=stored)
    plan.fit(choices[0].model)
    request_digest = cache.digest(plan, choices[0].model)
    hit = cache.find_answer(user, request_digest) if request_digest else None
    running = RunningQuery(
        user=user, plan=plan, state=state, stored=stored, is_abandoned=is_abandoned
    )
    if hit is None or not running.serve(hit):
        running.accept(choices, request_digest)
    return running


def _remember(user: Any, ask: Ask) -> Memory | None:
    """A prompt that begins "remember that …" is kept first, so that no failure loses the fact."""
    is_wished = ask.use_memory and ask.store and settings.MEMORY_LIMIT
    fact = memory.fact_in(ask.prompt) if is_wished else None
    return memory.remember(user=user, text=fact) if fact else None


def _allowed_tokens(ask: Ask, state: SelfState) -> int:
    """Shorter answers while the host conserves, whatever was last heard of the engine."""
    if state.is_host_conserving:
        return min(ask.max_tokens, settings.GOVERNOR_CONSERVE_MAX_TOKENS)
    return ask.max_tokens
