"""The row of every query: accepted with its reservation, kept alive, finished exactly once.

Each function is one short transaction, and none of them waits for anything but the database.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import Error as DatabaseFailure
from django.db import transaction
from django.utils import timezone
from rest_framework.exceptions import NotFound

from consciousness import conversations, keeping, owners, quota
from consciousness.asks import NEW_CONVERSATION, Ask
from consciousness.assembly import Assembly
from consciousness.engine_stream import Usage
from consciousness.models import (
    MODEL_ID_LENGTH,
    ORPHANED,
    IdempotentRequest,
    Query,
    QueryContent,
    Status,
    UsageDay,
)
from consciousness.prompting import Plan
from consciousness.quota import Standing
from monitoring import metrics
from sovereigncore.api import ServiceError
from sovereigncore.connections import release_connection, retry_broken

# A row is renewed while its process lives; one that was killed is settled by housekeeping soon.
_LEASE = timedelta(seconds=90)
_RENEW_S = 20.0

log = structlog.get_logger(__name__)


class QueryExpired(ServiceError):
    """It was given up on its way: this host slept, or its clock jumped, and nobody renewed its row,
    or its key was claimed by another request."""

    status = 503
    code = "query_expired"
    default_detail = "The request was given up while it waited. Send it again."


@dataclass(frozen=True, kw_only=True)
class Outcome:
    status: Status
    error_code: str = ""
    finish_reason: str = ""
    model: str = ""
    usage: Usage = field(default_factory=lambda: Usage(is_estimated=False))
    elapsed_ms: int = 0


@dataclass(kw_only=True)
class Accepted:
    """A query that has a row, and tokens set aside."""

    query_id: uuid.UUID
    user_id: Any
    at: datetime
    reserved_tokens: int
    standing: Standing
    turns_dropped: int = 0
    renewed_s: float = field(default_factory=time.monotonic)

    def renew_if_due(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Called often by whoever works on the query; a database that is away is survived."""
        if clock() - self.renewed_s < _RENEW_S:
            return
        self.renewed_s = clock()
        try:
            own = Query.objects.all().active().filter(id=self.query_id)
            own.update(lease_expires_at=timezone.now() + _LEASE)
        except DatabaseFailure:
            log.warning("query_lease_not_renewed", query_id=str(self.query_id))
        finally:
            release_connection()


def accept(
    user: Any, plan: Plan, *, model: str, request_digest: bytes | None, answers: int = 1
) -> Accepted:
    """Write the row before any work, so that no work can go unnoticed, and set its tokens aside.

    Raises QuotaRefusal, NotFound where the conversation was deleted meanwhile, QueryExpired where
    its key is held by another request by now, and OwnerGone; then there is no row.
    """
    now, ask = timezone.now(), plan.ask
    tokens = quota.estimate_prompt(plan.prompt) + plan.max_tokens * answers
    with transaction.atomic():
        _check_kept(user, plan)
        standing = quota.reserve(user, tokens=tokens, at=now)
        query = Query.objects.create(
            **_described(user, ask, at=now),
            model=model[:MODEL_ID_LENGTH],
            max_tokens=plan.max_tokens,
            conversation=plan.conversation,
            reserved_tokens=tokens,
            request_digest=request_digest,
        )
        _hold_claim(ask, query)
    release_connection()
    return Accepted(
        query_id=query.id,
        user_id=user.pk,
        at=now,
        reserved_tokens=tokens,
        standing=standing,
        turns_dropped=plan.turns_dropped,
    )


def begin(accepted: Accepted, *, engine: str) -> None:
    """Note that it has a slot: from here on it may have cost something.

    Raises QueryExpired where its tokens are set aside no more.
    """
    own = Query.objects.all().active().filter(id=accepted.query_id)
    begun = own.update(
        status=Status.RUNNING, engine=engine, lease_expires_at=timezone.now() + _LEASE
    )
    accepted.renewed_s = time.monotonic()
    release_connection()
    if not begun:
        raise QueryExpired(retry_after_s=1)


def record_unbegun(user: Any, ask: Ask, error_code: str) -> None:
    """A row for what failed before it could be accepted: it was asked for, too.

    In its conversation, with which its text is to go; one that may be sent again is no turn yet.
    Raises OwnerGone.
    """
    now = timezone.now()
    with transaction.atomic():
        owners.take_turn(user.pk)
        conversation = conversations.own_conversation(user, ask.conversation)
        if conversation and not conversations.hold_conversation(conversation):
            conversation = None
        query = _create_finished(
            user,
            ask,
            at=now,
            status=Status.FAILED,
            error_code=error_code,
            model=ask.model,
            conversation=None if ask.claim_id else conversation,
        )
        if ask.store and (conversation or ask.conversation in ("", NEW_CONVERSATION)):
            messages = list(ask.messages) or None
            QueryContent.objects.create(query=query, prompt=ask.prompt, messages=messages)
    metrics.QUERIES.labels(Status.FAILED).inc()


def record_hit(user: Any, plan: Plan, earlier: Query, assembly: Assembly) -> Accepted | None:
    """A row for an answer that an earlier query gave: finished at once, at no cost. None where that
    one was deleted since it was found.

    Raises NotFound, QueryExpired and OwnerGone as `accept` does.
    """
    now = timezone.now()
    with transaction.atomic():
        _check_kept(user, plan)
        if not QueryContent.objects.filter(query=earlier).exists():
            return None
        query = _create_finished(
            user,
            plan.ask,
            at=now,
            status=Status.COMPLETED,
            finish_reason=earlier.finish_reason,
            model=earlier.model,
            engine=earlier.engine,
            conversation=plan.conversation,
            is_cached=True,
        )
        _hold_claim(plan.ask, query)
        accepted = Accepted(
            query_id=query.id,
            user_id=user.pk,
            at=now,
            reserved_tokens=0,
            standing=quota.standing_of(user),
        )
        keeping.keep_text(query.id, plan, assembly, Status.COMPLETED, user_id=user.pk, is_turn=True)
    metrics.QUERIES.labels(Status.COMPLETED).inc()
    return accepted


def _check_kept(user: Any, plan: Plan) -> None:
    """In the transaction that writes the row: what it belongs to was read before, without one."""
    owners.take_turn(user.pk)
    if plan.conversation is not None and not conversations.hold_conversation(plan.conversation):
        raise NotFound


def _create_finished(
    user: Any, ask: Ask, *, at: datetime, is_cached: bool = False, **values: Any
) -> Query:
    days = UsageDay.objects.all()
    days.reserve(user_id=user.pk, day=at.date(), tokens=0, quota=0)
    _count(user.pk, at, reserved=0, usage=Usage(), is_cached=is_cached)
    return Query.objects.create(
        **_described(user, ask, at=at),
        max_tokens=ask.max_tokens,
        finished_at=at,
        processing_time_ms=0,
        is_cached=is_cached,
        **values,
    )


def _hold_claim(ask: Ask, query: Query) -> None:
    """From the query's first moment on, so that whatever deletes it deletes what is kept of its
    answer too. Raises QueryExpired where the key is its own no more: whoever claimed it meanwhile
    is answered, and one key has one effect."""
    if ask.claim_id is not None:
        held = IdempotentRequest.objects.filter(id=ask.claim_id)
        if not held.update(query=query):
            raise QueryExpired(retry_after_s=1)


def _is_turn(ask: Ask, status: Status) -> bool:
    """Whether it may be a turn of its conversation. Under a key only as the one answer of that: its
    process may have slept past all leases, and another request have claimed the key anew. Whoever
    frees a key does so in its owner's turn, too, so that of two answers one is kept out."""
    if ask.claim_id is None:
        return True
    held = IdempotentRequest.objects.filter(id=ask.claim_id)
    return status == Status.COMPLETED and held.exists()


def _described(user: Any, ask: Ask, *, at: datetime) -> dict[str, Any]:
    return {
        "user": user,
        "kind": ask.kind,
        "temperature": ask.temperature,
        "request_id": ask.request_id,
        "created_at": at,
        "lease_expires_at": at + _LEASE,
    }


def settle(accepted: Accepted, plan: Plan, outcome: Outcome, assembly: Assembly) -> Standing:
    """Finish the row, turn the reservation into use and keep the text: once, together.

    A database that stays away leaves it to housekeeping; a completed query then fails all the same,
    for its answer would be on no record.
    """
    usage = outcome.usage
    try:
        settled = retry_broken(lambda: _finish(accepted, plan, outcome, assembly))
    except DatabaseFailure:
        log.error("query_not_settled", query_id=str(accepted.query_id))
        if outcome.status == Status.COMPLETED:
            raise
        settled = False
    finally:
        release_connection()
    if settled:
        metrics.QUERIES.labels(outcome.status).inc()
        metrics.TOKENS.labels("prompt").inc(usage.prompt_tokens)
        metrics.TOKENS.labels("completion").inc(usage.completion_tokens)
    return accepted.standing.after(reserved=accepted.reserved_tokens, used=usage.total_tokens)


def _finish(accepted: Accepted, plan: Plan, outcome: Outcome, assembly: Assembly) -> bool:
    """Whether it is settled by its own process. One transaction."""
    queries, usage = Query.objects.all(), outcome.usage
    result = _result(accepted, plan, outcome)
    with transaction.atomic():
        # Without its owner the row is gone, and there is nothing to settle.
        if not owners.try_turn(accepted.user_id):
            return False
        if queries.settle(accepted.query_id, **result):
            reserved = accepted.reserved_tokens
            _count(accepted.user_id, accepted.at, reserved=reserved, usage=usage)
        elif orphan := queries.take_back(accepted.query_id, **result):
            _count_instead(orphan, usage)
        else:
            # Then an earlier attempt did, whose COMMIT got through and the answer to it did not.
            return queries.filter(id=accepted.query_id).exists()
        keeping.keep_text(
            accepted.query_id,
            plan,
            assembly,
            outcome.status,
            user_id=accepted.user_id,
            is_turn=_is_turn(plan.ask, outcome.status),
        )
    return True


def _result(accepted: Accepted, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    usage = outcome.usage
    result: dict[str, Any] = {
        "status": outcome.status,
        "error_code": outcome.error_code,
        "finish_reason": outcome.finish_reason,
        # llama.cpp calls a model by its path unless told otherwise, and that may be long.
        "model": outcome.model[:MODEL_ID_LENGTH],
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "is_estimated": usage.is_open or (usage.is_estimated and usage.total_tokens > 0),
        "processing_time_ms": outcome.elapsed_ms,
    }
    if plan.turns_dropped > accepted.turns_dropped:
        result["request_digest"] = None  # that of more than the engine answered
    return result


def _count(
    user_id: Any, at: datetime, *, reserved: int, usage: Usage, is_cached: bool = False
) -> None:
    UsageDay.objects.all().settle(
        user_id=user_id,
        day=at.date(),
        reserved=reserved,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        is_cached=is_cached,
    )


def _count_instead(orphan: Query, usage: Usage) -> None:
    UsageDay.objects.all().correct(
        user_id=orphan.user_id,
        day=orphan.created_at.date(),
        prompt_tokens=usage.prompt_tokens - orphan.prompt_tokens,
        completion_tokens=usage.completion_tokens - orphan.completion_tokens,
    )


def settle_orphan(query: Query) -> bool:
    """Finish a query that nobody can finish any more, at what it had set aside, and say so.

    One that never had a slot used nothing. Of one that ran, nobody knows how many tokens died with
    its process: at most its reservation.
    """
    with transaction.atomic():
        if not owners.try_turn(query.user_id):
            return False
        # Asked again: since it was found it may have been deleted, or its process lives after all.
        own = Query.objects.all().orphaned().filter(id=query.id)
        locked = own.select_for_update().first()
        if locked is None:
            return False
        ran = locked.status == Status.RUNNING
        usage = Usage(
            prompt_tokens=max(0, locked.reserved_tokens - locked.max_tokens) if ran else 0,
            completion_tokens=min(locked.reserved_tokens, locked.max_tokens) if ran else 0,
        )
        settled = Query.objects.all().settle(
            query.id,
            status=Status.FAILED,
            error_code=ORPHANED,
            is_estimated=True,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )
        if settled:
            _count(locked.user_id, locked.created_at, reserved=locked.reserved_tokens, usage=usage)
    return settled
