"""Requests that carry an `Idempotency-Key`, and their first result."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from consciousness.models.query import Query

KEY_LENGTH = 128


class IdempotentRequest(models.Model):
    """The first request under a key. `status` is null while it runs; one whose process died may
    be taken over when its lease is over. The stored body goes with the query it came from."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotent_requests"
    )
    key = models.CharField(max_length=KEY_LENGTH)
    digest = models.BinaryField(max_length=32)
    query = models.ForeignKey(
        Query, on_delete=models.CASCADE, null=True, related_name="idempotent_requests"
    )
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    lease_expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="idempotency_retention")]
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once_a_user")
        ]

    def __str__(self) -> str:
        return str(self.pk)
