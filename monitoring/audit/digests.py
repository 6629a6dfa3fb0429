"""What a row of the audit trail says, in one spelling, and the digest over it by AUDIT_KEY."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import orjson
from django.conf import settings

from monitoring.models import AuditEvent


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
