"""RS256: anybody can verify our tokens with the published keys, and keys rotate unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import pytest
from django.conf import settings as django_settings
from rest_framework.test import APIClient

from accounts.models import User
from accounts.tests.sessions import LOGOUT, log_in, me, refresh
from sovereigncore.signing import parse_signing_keys
from tests.rsa_keys import pem_of, public_pem_of, rsa_key

JWKS = "/.well-known/jwks.json"
UseKeys = Callable[..., None]


@pytest.fixture
def use_keys(settings: Any, alice: User) -> UseKeys:
    """Keys as `JWT_SIGNING_KEYS` would give them, newest first; `public` ones only verify."""

    def configure(*kids: str, public: tuple[str, ...] = ()) -> None:
        written = [f"{kid}:{pem_of(rsa_key(kid))}" for kid in kids]
        written += [f"{kid}:{public_pem_of(rsa_key(kid))}" for kid in public]
        settings.JWT_ALGORITHM = "RS256"
        settings.JWT_KEYS = parse_signing_keys(",".join(written), algorithm="RS256")

    return configure


def published_keys() -> list[dict[str, Any]]:
    response = APIClient().get(JWKS)
    assert response.status_code == 200
    keys: list[dict[str, Any]] = response.json()["keys"]
    return keys


def verify_as_another_service(token: str) -> dict[str, Any]:
    """The claims, by nothing but the published keys and the token itself."""
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = (jwt.PyJWK(entry) for entry in published_keys() if entry["kid"] == kid)
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience="sovereigncore",
        issuer=django_settings.PUBLIC_BASE_URL,
    )
    return claims


def test_the_whole_flow(use_keys: UseKeys) -> None:
    use_keys("a")
    pair = log_in()
    assert jwt.get_unverified_header(pair["access_token"]) == {
        "alg": "RS256",
        "kid": "a",
        "typ": "at+jwt",
    }
    assert me(pair["access_token"]) == 200
    renewed = refresh(pair["refresh_token"]).json()
    assert me(renewed["access_token"]) == 200
    authorization = f"Bearer {renewed['access_token']}"
    assert APIClient().post(LOGOUT, HTTP_AUTHORIZATION=authorization).status_code == 204
    assert me(renewed["access_token"]) == 401


def test_another_service_can_verify_a_token(use_keys: UseKeys, alice: User) -> None:
    use_keys("a")
    claims = verify_as_another_service(log_in()["access_token"])
    assert claims["sub"] == str(alice.id)
    assert claims["scope"] == "read write"


def test_the_published_keys_are_public_ones_and_say_what_for(use_keys: UseKeys) -> None:
    use_keys("a", public=("b",))
    keys = published_keys()
    assert [key["kid"] for key in keys] == ["a", "b"]
    for key in keys:
        assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e", "key_ops"}
        assert key["key_ops"] == ["verify"]


def test_a_shared_secret_is_not_published(alice: User) -> None:
    assert django_settings.JWT_ALGORITHM == "HS256"
    assert published_keys() == []


def test_a_rotated_key_logs_nobody_out(use_keys: UseKeys) -> None:
    use_keys("old")
    before = log_in()
    use_keys("new", "old")
    assert me(before["access_token"]) == 200
    assert verify_as_another_service(before["access_token"])
    renewed = refresh(before["refresh_token"]).json()
    assert jwt.get_unverified_header(renewed["access_token"])["kid"] == "new"
    assert me(renewed["access_token"]) == 200
    use_keys("new", public=("old",))
    assert me(before["access_token"]) == 200


def test_a_key_that_is_gone_ends_its_tokens(use_keys: UseKeys) -> None:
    use_keys("old")
    before = log_in()
    use_keys("new")
    assert me(before["access_token"]) == 401
    assert refresh(before["refresh_token"]).status_code == 401
    assert me(log_in()["access_token"]) == 200


def test_a_key_under_anothers_id_does_not_verify(use_keys: UseKeys) -> None:
    use_keys("a", "b")
    token = log_in()["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    headers = {"kid": "b", "typ": "at+jwt"}
    swapped = jwt.encode(claims, rsa_key("a"), algorithm="RS256", headers=headers)
    assert me(swapped) == 401
    right = jwt.encode(claims, rsa_key("b"), algorithm="RS256", headers=headers)
    assert me(right) == 200


def test_changing_the_algorithm_ends_the_tokens_of_the_other(
    use_keys: UseKeys, settings: Any
) -> None:
    shared = settings.JWT_KEYS
    before = log_in()
    use_keys("a")
    assert me(before["access_token"]) == 401
    after = log_in()
    settings.JWT_ALGORITHM, settings.JWT_KEYS = "HS256", shared
    assert me(after["access_token"]) == 401
    assert me(before["access_token"]) == 200


def test_a_stolen_refresh_token_of_one_key_is_no_access_token(use_keys: UseKeys) -> None:
    use_keys("a")
    pair = log_in()
    assert me(pair["refresh_token"]) == 401
    assert refresh(pair["access_token"]).status_code == 401
