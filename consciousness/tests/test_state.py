"""`/api/v1/consciousness/state` and `/status`: what the platform says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
from django.utils.dateparse import parse_datetime
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.tests.asking import STATE, STATUS, ask_streamed, chunks, hang_up
from monitoring.awareness import awareness
from monitoring.governor import GovernorState, Mode
from monitoring.sensors import HostReadings, silicon_id
from tests.stub_engine import MODEL, Behaviour, StubEngine


def test_the_fields_of_state(as_alice: APIClient, stub: StubEngine, settings: Settings) -> None:
    response = as_alice.get(STATE)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    body = response.json()
    assert set(body) == {
        *("silicon_id", "consciousness_level", "thermal_state", "cognitive_mode", "reasons"),
        *("scope", "readings", "engine", "engines", "queue", "timestamp"),
    }
    assert body["silicon_id"] == silicon_id()
    assert 0 <= body["consciousness_level"] <= 1
    assert (body["cognitive_mode"], body["reasons"]) == ("full", [])
    assert set(body["readings"]) == {field.name for field in fields(HostReadings)}
    assert None not in body["readings"].values()  # "unknown" is a word
    assert body["engine"] == {"status": "up", "models": [MODEL]}
    assert body["queue"] == {
        "slots": settings.ENGINE_SLOTS,
        "busy": 0,
        "waiting": 0,
        "limit": settings.QUEUE_LIMIT,
    }
    assert parse_datetime(body["timestamp"]) is not None


def test_the_fields_of_status(as_alice: APIClient, stub: StubEngine) -> None:
    response = as_alice.get(STATUS)
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"status", "timestamp", "engine", "queue"}
    assert body["status"] == "operational"
    assert body["engine"] == {"status": "up", "models": [MODEL]}
    assert parse_datetime(body["timestamp"]) is not None


def test_a_dead_engine_is_seen_though_its_models_are_still_known(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert as_alice.get(STATE).json()["engine"]["status"] == "up"
    stub.stop()
    monkeypatch.setattr(awareness, "_newest", None)  # a second later
    state = as_alice.get(STATE).json()
    assert (state["cognitive_mode"], state["reasons"]) == ("survival", ["engine down"])
    down = {"status": "down", "code": "engine_unavailable", "models": []}
    assert state["engine"] == down
    status = as_alice.get(STATUS).json()
    assert (status["status"], status["engine"]) == ("degraded", down)

    stub.start()
    monkeypatch.setattr(awareness, "_newest", None)
    state = as_alice.get(STATE).json()
    assert (state["cognitive_mode"], state["reasons"]) == ("full", [])
    assert state["engine"]["status"] == "up"
    assert as_alice.get(STATUS).json()["status"] == "operational"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour.LOADING_503, "engine_loading"),
        (Behaviour.UNAUTHORIZED_401, "engine_misconfigured"),
        (Behaviour.HTML, "engine_bad_reply"),
        (Behaviour.ERROR_500_WITH_SECRET, "engine_bad_reply"),
    ],
)
def test_it_tells_what_is_wrong_with_the_engine_in_our_own_words(
    as_alice: APIClient, stub: StubEngine, behaviour: Behaviour, code: str
) -> None:
    stub.behave_probes(behaviour)
    response = as_alice.get(STATE)
    assert response.json()["engine"] == {"status": "down", "code": code, "models": []}
    assert b"canary" not in response.content


def test_an_exhausted_host_is_not_operational(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted = GovernorState(mode=Mode.SURVIVAL, reasons=("disk 99 percent",))
    monkeypatch.setattr(awareness, "_governor", exhausted)
    status = as_alice.get(STATUS).json()
    assert (status["status"], status["engine"]["status"]) == ("degraded", "up")
    state = as_alice.get(STATE).json()
    assert (state["cognitive_mode"], state["reasons"]) == ("survival", ["disk 99 percent"])


def test_the_queue_is_told_as_it_is(as_alice: APIClient, stub: StubEngine) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = ask_streamed(as_alice, "Count to 3")
    next(chunks(response))
    assert as_alice.get(STATUS).json()["queue"]["busy"] == 1
    hang_up(response)
    assert as_alice.get(STATUS).json()["queue"]["busy"] == 0


@pytest.mark.parametrize("path", [STATE, STATUS])
def test_it_costs_the_query_of_the_credential_and_no_other(
    as_alice: APIClient,
    stub: StubEngine,
    django_assert_num_queries: DjangoAssertNumQueries,
    path: str,
) -> None:
    with django_assert_num_queries(1):
        assert as_alice.get(path).status_code == 200


@pytest.mark.parametrize("path", [STATE, STATUS])
def test_who_may_look(
    anonymous: APIClient,
    alice: User,
    client_of: Callable[..., APIClient],
    stub: StubEngine,
    path: str,
) -> None:
    assert anonymous.get(path).status_code == 401
    assert client_of(alice, "write").get(path).status_code == 403
    reader = client_of(alice, "read")
    assert reader.get(path).status_code == 200
    assert reader.get(f"{path}/").status_code == 200
    assert reader.head(path).status_code == 200
    assert reader.post(path).status_code == 403  # to write it would take another scope
    assert client_of(alice).post(path).status_code == 405
