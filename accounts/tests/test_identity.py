"""Canonical names: which spellings are one identity, and that making one of them settles it."""

from __future__ import annotations

import unicodedata

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from accounts.identity import RESERVED_USERNAMES, canonical, is_reserved, is_username
from accounts.validators import MAX_ADDRESS_LENGTH, validate_address, validate_name

USERNAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


def wide(text: str) -> str:
    """The full-width form of ASCII text."""
    return "".join(chr(ord(char) + 0xFEE0) for char in text)


@given(st.text())
def test_making_canonical_twice_changes_nothing(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


@given(st.text())
def test_the_forms_of_unicode_are_one_identity(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert canonical(unicodedata.normalize(form, text)) == canonical(text)


@given(st.text(alphabet=USERNAME_CHARACTERS, min_size=3, max_size=50))
def test_case_and_width_are_one_identity(name: str) -> None:
    spellings = {name, name.upper(), name.lower(), name.title(), name.swapcase(), wide(name)}
    assert {canonical(spelling) for spelling in spellings} == {name.lower()}


@given(st.text(alphabet=USERNAME_CHARACTERS, min_size=3, max_size=50))
def test_a_name_fits_its_column_in_any_spelling(name: str) -> None:
    assert is_username(name)
    assert len(canonical(name)) == len(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße@example.org", "strasse@example.org"),
        ("ﬁ@example.org", "fi@example.org"),
        ("\u212aelvin@example.org", "kelvin@example.org"),
        ("\u017ftaff@example.org", "staff@example.org"),
        ("e\u0301@example.org", "é@example.org"),
        ("ΌΣΟΣ@example.org", "όσος@example.org"),
    ],
)
def test_look_alikes_are_one_identity(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize("name", ["abc", "A-b_9", "a" * 50, "---", "123"])
def test_names_of_an_account(name: str) -> None:
    assert is_username(name)
    validate_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "ab", "a" * 51, "a b", "a.b.c", "abc\n", "\nabc", "abcé", wide("alice"), "a@b.c"),
        *("../etc", "a/b/c", "abc\0", "\u0430lice", "abc\u200b", "\u0661\u0662\u0663"),
    ],
)
def test_no_names_of_an_account(name: str) -> None:
    assert not is_username(name)
    with pytest.raises(ValidationError, match="3 to 50"):
        validate_name(name)


@pytest.mark.parametrize("word", sorted(RESERVED_USERNAMES))
def test_words_of_routes_are_reserved_in_any_spelling(word: str) -> None:
    for spelling in (word, word.upper(), word.title(), wide(word)):
        assert is_reserved(spelling)


def test_a_reserved_word_inside_a_name_is_no_reserved_name() -> None:
    assert not is_reserved("meg")
    validate_name("root-beer")


@pytest.mark.parametrize(
    "address",
    [
        "a@example.org",
        "a@müller.example",
        "a@MÜLLER.example",
        "a@straße.example",
        "admin@localhost",
    ],
)
def test_addresses(address: str) -> None:
    validate_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "a", "a@", "@b.c", "a@b", "a b@example.org", "a@example.org\n", "a@b..example.org"),
        *("a@example.org,b@example.org", "A <a@example.org>", "a@example.org\r\nBcc: b@c.d"),
        f"{'a' * 243}@example.org",  # 255 characters
        f"a@{'ﷺ' * 60}.example",  # 70 characters; canonical, they are 1,090
        "a@b\ufdfa.example",  # canonical, it holds spaces
        # Mail servers know these as other domains too: leave a character out, or write it so.
        *("a@exam\u034fple.org", "a@exam\ufe0fple.org", "a@xn--mller-kva.example"),
        *("a@XN--MLLER-KVA.example", "a@xn--example-.org", "a@\u13a0\u13a1.example"),
    ],
)
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValidationError, match="Not an e-mail address"):
        validate_address(address)


@given(st.emails())
def test_an_address_that_is_accepted_fits_its_columns(address: str) -> None:
    try:
        validate_address(address)
    except ValidationError:
        return
    assert len(address) <= MAX_ADDRESS_LENGTH
    assert len(canonical(address)) <= MAX_ADDRESS_LENGTH
