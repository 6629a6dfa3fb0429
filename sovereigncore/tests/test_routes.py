"""Every route stands in the permission table, and answers as the table says."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.authentication import SessionCredential
from accounts.models import APIKey, Link, Purpose, Session, User
from accounts.services import create_key, set_active
from conftest import PASSWORD
from consciousness.models import Conversation, Memory, ModelAlias, Query, Upstream
from monitoring import audit
from monitoring.models import AuditArchive, AuditEvent, AuditSeal, BackupRecord
from sovereigncore.tests.permission_table import (
    ADMIN_PAGES,
    CALLERS,
    METHODS,
    ROUTES,
    UNNAMED,
)
from tests.counters import forget_counts
from tests.stub_engine import MODEL, StubEngine

# How a caller is recognized does not depend on the database.
CARRIERS = ["token", pytest.param("key", marks=pytest.mark.once)]
IDS = ("model", "query", "memory", "conversation", "session", "key", "link", "name")


def routes(resolver: URLResolver, prefix: str = "", space: str = "") -> Iterator[tuple[str, str]]:
    """The name, or "" for none, and the pattern of every route."""
    for entry in resolver.url_patterns:
        pattern = prefix + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield (f"{space}{entry.name}" if entry.name else ""), pattern
        else:
            yield from routes(entry, pattern, f"{entry.namespace}:" if entry.namespace else space)


def trail() -> dict[str, str]:
    """An event, a seal and an archive of the audit trail."""
    audit.record("user.registered", actor_id=None)
    said: dict[str, Any] = {"last_id": 1, "count": 1, "chain": b"", "digest": b""}
    seal = AuditSeal.objects.create(
        id=1, first_id=1, ids=[[1, 1]], sealed_at=timezone.now(), contents=b"", **said
    )
    archive = AuditArchive.objects.create(
        first_seal=1,
        last_seal=1,
        file_name="a.jsonl.gz",
        file_digest=b"",
        size_bytes=1,
        archived_at=timezone.now(),
        **said,
    )
    event = AuditEvent.objects.latest("id")
    return {"event": str(event.pk), "seal": str(seal.pk), "archive": str(archive.pk)}


@pytest.fixture
def ids(bob: User) -> dict[str, str]:
    """Objects of somebody else than whoever asks, by the words in the table's paths."""
    now = timezone.now()
    query = Query.objects.create(
        user=bob,
        temperature=0,
        max_tokens=1,
        lease_expires_at=now,
        finished_at=now,
        status="failed",
    )
    session = Session.objects.create(
        user=bob, refresh_digest=b"", scope="read", epoch=0, expires_at=now
    )
    key = APIKey.objects.create(user=bob, name="bob's", digest=b"b", hint="sk-", scope="read")
    return {
        "user": str(bob.pk),
        "session": str(session.pk),
        "query": str(query.pk),
        "key": str(key.pk),
        "conversation": str(Conversation.objects.create(user=bob, title="bob's").pk),
        "memory": str(Memory.objects.create(user=bob, text="a fact").pk),
        "name": bob.username,
        "model": MODEL,
        "link": str(Link.objects.all().issue(Purpose.INVITE).pk),
        "engine": str(Upstream.objects.create(name="gpu", url="http://10.0.0.3").pk),
        **trail(),
        "backup": str(
            BackupRecord.objects.create(
                file_name="b", started_at=timezone.now(), finished_at=timezone.now()
            ).pk
        ),
        "alias": str(ModelAlias.objects.create(alias="gpt-4o", model="stub-model").pk),
    }


@pytest.fixture
def caller(client_of: Callable[..., APIClient], db: None) -> Callable[..., APIClient]:
    """A fresh client of each kind in CALLERS, with a token or an API key of the same scopes."""

    def build(kind: str, carrier: str = "token") -> APIClient:
        if kind == "anonymous":
            return APIClient()
        user = User.objects.filter(username=f"a-{kind}").first() or User.objects.create_user(
            f"a-{kind}", f"{kind}@example.org", PASSWORD, is_staff=kind == "staff"
        )
        if kind == "disabled":
            set_active(user, is_active=True)
        user.refresh_from_db()
        client = client_of(user, scope="read" if kind == "reader" else "")
        if carrier == "key":
            APIKey.objects.for_user(user).delete()
            scopes = frozenset({"read"}) if kind == "reader" else user.scopes
            session = Session.objects.for_user(user).latest("created_at")
            by = SessionCredential(session_id=session.pk, scopes=scopes)
            _, key = create_key(user, by=by, name="the same", scopes=scopes, expires_at=None)
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
        if kind == "disabled":
            set_active(user, is_active=False)
        return client

    return build


def test_every_route_is_in_the_table_and_the_table_has_no_other() -> None:
    found = list(routes(get_resolver()))
    assert {name for name, _ in found if name} == set(ROUTES) | set(ADMIN_PAGES)
    assert {pattern for name, pattern in found if not name} == UNNAMED


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("kind", CALLERS)
def test_every_route_answers_as_the_table_says(
    kind: str,
    carrier: str,
    caller: Callable[..., APIClient],
    ids: dict[str, str],
    stub: StubEngine,
) -> None:
    client = caller(kind, carrier)
    wrong = []
    for name, route in ROUTES.items():
        for method in METHODS:
            forget_counts("ratelimit")
            response = client.generic(
                method, route.path.format(**ids), "{}", content_type="application/json"
            )
            expected = route.expected(method)[CALLERS.index(kind)]
            if response.status_code != expected:
                wrong.append(f"{method} {name}: {response.status_code}, expected {expected}")
            if response.status_code == 204:  # it may have ended itself
                client = caller(kind, carrier)
    assert wrong == []


def told_by(response: Any) -> tuple[int, dict[str, str], bytes]:
    """All that a caller can learn from an answer, but for the id of the request."""
    request_id = response["X-Request-ID"]
    headers = {**response.headers, "X-Request-ID": ""}
    return response.status_code, headers, response.content.replace(request_id.encode(), b"")


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("kind", ["user", "reader", "staff"])
def test_somebody_elses_object_is_one_that_does_not_exist(
    kind: str,
    carrier: str,
    caller: Callable[..., APIClient],
    ids: dict[str, str],
    frozen_time: object,
) -> None:
    nowhere = {**dict.fromkeys(ids, str(uuid.uuid4())), "name": "nobody"}
    of_nobody = {name: route.path for name, route in ROUTES.items() if "{" in route.path}
    if kind == "staff":  # they administer accounts and invitations, and see no objects of others
        of_nobody = {
            name: path
            for name, path in of_nobody.items()
            if not {"{name}", "{link}"} & set(path.split("/"))
        }
    assert of_nobody
    client = caller(kind, carrier)
    different = []
    for name, path in of_nobody.items():
        for method in METHODS:
            answers = []
            for known in (ids, nowhere):
                forget_counts("ratelimit")
                answers.append(
                    told_by(
                        client.generic(
                            method, path.format(**known), "{}", content_type="application/json"
                        )
                    )
                )
            if answers[0] != answers[1]:
                different.append(f"{method} {name}")
    assert different == []


@pytest.mark.parametrize("kind", ["anonymous", "user"])
def test_a_trailing_slash_changes_nothing_and_redirects_nobody(
    kind: str, caller: Callable[..., APIClient], ids: dict[str, str], stub: StubEngine
) -> None:
    client = caller(kind)
    wrong = []
    for name, route in ROUTES.items():
        if name in ("home", "to-admin", "logout"):
            continue
        for method in ("GET", "POST"):
            forget_counts("ratelimit")
            path = route.path.format(**ids) + "/"
            response = client.generic(method, path, "{}", content_type="application/json")
            expected = route.expected(method)[CALLERS.index(kind)]
            if response.status_code != expected:
                wrong.append(f"{method} {path}: {response.status_code}, expected {expected}")
    assert wrong == []


@pytest.mark.parametrize("ending", ["//", "%0a", "/%0a", ".json", "%00", " "])
@pytest.mark.parametrize("path", ["/live", "/api/v1/auth/me", "/api/v1/auth/token"])
def test_no_other_spelling_is_a_route(as_alice: APIClient, path: str, ending: str) -> None:
    assert as_alice.get(path + ending).status_code == 404


def test_every_admin_page_answers_as_the_table_says(
    alice: User, staff: User, ids: dict[str, str]
) -> None:
    helper = User.objects.create_user("helper", "helper@example.org", PASSWORD, is_staff=True)
    wrong = []
    for index, user in enumerate((None, alice, helper, staff)):
        client = Client()
        if user is not None:
            client.force_login(user)
        for name, page in ADMIN_PAGES.items():
            response = client.get(page.path.format(**ids))
            if response.status_code != page.statuses[index]:
                wrong.append(f"{name} for {user}: {response.status_code}")
    assert wrong == []


def test_a_token_opens_no_admin_page(as_staff: APIClient) -> None:
    assert as_staff.get("/admin/").status_code == 302


def test_a_browser_session_opens_no_api_route(staff: User) -> None:
    browser = Client()
    browser.force_login(staff)
    for name, route in ROUTES.items():
        anonymous = route.expected("GET")[0]
        if anonymous == 401:
            path = route.path.format(**dict.fromkeys(IDS, "0" * 36))
            assert browser.get(path).status_code == 401, name


@pytest.mark.parametrize(
    ("kind", "status"), [("anonymous", 401), ("user", 403), ("reader", 403), ("staff", 200)]
)
def test_the_api_description_is_for_staff_where_docs_are_off(
    settings: Settings, caller: Callable[..., APIClient], kind: str, status: int
) -> None:
    settings.API_DOCS = False
    assert caller(kind).get("/api/schema").status_code == status


@pytest.mark.parametrize(
    "authorization", ["Bearer stale", "Basic YTpi", "Bearer", "\xff", "Bearer " + "x" * 8000]
)
def test_public_routes_ignore_a_stale_credential(
    anonymous: APIClient, stub: StubEngine, db: None, authorization: str
) -> None:
    for name, route in ROUTES.items():
        if route.expected("GET") == (200,) * 5:
            response = anonymous.get(route.path, HTTP_AUTHORIZATION=authorization)
            assert response.status_code == 200, name
    for path, status in (("auth/token", 400), ("auth/token/refresh", 400), ("users/register", 422)):
        response = anonymous.post(f"/api/v1/{path}", {}, HTTP_AUTHORIZATION=authorization)
        assert response.status_code == status, path
