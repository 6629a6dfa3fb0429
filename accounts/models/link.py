"""What links in mails prove. The token is in the mail only; here is its digest."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from accounts.models.user import User
from monitoring.batches import delete_in_batches


class Purpose(models.TextChoices):
    RESET_PASSWORD = "reset_password"  # noqa: S105 - no password
    VERIFY_ADDRESS = "verify_address"
    CHANGE_ADDRESS = "change_address"
    INVITE = "invite"


LIFETIMES = {
    Purpose.RESET_PASSWORD: timedelta(minutes=10),
    Purpose.VERIFY_ADDRESS: timedelta(hours=24),
    Purpose.CHANGE_ADDRESS: timedelta(hours=24),
    Purpose.INVITE: timedelta(days=7),
}


class LinkQuerySet(models.QuerySet["Link"]):
    def live(self) -> LinkQuerySet:
        return self.filter(
            used_at__isnull=True, revoked_at__isnull=True, expires_at__gt=timezone.now()
        )

    def issue(self, purpose: Purpose, **fields: Any) -> Link:
        now = timezone.now()
        link = Link(purpose=purpose, created_at=now, expires_at=now + LIFETIMES[purpose], **fields)
        link.digest = digest(link.token)
        link.save(force_insert=True)
        return link

    def find_live(self, purpose: Purpose, token: str) -> Link | None:
        found = self.live().filter(purpose=purpose, digest=digest(token))
        return found.select_related("user", "registration").first()

    def redeem(self, link: Link) -> bool:
        """Use the link up, in one conditional UPDATE: of many at once, one succeeds."""
        return self.live().filter(pk=link.pk).update(used_at=timezone.now()) == 1

    def revoke(self) -> int:
        return self.live().update(revoked_at=timezone.now())

    def of_user(self, user: User, *purposes: Purpose) -> LinkQuerySet:
        return self.filter(user=user, purpose__in=purposes)

    def delete_ended(self, *, before_days: int = 7) -> int:
        """Forget links that ended over `before_days` ago."""
        limit = timezone.now() - timedelta(days=before_days)
        return delete_in_batches(self.filter(Q(expires_at__lt=limit) | Q(used_at__lt=limit)))


class Link(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    # Whose password or address it changes; null for who has no account yet.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="links"
    )
    registration = models.ForeignKey("Registration", null=True, on_delete=models.CASCADE)
    # The address that it proves or invites; blank where that is no part of it.
    address = models.CharField(max_length=254, blank=True, default="")
    digest = models.BinaryField(max_length=32, unique=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = LinkQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["user", "purpose"], name="link_of_user"),
            models.Index(fields=["expires_at"], name="link_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} {self.id}"

    @property
    def token(self) -> str:
        """Made from the id and SECRET_KEY, so that a mail sent again carries the same one without
        the database ever holding it."""
        return salted_hmac("accounts.link", str(self.id), algorithm="sha256").hexdigest()

    def is_worth_sending(self, *, now: datetime) -> bool:
        """Whether it holds, and for at least half of its lifetime more."""
        is_usable = self.used_at is None and self.revoked_at is None
        left = self.expires_at - now
        # After a change of SECRET_KEY the token would be another one.
        is_whole = bytes(self.digest) == digest(self.token)
        return is_usable and is_whole and left * 2 >= LIFETIMES[Purpose(self.purpose)]


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
