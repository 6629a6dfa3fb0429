"""`manage.py host_report`: readings and decision as JSON, without a database."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import psutil
import pytest
from django.core.management import call_command

from tests.stub_engine import StubEngine


def report() -> dict[str, Any]:
    out = StringIO()
    call_command("host_report", stdout=out)
    printed: dict[str, Any] = json.loads(out.getvalue())
    return printed


def test_it_tells_what_the_host_says(stub: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_temperatures", dict)
    told = report()
    assert set(told) == {
        *("silicon_id", "consciousness_level", "thermal_state", "cognitive_mode"),
        *("reasons", "scope", "readings"),
    }
    readings = told["readings"]
    assert 0 <= readings["cpu_percent"] <= 100  # two readings were taken
    assert 0 < readings["memory_percent"] <= 100
    assert readings["temp_c"] == "unknown"
    assert readings["engine_cpu_percent"] == "unknown"
    assert told["thermal_state"] == "unknown"
    assert told["reasons"] == []
    assert told["cognitive_mode"] == "full"


def test_it_tells_of_a_dead_engine(stub: StubEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitoring.management.commands.host_report._CPU_SAMPLE_S", 0)
    stub.stop()
    told = report()
    assert told["cognitive_mode"] == "survival"
    assert told["reasons"] == ["engine down"]
    assert told["consciousness_level"] <= 0.5
