"""Conversations and memory on the bundled model itself, through the API."""

from __future__ import annotations

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from consciousness.tests.asking import ask
from consciousness.tests.running_engine import RunningEngine

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("model")]


@pytest.fixture
def talker(as_alice: APIClient, settings: Settings, engine: RunningEngine) -> APIClient:
    settings.ENGINE_URL = f"http://127.0.0.1:{engine.port}"
    settings.ENGINE_API_KEY = engine.http.headers["Authorization"].partition(" ")[2]
    return as_alice


def said(client: APIClient, prompt: str, **more: object) -> dict[str, object]:
    response = ask(client, prompt, temperature=0, cache=False, max_tokens=40, **more)
    assert response.status_code == 200, response.content
    body: dict[str, object] = response.json()
    return body


def test_it_knows_the_dog_that_it_was_told_of_another_day(talker: APIClient) -> None:
    said(talker, "Remember that my dog is called Rex.")
    answer = said(talker, "What is my dog called?")
    assert "Rex" in str(answer["response"])
    assert answer["memories_used"]


def test_it_knows_what_was_said_earlier(talker: APIClient) -> None:
    begun = said(talker, "My cat is called Tom.", conversation="new")
    answer = said(talker, "What is my cat called?", conversation=begun["conversation"])
    assert "Tom" in str(answer["response"])


def test_of_each_turn_more_is_still_known_to_the_engine(talker: APIClient) -> None:
    conversation: object = "new"
    cached = []
    for number in range(4):
        body = said(talker, f"Turn {number}: say something short.", conversation=conversation)
        conversation = body["conversation"]
        cached.append(body["usage"]["cached_tokens"])  # type: ignore[index]
    assert cached[1:] == sorted(set(cached[1:]))
    assert cached[-1] > cached[1] > 0
