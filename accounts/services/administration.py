"""What an administrator can do to accounts, and how the first one comes to be."""

from __future__ import annotations

import secrets
import uuid

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import User
from accounts.services.registration import IdentityTaken, taken_fields
from monitoring import audit
from monitoring.models import JobLease


def set_active(user: User, *, is_active: bool, actor_id: uuid.UUID | None = None) -> None:
    """Enable or disable an account. Disabling ends its sessions at their next request, for good;
    its API keys are refused until it is enabled again."""
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=user.pk)
        locked.is_active = is_active
        locked.token_epoch += 1
        locked.save(update_fields=["is_active", "token_epoch"])
        action = "user.enabled" if is_active else "user.disabled"
        audit.record(action, actor_id=actor_id, subject_id=user.id)


def bootstrap_admin(*, username: str, email: str) -> str | None:
    """Make the first administrator and return the random password; None when there is one.

    Thirty at once make one: each waits for the row that the first one locked.
    """
    password = secrets.token_urlsafe(18)
    admin = User(username=username, email=email, is_staff=True, is_superuser=True)
    admin.set_password(password)  # slow, so before the lock
    try:
        with transaction.atomic():
            _wait_for_turn("accounts.bootstrap")
            if User.objects.filter(is_superuser=True).exists():
                return None
            admin.save(force_insert=True)
            audit.record("user.bootstrapped", actor_id=None, subject_id=admin.id)
    except IntegrityError as error:
        raise IdentityTaken(errors=taken_fields(username, email)) from error
    return password


def _wait_for_turn(name: str) -> None:
    """Hold a row lock until the transaction ends; SQLite's transactions hold one anyway."""
    now = timezone.now()
    JobLease.objects.get_or_create(name=name, defaults={"due_at": now, "expires_at": now})
    JobLease.objects.select_for_update().get(name=name)
