"""An audit trail to look at: some rows, sealed, with its files in a directory of its own."""

from __future__ import annotations

import uuid

from monitoring import audit
from monitoring.audit import sealing
from monitoring.models import AuditEvent

ACTOR = uuid.UUID("00000000-0000-4000-8000-00000000000a")


def record(count: int) -> list[int]:
    """The ids of `count` new rows."""
    before = set(AuditEvent.objects.values_list("id", flat=True))
    for number in range(count):
        audit.record(
            "key.created", actor_id=ACTOR, subject_id=uuid.UUID(int=number), detail={"n": number}
        )
    return sorted(set(AuditEvent.objects.values_list("id", flat=True)) - before)


def sealed(*counts: int) -> list[int]:
    """The ids of new rows, as many as `counts` says under a seal each."""
    ids: list[int] = []
    for count in counts:
        ids += record(count)
        assert sealing.seal_audit() == count
    return ids
