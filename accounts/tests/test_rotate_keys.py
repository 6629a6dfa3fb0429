"""Rotating signing keys: a token signed before is good after, at every step."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts import signing_keys
from accounts.models import User
from accounts.tests.sessions import log_in, me, refresh
from monitoring.models import AuditEvent
from sovereigncore.signing import parse_signing_keys

pytestmark = pytest.mark.once

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(params=["HS256", "RS256"])
def algorithm(request: pytest.FixtureRequest, settings: Settings) -> str:
    name: str = request.param
    settings.JWT_ALGORITHM = name
    return name


class Installation:
    """A `.env` and the settings that were read from it."""

    def __init__(self, path: Path, settings: Any, algorithm: str) -> None:
        self.path, self._settings, self._algorithm = path, settings, algorithm
        first = signing_keys.prepare("x:y", algorithm=algorithm, now=NOW - 2 * WEEK)
        path.write_text(f"# mine\nPORT=1\nJWT_SIGNING_KEYS={first.partition(',')[2]}\nBIND=::1\n")
        settings.DOTENV_FILE = settings.JWT_KEYS_FILE = path
        self.reload()

    def reload(self) -> None:
        (line,) = (line for line in self.path.read_text().splitlines() if "KEYS=" in line)
        text = line.partition("=")[2]
        self._settings.JWT_KEYS_TEXT = text
        self._settings.JWT_KEYS = parse_signing_keys(text, algorithm=self._algorithm)

    def rotate(self, *arguments: str) -> str:
        said = StringIO()
        call_command("rotate_keys", *arguments, stdout=said)
        self.reload()
        return said.getvalue()


@pytest.fixture
def installation(tmp_path: Path, settings: Settings, algorithm: str) -> Installation:
    return Installation(tmp_path / ".env", settings, algorithm)


def test_nobody_is_logged_out(alice: User, installation: Installation) -> None:
    pairs = [log_in()]
    for step in ("prepare", "activate"):
        installation.rotate(step)
        assert all(me(pair["access_token"]) == 200 for pair in pairs), step
        pairs.append(log_in())
    assert refresh(pairs[0]["refresh_token"]).status_code == 200


def test_the_new_key_signs_only_when_it_is_known_everywhere(
    alice: User, installation: Installation, settings: Settings
) -> None:
    before = dict(settings.JWT_KEYS)
    installation.rotate("prepare")
    token = log_in()["access_token"]
    settings.JWT_KEYS = before  # a process that has not been reloaded yet
    assert me(token) == 200
    installation.reload()
    after_prepare = dict(settings.JWT_KEYS)
    installation.rotate("activate")
    token = log_in()["access_token"]
    settings.JWT_KEYS = after_prepare
    assert me(token) == 200


def test_retired_keys_are_good_for_nothing(
    alice: User, installation: Installation, settings: Settings
) -> None:
    old = log_in()["access_token"]
    installation.rotate("prepare")
    installation.rotate("activate")
    with pytest.raises(CommandError, match="may hold until"):
        installation.rotate("retire")
    assert me(old) == 200
    said = installation.rotate("retire", "--now")
    assert "Accepted too: none." in said
    assert len(settings.JWT_KEYS) == 1
    assert me(old) == 401
    assert me(log_in()["access_token"]) == 200


def test_the_public_keys_are_published_while_they_are_accepted(
    alice: User, installation: Installation, algorithm: str, anonymous: APIClient
) -> None:
    installation.rotate("prepare")
    published = anonymous.get("/.well-known/jwks.json").json()["keys"]
    assert len(published) == (2 if algorithm == "RS256" else 0)


def test_all_else_in_the_file_stays(installation: Installation, db: None) -> None:
    installation.rotate("prepare")
    lines = installation.path.read_text().splitlines()
    assert [lines[0], lines[1], lines[3]] == ["# mine", "PORT=1", "BIND=::1"]
    assert list(installation.path.parent.iterdir()) == [installation.path]


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640)])
def test_who_could_read_the_file_still_can_but_not_everybody(
    installation: Installation, db: None, before: int, after: int
) -> None:
    installation.path.chmod(before)
    installation.rotate("prepare")
    assert stat.S_IMODE(installation.path.stat().st_mode) == after


def test_it_tells_ids_and_no_keys(installation: Installation, db: None, settings: Settings) -> None:
    said = installation.rotate("prepare")
    for item in settings.JWT_KEYS_TEXT.split(","):
        kid, _, key = item.partition(":")
        assert kid in said
        assert key[:20] not in said
    assert AuditEvent.objects.get(action="keys.rotated").detail == {"step": "prepare"}


def test_a_file_of_its_own_holds_the_keys_alone(
    installation: Installation, db: None, settings: Settings, tmp_path: Path
) -> None:
    secret = tmp_path / "jwt-keys"
    secret.write_text(settings.JWT_KEYS_TEXT)
    settings.JWT_KEYS_FILE = secret
    call_command("rotate_keys", "prepare", stdout=StringIO())
    assert len(parse_signing_keys(secret.read_text(), algorithm=settings.JWT_ALGORITHM)) == 2


def test_activate_needs_a_prepared_key(installation: Installation, db: None) -> None:
    with pytest.raises(CommandError, match="no prepared key"):
        installation.rotate("activate")


def test_activating_twice_lets_no_older_key_sign(installation: Installation, db: None) -> None:
    installation.rotate("prepare")
    installation.rotate("activate")
    with pytest.raises(CommandError, match="no prepared key"):
        installation.rotate("activate")


def test_retiring_waits_from_the_activation_on_however_early_a_key_was_prepared(
    alice: User, installation: Installation
) -> None:
    with time_machine.travel(datetime.now(UTC) - 2 * WEEK):
        installation.rotate("prepare")
    old = log_in()["access_token"]
    installation.rotate("activate")
    with pytest.raises(CommandError, match="may hold until"):
        installation.rotate("retire")
    assert me(old) == 200
    with time_machine.travel(datetime.now(UTC) + WEEK + timedelta(seconds=1)):
        assert "Accepted too: none." in installation.rotate("retire")


def test_keys_in_the_process_environment_cannot_be_written(settings: Settings, db: None) -> None:
    settings.JWT_KEYS_FILE = None
    with pytest.raises(CommandError, match="process environment"):
        call_command("rotate_keys", "prepare")


def test_a_file_that_cannot_be_written_stays_as_it_is(
    installation: Installation, db: None, settings: Settings, tmp_path: Path
) -> None:
    settings.JWT_KEYS_FILE = tmp_path / "nowhere" / "keys"
    with pytest.raises(CommandError, match="No such file"):
        call_command("rotate_keys", "prepare")


@pytest.mark.parametrize(
    ("made_at", "is_refused"), [(NOW - WEEK, False), (NOW - WEEK + timedelta(seconds=1), True)]
)
def test_retiring_waits_for_the_last_token(made_at: datetime, is_refused: bool) -> None:
    text = signing_keys.prepare("old:a", algorithm="HS256", now=made_at)
    text = signing_keys.activate(text)
    if not is_refused:
        assert signing_keys.ids(signing_keys.retire(text, lifetime=WEEK, now=NOW)) != ["old"]
        return
    with pytest.raises(signing_keys.CannotRotate):
        signing_keys.retire(text, lifetime=WEEK, now=NOW)
