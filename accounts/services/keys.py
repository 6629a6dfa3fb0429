"""API keys: made, shown once, ended."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts import api_keys
from accounts.authentication import KeyCredential, SessionCredential
from accounts.models import APIKey, User
from monitoring import audit
from sovereigncore.api import ServiceError

# Of one account, so that a leaked key cannot fill the table.
MAX_KEYS = 50
MAX_NEW_A_DAY = 100


class TooManyKeys(ServiceError):
    status = 409
    code = "too_many_keys"
    default_detail = (
        f"An account has {MAX_KEYS} API keys at most, and makes {MAX_NEW_A_DAY} a day at most."
    )


class CredentialEnded(ServiceError):
    status = 401
    code = "invalid_credentials"
    default_detail = "The credential has ended."


class ScopeNotHeld(ServiceError):
    status = 403
    code = "scope_not_held"
    default_detail = "A key cannot have a scope that the credential which makes it lacks."


class ExpiryTooLate(ServiceError):
    status = 403
    code = "expiry_too_late"
    default_detail = "A key cannot outlive the key that makes it."


def create_key(
    user: User,
    *,
    by: SessionCredential | KeyCredential,
    name: str,
    scopes: frozenset[str],
    expires_at: datetime | None,
) -> tuple[APIKey, str]:
    """A new key's row and the key itself, which nobody can read again.

    Raises ScopeNotHeld, ExpiryTooLate, TooManyKeys or CredentialEnded: a key that makes another
    one cannot make more of itself than it is.
    """
    if not scopes <= by.scopes:
        raise ScopeNotHeld
    key = api_keys.generate()
    row = APIKey(
        user=user,
        name=name,
        digest=api_keys.digest(key),
        hint=api_keys.hint(key),
        scope=" ".join(sorted(scopes)),
        expires_at=expires_at,
        created_at=timezone.now(),
    )
    with transaction.atomic():
        # Of many at once each counts the others; and whoever disables the account waits.
        locked = User.objects.select_for_update().filter(pk=user.pk).first()
        if locked is None or not by.is_live():
            raise CredentialEnded
        if isinstance(by, KeyCredential):
            row.parent = APIKey.objects.for_user(user).get(pk=by.key_id)
            end = row.parent.expires_at
            if end is not None and (expires_at is None or expires_at > end):
                raise ExpiryTooLate
        _check_number_of_keys(user)
        row.save(force_insert=True)
        audit.record(
            "key.created",
            actor_id=user.id,
            subject_id=row.id,
            detail={"scopes": sorted(scopes)},
        )
    return row, key


def _check_number_of_keys(user: User) -> None:
    own = APIKey.objects.for_user(user)
    new = own.filter(created_at__gt=timezone.now() - timedelta(days=1))
    if own.live().count() >= MAX_KEYS or new.count() >= MAX_NEW_A_DAY:
        raise TooManyKeys


def revoke_key(key: APIKey, *, actor_id: uuid.UUID | None) -> None:
    """Revoke a key and the keys that were made with it: whoever stole one may have made more."""
    with transaction.atomic():
        for each in APIKey.objects.all().with_descendants(key):
            if APIKey.objects.filter(pk=each.pk).revoke():
                audit.record("key.revoked", actor_id=actor_id, subject_id=each.id)
