"""Registrations that wait for their address to be proved. Not accounts: they hold no name."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.db import models
from django.utils import timezone

from accounts.identity import canonical
from monitoring.batches import delete_in_batches


class RegistrationQuerySet(models.QuerySet["Registration"]):
    def of_address(self, address: str) -> RegistrationQuerySet:
        return self.filter(email_canonical=canonical(address))

    def is_newest(self, wish: Registration) -> bool:
        """Whether nobody has wished for an account with the same address since."""
        later = self.filter(created_at__gt=wish.created_at, email_canonical=wish.email_canonical)
        return not later.exists()

    def delete_old(self, *, before_days: int = 2) -> int:
        """Forget wishes whose link has ended."""
        limit = timezone.now() - timedelta(days=before_days)
        return delete_in_batches(self.filter(created_at__lt=limit))


class Registration(models.Model):
    """`password` is a hash by then: what was typed is kept nowhere."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    username = models.CharField(max_length=50)
    email = models.CharField(max_length=254)
    email_canonical = models.CharField(max_length=254)
    full_name = models.CharField(max_length=150, blank=True, default="")
    password = models.CharField(max_length=128)
    created_at = models.DateTimeField(default=timezone.now)

    objects = RegistrationQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["email_canonical"], name="registration_of_address"),
            models.Index(fields=["created_at"], name="registration_ended"),
        ]

    def __str__(self) -> str:
        return str(self.id)
