"""Tokens that are not ours: none is accepted, each is a plain 401."""

from __future__ import annotations

import random
from typing import Any

import jwt
import pytest
from django.conf import settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounts.models import User
from accounts.tests.forgery import answer, b64, check_refused, sign
from accounts.tests.sessions import log_in
from sovereigncore.signing import SigningKey
from tests.rsa_keys import pem_of, public_pem_of, rsa_key

Claims = dict[str, Any]
OTHER_SECRET = "k8WnYc3HgJd6EaUo1iMq5Nx0Br2SvZtGfPwKyLhCQm7fX2pL9sVb4TzR"

pytestmark = [pytest.mark.usefixtures("no_default_limit"), pytest.mark.once]


def test_our_own_writing_is_accepted(header: Claims, claims: Claims, secret: str) -> None:
    """Or every test here would pass for the wrong reason."""
    assert answer(sign(header, claims, secret)).status_code == 200


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS", None, 0, ["HS256"]])
def test_no_algorithm(header: Claims, claims: Claims, secret: str, alg: Any) -> None:
    token = sign({**header, "alg": alg}, claims, secret)
    unsigned = token.rpartition(".")[0] + "."
    for variant in (token, unsigned, unsigned[:-1], unsigned + b64(b"x")):
        check_refused(variant)


@pytest.mark.parametrize("alg", ["HS384", "HS512", "RS256", "ES256", "EdDSA", "PS256", "hs256"])
def test_another_algorithm(header: Claims, claims: Claims, secret: str, alg: str) -> None:
    check_refused(sign({**header, "alg": alg}, claims, secret))


def test_a_library_with_another_algorithm(header: Claims, claims: Claims, secret: str) -> None:
    headers = {"kid": header["kid"], "typ": header["typ"]}
    check_refused(jwt.encode(claims, secret, algorithm="HS384", headers=headers))
    check_refused(jwt.encode(claims, rsa_key("a"), algorithm="RS256", headers=headers))
    assert answer(jwt.encode(claims, secret, headers=headers)).status_code == 200


def test_an_rsa_public_key_is_no_shared_secret(
    claims: Claims, header: Claims, settings: Any, valid: str
) -> None:
    private = rsa_key("a")
    key = SigningKey(kid="t1", private=private, public=private.public_key())
    settings.JWT_ALGORITHM, settings.JWT_KEYS = "RS256", {"t1": key}
    public = public_pem_of(private)
    for material in (public, public.strip(), public.replace("\n", "\r\n")):
        for alg in ("HS256", "RS256"):
            check_refused(sign({**header, "alg": alg}, claims, material))
    good = jwt.encode(claims, private, algorithm="RS256", headers={"kid": "t1", "typ": "at+jwt"})
    assert answer(good).status_code == 200


@pytest.mark.parametrize(
    "kid",
    [
        *("", "t2", "T1", "t1 ", "t1\x00", "../../../dev/null", "/dev/null", "file:///dev/null"),
        *("' OR 1=1 --", "t1' UNION SELECT 'x", "t1|whoami", "$(id)", "%74%31", "__class__"),
        *(None, 0, 1, True, ["t1"], {"t1": 1}, "x" * 3000),
    ],
)
def test_another_key_id(header: Claims, claims: Claims, secret: str, kid: Any) -> None:
    for material in (secret, "", OTHER_SECRET):
        check_refused(sign({**header, "kid": kid}, claims, material))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jku", "https://evil.example/jwks.json"),
        ("jwk", {"kty": "oct", "k": b64(OTHER_SECRET.encode())}),
        ("x5u", "https://evil.example/cert.pem"),
        ("x5c", ["MIIB"]),
        ("x5t", "abc"),
        ("crit", ["exp"]),
        ("crit", []),
        ("b64", False),
        ("cty", "JWT"),
        ("zip", "DEF"),
        ("enc", "A128GCM"),
        ("alg2", "none"),
    ],
)
def test_a_header_that_says_more(
    header: Claims, claims: Claims, secret: str, name: str, value: Any
) -> None:
    for material in (secret, OTHER_SECRET):
        check_refused(sign({**header, name: value}, claims, material))


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_a_header_that_says_less(header: Claims, claims: Claims, secret: str, name: str) -> None:
    del header[name]
    check_refused(sign(header, claims, secret))


@pytest.mark.parametrize("header", [[], "x", 5, None, True, [["alg", "HS256"]]])
def test_a_header_that_is_no_object(claims: Claims, secret: str, header: Any) -> None:
    check_refused(sign(header, claims, secret))


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "rt+jwt", "AT+JWT", "application/at+jwt", "", None, 5, ["at+jwt"]]
)
def test_another_type(header: Claims, claims: Claims, secret: str, typ: Any) -> None:
    check_refused(sign({**header, "typ": typ}, claims, secret))


def test_another_key(header: Claims, claims: Claims) -> None:
    for material in (OTHER_SECRET, "", "secret", settings.SECRET_KEY[::-1], pem_of(rsa_key("a"))):
        check_refused(sign(header, claims, material))


def test_a_session_of_somebody_else(header: Claims, claims: Claims, secret: str, bob: User) -> None:
    """A right signature over a session that is not the named user's."""
    bobs = jwt.decode(log_in("bob")["access_token"], options={"verify_signature": False})
    check_refused(sign(header, {**claims, "sid": bobs["sid"]}, secret))
    check_refused(sign(header, {**claims, "sub": bobs["sub"]}, secret))


def test_truncated_and_changed_at_every_place(valid: str) -> None:
    for end in range(0, len(valid), 7):
        check_refused(valid[:end] or ".")
    rng = random.Random(7)
    for _ in range(60):
        place = rng.randrange(len(valid) - 1)  # the last character holds bits that mean nothing
        other = rng.choice("ABCDEFabcdef0123456789-_".replace(valid[place], ""))
        check_refused(valid[:place] + other + valid[place + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        "{0}.{1}", "{0}.{1}.{2}.{2}", ".{0}.{1}.{2}", "{0}.{1}.{2}.", "{0}..{2}", "..",
        "{0}.{1}.{2}=", "{0}=.{1}.{2}", "{0}.{1}.{2}!", "{0}.{1}!.{2}", " {0}.{1}.{2}",
        "{0}.{1}.{2} ", "{0}.{1}.{2}\t", "{0}.{1}.\n{2}", "{0}.{1}.{2},{0}.{1}.{2}",
        "{2}.{1}.{0}", "{0}.{1}.+{2}", "{0}.{1}.{2}\x00", '"{0}.{1}.{2}"', "Bearer {0}.{1}.{2}",
    ],
)  # fmt: skip
def test_anything_around_or_inside_a_valid_token(valid: str, change: str) -> None:
    check_refused(change.format(*valid.split(".")))


def test_huge_tokens(header: Claims, claims: Claims, secret: str, valid: str) -> None:
    check_refused(sign(header, {**claims, "filler": "x" * 5000}, secret))
    check_refused("x" * 8000)
    check_refused(f"{valid}{'A' * 8000}")
    deep = b64(b"[" * 1200 + b"]" * 1200)
    check_refused(f"{deep}.{deep}.{deep}")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255), max_size=80))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_text(db: None, token: str) -> None:
    check_refused(token)
