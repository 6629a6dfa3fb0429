"""Every field of every model, sent to every route that writes: none of them is written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import APIKey, Link, Purpose, Session, User
from conftest import PASSWORD
from sovereigncore.tests.permission_table import CALLERS, ROUTES
from tests.counters import forget_counts
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.once

# What would do something, but for the field that is too much; {} where a route takes no body.
BODIES: dict[str, dict[str, Any]] = {
    "token": {"username": "mallory", "password": PASSWORD},
    "register": {
        "username": "dave",
        "email": "dave@example.org",
        "password": PASSWORD,
        "full_name": "D",
    },
    "profile": {"full_name": "M"},
    "keys": {"name": "k", "scopes": ["read"]},
    "password": {"current_password": PASSWORD, "new_password": "Another-Horse-8-Battery"},
    "deactivate": {"current_password": PASSWORD},
    "password-reset-request": {"email": "bob@example.org"},
    "password-reset-confirm": {"token": "x", "new_password": PASSWORD},
    "verify-email": {"token": "x", "password": PASSWORD},
    "email-change": {"token": "x"},
    "invitations": {"email": "dave@example.org"},
    "user": {"daily_token_quota": None},
    "process": {"prompt": "hello"},
    "query": {"query": "hello"},
}
# What time and the routes themselves change, rightfully and to nobody's gain.
RIGHTFUL = {"last_login", "last_used_at", "token_epoch", "revoked_at"}
RIGHTFUL_OF = {"user-disable": {"is_active"}, "user-enable": {"is_active"}}


_REFUSED_AT_ONCE = 10  # unknown fields are named in a refusal, up to so many


def writes() -> Iterator[tuple[str, str]]:
    for name, route in ROUTES.items():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            if method in route.methods:
                yield name, method


def fields_but_for(known: dict[str, Any]) -> list[str]:
    names = {"role", "roles", "admin", "is_admin", "pk", "user_id", "scopes", "__proto__"}
    for label in ("accounts", "consciousness", "monitoring"):
        for model in apps.get_app_config(label).get_models():
            names |= {field.name for field in model._meta.get_fields()}
    return sorted(names - set(known))


def kept(route: str) -> list[list[dict[str, Any]]]:
    changing = RIGHTFUL | RIGHTFUL_OF.get(route, set())
    models: list[Any] = [User, Session, APIKey]
    return [
        [
            {name: value for name, value in row.items() if name not in changing}
            for row in model.objects.order_by("pk").values()
        ]
        for model in models
    ]


@pytest.mark.parametrize(("name", "method"), list(writes()))
def test_no_field_is_written_that_a_route_does_not_know(
    client_of: Callable[..., APIClient],
    bob: User,
    settings: Settings,
    stub: StubEngine,
    name: str,
    method: str,
) -> None:
    settings.REGISTRATION_MODE = "open"
    is_for_staff = ROUTES[name].expected(method)[CALLERS.index("user")] == 403
    mallory = User.objects.create_user(
        "mallory", "mallory@example.org", PASSWORD, is_staff=is_for_staff
    )
    client = client_of(mallory)
    APIKey.objects.create(user=bob, name="bob's", digest=b"b", hint="sk-", scope="read")
    session = Session.objects.get()
    link = Link.objects.all().issue(Purpose.INVITE)
    theirs = defaultdict(lambda: str(bob.pk), name="bob", link=str(link.pk))
    path = ROUTES[name].path.format_map(theirs)
    known = BODIES.get(name, {})
    before = kept(name)
    batches = list(batched(fields_but_for(known), _REFUSED_AT_ONCE))
    while batches:
        fields = batches.pop()
        forget_counts("ratelimit")
        values = {field: field.startswith("is_") or "admin" for field in fields}
        body = json.dumps({**known, **values})
        response = client.generic(method, path, body, content_type="application/json")
        assert response.status_code < 500, fields
        if response.status_code == 422 and not set(fields) <= set(_named(response)):
            # One that the route knows may have been let through behind one that it does not.
            batches += [[field] for field in fields] if len(fields) > 1 else []
        Session.objects.exclude(pk=session.pk).delete()  # of a login, which ignores the fields
        assert kept(name) == before, fields
        # What a logout or a disabling did, for the next round.
        Session.objects.update(revoked_at=None)
        User.objects.update(token_epoch=0, is_active=True)


def _named(response: Any) -> dict[str, list[str]]:
    """The fields that a refusal names; pages name none."""
    is_json = response["Content-Type"].endswith("json")
    errors: dict[str, list[str]] = response.json()["errors"] if is_json else {}
    return errors


def batched(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
