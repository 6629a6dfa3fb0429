"""The audit trail: every deed has its row, and no row is ever changed."""

from __future__ import annotations

import ast
import importlib
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import APIKey, Session, User
from accounts.services import bootstrap_admin, set_active
from accounts.tests.sessions import LOGOUT, TOKEN, log_in, me, refresh
from conftest import PASSWORD
from monitoring import audit
from monitoring.audit import append_only, digests, recording
from monitoring.models import AuditEvent

pytestmark = pytest.mark.django_db

TABLE = AuditEvent._meta.db_table
KEYS = "/api/v1/keys"
SESSIONS = "/api/v1/auth/sessions"
REGISTER = "/api/v1/users/register"


@pytest.fixture
def event() -> AuditEvent:
    audit.record(
        "key.created",
        actor_id=uuid.uuid4(),
        subject_id=uuid.uuid4(),
        detail={"scopes": ["read"], "count": 1, "is_new": True, "note": None},
    )
    return AuditEvent.objects.get()


def row_of(event: AuditEvent) -> dict[str, Any]:
    row = AuditEvent.objects.values().get(pk=event.pk)
    return {**row, "digest": bytes(row["digest"])}


# --- The digest ------------------------------------------------------------------------------


def test_what_the_database_gives_back_verifies(event: AuditEvent) -> None:
    assert bytes(event.digest) == digests.digest(event)
    assert len(bytes(event.digest)) == 32


_OTHER: dict[str, list[Callable[[Any], Any]]] = {
    "id": [lambda number: number + 1],
    "at": [lambda at: at + timedelta(microseconds=1), lambda at: at - timedelta(days=1)],
    "action": [lambda _: "key.revoked", lambda action: f"{action} "],
    "actor_id": [lambda _: None, lambda _: uuid.uuid4()],
    "subject_id": [lambda _: "", lambda subject: subject.upper(), lambda _: str(uuid.uuid4())],
    "detail": [
        lambda _: {},
        lambda detail: {**detail, "scopes": ["read", "write"]},
        lambda detail: {**detail, "count": "1"},
        lambda detail: {**detail, "is_new": 1},
        lambda detail: {**detail, "extra": None},
    ],
    "request_id": [lambda _: "another-request"],
}


@pytest.mark.parametrize(
    ("field", "change"), [(field, change) for field in _OTHER for change in _OTHER[field]]
)
def test_no_field_can_be_altered_unnoticed(
    event: AuditEvent, field: str, change: Callable[[Any], Any]
) -> None:
    setattr(event, field, change(getattr(event, field)))
    assert digests.digest(event) != bytes(event.digest)


def test_every_field_is_in_the_digest() -> None:
    """A new column has to be, and has to stand in the table above. The seal is the chain's."""
    fields = {field.attname for field in AuditEvent._meta.fields}
    assert fields - {"digest", "seal_id"} == set(_OTHER)


def test_who_lacks_the_key_cannot_make_one(event: AuditEvent, settings: Any) -> None:
    settings.AUDIT_KEY = "another-key-0123456789-0123456789-0123"
    assert digests.digest(event) != bytes(event.digest)


def test_neither_order_nor_zone_changes_it(event: AuditEvent) -> None:
    event.detail = dict(reversed(list(event.detail.items())))
    event.at = event.at.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert digests.digest(event) == bytes(event.digest)


# --- Recording -------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["", "key.forged", "KEY.CREATED", "key.created ", "key"])
def test_an_unknown_action_is_an_error_and_writes_nothing(action: str) -> None:
    with pytest.raises(audit.UnknownAction):
        audit.record(action, actor_id=None)
    assert not AuditEvent.objects.exists()


def test_it_goes_with_its_transaction() -> None:
    with transaction.atomic():
        audit.record("key.created", actor_id=None)
        assert AuditEvent.objects.count() == 1
        transaction.set_rollback(True)
    assert not AuditEvent.objects.exists()


def test_it_carries_the_requests_id(alice: User) -> None:
    for request_id in ("0123456789-abcdef", "Z" * 64):
        login = {"username": "alice", "password": PASSWORD}
        response = APIClient().post(TOKEN, login, HTTP_X_REQUEST_ID=request_id)
        assert response["X-Request-ID"] == request_id
        assert AuditEvent.objects.latest("id").request_id == request_id


def test_a_request_id_of_the_callers_making_is_not_in_it(alice: User) -> None:
    response = APIClient().post(
        TOKEN,
        {"username": "alice", "password": PASSWORD},
        HTTP_X_REQUEST_ID="alice@example.org, 203.0.113.9",
    )
    assert AuditEvent.objects.get().request_id == response["X-Request-ID"]
    assert uuid.UUID(response["X-Request-ID"])


def test_what_happens_outside_a_request_has_none(alice: User) -> None:
    log_in()
    set_active(alice, is_active=False)
    assert AuditEvent.objects.get(action="user.disabled").request_id == ""


# --- The deeds -------------------------------------------------------------------------------


def last_event() -> tuple[str, uuid.UUID | None, str]:
    event = AuditEvent.objects.latest("id")
    assert bytes(event.digest) == digests.digest(event)
    return event.action, event.actor_id, event.subject_id


def test_every_deed_of_an_account_is_on_record(settings: Any, staff: User) -> None:
    settings.REGISTRATION_MODE = "open"
    body = {"username": "dave", "email": "dave@example.org", "password": PASSWORD}
    assert APIClient().post(REGISTER, body).status_code == 201
    dave = User.objects.get(username="dave")
    assert last_event() == ("user.registered", dave.pk, str(dave.pk))

    pair = log_in("dave")
    session = Session.objects.latest("created_at")
    assert last_event() == ("session.begun", dave.pk, str(session.pk))

    refresh(pair["refresh_token"])
    assert refresh(pair["refresh_token"]).status_code == 401
    assert last_event() == ("session.replayed", None, str(session.pk))

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {log_in('dave')['access_token']}")
    session = Session.objects.latest("created_at")
    assert client.post(LOGOUT).status_code == 204
    assert last_event() == ("session.ended", dave.pk, str(session.pk))

    set_active(dave, is_active=False, by=staff)
    assert last_event() == ("user.disabled", staff.pk, str(dave.pk))
    set_active(dave, is_active=True, by=staff)
    assert last_event() == ("user.enabled", staff.pk, str(dave.pk))


def test_the_first_administrator_is_on_record() -> None:
    assert bootstrap_admin(username="root-admin", email="root@example.org")
    admin = User.objects.get()
    assert last_event() == ("user.bootstrapped", None, str(admin.pk))


def test_what_was_refused_is_not_on_record(alice: User, settings: Any) -> None:
    settings.REGISTRATION_MODE = "open"
    body = {"username": "alice", "email": "alice@example.org", "password": PASSWORD}
    assert APIClient().post(REGISTER, body).status_code == 409
    login = {"username": "alice", "password": "wrong"}
    assert APIClient().post(TOKEN, login).status_code == 401
    assert not AuditEvent.objects.exists()


def test_disabling_in_the_admin_site_is_on_record(staff: User, alice: User) -> None:
    browser = Client()
    browser.force_login(staff)
    path = reverse("admin:accounts_user_change", args=[alice.pk])
    form = {"username": "alice", "email": "alice@example.org", "full_name": ""}
    assert browser.post(path, form).status_code == 302
    alice.refresh_from_db()
    assert not alice.is_active
    assert last_event() == ("user.disabled", staff.pk, str(alice.pk))


def test_ending_sessions_in_the_admin_site_is_on_record(staff: User, alice: User) -> None:
    token = log_in()["access_token"]
    session = Session.objects.get()
    browser = Client()
    browser.force_login(staff)
    form = {"action": "revoke", "_selected_action": [str(session.pk)]}
    browser.post("/admin/accounts/session/", form)
    assert me(token) == 401
    assert last_event() == ("session.ended", staff.pk, str(session.pk))


_DEEDS: list[tuple[int, Callable[[APIClient], Any]]] = [
    (200, lambda client: client.post(TOKEN, {"username": "alice", "password": PASSWORD})),
    (204, lambda client: client.post(LOGOUT)),
    (204, lambda client: client.delete(f"{SESSIONS}/{Session.objects.get().pk}")),
    (204, lambda client: client.delete(SESSIONS)),
    (201, lambda client: client.post(KEYS, {"name": "x", "scopes": ["read"]})),
    (204, lambda client: client.delete(f"{KEYS}/{APIKey.objects.get().pk}")),
    (
        201,
        lambda client: client.post(
            REGISTER, {"username": "dave", "email": "dave@example.org", "password": PASSWORD}
        ),
    ),
]


def everything() -> list[list[dict[str, Any]]]:
    models: list[type[Model]] = [User, Session, APIKey, AuditEvent]
    return [list(model._default_manager.order_by("pk").values()) for model in models]


@pytest.mark.parametrize(("status", "deed"), _DEEDS)
def test_no_deed_is_done_that_cannot_be_recorded(
    as_alice: APIClient,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    status: int,
    deed: Callable[[APIClient], Any],
) -> None:
    settings.REGISTRATION_MODE = "open"
    as_alice.post(KEYS, {"name": "x", "scopes": ["read"]})
    as_alice.raise_request_exception = False
    before = everything()
    with monkeypatch.context() as patch:
        patch.setattr(recording, "_actions", {})
        assert deed(as_alice).status_code == 500
    assert everything() == before
    assert deed(as_alice).status_code == status
    assert everything() != before


def test_no_row_holds_personal_data(settings: Any, staff: User) -> None:
    settings.REGISTRATION_MODE = "open"
    caller = APIClient(REMOTE_ADDR="203.0.113.77", HTTP_USER_AGENT="Sybil-Phone/9")
    person = {
        "username": "Sybil",
        "email": "Vane@Example.net",
        "password": PASSWORD,
        "full_name": "Sibyl Theatre",
    }
    assert caller.post(REGISTER, person).status_code == 201
    login = {"username": "Vane@Example.net", "password": PASSWORD}
    pair = caller.post(TOKEN, login).json()
    caller.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
    key = caller.post(KEYS, {"name": "Dorians laptop", "scopes": ["read"]}).json()
    assert caller.delete(f"{KEYS}/{key['id']}").status_code == 204
    assert caller.delete(SESSIONS).status_code == 204
    caller.credentials()
    pair = caller.post(TOKEN, login).json()
    for _ in range(2):
        caller.post(f"{TOKEN}/refresh", {"refresh_token": pair["refresh_token"]})
    sybil = User.objects.get(username="Sybil")
    for is_active in (False, True):
        set_active(sybil, is_active=is_active, by=staff)
    rows = list(AuditEvent.objects.order_by("id").values())
    assert [row["action"] for row in rows] == [
        *("user.registered", "session.begun", "key.created", "key.revoked", "user.signed_out"),
        *("session.begun", "session.replayed", "user.disabled", "user.enabled"),
    ]
    text = str(rows).casefold()
    for word in (
        *("sybil", "vane", "example.net", "theatre", "203.0.113", "phone", "dorian", "laptop"),
        *(PASSWORD.casefold(), key["hint"].casefold(), "bcrypt", staff.username, staff.email),
    ):
        assert word not in text


def test_a_row_outlives_the_person(alice: User) -> None:
    log_in()
    before = list(AuditEvent.objects.values())
    alice.delete()
    assert list(AuditEvent.objects.values()) == before


# --- Append-only -----------------------------------------------------------------------------

_INSERT = (
    "INTO {table} (id, at, action, actor_id, subject_id, detail, request_id, digest)"
    " SELECT id, at, 'user.enabled', actor_id, subject_id, detail, request_id, digest FROM {table}"
)
_STATEMENTS = [
    "UPDATE {table} SET action = 'user.enabled'",
    "UPDATE {table} SET action = action",
    "UPDATE {table} SET id = id + 1",
    "UPDATE {table} SET seal_id = NULL",
    "UPDATE {table} SET seal_id = 1, action = 'user.enabled'",
    "UPDATE {table} SET seal_id = 1, id = id + 1",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE id = (SELECT max(id) FROM {table})",
    f"INSERT {_INSERT} WHERE true ON CONFLICT (id) DO UPDATE SET action = excluded.action",
    *{
        "sqlite": [
            f"REPLACE {_INSERT}",
            f"INSERT OR REPLACE {_INSERT}",
            "UPDATE OR IGNORE {table} SET action = 'user.enabled'",
            "UPDATE OR REPLACE {table} SET action = 'user.enabled'",
        ],
        "postgresql": [
            "TRUNCATE {table}",
            "TRUNCATE {table} RESTART IDENTITY CASCADE",
            "WITH gone AS (DELETE FROM {table} RETURNING *) SELECT * FROM gone",
            "MERGE INTO {table} a USING {table} b ON a.id = b.id WHEN MATCHED THEN DELETE",
        ],
    }[connection.vendor],
]


@pytest.mark.parametrize("statement", _STATEMENTS)
def test_no_statement_changes_a_row(event: AuditEvent, statement: str) -> None:
    before = row_of(event)
    connection.check_constraints()  # PostgreSQL truncates no table with checks to come
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement.format(table=TABLE))
    assert AuditEvent.objects.count() == 1
    assert row_of(event) == before


_CHANGES: dict[str, Callable[[AuditEvent], Any]] = {
    "save": lambda event: event.save(),
    "save one field": lambda event: event.save(update_fields=["detail"]),
    "delete": lambda event: event.delete(),
    "update": lambda _: AuditEvent.objects.update(action="user.enabled"),
    "delete all": lambda _: AuditEvent.objects.all().delete(),
    "delete raw": lambda _: AuditEvent.objects.all()._raw_delete("default"),
    "bulk update": lambda event: AuditEvent.objects.bulk_update([event], ["subject_id"]),
    "update or create": lambda event: AuditEvent.objects.update_or_create(
        pk=event.pk, defaults={"action": "user.enabled"}
    ),
    "upsert": lambda event: AuditEvent.objects.bulk_create(
        [event], update_conflicts=True, unique_fields=["id"], update_fields=["action"]
    ),
}


@pytest.mark.parametrize("change", list(_CHANGES))
def test_nor_does_the_orm(event: AuditEvent, change: str) -> None:
    before = row_of(event)
    event.action = "user.enabled"
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        _CHANGES[change](event)
    assert AuditEvent.objects.count() == 1
    assert row_of(event) == before


@pytest.mark.django_db(transaction=True)
def test_nor_does_flushing_the_database(alice: User, event: AuditEvent) -> None:
    before = row_of(event)
    with pytest.raises(Exception, match="couldn't be flushed") as raised:
        call_command("flush", interactive=False, verbosity=0)
    assert "append-only" in str(raised.value.__cause__)
    assert row_of(event) == before
    assert User.objects.exists(), "all or nothing"


def test_rows_are_still_added(event: AuditEvent) -> None:
    audit.record("key.revoked", actor_id=None)
    assert AuditEvent.objects.count() == 2


# --- The words -------------------------------------------------------------------------------


def test_every_action_has_a_description() -> None:
    registered = audit.actions()
    assert registered
    for action, description in registered.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", action), action
        assert len(action) <= 64
        assert re.fullmatch(r"[A-Z].{5,}\.", description), description


def test_the_list_of_actions_is_a_copy() -> None:
    audit.actions()["key.forged"] = "No."
    assert "key.forged" not in audit.actions()


def recorded_actions() -> Iterator[tuple[str, str]]:
    """`(where, action)` for every call of audit.record in the product's own code."""
    root = Path(django_settings.BASE_DIR)
    for app in apps.get_app_configs():
        if not Path(app.path).is_relative_to(root) or ".venv" in Path(app.path).parts:
            continue
        for path in Path(app.path).rglob("*.py"):
            if not {"tests", "migrations"} & set(path.parts):
                yield from _recorded_in(path)


def _recorded_in(path: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) != "audit.record":
                continue
            where = f"{path.name}:{call.lineno}"
            actions = _words(call.args[0], function)
            assert actions, f"{where}: which action this is cannot be read from the code"
            yield from ((where, action) for action in actions)


def _words(argument: ast.expr, function: ast.FunctionDef) -> list[str]:
    """The constants that the argument, or the name that it is, can be in this function."""
    sources: list[ast.expr] = [argument]
    if isinstance(argument, ast.Name):
        sources = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == argument.id
        ]
    results = [branch for source in sources for branch in _branches(source)]
    return [node.value for node in results if isinstance(node, ast.Constant)]  # type: ignore[misc]


def _branches(source: ast.expr) -> list[ast.expr]:
    """`a if … else b`, `{…: a, …: b}[…]`, or the expression itself."""
    if isinstance(source, ast.IfExp):
        return [source.body, source.orelse]
    if isinstance(source, ast.Subscript) and isinstance(source.value, ast.Dict):
        return source.value.values
    return [source]


def test_every_recorded_action_is_registered_and_every_registered_one_recorded() -> None:
    recorded = list(recorded_actions())
    unknown = [(where, action) for where, action in recorded if action not in audit.actions()]
    assert unknown == []
    assert {action for _, action in recorded} == set(audit.actions())


# --- What was written before digests covered ids ------------------------------------------------


def test_rows_of_before_get_a_digest_over_their_id_unless_theirs_does_not_hold() -> None:
    migration = importlib.import_module("monitoring.migrations.0007_audit_triggers")
    for _ in range(3):
        audit.record("key.created", actor_id=uuid.uuid4(), detail={"b": 1, "a": ["x"]})
    append_only.permit_changes(connection)
    good, bad, _ = AuditEvent.objects.order_by("id")
    for event in (good, bad):
        said = [
            *(digests.moment(event.at), event.action, str(event.actor_id), event.subject_id),
            *(event.detail, event.request_id),
        ]
        old = migration._keyed(said)
        AuditEvent.objects.filter(pk=event.pk).update(digest=old)
    AuditEvent.objects.filter(pk=bad.pk).update(action="key.revoked")
    migration._cover_ids(apps, None)
    holds = [
        bytes(event.digest) == digests.digest(event) for event in AuditEvent.objects.order_by("id")
    ]
    assert holds == [True, False, True]
