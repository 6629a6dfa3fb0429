"""The mail queue: what is to be sent to whom. What a mail says is written when it is sent, so that
no link, which is as good as a password, is ever in the database."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from monitoring.batches import delete_in_batches

MAX_PENDING = 10_000
_FIRST_PAUSE_S = 20
_LONGEST_PAUSE_S = 3600


class Kind(models.TextChoices):
    RESET_PASSWORD = "reset_password"  # noqa: S105 - no password
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    VERIFY_ADDRESS = "verify_address"
    CHANGE_ADDRESS = "change_address"
    ADDRESS_CHANGED = "address_changed"
    INVITE = "invite"


# How long it makes sense to go on trying.
WORTHWHILE = {
    Kind.RESET_PASSWORD: timedelta(hours=1),
    Kind.PASSWORD_CHANGED: timedelta(days=3),
    Kind.VERIFY_ADDRESS: timedelta(days=1),
    Kind.CHANGE_ADDRESS: timedelta(days=1),
    Kind.ADDRESS_CHANGED: timedelta(days=3),
    Kind.INVITE: timedelta(days=3),
}


class MailQuerySet(models.QuerySet["Mail"]):
    def pending(self) -> MailQuerySet:
        return self.filter(sent_at__isnull=True, given_up_at__isnull=True)

    def due(self) -> MailQuerySet:
        return self.pending().filter(due_at__lte=timezone.now()).order_by("due_at")

    def claim(self, mail: Mail, *, lease: timedelta) -> bool:
        """Take a due mail for `lease`; a killed worker's mail is due again when that is over."""
        now = timezone.now()
        mine = self.due().order_by().filter(pk=mail.pk)
        return mine.update(due_at=now + lease, attempts=F("attempts") + 1) == 1

    def delete_old(self, *, before_days: int = 7) -> int:
        """Forget mails that were sent, or given up, over `before_days` ago."""
        limit = timezone.now() - timedelta(days=before_days)
        return delete_in_batches(self.filter(Q(sent_at__lt=limit) | Q(given_up_at__lt=limit)))


class Mail(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    address = models.CharField(max_length=254)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE)
    registration = models.ForeignKey("Registration", null=True, on_delete=models.CASCADE)
    link = models.ForeignKey("Link", null=True, on_delete=models.SET_NULL)
    # Of the request that asked for it, for the log.
    request_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=100, blank=True, default="")
    sent_at = models.DateTimeField(null=True)
    given_up_at = models.DateTimeField(null=True)

    objects = MailQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["due_at"],
                name="mail_due",
                condition=Q(sent_at__isnull=True, given_up_at__isnull=True),
            ),
            models.Index(
                fields=["given_up_at"],
                name="mail_given_up",
                condition=Q(given_up_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def is_worthwhile(self, now: datetime) -> bool:
        return now - self.created_at < WORTHWHILE[Kind(self.kind)]

    def pause(self) -> timedelta:
        """How long to wait after the latest failure: twice as long each time, up to an hour."""
        doubled_s = _FIRST_PAUSE_S << min(max(self.attempts - 1, 0), 20)
        return timedelta(seconds=min(doubled_s, _LONGEST_PAUSE_S))
