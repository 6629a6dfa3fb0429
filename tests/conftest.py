"""Fixtures of tests that look at the platform from outside, as its callers do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.platform import Platform, running_platform
from tests.stub_engine import StubEngine


@pytest.fixture(scope="session")
def live_stub() -> Iterator[StubEngine]:
    with StubEngine() as stub:
        yield stub


@pytest.fixture(scope="session")
def _session_platform(live_stub: StubEngine) -> Iterator[Platform]:
    # Two processes where they can share their counts, one where they cannot.
    processes = "2" if os.environ.get("REDIS_URL") else "1"
    with running_platform(
        live_stub,
        WEB_CONCURRENCY=processes,
        ENGINE_FIRST_TOKEN_TIMEOUT_S="5",
        ENGINE_SILENCE_TIMEOUT_S="5",
        RATE_LIMIT_DEFAULT="10000/m",
    ) as platform:
        yield platform


@pytest.fixture
def platform(_session_platform: Platform, live_stub: StubEngine) -> Iterator[Platform]:
    """One running platform for all tests; its stub engine starts each test well-behaved."""
    live_stub.reset()
    yield _session_platform
    assert live_stub.wait_idle(), "the test left a generation running"
