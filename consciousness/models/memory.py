"""Memory: facts that a person asked to be remembered."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models
from django.utils import timezone

MEMORY_LENGTH = 1000


class MemoryQuerySet(models.QuerySet["Memory"]):
    def for_user(self, user: AbstractBaseUser) -> MemoryQuerySet:
        """The only way in for views and recall: one's own rows."""
        return self.filter(user_id=user.pk)


class Memory(models.Model):
    """One fact. The same words twice are one memory, held by the database."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memories"
    )
    text = models.CharField(max_length=MEMORY_LENGTH)
    text_digest = models.BinaryField(max_length=32, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MemoryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "memories"
        indexes = [models.Index(fields=["user", "-created_at", "-id"], name="memory_newest")]
        constraints = [
            models.UniqueConstraint(fields=["user", "text_digest"], name="memory_once_a_user")
        ]

    def __str__(self) -> str:
        return str(self.id)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.text_digest = digest(self.text)
        fields = kwargs.get("update_fields")
        if fields is not None and "text" in fields:
            kwargs["update_fields"] = {*fields, "text_digest"}
        super().save(*args, **kwargs)


def digest(text: str) -> bytes:
    """Of the words alone: case and spacing make no other fact."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).digest()
