"""Sessions: one login each, and the family of tokens that came from it."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models.user import User
from monitoring.batches import delete_in_batches


class SessionQuerySet(models.QuerySet["Session"]):
    def for_user(self, user: User) -> SessionQuerySet:
        return self.filter(user=user)

    def live(self) -> SessionQuerySet:
        """Sessions whose tokens hold now: not revoked, not over, of an active user and epoch."""
        return self.filter(
            revoked_at__isnull=True,
            expires_at__gt=timezone.now(),
            user__is_active=True,
            user__token_epoch=F("epoch"),
        )

    def find_live(self, session_id: uuid.UUID) -> Session | None:
        """The live session with its user."""
        return self.live().select_related("user").filter(id=session_id).first()

    def rotate(self, session_id: uuid.UUID, *, spent: bytes, fresh: bytes) -> bool:
        """Exchange the refresh token in one conditional UPDATE: of many at once, one succeeds.

        By the row's own columns only. A condition on the user would make it `id IN (SELECT …)`,
        and PostgreSQL asks such a subquery again of the old snapshot after waiting for the row:
        two would succeed. Callers have asked about the user; a token of an old epoch is dead.
        """
        now = timezone.now()
        own = self.filter(id=session_id, refresh_digest=spent, revoked_at__isnull=True)
        return own.filter(expires_at__gt=now).update(refresh_digest=fresh, last_used_at=now) == 1

    def revoke(self) -> int:
        return self.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())

    def delete_ended(self, *, before_days: int = 7) -> int:
        """Forget sessions that ended over `before_days` ago."""
        limit = timezone.now() - timedelta(days=before_days)
        return delete_in_batches(self.filter(Q(expires_at__lt=limit) | Q(revoked_at__lt=limit)))


class Session(models.Model):
    """One login and the family of tokens that came from it. Holds a digest, never a token."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sessions"
    )
    refresh_digest = models.BinaryField(max_length=32)
    scope = models.CharField(max_length=64)
    epoch = models.PositiveIntegerField()
    address = models.GenericIPAddressField(null=True)
    agent = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["user", "-created_at"], name="session_of_user"),
            models.Index(fields=["expires_at"], name="session_ended"),  # delete_ended
        ]

    def __str__(self) -> str:
        return str(self.id)
