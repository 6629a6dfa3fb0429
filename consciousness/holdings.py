"""What this app holds about a person, for export and erasure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from consciousness import memory_index
from consciousness.models import Memory, Query
from monitoring.personal_data import Holding


def queries() -> Holding:
    return Holding(name="queries", export=_export, erase=_erase)


def _export(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
    rows = Query.objects.filter(user_id=user_id).select_related("content").order_by("created_at")
    for query in rows.iterator():
        content = getattr(query, "content", None)
        yield {
            "id": query.id,
            "created_at": query.created_at,
            "finished_at": query.finished_at,
            "status": query.status,
            "model": query.model,
            "prompt": content.prompt if content else None,
            "response": content.response if content else None,
            "prompt_tokens": query.prompt_tokens,
            "completion_tokens": query.completion_tokens,
        }


def _erase(user_id: uuid.UUID) -> int:
    return Query.objects.filter(user_id=user_id).delete()[0]


def memories() -> Holding:
    return Holding(name="memories", export=_export_memories, erase=_erase_memories)


def _export_memories(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
    fields = ("id", "text", "created_at", "updated_at")
    for memory in Memory.objects.filter(user_id=user_id).order_by("created_at").iterator():
        yield {field: getattr(memory, field) for field in fields}


def _erase_memories(user_id: uuid.UUID) -> int:
    erased = Memory.objects.filter(user_id=user_id).delete()[0]
    memory_index.forget_words()
    return erased
