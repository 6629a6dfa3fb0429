"""API keys: `sk-…`, for programs. A key is its user with fewer rights at most."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models.user import User
from monitoring.batches import delete_in_batches


class APIKeyQuerySet(models.QuerySet["APIKey"]):
    def for_user(self, user: User) -> APIKeyQuerySet:
        return self.filter(user=user)

    def live(self) -> APIKeyQuerySet:
        """Keys that hold now: not revoked, not over, of an active user."""
        now = timezone.now()
        unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
        return self.filter(unexpired, revoked_at__isnull=True, user__is_active=True)

    def with_descendants(self, key: APIKey) -> list[APIKey]:
        """`key`, the keys made with it, those made with them, and so on."""
        found, newest = [key], [key]
        while newest := list(self.filter(parent__in=newest)):
            found += newest
        return found

    def revoke(self) -> int:
        return self.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())

    def delete_ended(self, *, before_days: int = 90) -> int:
        """Forget keys that ended over `before_days` ago: until then their owner can see them."""
        limit = timezone.now() - timedelta(days=before_days)
        return delete_in_batches(self.filter(Q(expires_at__lt=limit) | Q(revoked_at__lt=limit)))


class APIKey(models.Model):
    """Found by the digest of the whole key. `hint` is its beginning, to tell keys apart."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys"
    )
    # The key that this one was made with; null when it was made with a login's token.
    parent = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)
    name = models.CharField(max_length=100)
    digest = models.BinaryField(max_length=32, unique=True)
    hint = models.CharField(max_length=16)
    scope = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = APIKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        indexes = [models.Index(fields=["user", "-created_at"], name="api_key_of_user")]

    def __str__(self) -> str:
        return f"{self.hint}… ({self.name})"
