"""What an administrator can do to accounts, and how the first one comes to be."""

from __future__ import annotations

import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import mailing
from accounts.models import Kind, User
from accounts.services.registration import IdentityTaken, taken_fields
from accounts.services.sessions import end_all_sessions
from monitoring import audit
from monitoring.models import JobLease
from sovereigncore.api import ServiceError


class NotOnOneself(ServiceError):
    status = 409
    code = "not_on_oneself"
    default_detail = "Nobody can do this to their own account."


class NeedsSuperuser(ServiceError):
    status = 403
    code = "needs_superuser"
    default_detail = "Only a superuser may change a superuser's account."


class LastSuperuser(ServiceError):
    status = 409
    code = "last_superuser"
    default_detail = "This is the last superuser: make another one first."


def keep_a_superuser(user: User) -> None:
    """Raises LastSuperuser when nobody could administer without `user`. In the caller's
    transaction: of two superusers who leave at once, one waits for the other and stays."""
    supers = User.objects.select_for_update().filter(is_superuser=True, is_active=True)
    if [found.pk for found in supers.order_by("pk")] == [user.pk]:
        raise LastSuperuser


def check_authority(user: User, *, by: User | None) -> None:
    """Raise unless `by` may act on `user`. None is the operator at a terminal, who may."""
    if by is not None and user.is_superuser and not by.is_superuser:
        raise NeedsSuperuser


def set_active(user: User, *, is_active: bool, by: User | None = None) -> User:
    """Enable or disable an account. Disabling ends its sessions at their next request, for good;
    its API keys are refused until it is enabled again. Raises NeedsSuperuser or NotOnOneself."""
    check_authority(user, by=by)
    if by == user:
        raise NotOnOneself
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=user.pk)
        if locked.is_active == is_active:
            return locked
        if not is_active:
            keep_a_superuser(locked)
        locked.is_active = is_active
        locked.token_epoch += 1
        locked.save(update_fields=["is_active", "token_epoch"])
        action = "user.enabled" if is_active else "user.disabled"
        audit.record(action, actor_id=by.id if by else None, subject_id=user.id)
    return locked


def sign_out(user: User, *, by: User) -> None:
    check_authority(user, by=by)
    end_all_sessions(user, actor_id=by.id)


def send_reset(user: User, *, by: User) -> None:
    """Mail the owner a link that sets a new password."""
    check_authority(user, by=by)
    with transaction.atomic():
        mailing.enqueue(Kind.RESET_PASSWORD, user.email_canonical)
        audit.record("password.reset_sent", actor_id=by.id, subject_id=user.id)


def set_quota(user: User, *, daily_token_quota: int | None, by: User) -> User:
    """Change how many tokens a day the account may use: None for the platform's own
    DAILY_TOKEN_QUOTA, 0 for no limit. Raises NeedsSuperuser."""
    check_authority(user, by=by)
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=user.pk)
        former = locked.daily_token_quota
        if former == daily_token_quota:
            return locked
        locked.daily_token_quota = daily_token_quota
        locked.save(update_fields=["daily_token_quota"])
        detail = {"from": former, "to": daily_token_quota}
        audit.record("quota.set", actor_id=by.id, subject_id=user.id, detail=detail)
    return locked


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
