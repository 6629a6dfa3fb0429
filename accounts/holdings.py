"""What this app holds about a person, for export and erasure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session as BrowserSession
from django.db.models import Q

from accounts.identity import canonical
from accounts.models import APIKey, Link, Mail, Purpose, Registration, Session, User
from monitoring.personal_data import Holding

_TABLES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "sessions": (
        Session,
        (
            "id",
            "created_at",
            "last_used_at",
            "expires_at",
            "revoked_at",
            "scope",
            "address",
            "agent",
        ),
    ),
    "api_keys": (
        APIKey,
        ("id", "name", "hint", "scope", "created_at", "expires_at", "last_used_at", "revoked_at"),
    ),
    "links": (Link, ("purpose", "address", "created_at", "expires_at", "used_at")),
    "mails": (Mail, ("kind", "address", "created_at", "sent_at", "given_up_at")),
}


def holdings() -> list[Holding]:
    account = Holding(name="account", export=_account, erase=_erase)
    return [account, *(Holding(name=name, export=_rows_of(name)) for name in _TABLES)]


def addresses_of(user: User) -> set[str]:
    """Every address that mails of theirs went to, former ones too."""
    mails = Mail.objects.filter(_mails_of(user.pk)).values_list("address", flat=True)
    links = Link.objects.filter(user=user).exclude(address="").values_list("address", flat=True)
    return {user.email, canonical(user.email), *mails, *links}


def _mails_of(user_id: uuid.UUID) -> Q:
    return Q(user_id=user_id) | Q(link__user_id=user_id)  # a reset's knows them by its link only


def _account(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
    fields = ("id", "username", "email", "full_name", "is_active", "is_staff", "created_at")
    yield from User.objects.filter(pk=user_id).values(*fields, "last_login", "daily_token_quota")


def _rows_of(name: str) -> Any:
    model, fields = _TABLES[name]

    def export(user_id: uuid.UUID) -> Iterator[dict[str, Any]]:
        rows = model.objects.filter(user_id=user_id)
        if model is Mail:
            rows = Mail.objects.filter(_mails_of(user_id))
        if model is Link:
            # There is none for an address that has an account: the list would tell who has.
            rows = rows.exclude(purpose=Purpose.CHANGE_ADDRESS, used_at__isnull=True)
        yield from rows.values(*fields).iterator()

    return export


def _erase(user_id: uuid.UUID) -> int:
    """The account with all that hangs on it, and what knows it by an address or its name only."""
    user = User.objects.get(pk=user_id)
    erased = _erase_admin_log(user)
    erased += _erase_browser_sessions(user_id)
    for address in addresses_of(user):
        erased += Registration.objects.all().of_address(address).delete()[0]
        for model in (Mail, Link):
            erased += model.objects.filter(address__iexact=address).delete()[0]
    return erased + user.delete()[0]


def _erase_admin_log(user: User) -> int:
    """Entries by them, and about them or what is theirs: an entry quotes its object's name."""
    theirs = [
        str(user.pk),
        *map(str, Session.objects.for_user(user).values_list("pk", flat=True)),
        *map(str, APIKey.objects.for_user(user).values_list("pk", flat=True)),
    ]
    about = Q(object_id__in=theirs) | Q(object_repr__in=[user.username, user.email])
    return LogEntry.objects.filter(Q(user=user) | about).delete()[0]


def _erase_browser_sessions(user_id: uuid.UUID) -> int:
    """Staff's logins to the admin site. Their rows do not say whose they are, but for inside."""
    theirs = [
        session.pk
        for session in BrowserSession.objects.iterator()
        if session.get_decoded().get("_auth_user_id") == str(user_id)
    ]
    return BrowserSession.objects.filter(pk__in=theirs).delete()[0]
