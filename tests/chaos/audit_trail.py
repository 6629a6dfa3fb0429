"""`python -m tests.chaos.audit_trail ROWS`: that many rows of the audit trail, sealed.

With the settings of its environment. Rows are those that the platform writes, many in a statement.
"""

from __future__ import annotations

import sys
import time
import uuid

import django

_AT_ONCE = 10_000


def main(rows: int) -> None:
    django.setup()
    from django.utils import timezone

    from monitoring import audit
    from monitoring.audit import digests, sealing
    from monitoring.models import AuditEvent

    actions = sorted(audit.actions())
    people = [uuid.uuid4() for _ in range(1000)]
    began_s = time.monotonic()
    for start in range(1, rows + 1, _AT_ONCE):
        events = [
            AuditEvent(
                id=number,
                at=timezone.now(),
                action=actions[number % len(actions)],
                actor_id=people[number % len(people)],
                subject_id=str(people[number % 997]),
                detail={"fields": ["email", "full_name"], "count": number},
                request_id=str(uuid.UUID(int=number)),
            )
            for number in range(start, min(start + _AT_ONCE, rows + 1))
        ]
        for event in events:
            event.digest = digests.digest(event)
        AuditEvent.objects.bulk_create(events)
    print(f"written in {time.monotonic() - began_s:.0f} s")
    began_s, sealed = time.monotonic(), 0
    while sealed < rows:
        sealed += sealing.seal_audit()
    print(f"sealed in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]))
