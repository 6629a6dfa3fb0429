"""Writing the audit trail, in the transaction of the deed itself.

Rows hold ids and no personal data, so that erasing a person and keeping the trail do not fight.
Apps register their actions in `AppConfig.ready()`; an unknown one is a programming error.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import structlog
from django.db import transaction
from django.utils import timezone

from monitoring.audit import digests
from monitoring.models import AuditEvent

Detail = Mapping[str, str | int | bool | list[str] | None]

_actions: dict[str, str] = {}


class UnknownAction(LookupError):
    """An action was recorded that no app registered."""


def register(actions: Mapping[str, str]) -> None:
    """`actions`: `area.verb` and what it means, for people."""
    _actions.update(actions)


def actions() -> dict[str, str]:
    return dict(_actions)


def record(
    action: str,
    *,
    actor_id: uuid.UUID | None,
    subject_id: uuid.UUID | str = "",
    detail: Detail | None = None,
) -> None:
    """Add a row. Call it inside the transaction that it tells about.

    `actor_id` is None when nobody is logged in: the operator at a terminal, a mailed link.
    """
    if action not in _actions:
        raise UnknownAction(action)
    event = AuditEvent(
        at=timezone.now(),
        action=action,
        actor_id=actor_id,
        subject_id=str(subject_id),
        detail=dict(detail or {}),
        request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
    )
    with transaction.atomic(savepoint=False):
        # In the digest, so that a copy of a row under another id is none.
        event.id = AuditEvent.objects.next_id()
        event.digest = digests.digest(event)
        event.save(force_insert=True)
