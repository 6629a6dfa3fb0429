"""Fixtures of the consciousness tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from consciousness import engine_generation
from consciousness.tests.several import Several
from tests.stub_engine import StubEngine


@pytest.fixture
def impatient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines so short that a test can wait for them to pass."""
    settings.ENGINE_CONNECT_TIMEOUT_S = 0.3
    settings.ENGINE_FIRST_TOKEN_TIMEOUT_S = 0.3
    settings.ENGINE_SILENCE_TIMEOUT_S = 0.3
    settings.ENGINE_TOTAL_TIMEOUT_S = 1.0
    monkeypatch.setattr(engine_generation, "_IDLE_S", 0.02)


@pytest.fixture
def second() -> Iterator[StubEngine]:
    """Another engine, that serves the same model."""
    with StubEngine() as engine:
        yield engine


@pytest.fixture
def several(db: None) -> Several:
    """To add engines beside the default one."""
    return Several()
