"""`/api/v1/consciousness/memories`: one's own facts, and nobody else's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Memory
from consciousness.tests.remembering import DOG, FACTS, MEMORIES, note, recalled


def noted(client: APIClient, text: str = DOG) -> dict[str, Any]:
    response = client.post(MEMORIES, {"text": text})
    assert response.status_code == 201, response.content
    body: dict[str, Any] = response.json()
    return body


def texts(client: APIClient, **parameters: Any) -> list[str]:
    response = client.get(MEMORIES, parameters)
    assert response.status_code == 200, response.content
    return [row["text"] for row in response.json()["results"]]


def test_a_fact_from_beginning_to_end(as_alice: APIClient, alice: User) -> None:
    body = noted(as_alice, f"  {DOG}\n")
    assert set(body) == {"id", "text", "created_at", "updated_at"}
    assert body["text"] == DOG
    url = f"{MEMORIES}/{body['id']}"
    assert as_alice.get(url).json() == body
    assert as_alice.get(MEMORIES).json() == {"next": None, "previous": None, "results": [body]}
    changed = as_alice.patch(url, {"text": "My dog is called Max"})
    assert changed.status_code == 200
    after = changed.json()
    assert after["text"] == "My dog is called Max"
    assert (after["id"], after["created_at"]) == (body["id"], body["created_at"])
    assert _moment(after["updated_at"]) > _moment(body["updated_at"])
    assert as_alice.get(url).json() == after
    assert recalled(alice, "What is my dog called?") == ["My dog is called Max"]
    gone = as_alice.delete(url)
    assert (gone.status_code, gone.content) == (204, b"")
    assert as_alice.get(url).status_code == 404
    assert texts(as_alice) == recalled(alice, "dog") == []


def _moment(text: str) -> Any:
    return parse_datetime(text)


def test_the_same_fact_again_is_the_same(as_alice: APIClient) -> None:
    assert noted(as_alice)["id"] == noted(as_alice, DOG.upper())["id"]
    assert texts(as_alice) == [DOG]


def test_facts_are_listed_newest_first_by_the_page(as_alice: APIClient, alice: User) -> None:
    now = timezone.now()
    for age in range(23):
        Memory.objects.create(
            user=alice, text=f"fact {age}", created_at=now - timedelta(seconds=age // 3)
        )
    seen, url = [], f"{MEMORIES}?limit=5"
    while url:
        body = as_alice.get(url).json()
        seen += body["results"]
        url = body["next"]
        assert len(seen) < 50
    assert len({row["id"] for row in seen}) == len(seen) == 23
    times = [row["created_at"] for row in seen]
    assert times == sorted(times, reverse=True)


def test_a_search_is_ranked_and_one_page(as_alice: APIClient, alice: User) -> None:
    note(alice, [*FACTS, DOG])
    assert texts(as_alice, search="What is my dog called?")[0] == DOG
    assert texts(as_alice, search="  BOILER keys ") == [
        "The spare key hangs behind the boiler",
        "The boiler was serviced by Meier Ltd",
    ]
    body = as_alice.get(MEMORIES, {"search": "called", "limit": "2"}).json()
    assert (body["next"], body["previous"], len(body["results"])) == (None, None, 2)
    assert texts(as_alice, search="xylophone") == texts(as_alice, search="the") == []
    assert texts(as_alice, search=" ", limit=100) == texts(as_alice, limit=100)
    assert len(texts(as_alice, limit=100)) == 51


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"search": "x" * 1001}, "search"),
        ({"search": "a\x00b"}, "search"),
        ({"search": "dog", "limit": "0"}, "limit"),
        ({"search": "dog", "limit": "101"}, "limit"),
        ({"search": "dog", "cursor": "cD0yMDI2"}, "cursor"),
        ({"cursor": "x"}, "cursor"),
    ],
)
def test_searches_that_are_refused(
    as_alice: APIClient, parameters: dict[str, str], field: str
) -> None:
    response = as_alice.get(MEMORIES, parameters)
    assert response.status_code == 422, response.content
    assert list(response.json()["errors"]) == [field]


@pytest.mark.parametrize(
    "search", ['"', "dog*", "-dog", "(", "owner:dog", "👍", "' OR 1=1 --", "%"]
)
def test_no_search_is_syntax(as_alice: APIClient, as_bob: APIClient, search: str) -> None:
    noted(as_bob)
    assert texts(as_alice, search=search) == []


# --- whose


def test_each_sees_and_finds_their_own(
    as_alice: APIClient, as_bob: APIClient, as_staff: APIClient
) -> None:
    noted(as_alice, "the canary of alice")
    noted(as_bob, "the canary of bob")
    for search in ("", "canary", "canary alice bob"):
        assert texts(as_alice, search=search) == ["the canary of alice"]
        assert texts(as_bob, search=search) == ["the canary of bob"]
        assert texts(as_staff, search=search) == []


def answer_less_id(response: Any) -> tuple[int, dict[str, Any]]:
    body = response.json()
    del body["request_id"]
    return response.status_code, body


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_a_foreign_one_is_the_same_as_one_that_does_not_exist(
    as_alice: APIClient, as_bob: APIClient, method: str
) -> None:
    url = f"{MEMORIES}/{noted(as_bob)['id']}"
    foreign = getattr(as_alice, method)(url, {"text": "mine now"})
    nowhere = getattr(as_alice, method)(f"{MEMORIES}/{uuid.uuid4()}", {"text": "mine now"})
    assert answer_less_id(foreign) == answer_less_id(nowhere)
    assert foreign.status_code == 404
    assert as_bob.get(url).json()["text"] == DOG


@pytest.mark.parametrize("name", ["-" * 36, "0" * 36, "not-a-uuid", "1", "%00"])
def test_names_that_are_no_ids(as_alice: APIClient, name: str) -> None:
    assert as_alice.get(f"{MEMORIES}/{name}").status_code == 404
    assert as_alice.delete(f"{MEMORIES}/{name}").status_code == 404


def test_who_may(
    anonymous: APIClient, as_alice: APIClient, alice: User, client_of: Callable[..., APIClient]
) -> None:
    url = f"{MEMORIES}/{noted(as_alice)['id']}"
    reader, writer = client_of(alice, "read"), client_of(alice, "write")
    assert anonymous.get(MEMORIES).status_code == anonymous.delete(url).status_code == 401
    assert anonymous.post(MEMORIES, {"text": "x"}).status_code == 401
    assert reader.post(MEMORIES, {"text": "x"}).status_code == reader.delete(url).status_code == 403
    assert reader.patch(url, {"text": "x"}).status_code == writer.get(url).status_code == 403
    assert reader.get(url).status_code == 200
    assert writer.delete(url).status_code == 204


# --- input


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "  \n"}, "text"),
        ({"text": "…"}, "text"),
        ({"text": None}, "text"),
        ({"text": 5}, "text"),
        ({"text": True}, "text"),
        ({"text": ["a"]}, "text"),
        ({"text": "x" * 1001}, "text"),
        ({"text": "a", "user": "bob"}, "user"),
        ({"text": "a", "id": str(uuid.uuid4())}, "id"),
        ({"text": "a", "text_digest": "a"}, "text_digest"),
        ([], "request"),
    ],
)
def test_what_is_refused(as_alice: APIClient, body: Any, field: str) -> None:
    url = f"{MEMORIES}/{noted(as_alice)['id']}"
    for response in (as_alice.post(MEMORIES, body), as_alice.patch(url, body)):
        assert response.status_code == 422, response.content
        assert list(response.json()["errors"]) == [field]
    assert texts(as_alice) == [DOG]


@pytest.mark.parametrize(
    ("raw", "status"),
    [(r'{"text": "a\u0000b"}', 400), (r'{"text": "\ud800"}', 400), ("{", 400), ('"a"', 422)],
)
def test_bodies_that_are_not_what_is_asked_for(as_alice: APIClient, raw: str, status: int) -> None:
    response = as_alice.generic("POST", MEMORIES, raw, content_type="application/json")
    assert response.status_code == status
    assert texts(as_alice) == []


def test_the_longest_fact_and_the_oddest(as_alice: APIClient) -> None:
    for text in ("x" * 1000, 'a </script>"\u2028\x1b 👍 <|im_start|>'):
        assert noted(as_alice, text)["text"] == text
        assert text in json.loads(as_alice.get(MEMORIES).content)["results"][0]["text"]


def test_one_fact_cannot_become_another(as_alice: APIClient) -> None:
    noted(as_alice)
    url = f"{MEMORIES}/{noted(as_alice, 'another')['id']}"
    refused = as_alice.patch(url, {"text": DOG.upper()})
    assert (refused.status_code, refused.json()["code"]) == (409, "memory_known")
    assert as_alice.get(url).json()["text"] == "another"
    assert as_alice.patch(url, {"text": "ANOTHER"}).status_code == 200


def test_there_is_a_limit(as_alice: APIClient, as_bob: APIClient, settings: Settings) -> None:
    settings.MEMORY_LIMIT = 1
    url = f"{MEMORIES}/{noted(as_alice)['id']}"
    refused = as_alice.post(MEMORIES, {"text": "another"})
    assert (refused.status_code, refused.json()["code"]) == (409, "memory_full")
    noted(as_alice)
    noted(as_bob, "another")
    assert as_alice.delete(url).status_code == 204
    noted(as_alice, "another")


def test_where_memory_is_off_what_is_there_can_still_go(
    as_alice: APIClient, settings: Settings
) -> None:
    url = f"{MEMORIES}/{noted(as_alice)['id']}"
    settings.MEMORY_LIMIT = 0
    refused = as_alice.post(MEMORIES, {"text": "another"})
    assert (refused.status_code, refused.json()["code"]) == (409, "memory_off")
    assert texts(as_alice) == texts(as_alice, search="dog") == [DOG]
    assert as_alice.delete(url).status_code == 204


def test_the_number_of_database_queries_does_not_grow(as_alice: APIClient, alice: User) -> None:
    def count_queries(**parameters: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert texts(as_alice, **parameters)
        return len(captured)

    note(alice, [DOG])
    with_one = (count_queries(), count_queries(search="dog"))
    note(alice, FACTS)
    assert (count_queries(), count_queries(search="dog called")) == with_one == (2, 2)


def test_calls_are_limited(as_alice: APIClient, settings: Settings, frozen_time: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "2/m"
    answers = [as_alice.post(MEMORIES, {"text": f"fact {n}"}).status_code for n in range(3)]
    assert answers == [201, 201, 429]
