"""Who holds a credential: the one query that every authenticated request begins with.

Written out, because composing it costs the ORM several times what running it does. Tests hold it
to the same answers as `SessionQuerySet.live()` and `APIKeyQuerySet.live()`.
"""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from django.db import OperationalError, connection, models
from django.db.models import Q
from django.utils import timezone

from accounts.models import APIKey, Session, User

# The password's hash and the dates are not read until something asks for them.
_USER_FIELDS = frozenset(
    {
        *("id", "username", "email", "full_name", "is_active", "is_staff", "is_superuser"),
        *("token_epoch", "daily_token_quota"),  # the quota: asked for on every generating request
    }
)
log = structlog.get_logger(__name__)
_USE_IS_NOTED_EVERY = timedelta(minutes=1)
_Fields = tuple[models.Field[Any, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Holder:
    user: User
    credential_id: uuid.UUID
    scopes: frozenset[str]


def of_session(session_id: uuid.UUID) -> Holder | None:
    """The user of a session that holds now."""
    return _find(Session, "id", Session._meta.pk.get_db_prep_value(session_id, connection))


def of_key(digest: bytes) -> Holder | None:
    """The user of an API key that holds now."""
    return _find(APIKey, "digest", digest)


@functools.cache
def _query(model: type[models.Model], column: str) -> tuple[str, _Fields]:
    fields = tuple(  # in the model's order, as from_db() wants them
        field for field in User._meta.concrete_fields if field.attname in _USER_FIELDS
    )
    epoch = "AND u.token_epoch = c.epoch" if model is Session else ""
    sql = f"""
        SELECT c.id, c.scope, c.last_used_at IS NULL OR c.last_used_at < %s,
            {", ".join(f"u.{field.column}" for field in fields)}
        FROM {model._meta.db_table} c JOIN accounts_user u ON u.id = c.user_id
        WHERE c.{column} = %s AND c.revoked_at IS NULL
            AND (c.expires_at IS NULL OR c.expires_at > %s) AND u.is_active {epoch}
    """  # noqa: S608 - names of ours and nothing else
    return sql, fields


def _find(model: type[models.Model], column: str, value: Any) -> Holder | None:
    sql, fields = _query(model, column)
    now = timezone.now()
    adapted = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        cursor.execute(sql, [adapted(now - _USE_IS_NOTED_EVERY), value, adapted(now)])
        row = cursor.fetchone()
    if row is None:
        return None
    raw_id, scope, is_use_unnoted, *columns = row
    values = [field.to_python(value) for field, value in zip(fields, columns, strict=True)]
    credential_id: uuid.UUID = model._meta.pk.to_python(raw_id)
    if is_use_unnoted:
        _note_use(model, credential_id)
    return Holder(
        user=User.from_db("default", [field.attname for field in fields], values),
        credential_id=credential_id,
        scopes=frozenset(scope.split()),
    )


def _note_use(model: type[models.Model], credential_id: uuid.UUID) -> None:
    now = timezone.now()
    unnoted = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - _USE_IS_NOTED_EVERY)
    try:
        model._default_manager.filter(unnoted, pk=credential_id).update(last_used_at=now)
    except OperationalError:  # somebody else writes for long: no reason to refuse a reader
        log.warning("use_not_noted")
