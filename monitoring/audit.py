"""The audit trail: who did what to whom, written in the transaction of the deed itself.

Rows hold ids and no personal data, so that erasing a person and keeping the trail do not fight.
Apps register their actions in `AppConfig.ready()`; an unknown one is a programming error.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

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
        event.digest = digest(event)
        event.save(force_insert=True)


def digest(event: AuditEvent) -> bytes:
    """HMAC-SHA-256 by AUDIT_KEY over what the row says: who can write to the database alone
    cannot write one that holds."""
    return keyed(
        text_of(
            event.id,
            moment(event.at),
            event.action,
            str(event.actor_id or ""),
            event.subject_id,
            event.detail,
            event.request_id,
        )
    )


def text_of(
    event_id: int,
    at: str,
    action: str,
    actor_id: str,
    subject_id: str,
    detail: Any,
    request_id: str,
) -> bytes:
    """All that a row says, in the one spelling that digests are made over."""
    told = [event_id, at, action, actor_id, subject_id, detail, request_id]
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS)


def keyed(text: bytes) -> bytes:
    return hmac.digest(settings.AUDIT_KEY.encode(), text, hashlib.sha256)


def moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
