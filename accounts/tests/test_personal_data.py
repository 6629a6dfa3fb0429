"""Everything held about a person can be had by them, and is gone when they want it gone."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import FileResponse
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts import mailing
from accounts.models import APIKey, Kind, Link, Mail, Purpose, Session, User
from accounts.services import change_address, erase_user, invite, second_factor
from conftest import PASSWORD
from consciousness.models import Query, QueryContent
from monitoring.models import AuditEvent
from tests import environment as test_settings
from tests.stub_engine import StubEngine

ROOT = Path(__file__).parents[2]
ME = "/api/v1/users/me"
EXPORT = f"{ME}/export"
# In each text that a person can leave behind; whatever keeps one of these keeps the person.
NAME, ADDRESS, FULL, AGENT, KEY, PROMPT = (
    "canaryname",
    "canaryaddress@example.org",
    "Canary Fullname",
    "CanaryAgent/1.0",
    "canary key name",
    "canary prompt text",
)
CANARIES = (
    NAME,
    "canaryaddress",
    "fullname",
    "canaryagent",
    "canary key",
    "canary prompt",
    "203.0.113.77",
)


@pytest.fixture
def person(stub: StubEngine, staff: User, settings: Settings) -> APIClient:
    """Somebody who has left something in every table."""
    settings.RATE_LIMIT_AUTH = "1000/m"
    User.objects.create_user(NAME, ADDRESS, PASSWORD, full_name=FULL)
    client = APIClient(REMOTE_ADDR="203.0.113.77", HTTP_USER_AGENT=AGENT)
    form = {"username": NAME, "password": PASSWORD}
    token = client.post("/api/v1/auth/token", form).json()["access_token"]
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    key = client.post("/api/v1/keys", {"name": KEY, "scopes": ["read"]})
    ask = "/api/v1/consciousness/process"
    asked = client.post(ask, {"prompt": PROMPT}, headers={"Idempotency-Key": KEY})
    assert (key.status_code, asked.status_code) == (201, 200)
    change = {"email": "canaryaddress2@example.org", "current_password": PASSWORD}
    assert client.patch(ME, change).status_code == 200
    client.post("/api/v1/users/password-reset/request", {"email": ADDRESS})
    assert mailing.send_due() == 2
    client.post("/api/v1/users/password-reset/request", {"email": ADDRESS})
    Link.objects.all().issue(Purpose.INVITE, address=ADDRESS)
    user = User.objects.get(username=NAME)
    second_factor.begin_enrolment(user)
    browser = Client()
    browser.force_login(staff)  # the admin site's own log quotes whom it is about
    url = f"/admin/accounts/user/{user.pk}/change/"
    page = {"username": NAME, "email": ADDRESS, "full_name": FULL, "is_active": "on"}
    assert browser.post(url, page).status_code == 302
    Client().force_login(user)
    assert Session.objects.for_user(user).exists()
    return client


def rows() -> str:
    """Every column of every table, as text."""
    told = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - our own tables
            told += [f"{table}: {row!r}" for row in cursor.fetchall()]
    return "\n".join(told).lower()


def found(text: str) -> list[str]:
    return [line for line in text.splitlines() if any(canary in line for canary in CANARIES)]


def export(client: APIClient) -> dict[str, Any]:
    response: object = client.get(EXPORT)
    assert isinstance(response, FileResponse)
    content = b"".join(cast("Iterator[bytes]", response.streaming_content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {
            name: json.loads(archive.read(name))
            for name in archive.namelist()
            if name.endswith(".json")
        }


@pytest.mark.django_db(transaction=True)
def test_the_export_holds_everything_and_nothing_that_proves_who_one_is(person: APIClient) -> None:
    response = person.get(EXPORT)
    assert response["Content-Type"] == "application/zip"
    assert response["Content-Disposition"] == f'attachment; filename="{NAME}.zip"'
    files = export(person)
    text = json.dumps(files).lower()
    for canary in CANARIES:
        assert canary in text, canary
    user = User.objects.get(username=NAME)
    assert files["account.json"][0]["email"] == ADDRESS
    assert files["queries.json"][0]["prompt"] == PROMPT
    assert files["idempotent_requests.json"][0]["key"] == KEY
    kinds = sorted(mail["kind"] for mail in files["mails.json"])
    assert kinds == ["change_address", "reset_password"], "those that tell whose they are"
    actions = {event["action"] for event in files["audit_events.json"]}
    assert {"session.begun", "key.created", "user.exported"} <= actions
    assert user.password not in text
    assert not re.search(r"digest|bcrypt|\bsk-[a-z0-9_-]{20}", text)


@pytest.mark.django_db(transaction=True)
def test_of_others_it_holds_nothing(
    person: APIClient, bob: User, client_of: Callable[..., APIClient]
) -> None:
    text = json.dumps(export(client_of(bob))).lower()
    assert "bob@example.org" in text
    assert not any(canary in text for canary in CANARIES)


@pytest.mark.django_db(transaction=True)
def test_an_export_is_limited(person: APIClient) -> None:
    answers = [person.get(EXPORT).status_code for _ in range(6)]
    assert answers == [200] * 5 + [429]


@pytest.mark.django_db(transaction=True)
def test_every_table_that_knows_people_is_exported_or_said_to_be_left_out() -> None:
    # A new table with a user in it has to be thought about.
    with_people = {
        model._meta.label
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if field.related_model is User and not field.auto_created
    }
    assert with_people == {
        *("accounts.Session", "accounts.APIKey", "accounts.Link", "accounts.Mail"),
        *("consciousness.Query", "consciousness.Conversation", "consciousness.UsageDay"),
        *("consciousness.Memory", "consciousness.IdempotentRequest"),
        "admin.LogEntry",  # what staff did: in the audit trail
        *("otp_totp.TOTPDevice", "otp_static.StaticDevice"),  # secrets
    }


@pytest.mark.django_db(transaction=True)
def test_erased_means_gone_from_every_table(person: APIClient) -> None:
    user_id = User.objects.get(username=NAME).pk
    assert len(found(rows())) > 8, "the test can see the person"
    refused = person.delete(ME, {"current_password": "wrong"})
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    assert person.delete(ME, {"current_password": PASSWORD}).status_code == 204
    assert found(rows()) == []
    assert person.get("/api/v1/auth/me").status_code == 401
    last = AuditEvent.objects.latest("id")
    assert (last.action, last.subject_id, last.actor_id) == ("user.erased", str(user_id), user_id)
    assert not Query.objects.exists()
    assert not QueryContent.objects.exists()
    assert not APIKey.objects.exists()


WRITE = f"""
from django.utils import timezone
from accounts.models import User
from consciousness.models import Query, QueryContent
user = User.objects.create_user({NAME!r}, {ADDRESS!r}, {PASSWORD!r}, full_name={FULL!r})
query = Query.objects.create(user=user, temperature=0, max_tokens=1, status="failed",
    lease_expires_at=timezone.now(), finished_at=timezone.now())
QueryContent.objects.create(query=query, prompt={PROMPT!r} * 2000)
"""


def test_erased_means_gone_from_the_disk_too(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        **test_settings.test_environment(str(tmp_path)),
        "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
        "DATABASE_URL": "",
    }

    def manage(*arguments: str) -> None:
        command = [sys.executable, "manage.py", *arguments]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)

    def on_disk() -> list[str]:
        content = b"".join(file.read_bytes() for file in tmp_path.glob("db.sqlite3*")).lower()
        return [canary for canary in CANARIES if canary.encode() in content]

    manage("migrate", "--verbosity", "0")
    manage("shell", "-c", WRITE)
    assert {NAME, "canaryaddress", "fullname", "canary prompt"} <= set(on_disk())
    manage("erase_user", NAME, "--yes")
    assert on_disk() == []


@pytest.mark.django_db(transaction=True)
def test_mails_that_were_written_to_files_go_too(
    person: APIClient, settings: Settings, tmp_path: Path, bob: User
) -> None:
    settings.EMAIL_BACKEND, settings.OUTBOX = "accounts.outbox.EmailBackend", tmp_path
    Mail.objects.create(kind="password_changed", address=ADDRESS.upper())
    user = User.objects.get(username=NAME)
    Mail.objects.create(kind="change_address", address="another@example.org", user=user)
    assert mailing.send_due() == 3, "these, and a reset that was asked for"
    Mail.objects.create(kind="password_changed", address=bob.email)
    assert mailing.send_due() == 1
    assert len(list(tmp_path.iterdir())) == 4
    assert person.delete(ME, {"current_password": PASSWORD}).status_code == 204
    (left,) = tmp_path.iterdir()
    assert bob.email in left.read_text()


@pytest.mark.django_db(transaction=True)
def test_erased_is_what_knows_a_former_address(
    person: APIClient, staff: User, settings: Settings, tmp_path: Path
) -> None:
    """A reset, an invitation and a registration were mailed to it before it changed."""
    settings.EMAIL_BACKEND, settings.OUTBOX = "accounts.outbox.EmailBackend", tmp_path
    client = APIClient()
    client.post("/api/v1/users/password-reset/request", {"email": ADDRESS})
    invite(email=ADDRESS, actor_id=staff.id)
    settings.REGISTRATION_MODE = "verified"
    form = {"username": "eve", "email": ADDRESS, "password": PASSWORD}
    assert client.post("/api/v1/users/register", form).status_code == 202
    mailing.send_due()
    user = User.objects.get(username=NAME)
    change_address(
        Link.objects.all().issue(Purpose.CHANGE_ADDRESS, user=user, address="new@example.org")
    )
    mailing.send_due()
    assert found(rows())
    assert person.delete(ME, {"current_password": PASSWORD}).status_code == 204
    assert found(rows()) == []
    assert not [file for file in tmp_path.iterdir() if ADDRESS.encode() in file.read_bytes()]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("address", ["zoe@bücher.example", "Zoe@\uff45xample.org"])
def test_so_they_do_however_a_header_writes_the_address(
    staff: User, settings: Settings, tmp_path: Path, address: str
) -> None:
    settings.EMAIL_BACKEND, settings.OUTBOX = "accounts.outbox.EmailBackend", tmp_path
    zoe = User.objects.create_user("zoe", address, PASSWORD)
    mailing.enqueue(Kind.RESET_PASSWORD, zoe.email_canonical)
    mailing.enqueue(Kind.PASSWORD_CHANGED, zoe.email, user=zoe)
    assert mailing.send_due() == 2
    assert len(list(tmp_path.iterdir())) == 2
    erase_user(zoe, by=staff)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_others_lose_nothing(
    person: APIClient, bob: User, client_of: Callable[..., APIClient]
) -> None:
    as_bob = client_of(bob)
    before = export(as_bob)
    assert person.delete(ME, {"current_password": PASSWORD}).status_code == 204
    after = export(as_bob)
    assert {name: after[name] for name in ("account.json", "sessions.json")} == {
        name: before[name] for name in ("account.json", "sessions.json")
    }


@pytest.mark.django_db(transaction=True)
def test_name_and_address_are_free_again(person: APIClient) -> None:
    person.delete(ME, {"current_password": PASSWORD})
    body = {"username": NAME, "email": ADDRESS, "password": PASSWORD}
    assert APIClient().post("/api/v1/users/register", body).status_code == 201


def test_the_last_superuser_stays(as_staff: APIClient, staff: User) -> None:
    refused = as_staff.delete(ME, {"current_password": PASSWORD})
    assert (refused.status_code, refused.json()["code"]) == (409, "last_superuser")
    User.objects.create_superuser("heidi", "heidi@example.org", PASSWORD)
    assert as_staff.delete(ME, {"current_password": PASSWORD}).status_code == 204


def test_the_last_superuser_cannot_close_the_account_either(as_staff: APIClient) -> None:
    refused = as_staff.post(f"{ME}/deactivate", {"current_password": PASSWORD})
    assert (refused.status_code, refused.json()["code"]) == (409, "last_superuser")
    assert as_staff.get("/api/v1/auth/me").status_code == 200


def test_the_export_does_not_tell_who_has_an_account(
    as_alice: APIClient, alice: User, bob: User
) -> None:
    for address in (bob.email, "free@example.org"):
        change = {"email": address, "current_password": PASSWORD}
        assert as_alice.patch(ME, change).status_code == 200
    assert mailing.send_due() == 2
    files = export(as_alice)
    assert files["links.json"] == []
    assert {mail["address"] for mail in files["mails.json"]} == {bob.email, "free@example.org"}
    assert all(mail["sent_at"] for mail in files["mails.json"])


def test_guesses_at_the_password_are_limited_before_hashing(
    as_alice: APIClient, hashed: list[str]
) -> None:
    answers = [as_alice.delete(ME, {"current_password": "x"}).status_code for _ in range(6)]
    assert answers == [403] * 5 + [429]
    assert len(hashed) == 5


def test_a_closed_account_is_closed_and_kept(as_alice: APIClient, alice: User) -> None:
    assert as_alice.post(f"{ME}/deactivate", {"current_password": "x"}).status_code == 403
    assert as_alice.post(f"{ME}/deactivate", {"current_password": PASSWORD}).status_code == 204
    assert as_alice.get("/api/v1/auth/me").status_code == 401
    form = {"username": "alice", "password": PASSWORD}
    assert APIClient().post("/api/v1/auth/token", form).status_code == 401
    alice.refresh_from_db()
    assert not alice.is_active
    assert AuditEvent.objects.filter(action="user.deactivated", subject_id=str(alice.pk)).exists()


# --- manage.py export_user and erase_user


def test_export_user_writes_a_file_for_the_operators_eyes(
    alice: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "alice.zip"
    call_command("export_user", "ALICE", output=str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("account.json"))[0]["username"] == "alice"
    event = AuditEvent.objects.get(action="user.exported")
    assert event.actor_id is None
    with pytest.raises(CommandError, match="File exists"):
        call_command("export_user", "alice", output=str(path))


def test_erase_user_wants_to_hear_yes(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="--yes"):
        call_command("erase_user", "alice")
    assert User.objects.filter(pk=alice.pk).exists()
    call_command("erase_user", "alice", yes=True)
    assert not User.objects.filter(pk=alice.pk).exists()


def test_erase_user_takes_an_id(alice: User, bob: User) -> None:
    """`restore` tells of those who are to be erased again by nothing else."""
    call_command("erase_user", str(bob.pk), yes=True)
    assert list(User.objects.all()) == [alice]
    with pytest.raises(CommandError, match=f"There is no user '{bob.pk}'"):
        call_command("erase_user", str(bob.pk), yes=True)


def test_erase_user_takes_a_name_before_an_id(alice: User, bob: User) -> None:
    bob.username = str(alice.pk)
    bob.save()
    call_command("erase_user", str(alice.pk), yes=True)
    assert list(User.objects.all()) == [alice]


def test_erase_user_keeps_the_last_superuser(staff: User) -> None:
    with pytest.raises(CommandError, match="last superuser"):
        call_command("erase_user", "grace", yes=True)


@pytest.mark.parametrize("command", ["export_user", "erase_user"])
def test_nobody_of_that_name(db: None, command: str) -> None:
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        call_command(command, "nobody")
