"""`/v1/models`: what can be asked."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from rest_framework.test import APIClient

from consciousness import engines
from consciousness.engine import Model
from consciousness.tests.openai_asking import MODELS, error_of
from tests.stub_engine import MODEL, StubEngine


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids as they are found in the wild."""
    ids = ["a/b", "org/model:8b-q4", "with space", "models", "m/", "%2e", "größe"]
    known = [Model(id=name, owned_by="", context_tokens=None, created=7) for name in ids]
    monkeypatch.setattr(engines, "catalogue", lambda: known)
    return ids


def test_the_list_is_the_protocols(as_alice: APIClient, stub: StubEngine) -> None:
    assert as_alice.get(MODELS).json() == {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "llamacpp"}],
    }


def test_one_of_them(as_alice: APIClient, stub: StubEngine) -> None:
    (listed,) = as_alice.get(MODELS).json()["data"]
    assert as_alice.get(f"{MODELS}/{MODEL}").json() == listed


def test_ids_of_every_kind_are_found(as_alice: APIClient, catalogue: list[str]) -> None:
    listed = [entry["id"] for entry in as_alice.get(MODELS).json()["data"]]
    assert listed == catalogue
    for name in catalogue:
        if name.endswith("/"):
            continue  # the slash at the end is the route's
        found = as_alice.get(f"{MODELS}/{quote(name, safe='')}")
        assert found.status_code == 200, name
        assert found.json() == {
            "id": name,
            "object": "model",
            "created": 7,
            "owned_by": "unknown",
        }


@pytest.mark.parametrize("name", ["no-such", "a", "a/b/c", "A/B", "x" * 200, "//", "..", "a%00b"])
def test_another_one_is_a_404(as_alice: APIClient, catalogue: list[str], name: str) -> None:
    error = error_of(as_alice.get(f"{MODELS}/{name}"), 404, "model_not_found")
    assert error["param"] == "model"


def test_an_id_that_is_longer_than_any_is_no_route(as_alice: APIClient) -> None:
    error_of(as_alice.get(f"{MODELS}/{'x' * 201}"), 404, "not_found")


@pytest.mark.parametrize("path", [MODELS, f"{MODELS}/x"])
def test_without_an_engine_it_cannot_be_told(
    as_alice: APIClient, stub: StubEngine, path: str
) -> None:
    stub.stop()
    response = as_alice.get(path)
    assert response["Retry-After"] == "2"
    assert error_of(response, 503, "engine_unavailable")["type"] == "server_error"
