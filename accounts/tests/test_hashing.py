"""How passwords are kept: bcrypt in production, and older hashes upgraded when they are used."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, identify_hasher, make_password
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User
from accounts.tests.sessions import log_in, me
from conftest import PASSWORD
from tests.hashers import CheapBCryptSHA256PasswordHasher

SETTINGS = Path(__file__).parents[2] / "sovereigncore/settings.py"
CHEAP = "tests.hashers.CheapBCryptSHA256PasswordHasher"
PBKDF2 = "django.contrib.auth.hashers.PBKDF2PasswordHasher"
BCRYPT = "accounts.hashing.CappedBCryptSHA256PasswordHasher"


@pytest.fixture
def production() -> dict[str, Any]:
    """The settings as an operator has them, and not the suite's."""
    return runpy.run_path(str(SETTINGS))


def test_production_uses_bcrypt_at_djangos_cost(
    production: dict[str, Any], settings: Any, alice: User
) -> None:
    settings.PASSWORD_HASHERS = production["PASSWORD_HASHERS"]
    algorithm, _, version, rounds, _ = make_password(PASSWORD).split("$", 4)
    assert (algorithm, version, rounds) == ("bcrypt_sha256", "2b", "12")


def test_the_suite_hashes_like_production_but_for_the_cost(
    production: dict[str, Any], settings: Any
) -> None:
    assert production["PASSWORD_HASHERS"][0] == BCRYPT
    assert settings.PASSWORD_HASHERS == [CHEAP]
    assert CheapBCryptSHA256PasswordHasher.algorithm == "bcrypt_sha256"
    assert CheapBCryptSHA256PasswordHasher.rounds == 4


def test_passwords_longer_than_bcrypts_72_bytes_are_told_apart(alice: User) -> None:
    alice.set_password("Aa1" + "x" * 100)
    assert alice.check_password("Aa1" + "x" * 100)
    assert not alice.check_password("Aa1" + "x" * 99 + "y")


@pytest.fixture
def old_hash(settings: Any, alice: User) -> User:
    """Alice, whose hash is of an algorithm that is no longer the first choice."""
    settings.PASSWORD_HASHERS = [CHEAP, PBKDF2]
    hashed = PBKDF2PasswordHasher().encode(PASSWORD, "somesalt", iterations=1)
    User.objects.filter(pk=alice.pk).update(password=hashed)
    alice.refresh_from_db()
    return alice


def test_an_old_hash_is_upgraded_at_login(old_hash: User) -> None:
    token = log_in()["access_token"]
    assert me(token) == 200
    old_hash.refresh_from_db()
    assert identify_hasher(old_hash.password).algorithm == "bcrypt_sha256"
    assert old_hash.check_password(PASSWORD)
    upgraded = old_hash.password
    log_in()
    old_hash.refresh_from_db()
    assert old_hash.password == upgraded, "and once only"


def test_an_upgrade_ends_no_session(old_hash: User) -> None:
    epoch = old_hash.token_epoch
    first = log_in()["access_token"]
    second = log_in()["access_token"]
    old_hash.refresh_from_db()
    assert old_hash.token_epoch == epoch
    assert [me(first), me(second)] == [200, 200]


def test_an_upgrade_at_the_admins_login_keeps_its_session(old_hash: User) -> None:
    User.objects.filter(pk=old_hash.pk).update(is_staff=True)
    browser = Client()
    form = {"username": "alice", "password": PASSWORD}
    assert browser.post("/admin/login/", form).status_code == 302
    old_hash.refresh_from_db()
    assert identify_hasher(old_hash.password).algorithm == "bcrypt_sha256"
    assert browser.get("/admin/").status_code == 200


def test_an_upgrade_does_not_bring_an_old_password_back(
    old_hash: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody logs in with the old password while its owner changes it."""

    def change_meanwhile(password: str) -> str:
        old_hash.set_password("Another-Horse-8-Battery")
        old_hash.save()
        return make_password(password)

    monkeypatch.setattr("accounts.backends.make_password", change_meanwhile)
    form = {"username": "alice", "password": PASSWORD}
    late = APIClient().post("/api/v1/auth/token", form).json()["access_token"]
    old_hash.refresh_from_db()
    assert old_hash.check_password("Another-Horse-8-Battery")
    assert me(late) == 401


def test_a_wrong_password_upgrades_nothing(old_hash: User) -> None:
    before = old_hash.password
    response = Client().post(
        "/api/v1/auth/token",
        {"username": "alice", "password": "wrong"},
        content_type="application/json",
    )
    assert response.status_code == 401
    old_hash.refresh_from_db()
    assert old_hash.password == before
