"""What a platform's database says of its queries once nothing runs any more: each is settled once,
and a person's day is the sum of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.platform import Platform

Row = dict[str, Any]

# Settled first as housekeeping would in a minute and a half: leases of the killed are over at once.
_REPORT = """
import json
from django.utils import timezone
from consciousness.maintenance import settle_orphans
from consciousness.models import ACTIVE, Query, UsageDay
Query.objects.filter(status__in=ACTIVE).update(lease_expires_at=timezone.now())
settle_orphans()
rows = Query.objects.select_related("content").values(
    "id", "user__username", "content__prompt", "status", "error_code", "prompt_tokens",
    "completion_tokens", "reserved_tokens", "is_estimated", "conversation_id")
days = UsageDay.objects.values(
    "user__username", "requests", "prompt_tokens", "completion_tokens", "reserved_tokens")
print("REPORT" + json.dumps({"rows": list(rows), "days": list(days)}, default=str))
"""


def settled_rows(platform: Platform) -> list[Row]:
    """All queries. Fails unless each has ended and has been settled once: what a killed process had
    in hand at its reservation at most, and flagged."""
    done = platform.manage("shell", "-v", "0", "-c", _REPORT)
    assert done.returncode == 0, done.stderr
    report: dict[str, list[Row]] = json.loads(done.stdout.partition("REPORT")[2])
    rows = report["rows"]
    assert {row["status"] for row in rows} <= {"completed", "cancelled", "failed"}
    for row in filter(is_orphaned, rows):
        assert (row["status"], row["is_estimated"]) == ("failed", True)
        assert row["prompt_tokens"] + row["completion_tokens"] <= row["reserved_tokens"]
    settled: Counter[str] = Counter()
    for row in rows:
        settled[row["user__username"]] += row["prompt_tokens"] + row["completion_tokens"]
    for day in report["days"]:
        assert day["reserved_tokens"] == 0
        assert day["prompt_tokens"] + day["completion_tokens"] == settled[day["user__username"]]
    assert sum(day["requests"] for day in report["days"]) == len(rows)
    return rows


def is_orphaned(row: Row) -> bool:
    """Whether its process was killed."""
    return bool(row["error_code"] == "orphaned")
