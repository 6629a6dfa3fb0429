"""`manage.py bootstrap`: one administrator, whoever starts how many of them."""

from __future__ import annotations

import io
import re

import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

EXISTS = "There is an administrator already; nothing was changed.\n"


def bootstrap(**options: str) -> str:
    """What the command prints."""
    output = io.StringIO()
    call_command("bootstrap", stdout=output, **options)
    return output.getvalue()


def password_in(output: str) -> str:
    found = re.fullmatch(
        r"Administrator (\S+) created\.\nPassword \(shown once\): (\S{24})\n", output
    )
    assert found is not None, output
    return found[2]


def test_the_password_is_printed_once_and_works(db: None, logs: LogCapture) -> None:
    password = password_in(bootstrap())
    admin = User.objects.get()
    assert (admin.username, admin.email) == ("admin", "admin@localhost")
    assert (admin.is_staff, admin.is_superuser, admin.is_active) == (True, True, True)
    form = {"username": "admin", "password": password}
    response = APIClient().post("/api/v1/auth/token", form)
    assert response.status_code == 200
    assert response.json()["scope"] == "admin read write"
    assert bootstrap() == EXISTS
    assert password not in logs.text
    assert password not in admin.password


def test_every_password_is_another(db: None) -> None:
    first = password_in(bootstrap())
    User.objects.all().delete()
    assert password_in(bootstrap()) != first


def test_name_and_address_can_be_chosen(db: None) -> None:
    password_in(bootstrap(username="Root-1", email="Ops@Example.org"))
    admin = User.objects.get()
    assert (admin.username, admin.email_canonical) == ("Root-1", "ops@example.org")


def test_an_existing_administrator_is_left_alone(staff: User) -> None:
    before = User.objects.values().get()
    assert bootstrap() == EXISTS
    assert User.objects.values().get() == before


def test_staff_is_no_administrator(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    password_in(bootstrap())
    assert User.objects.filter(is_superuser=True).count() == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"username": "ALICE"}, "username"),
        ({"email": "Alice@Example.org"}, "email"),
    ],
)
def test_a_taken_name_or_address_is_an_error_and_no_rights(
    alice: User, options: dict[str, str], field: str
) -> None:
    with pytest.raises(CommandError, match=field):
        bootstrap(**options)
    alice.refresh_from_db()
    assert (alice.is_staff, alice.is_superuser) == (False, False)
    assert alice.check_password(PASSWORD)
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"username": "ab"}, "3 to 50"),
        ({"username": "a b c"}, "3 to 50"),
        ({"username": "system"}, "reserved"),
        ({"email": "nonsense"}, "Not an e-mail address"),
        ({"email": ""}, "Not an e-mail address"),
    ],
)
def test_what_registration_refuses_is_refused_here(
    db: None, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(CommandError, match=reason):
        bootstrap(**options)
    assert not User.objects.exists()


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("bootstrap", "--help")
    assert ended.value.code == 0
    assert "random password, printed once" in " ".join(capsys.readouterr().out.split())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("names", ["the same", "different"])
def test_thirty_at_once_make_one(names: str) -> None:
    def run(number: int) -> str:
        if names == "the same":
            return bootstrap()
        return bootstrap(username=f"admin-{number}", email=f"admin-{number}@example.org")

    outputs = in_parallel(30, run)
    assert outputs.count(EXISTS) == 29
    (created,) = (output for output in outputs if output != EXISTS)
    admin = User.objects.get()
    assert admin.is_superuser
    assert admin.check_password(password_in(created))
