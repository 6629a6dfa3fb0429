"""What the scrape tells about the audit trail."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from monitoring.audit import archiving, metrics
from monitoring.tests.trail import record, sealed

pytestmark = pytest.mark.django_db


def told() -> dict[str, float]:
    return {
        sample.name.removeprefix("sovereigncore_audit_"): sample.value
        for metric in metrics.read()
        for sample in metric.samples
    }


def test_of_an_empty_trail() -> None:
    assert told() == {
        "events": 0,
        "sealed_head": 0,
        "unsealed_events": 0,
        "unsealed_age_seconds": 0,
    }


def test_of_a_trail(frozen_time: time_machine.Traveller) -> None:
    ids = sealed(3, 2)
    sealed_at = timezone.now().timestamp()
    frozen_time.shift(timedelta(seconds=20))
    ids += record(2)
    frozen_time.shift(timedelta(seconds=5))
    assert told() == {
        "events": ids[-1],
        "sealed_head": ids[4],
        "unsealed_events": 2,
        "unsealed_age_seconds": 5,
        "last_seal_timestamp_seconds": pytest.approx(sealed_at, abs=1e-3),
    }


def test_of_one_whose_rows_are_archived(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 1
    with time_machine.travel(timezone.now() - timedelta(days=2), tick=True):
        ids = sealed(3, 1)
    archiving.archive_audit()
    assert (told()["events"], told()["sealed_head"]) == (ids[-1], ids[-1])


def test_the_exposition_has_them(anonymous: APIClient) -> None:
    text = anonymous.get("/metrics").content.decode()
    for name in (
        *("events", "sealed_head", "unsealed_events", "unsealed_age_seconds"),
        "last_seal_timestamp_seconds",
    ):
        assert f"# TYPE sovereigncore_audit_{name} gauge" in text
