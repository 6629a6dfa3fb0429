"""API keys: made, shown once, ended."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from accounts import api_keys
from accounts.authentication import KeyCredential, SessionCredential
from accounts.models import APIKey, User
from monitoring import audit
from sovereigncore.api import ServiceError

MAX_KEYS = 50  # of one account, so that a leaked one cannot fill the table


class TooManyKeys(ServiceError):
    status = 409
    code = "too_many_keys"
    default_detail = f"An account has {MAX_KEYS} API keys at most. Revoke one first."


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

    Raises ScopeNotHeld, ExpiryTooLate or TooManyKeys: a key that makes another one cannot make
    more of itself than it is.
    """
    if not scopes <= by.scopes:
        raise ScopeNotHeld
    if isinstance(by, KeyCredential):
        end = APIKey.objects.for_user(user).get(pk=by.key_id).expires_at
        if end is not None and (expires_at is None or expires_at > end):
            raise ExpiryTooLate
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
        User.objects.select_for_update().get(pk=user.pk)  # of many at once, each counts the others
        if APIKey.objects.for_user(user).live().count() >= MAX_KEYS:
            raise TooManyKeys
        row.save(force_insert=True)
        audit.record(
            "key.created",
            actor_id=user.id,
            subject_id=row.id,
            detail={"scopes": sorted(scopes)},
        )
    return row, key


def revoke_key(key: APIKey, *, actor_id: uuid.UUID | None) -> None:
    with transaction.atomic():
        if APIKey.objects.filter(pk=key.pk).revoke():
            audit.record("key.revoked", actor_id=actor_id, subject_id=key.id)
