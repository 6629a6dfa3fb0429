"""What the audit trail holds about a person: ids and deeds. Exported, never erased."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.db.models import Q

from monitoring.models import AuditEvent
from monitoring.personal_data import Holding


def audit_events() -> Holding:
    return Holding(name="audit_events", export=_export)


def _export(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
    theirs = AuditEvent.objects.filter(Q(actor_id=user_id) | Q(subject_id=str(user_id)))
    fields = ("at", "action", "actor_id", "subject_id", "detail")
    yield from theirs.order_by("id").values(*fields).iterator()
