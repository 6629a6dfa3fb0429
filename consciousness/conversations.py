"""Conversations: their turns, and how many of them fit into a model's window."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone
from rest_framework.exceptions import NotFound

from consciousness import owners, quota
from consciousness.asks import NEW_CONVERSATION
from consciousness.models import TITLE_LENGTH, Conversation, Query, QueryContent, Status

_MAX_TURNS = 200  # of the newest; a window that holds more is not filled further
_BATCH = 500
_UNTITLED = "…"  # without a question to be called by, until another turn is kept


@dataclass(frozen=True, kw_only=True)
class Turn:
    prompt: str
    response: str

    @property
    def messages(self) -> tuple[dict[str, str], dict[str, str]]:
        return (
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": self.response},
        )


def own_conversation(user: Any, given: str) -> Conversation | None:
    """The one whose id is given, where it is the user's."""
    if given in ("", NEW_CONVERSATION):
        return None
    return Conversation.objects.all().for_user(user).filter(id=given).first()


def find_conversation(user: Any, given: str) -> Conversation:
    """Raises NotFound for somebody else's like for one that does not exist."""
    found = own_conversation(user, given)
    if found is None:
        raise NotFound
    return found


def hold_conversation(conversation: Conversation) -> bool:
    """In the transaction that adds to it: retention, which takes no turns, lets it be until then.
    False where it was deleted since it was found."""
    rows = Conversation.objects.select_for_update(no_key=True).filter(id=conversation.id)
    return rows.values_list("id").first() is not None


def turns_of(conversation: Conversation) -> tuple[list[Turn], int]:
    """Answered ones, also those that their asker cut short, oldest first; and how many more there
    are before them."""
    contents = QueryContent.objects.filter(
        query__conversation=conversation,
        query__status__in=(Status.COMPLETED, Status.CANCELLED),
    ).exclude(response="")
    newest = contents.order_by("-query__created_at", "-query_id")[:_MAX_TURNS]
    turns = [Turn(prompt=content.prompt, response=content.response) for content in newest]
    older = contents.count() - _MAX_TURNS if len(turns) == _MAX_TURNS else 0
    return turns[::-1], older


def fitting(turns: Sequence[Turn], *, budget_tokens: int) -> list[Turn]:
    """The newest turns that fit, by estimate. Whole turns: half of one would mislead."""
    kept: list[Turn] = []
    for turn in reversed(turns):
        budget_tokens -= quota.estimate_tokens(turn.messages)
        if budget_tokens < 0:
            break
        kept.append(turn)
    return kept[::-1]


def title_for(prompt: str) -> str:
    """The first words, on one line."""
    line = " ".join(prompt.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"


def begin_conversation(conversation_id: uuid.UUID, *, user_id: Any, prompt: str) -> None:
    """In the transaction that keeps its first turn."""
    Conversation.objects.create(id=conversation_id, user_id=user_id, title=title_for(prompt))


def note_activity(conversation: Conversation, *, prompt: str) -> None:
    """In the transaction that keeps another turn."""
    title = Case(When(title=_UNTITLED, then=Value(title_for(prompt))), default=F("title"))
    rows = Conversation.objects.filter(id=conversation.id)
    rows.update(updated_at=timezone.now(), title=title)


def drop_if_empty(conversation: Conversation) -> None:
    """In the transaction that takes a query out of it, where that held the place of a title."""
    rows = Conversation.objects.filter(id=conversation.id, title=_UNTITLED)
    rows.filter(queries__isnull=True).delete()


def rename_conversation(conversation: Conversation, *, title: str) -> None:
    """Raises NotFound where it was deleted since it was found."""
    if not Conversation.objects.filter(id=conversation.id).update(title=title):
        raise NotFound
    conversation.title = title


def delete_conversation(conversation: Conversation) -> None:
    """With the texts of its turns; what they used stays counted. Raises OwnerGone."""
    with transaction.atomic():
        owners.take_turn(conversation.user_id)
        Query.objects.all().finished().filter(conversation=conversation).delete()
        conversation.delete()


def delete_query(query: Query) -> None:
    """With its text, also where that is its conversation's title; then the next turn gives the
    title, and without one the conversation goes too. One that is gone already is fine. Raises
    OwnerGone."""
    with transaction.atomic():
        owners.take_turn(query.user_id)
        # Meanwhile it may have been deleted, or answered after all as the turn of a conversation.
        rows = Query.objects.filter(id=query.id).select_related("conversation", "content")
        own = rows.first()
        if own is None:
            return
        conversation, content = own.conversation, getattr(own, "content", None)
        own.delete()
        if conversation is not None:
            _forget_title(conversation, title_for(content.prompt) if content else _UNTITLED)


def take_out(query: Query) -> None:
    """Leave it in the history alone, as if it had been asked without its conversation. In the
    transaction that takes its owner's turn."""
    rows = Query.objects.filter(id=query.id).select_related("conversation", "content")
    own = rows.get()
    rows.update(conversation=None)
    content = getattr(own, "content", None)
    if own.conversation is not None and content is not None:
        _forget_title(own.conversation, title_for(content.prompt))


def _forget_title(conversation: Conversation, title: str) -> None:
    titled = Conversation.objects.filter(id=conversation.id, title__in=(title, _UNTITLED))
    if titled.select_for_update(no_key=True).values_list("id").first() is None:
        return  # somebody gave it another, and none is given until this is done
    left = Query.objects.filter(conversation=conversation)
    if not left.exists():
        titled.delete()
        return
    told = left.filter(content__isnull=False).order_by("created_at", "id")
    prompt = told.values_list("content__prompt", flat=True).first()
    titled.update(title=title_for(prompt) if prompt else _UNTITLED)


def delete_history(user: Any) -> None:
    """All finished queries and all conversations, with their texts.

    A batch a transaction: a long history took SQLite's only writer from everybody for seconds.
    """
    now = timezone.now()
    finished = Query.objects.all().for_user(user).finished().filter(created_at__lte=now)
    begun = Conversation.objects.all().for_user(user).filter(created_at__lte=now)
    for rows in (finished, begun):
        while _delete_batch(user, rows):
            pass


def _delete_batch(user: Any, rows: QuerySet[Any]) -> bool:
    """False when there was nothing left."""
    with transaction.atomic():
        owners.take_turn(user.pk)
        ids = list(rows.values_list("id", flat=True)[:_BATCH])
        rows.model._default_manager.filter(id__in=ids).delete()
    return bool(ids)
