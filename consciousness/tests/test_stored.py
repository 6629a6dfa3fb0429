"""What scrapers are told of people, holdings and slots."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import stored
from consciousness.models import Memory, UsageDay
from consciousness.tests.several import Several
from monitoring.awareness import awareness
from monitoring.governor import GovernorState, Mode
from tests.stub_engine import StubEngine

PROCESS = "/api/v1/consciousness/process"
pytestmark = pytest.mark.django_db


def active() -> dict[str, float]:
    (family,) = stored.read_activity()
    return {sample.labels["window"]: sample.value for sample in family.samples}


def engines() -> tuple[dict[str, float], float]:
    slots, limit = stored.read_engines()
    by_name = {sample.labels["engine"]: sample.value for sample in slots.samples}
    return by_name, limit.samples[0].value


def test_people_are_counted_once_in_each_window(alice: User, bob: User, staff: User) -> None:
    assert active() == {"1d": 0, "7d": 0, "30d": 0}
    today = timezone.now().date()
    for user, days_ago in (
        *((alice, 0), (alice, 3), (alice, 20)),
        *((bob, 6), (bob, 29)),
        (staff, 30),
    ):
        UsageDay.objects.create(user=user, day=today - timedelta(days=days_ago))
    assert active() == {"1d": 1, "7d": 2, "30d": 2}


def test_what_is_kept_is_counted(as_alice: APIClient, alice: User, stub: StubEngine) -> None:
    as_alice.post(PROCESS, {"prompt": "Hello", "conversation": "new"})
    as_alice.post(PROCESS, {"prompt": "Hello"})
    Memory.objects.create(user=alice, text="Rex is a dog.")
    told = {family.name: family.samples[0].value for family in stored.read_holdings()}
    assert told == {
        "sovereigncore_queries_stored": 2,
        "sovereigncore_conversations": 1,
        "sovereigncore_memories": 1,
    }
    assert active() == {"1d": 1, "7d": 1, "30d": 1}


def test_slots_are_what_requests_may_take_now(
    stub: StubEngine,
    settings: Settings,
    second: StubEngine,
    several: Several,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT = 5, 17
    assert engines() == ({"default": 5}, 17)
    several.add("other", second, slots=3)
    assert engines() == ({"default": 5, "other": 3}, 17)
    conserving = GovernorState(mode=Mode.CONSERVING)
    monkeypatch.setattr("monitoring.governor.decide", lambda *_args, **_kwargs: conserving)
    monkeypatch.setattr(awareness, "_newest", None)
    assert engines() == ({"default": 2, "other": 1}, 17)
