"""Fixtures that every test may use: people, API clients, a real stub engine, clean counters."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
import time_machine
from django.db import connection
from django.test import RequestFactory, TransactionTestCase
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts import hashing
from accounts.models import User
from accounts.services.sessions import start_session
from consciousness import engines
from consciousness.admission import admission
from monitoring.audit import append_only
from monitoring.awareness import awareness
from monitoring.governor import GovernorState
from tests import own_databases
from tests.counters import forget_counts
from tests.hashers import CheapBCryptSHA256PasswordHasher
from tests.log_capture import LogCapture, captured_logs
from tests.stub_engine import StubEngine

# Timing is not what properties are about, and machines differ.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

PASSWORD = "Correct-Horse-7-Battery"  # noqa: S105 - of accounts that live for one test


def pytest_collection_finish() -> None:
    """Thousands of tests and what they import stay to the end: Python's collector need not look
    through them again and again, which took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def _flushes_empty_the_audit_trail() -> Iterator[None]:
    """Transactional tests end by emptying all tables, which one table's triggers refuse."""
    flush = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]

    def flush_all(case: TransactionTestCase) -> None:
        append_only.permit_changes(connection)
        try:
            flush(case)
        finally:
            append_only.forbid_changes(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", flush_all)
        yield


@pytest.fixture(autouse=True)
def _clean_counters() -> None:
    """No test meets another one's rate limits."""
    forget_counts()


@pytest.fixture(autouse=True)
def _hashes_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty may race for one row, and none is refused for want of a free hash: see
    accounts/tests/test_brute_force.py for that."""
    monkeypatch.setattr(hashing, "slots", hashing._Slots(64))


@pytest.fixture(autouse=True)
def _fresh_awareness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor another one's readings: what the governor decided is kept for a second."""
    monkeypatch.setattr(awareness, "_newest", None)
    monkeypatch.setattr(awareness, "_governor", GovernorState())


@pytest.fixture(autouse=True)
def _only_the_default_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nor another one's engines. The table of engines is taken as just read, and empty: a test that
    fills it lets it be read by `roster.expire()`."""
    engines.roster.reset()
    monkeypatch.setattr(engines.roster, "_read_at_s", math.inf)
    yield
    engines.roster.reset()


@pytest.fixture(autouse=True)
def _no_slot_outlives_its_test() -> Iterator[None]:
    """A stream that nobody ended would fail some later test, and only where that one meets it."""
    yield
    assert admission._local.count() == (0, 0)


@pytest.fixture
def stub(settings: Settings) -> Iterator[StubEngine]:
    """A real HTTP server that speaks the engine's protocol, and settings that point at it."""
    with StubEngine() as engine:
        settings.ENGINE_URL = engine.url
        settings.ENGINE_API_KEY = engine.api_key
        yield engine


@pytest.fixture
def own_database(transactional_db: None, tmp_path: Path, settings: Settings) -> Iterator[str]:
    """The name of a database that is the default one during the test and may be replaced, with a
    DATA_DIR, a BACKUP_DIR and a BACKUP_KEY."""
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    settings.BACKUP_DIR = settings.DATA_DIR / "backups"
    settings.AUDIT_DIR = settings.DATA_DIR / "audit"
    settings.BACKUP_KEY = own_databases.KEY
    with own_databases.new_database(settings.DATA_DIR) as name, own_databases.using(name):
        yield name


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice", "alice@example.org", PASSWORD)


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", "bob@example.org", PASSWORD)


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_superuser("grace", "grace@example.org", PASSWORD)


@pytest.fixture
def anonymous() -> APIClient:
    return APIClient()


@pytest.fixture
def client_of() -> Callable[..., APIClient]:
    """`client_of(user)`: a client with the token of a new session, with all scopes or some."""

    def begin(user: User, scope: str = "") -> APIClient:
        scopes = frozenset(scope.split()) if scope else user.scopes
        pair = start_session(user, scopes, RequestFactory().post("/api/v1/auth/token"))
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {pair.access_token}")
        return client

    return begin


@pytest.fixture
def as_alice(alice: User, client_of: Callable[..., APIClient]) -> APIClient:
    return client_of(alice)


@pytest.fixture
def as_bob(bob: User, client_of: Callable[..., APIClient]) -> APIClient:
    return client_of(bob)


@pytest.fixture
def as_staff(staff: User, client_of: Callable[..., APIClient]) -> APIClient:
    return client_of(staff)


@pytest.fixture
def frozen_time() -> Iterator[time_machine.Traveller]:
    """A clock that stands still, so that no rate-limit window ends in the middle of a test."""
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        yield clock


@pytest.fixture
def logs() -> Iterator[LogCapture]:
    """What the platform logs during the test."""
    with captured_logs() as capture:
        yield capture


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every password that is hashed during the test, checks included."""
    encode = CheapBCryptSHA256PasswordHasher.encode
    passwords: list[str] = []

    def counting(hasher: CheapBCryptSHA256PasswordHasher, password: str, salt: str) -> str:
        passwords.append(password)
        return encode(hasher, password, salt)

    monkeypatch.setattr(CheapBCryptSHA256PasswordHasher, "encode", counting)
    return passwords
