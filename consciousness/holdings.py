"""What this app holds about a person, for export and erasure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from consciousness import memory_index
from consciousness.models import Conversation, IdempotentRequest, Memory, Query, UsageDay
from monitoring.batches import delete_in_batches
from monitoring.personal_data import Holding, Rows


def all_holdings() -> tuple[Holding, ...]:
    """A query belongs to its conversation, so it is erased after it."""
    return (
        Holding(name="queries", export=_export_queries, erase=_erase_queries),
        Holding(name="conversations", export=_export_conversations, erase=_erase_conversations),
        Holding(name="memories", export=_export_memories, erase=_erase_memories),
        Holding(name="usage", export=_export_usage, erase=_erase_usage),
        # Their answers are in the queries already.
        Holding(name="idempotent_requests", export=_export_requests, erase=_erase_requests),
    )


def _export_queries(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
    rows = Query.objects.filter(user_id=user_id).select_related("content").order_by("created_at")
    for query in rows.iterator():
        content = getattr(query, "content", None)
        yield {
            "id": query.id,
            "created_at": query.created_at,
            "finished_at": query.finished_at,
            "kind": query.kind,
            "status": query.status,
            "model": query.model,
            "conversation": query.conversation_id,
            "messages": content.messages if content else None,
            "prompt": content.prompt if content else None,
            "response": content.response if content else None,
            "message": content.message if content else None,
            "prompt_tokens": query.prompt_tokens,
            "completion_tokens": query.completion_tokens,
        }


def _erase_queries(user_id: uuid.UUID) -> int:
    return delete_in_batches(Query.objects.filter(user_id=user_id))


def _export_conversations(user_id: uuid.UUID) -> Rows:
    rows = Conversation.objects.filter(user_id=user_id).order_by("created_at")
    found: Rows = rows.values("id", "title", "created_at", "updated_at").iterator()
    return found


def _erase_conversations(user_id: uuid.UUID) -> int:
    return delete_in_batches(Conversation.objects.filter(user_id=user_id))


def _export_usage(user_id: uuid.UUID) -> Rows:
    rows = UsageDay.objects.filter(user_id=user_id).order_by("day")
    told = ("day", "requests", "cache_hits", "prompt_tokens", "completion_tokens")
    found: Rows = rows.values(*told).iterator()
    return found


def _erase_usage(user_id: uuid.UUID) -> int:
    return UsageDay.objects.filter(user_id=user_id).delete()[0]


def _export_requests(user_id: uuid.UUID) -> Rows:
    rows = IdempotentRequest.objects.filter(user_id=user_id).order_by("created_at")
    found: Rows = rows.values("key", "created_at", "query_id").iterator()
    return found


def _erase_requests(user_id: uuid.UUID) -> int:
    return IdempotentRequest.objects.filter(user_id=user_id).delete()[0]


def _export_memories(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
    fields = ("id", "text", "created_at", "updated_at")
    for memory in Memory.objects.filter(user_id=user_id).order_by("created_at").iterator():
        yield {field: getattr(memory, field) for field in fields}


def _erase_memories(user_id: uuid.UUID) -> int:
    erased = Memory.objects.filter(user_id=user_id).delete()[0]
    memory_index.forget_words()
    return erased
