"""`JWT_SIGNING_KEYS`: what is a list of keys, and that a refusal never repeats one."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sovereigncore.signing import SigningKey, parse_signing_keys
from tests.rsa_keys import pem_of, public_pem_of, rsa_key

SECRET = "Tz4kQ9wLm2Xc7VbN1pRs8YdF3hJg6Ka0"
OTHER = "aH5uE8oIx3Zq6WnM0tGr7KcB2vDf9Ls4"
# A public key on secp160r1, a curve that the library does not know.
UNKNOWN_CURVE = """-----BEGIN PUBLIC KEY-----
MD4wEAYHKoZIzj0CAQYFK4EEAAgDKgAEEREREREREREREREREREREREREREREREREREREREREREREREREQ==
-----END PUBLIC KEY-----"""


def refusal_of(text: str, algorithm: str) -> str:
    with pytest.raises(ValueError) as caught:
        parse_signing_keys(text, algorithm=algorithm)
    return str(caught.value)


def test_shared_secrets_keep_their_order_and_both_sides() -> None:
    keys = parse_signing_keys(f"new:{SECRET}, old:{OTHER}", algorithm="HS256")
    assert list(keys) == ["new", "old"]
    assert keys["new"].private == keys["new"].public == SECRET
    assert keys["old"].private == OTHER


def test_a_secret_may_hold_colons() -> None:
    assert parse_signing_keys(f"a:{SECRET}:x", algorithm="HS256")["a"].private == f"{SECRET}:x"


@pytest.mark.parametrize("form", ["pem", "escaped", "base64"])
def test_an_rsa_key_may_be_written_in_three_ways(form: str) -> None:
    pem = pem_of(rsa_key("a"))
    written = {
        "pem": pem,
        "escaped": pem.replace("\n", "\\n"),
        "base64": base64.b64encode(pem.encode()).decode(),
    }
    key = parse_signing_keys(f"a:{written[form]}", algorithm="RS256")["a"]
    assert key.public == rsa_key("a").public_key()
    assert key.private is not None


def test_a_retired_rsa_key_may_be_a_public_one_but_the_first_may_not() -> None:
    private, public = pem_of(rsa_key("a")), public_pem_of(rsa_key("b"))
    keys = parse_signing_keys(f"a:{private},b:{public}", algorithm="RS256")
    assert keys["b"].private is None
    assert keys["b"].public == rsa_key("b").public_key()
    assert "must be a private one" in refusal_of(f"b:{public},a:{private}", "RS256")


@pytest.mark.parametrize(
    "text",
    [
        *("", SECRET, f":{SECRET}", f"k d:{SECRET}", f"../k:{SECRET}", f"{'k' * 65}:{SECRET}"),
        *(f"a:{SECRET},", f"a:{SECRET},,b:{OTHER}", f"ä:{SECRET}", f"a\n:{SECRET}"),
    ],
)
def test_an_entry_is_a_plain_id_and_a_key(text: str) -> None:
    refusal = refusal_of(text, "HS256")
    assert "is not kid:key" in refusal
    assert SECRET not in refusal


def test_an_id_is_used_once() -> None:
    assert refusal_of(f"a:{SECRET},a:{OTHER}", "HS256") == "the key id 'a' is used twice"


@pytest.mark.parametrize("weak", [SECRET[:31], "ab" * 20, "example-" + SECRET])
def test_every_shared_secret_has_to_be_strong(weak: str) -> None:
    refusal = refusal_of(f"good:{SECRET},bad:{weak}", "HS256")
    assert refusal.startswith("the key 'bad': ")
    assert weak not in refusal


def test_what_is_no_rsa_key_of_2048_bits_is_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    locked = rsa_key("a").private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    refused = {
        "small": pem_of(rsa_key("small", bits=1024)),
        "curve": curve.decode(),
        "locked": locked.decode(),
        "cut": pem_of(rsa_key("a"))[:300],
        "unknown": UNKNOWN_CURVE,
        "secret": SECRET,
        "base64": base64.b64encode(b"\xff" * 40).decode(),
        "surrogate": "-----BEGIN PUBLIC KEY-----\udcff",
    }
    for kid, material in refused.items():
        refusal = refusal_of(f"{kid}:{material}", "RS256")
        assert refusal.startswith(f"the key {kid!r} ")
        assert material not in refusal


def test_a_key_shows_only_its_id() -> None:
    key = SigningKey(kid="a", private=SECRET, public=SECRET)
    assert repr(key) == str(key) == "SigningKey(a)"


@given(st.text(max_size=120), st.sampled_from(["HS256", "RS256"]))
def test_whatever_is_written_is_keys_or_a_value_error(text: str, algorithm: str) -> None:
    try:
        keys = parse_signing_keys(text, algorithm=algorithm)
    except ValueError:
        return
    assert keys
    assert next(iter(keys.values())).private is not None
