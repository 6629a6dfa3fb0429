"""Conversations: what ties a person's queries together as turns."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models, transaction
from django.utils import timezone

TITLE_LENGTH = 100
_BATCH = 500


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def for_user(self, user: AbstractBaseUser) -> ConversationQuerySet:
        """The only way in for views: one's own rows."""
        return self.filter(user_id=user.pk)

    def delete_idle(self, age: timedelta) -> int:
        """Delete those whose last activity is that long ago and whose turns are deleted already."""
        idle = self.filter(updated_at__lt=timezone.now() - age, queries__isnull=True)
        deleted = 0
        while ids := list(idle.values_list("id", flat=True)[:_BATCH]):
            with transaction.atomic():
                # Who adds a query holds its conversation until they have; only then can be seen
                # that it has one. Without this the database refused the deletion for its sake.
                list(self.select_for_update().filter(id__in=ids).order_by("id").values_list("id"))
                deleted += idle.filter(id__in=ids).delete()[0]
        return deleted


class Conversation(models.Model):
    """Its turns are the completed queries that point at it, oldest first; their texts are kept
    until `RETENTION_DAYS` after the last one."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(max_length=TITLE_LENGTH)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["user", "-updated_at", "-id"], name="conversation_newest"),
            models.Index(fields=["updated_at"], name="conversation_retention"),
        ]

    def __str__(self) -> str:
        return str(self.id)
