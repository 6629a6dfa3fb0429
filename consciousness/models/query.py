"""What is kept of every question asked: a narrow row, and apart from it the text."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models
from django.db.models import Q
from django.utils import timezone

from consciousness.models.conversation import Conversation


class Kind(models.TextChoices):
    """Which face of the API it came through."""

    PROCESS = "process"
    QUERY = "query"
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


class Status(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


ACTIVE = (Status.QUEUED, Status.RUNNING)
ORPHANED = "orphaned"  # the error code of those whose process did not finish them
MODEL_ID_LENGTH = 128
_BATCH = 500


class QueryQuerySet(models.QuerySet["Query"]):
    def for_user(self, user: AbstractBaseUser) -> QueryQuerySet:
        """The only way in for views: one's own rows."""
        return self.filter(user_id=user.pk)

    def active(self) -> QueryQuerySet:
        return self.filter(status__in=ACTIVE)

    def finished(self) -> QueryQuerySet:
        return self.exclude(status__in=ACTIVE)

    def orphaned(self) -> QueryQuerySet:
        """Active rows whose process did not finish them within their lease: it is gone."""
        return self.active().filter(lease_expires_at__lt=timezone.now())

    def settle(self, query_id: uuid.UUID, **values: object) -> bool:
        """Finish a query exactly once: whoever comes second changes nothing and gets False."""
        finished = self.active().filter(id=query_id)
        return finished.update(finished_at=timezone.now(), **values) == 1

    def take_back(self, query_id: uuid.UUID, **values: object) -> Query | None:
        """Finish one that was settled as an orphan and whose process lives after all: the row as it
        was. None, and nothing changed, where it was no orphan, or is none any more."""
        orphan = self.filter(id=query_id, status=Status.FAILED, error_code=ORPHANED)
        before = orphan.first()
        taken = orphan.update(finished_at=timezone.now(), **values)
        return before if taken else None

    def delete_older_than(self, age: timedelta) -> int:
        """Delete finished queries and their texts by age, in batches: long locks help nobody.

        A conversation ages from its last activity, and its turns with it.
        """
        limit = timezone.now() - age
        deleted = 0
        old = self.finished().filter(
            Q(conversation__isnull=True) | Q(conversation__updated_at__lt=limit),
            created_at__lt=limit,
        )
        while ids := list(old.values_list("id", flat=True)[:_BATCH]):
            # Asked again: a conversation may have gone on meanwhile, and its turns are wanted.
            deleted += old.filter(id__in=ids).delete()[1].get(self.model._meta.label, 0)
        return deleted


class Query(models.Model):
    """One question to the engine, from the moment it is accepted. Tokens are the engine's count;
    `is_estimated` marks rows whose process died before it could tell."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="queries"
    )
    conversation = models.ForeignKey(
        Conversation, on_delete=models.SET_NULL, null=True, blank=True, related_name="queries"
    )
    kind = models.CharField(
        max_length=10, choices=Kind.choices, default=Kind.PROCESS, db_default=Kind.PROCESS
    )
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    engine = models.CharField(max_length=50, blank=True, default="", db_default="")
    model = models.CharField(max_length=MODEL_ID_LENGTH, blank=True, default="")
    temperature = models.FloatField()
    max_tokens = models.PositiveIntegerField()
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    # Of the prompt's, those that the engine still had from an earlier one; None: it does not tell.
    cached_tokens = models.PositiveIntegerField(null=True)
    # Set aside of the day's quota; of a killed one, `reserved_tokens - max_tokens` is the prompt's.
    reserved_tokens = models.PositiveIntegerField(default=0, db_default=0)
    # Of everything that shapes the answer, where an earlier answer may serve again.
    request_digest = models.BinaryField(max_length=32, null=True, editable=False)
    is_cached = models.BooleanField(default=False, db_default=False)
    is_estimated = models.BooleanField(default=False)
    finish_reason = models.CharField(max_length=20, blank=True, default="")
    error_code = models.CharField(max_length=40, blank=True, default="")
    processing_time_ms = models.PositiveIntegerField(null=True)
    request_id = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True)
    lease_expires_at = models.DateTimeField()

    objects = QueryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "queries"
        indexes = [
            models.Index(fields=["user", "-created_at"], name="query_history"),
            models.Index(fields=["created_at"], name="query_retention"),
            models.Index(
                fields=["user", "request_digest", "-created_at"],
                name="query_cache",
                condition=Q(request_digest__isnull=False),
            ),
            models.Index(fields=["conversation", "created_at"], name="query_turns"),
            models.Index(
                fields=["lease_expires_at"],
                name="query_orphans",
                condition=Q(status__in=["queued", "running"]),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running"]) ^ Q(finished_at__isnull=False),
                name="query_finished_iff_not_active",
            )
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class QueryContent(models.Model):
    """The text of one query, in a table of its own: deleting text leaves the usage."""

    query = models.OneToOneField(
        Query, on_delete=models.CASCADE, primary_key=True, related_name="content"
    )
    prompt = models.TextField()
    response = models.TextField(blank=True, default="")
    # The OpenAI face's own messages, and what it answered beyond text.
    messages = models.JSONField(null=True)
    message = models.JSONField(null=True)
    # Ids, not texts: what is forgotten must not be read here.
    memory_ids = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))

    def __str__(self) -> str:
        return str(self.query_id)
