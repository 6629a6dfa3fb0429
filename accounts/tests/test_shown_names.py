"""Names that others read look like what they are: no character that hides or turns round text."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import APIKey, Link, Purpose, Registration, User
from accounts.tests.mails import KEYS, PROFILE, REGISTER, REGISTER_PAGE, check_invalid
from accounts.validators import validate_line
from conftest import PASSWORD

pytestmark = pytest.mark.once

# One of each kind that the rule is about, in the middle, for ends are trimmed.
UNSEEN = {
    "tab": "\t",
    "line feed": "\n",
    "escape": "\x1b",
    "delete": "\x7f",
    "next line": "\x85",
    "soft hyphen": "\xad",
    "zero width space": "\u200b",
    "right-to-left mark": "\u200f",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    **{
        f"bidi U+{code:04X}": chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
    },
    "byte order mark": "\ufeff",
    "tag": "\U000e0041",
}
SEEN = (
    *(
        "Łódź O'Brien-Smith",
        "\u05d0\u05dc\u05d9\u05e1",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    ),
    *("\U0001f469\u200d\U0001f4bb", "Zo\u0308e", "\u3042\u3000\u3044", "a\xa0b", "\u2764\ufe0f"),
)


def message_for(char: str) -> str:
    return f"The character U+{ord(char):04X} is not allowed: it changes how text is shown."


def test_what_is_refused_is_what_is_not_seen_but_for_two_joiners() -> None:
    refused = set()
    for code in range(sys.maxunicode + 1):
        try:
            validate_line(f"a{chr(code)}b")
        except ValidationError:
            refused.add(chr(code))
    kinds = {unicodedata.category(char) for char in refused}
    assert kinds == {"Cc", "Cf", "Zl", "Zp"}
    assert set(UNSEEN.values()) <= refused
    assert not refused & {"\u200c", "\u200d", " ", "\xa0", "\ufe0f"}


each_unseen = pytest.mark.parametrize("char", UNSEEN.values(), ids=UNSEEN)


@each_unseen
def test_in_ones_profile(as_alice: APIClient, char: str) -> None:
    refused = as_alice.patch(PROFILE, {"full_name": f"Alice{char}Root"})
    assert check_invalid(refused, "full_name") == [message_for(char)]
    assert as_alice.get(PROFILE).json()["full_name"] == ""


@each_unseen
@pytest.mark.parametrize("mode", ["open", "verified", "invite"])
def test_at_registration_by_api_and_page(settings: Any, db: None, mode: str, char: str) -> None:
    settings.REGISTRATION_MODE = mode
    token = Link.objects.all().issue(Purpose.INVITE).token if mode == "invite" else ""
    form = {
        "username": "dave",
        "email": "dave@example.org",
        "password": PASSWORD,
        "full_name": f"Dave{char}Root",
    }
    response = APIClient().post(REGISTER, {**form, "invitation": token})
    assert check_invalid(response, "full_name") == [message_for(char)]
    page = Client().post(REGISTER_PAGE, {**form, "token": token})
    assert page.status_code == 422
    assert message_for(char) in page.content.decode()
    assert not User.objects.exists()
    assert not Registration.objects.exists()


@pytest.mark.parametrize("name", ["x" * 151, "a\x00b"])
def test_the_page_refuses_a_name_that_is_none(settings: Any, db: None, name: str) -> None:
    settings.REGISTRATION_MODE = "open"
    form = {"username": "dave", "email": "dave@example.org", "password": PASSWORD}
    page = Client().post(REGISTER_PAGE, {**form, "full_name": name})
    assert page.status_code == 422
    assert list(page.context["form"].errors) == ["full_name"]
    assert not User.objects.exists()


@each_unseen
def test_in_the_admin_site(staff: User, alice: User, char: str) -> None:
    browser = Client()
    browser.force_login(staff)
    page = f"/admin/accounts/user/{alice.pk}/change/"
    form = {"username": "alice", "email": "alice@example.org", "is_active": "on"}
    refused = browser.post(page, {**form, "full_name": f"Alice{char}Root"})
    assert refused.status_code == 200
    errors = refused.context["adminform"].form.errors
    assert errors == {"full_name": [message_for(char)]}


def test_an_account_that_has_such_a_name_from_before_can_still_be_changed(
    staff: User, alice: User
) -> None:
    User.objects.filter(pk=alice.pk).update(full_name="Alice\u202eRoot")
    browser = Client()
    browser.force_login(staff)
    form = {"username": "alice", "email": "alice@example.org", "full_name": "Alice\u202eRoot"}
    assert browser.post(f"/admin/accounts/user/{alice.pk}/change/", form).status_code == 302
    alice.refresh_from_db()
    assert not alice.is_active


@each_unseen
def test_in_the_name_of_a_key(as_alice: APIClient, char: str) -> None:
    refused = as_alice.post(KEYS, {"name": f"job{char}x", "scopes": ["read"]})
    assert check_invalid(refused, "name") == [message_for(char)]
    assert not APIKey.objects.exists()


@pytest.mark.parametrize("name", SEEN)
def test_what_people_are_called_is_taken_as_it_is(as_alice: APIClient, name: str) -> None:
    assert as_alice.patch(PROFILE, {"full_name": name}).json()["full_name"] == name
    made = as_alice.post(KEYS, {"name": name, "scopes": ["read"]})
    assert made.json()["name"] == name
