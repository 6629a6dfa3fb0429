"""Queries in the admin site: who asked, what it cost, and never what was said."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from consciousness.models import Query, QueryContent
from consciousness.tests.asking import a_query

LIST = "/admin/consciousness/query/"
PROMPT, RESPONSE = "canary-prompt-of-alice", "canary-response-to-alice"


@pytest.fixture
def query(alice: User) -> Query:
    query = a_query(alice, request_id="trace-abcdef", prompt_tokens=11, completion_tokens=2222)
    QueryContent.objects.create(query=query, prompt=PROMPT, response=RESPONSE)
    return query


@pytest.fixture
def site(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return str(response.content, "utf-8")


def test_the_list_tells_what_was_used_and_not_what_was_said(site: Client, query: Query) -> None:
    html = page(site, LIST)
    for shown in ("alice", "2222", "completed", "stub-model"):
        assert shown in html
    assert "canary" not in html


def test_one_query_is_shown_without_its_text_and_cannot_be_changed(
    site: Client, query: Query
) -> None:
    path = f"{LIST}{query.id}/change/"
    html = page(site, path)
    assert "2222" in html
    assert "canary" not in html
    assert "<textarea" not in html
    assert 'name="_save"' not in html
    assert site.post(path, {"status": "failed"}).status_code == 403
    query.refresh_from_db()
    assert query.status == "completed"


def test_what_callers_took_for_a_model_is_no_choice_of_a_filter(
    site: Client, alice: User, query: Query
) -> None:
    a_query(alice, status="failed", error_code="model_not_found", model="whatever-i-like")
    assert "whatever-i-like" not in page(site, f"{LIST}?status__exact=completed")
    found = page(site, f"{LIST}?q=stub-model")
    assert str(query.id) in found
    assert "whatever-i-like" not in found


def test_nothing_is_added_or_deleted(site: Client, query: Query) -> None:
    assert site.get(f"{LIST}add/").status_code == 403
    assert site.post(f"{LIST}{query.id}/delete/", {"post": "yes"}).status_code == 403
    data = {"action": "delete_selected", "_selected_action": [str(query.id)], "post": "yes"}
    site.post(LIST, data)
    assert Query.objects.filter(id=query.id).exists()


@pytest.mark.parametrize("term", ["alice", "ALI", "trace-abcdef"])
def test_it_is_found_by_user_and_request(site: Client, query: Query, term: str) -> None:
    assert str(query.id) in page(site, f"{LIST}?q={term}")


@pytest.mark.parametrize("term", [PROMPT, RESPONSE, "canary", "bob"])
def test_it_is_not_found_by_what_was_said(site: Client, query: Query, term: str) -> None:
    assert str(query.id) not in page(site, f"{LIST}?q={term}")


@pytest.mark.parametrize("looked_up", ["content__prompt__contains", "content__response"])
def test_texts_cannot_be_guessed_by_filters(site: Client, query: Query, looked_up: str) -> None:
    assert site.get(LIST, {looked_up: "canary"}).status_code == 400


def test_texts_have_no_pages_of_their_own(site: Client, query: Query) -> None:
    assert site.get("/admin/consciousness/querycontent/").status_code == 404
    assert "canary" not in page(site, "/admin/")
    assert "canary" not in page(site, f"{LIST}{query.id}/history/")


def test_filters_and_dates(site: Client, query: Query) -> None:
    assert str(query.id) in page(site, f"{LIST}?status__exact=completed&model=stub-model")
    assert str(query.id) not in page(site, f"{LIST}?status__exact=failed")
    assert str(query.id) in page(site, f"{LIST}?created_at__year={query.created_at.year}")


def test_the_number_of_database_queries_does_not_grow(site: Client, query: Query) -> None:
    def count_queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(site, LIST)
        return len(captured)

    before = count_queries()
    for number in range(10):
        user = User.objects.create_user(f"user{number}", f"{number}@example.org", "x")
        a_query(user)
    assert count_queries() == before


def test_members_and_staff_without_the_permission_are_kept_out(alice: User, query: Query) -> None:
    client = Client()
    client.force_login(alice)
    assert client.get(LIST).status_code == 302  # to the login
    alice.is_staff = True
    alice.save(update_fields=["is_staff"])
    client.force_login(alice)
    assert client.get(LIST).status_code == 403
    alice.user_permissions.add(Permission.objects.get(codename="view_query"))
    assert "canary" not in page(client, LIST)
