"""The audit trail in the admin site: searched, and never changed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import User
from conftest import PASSWORD
from monitoring import audit, read_only_admin
from monitoring.audit.sealing import seal_audit
from monitoring.models import AuditEvent, AuditSeal

EVENTS, SEALS = "/admin/monitoring/auditevent/", "/admin/monitoring/auditseal/"
THING = uuid.UUID(int=7)


@pytest.fixture
def site(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def events(alice: User, bob: User) -> dict[str, AuditEvent]:
    audit.record("key.created", actor_id=alice.pk, subject_id=THING, detail={"scopes": ["read"]})
    audit.record("key.revoked", actor_id=bob.pk, subject_id=bob.pk)
    audit.record("user.disabled", actor_id=None, subject_id=alice.pk)
    return {event.action: event for event in AuditEvent.objects.all()}


def shown(client: Client, **parameters: str) -> set[str]:
    """The actions of the listed events."""
    response = client.get(EVENTS, parameters)
    assert response.status_code == 200
    return {event.action for event in response.context["cl"].result_list}


def test_the_list_shows_ids_and_no_names(site: Client, events: Any, alice: User) -> None:
    html = str(site.get(EVENTS).content, "utf-8")
    assert str(alice.pk) in html
    for word in ("alice", "alice@example.org"):
        assert word not in html


@pytest.mark.parametrize(
    ("words", "actions"),
    [
        ("{alice}", {"key.created", "user.disabled"}),
        ("alice", {"key.created", "user.disabled"}),
        ("ALICE", {"key.created", "user.disabled"}),
        ("bob", {"key.revoked"}),
        (str(THING), {"key.created"}),
        (str(THING).upper(), {"key.created"}),
        ("alice {thing}", {"key.created"}),
        ("alice bob", set()),
        ("nobody", set()),
        ("ali", set()),
    ],
)
def test_search(site: Client, events: Any, alice: User, words: str, actions: set[str]) -> None:
    assert shown(site, q=words.format(alice=alice.pk, thing=THING)) == actions


def test_search_by_request(site: Client) -> None:
    login = {"username": "grace", "password": PASSWORD}
    response = Client().post("/api/v1/auth/token", login, content_type="application/json")
    assert response.status_code == 200
    assert shown(site, q=response["X-Request-ID"]) == {"session.begun"}


def test_filters(site: Client, events: Any) -> None:
    assert shown(site, action="key.created") == {"key.created"}
    assert shown(site, at__gte="2020-01-01 00:00:00Z", at__lt="2020-01-02 00:00:00Z") == set()
    assert shown(site, seal__isnull="True") == {"key.created", "key.revoked", "user.disabled"}


@pytest.mark.parametrize("number", ["event", "seal"])
def test_one_is_shown_whole_and_cannot_be_changed(site: Client, events: Any, number: str) -> None:
    seal_audit()
    event, seal = events["key.created"], AuditSeal.objects.get()
    row = {"event": event, "seal": seal}[number]
    path = {"event": EVENTS, "seal": SEALS}[number] + f"{row.pk}/change/"
    html = str(site.get(path).content, "utf-8")
    assert bytes(row.digest).hex() in html
    assert 'name="_save"' not in html
    for url in (path, path.replace("/change/", "/delete/"), SEALS + "add/", EVENTS + "add/"):
        assert site.post(url, {"post": "yes"}).status_code == 403
    assert AuditEvent.objects.count() == 3
    assert AuditSeal.objects.count() == 1


def test_no_action_is_offered(site: Client, events: Any) -> None:
    form = {"action": "delete_selected", "_selected_action": [str(events["key.created"].pk)]}
    site.post(EVENTS, {**form, "post": "yes"})
    assert AuditEvent.objects.count() == 3
    assert "delete_selected" not in str(site.get(EVENTS).content, "utf-8")


def test_staff_without_the_right_does_not_see_it(db: None) -> None:
    helper = User.objects.create_user("helper", "helper@example.org", PASSWORD, is_staff=True)
    client = Client()
    client.force_login(helper)
    assert client.get(EVENTS).status_code == 403
    helper.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    assert client.get(EVENTS).status_code == 200
    assert client.get(SEALS).status_code == 403


def test_a_page_of_a_large_trail_counts_no_further_than_anybody_pages(
    site: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_only_admin, "MOST_COUNTED", 120)
    for _ in range(130):
        audit.record("key.created", actor_id=None)
    with CaptureQueriesContext(connection) as captured:
        response = site.get(EVENTS)
    assert response.context["cl"].paginator.count == 120
    counts = [query["sql"] for query in captured if "COUNT(" in query["sql"].upper()]
    trail = [sql for sql in counts if "monitoring_auditevent" in sql]
    assert trail
    assert all("LIMIT 120" in sql for sql in trail)
    assert not [query for query in captured if "DISTINCT" in query["sql"].upper()]


def test_it_is_in_the_menu(site: Client, db: None) -> None:
    html = str(site.get(reverse("admin:index")).content, "utf-8")
    for path in (EVENTS, SEALS, "/admin/monitoring/auditarchive/"):
        assert path in html
