"""Tokens with our own signature whose claims do not hold: refused all the same, and no bug."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from accounts.tests.forgery import answer, check_refused, sign
from tests.log_capture import LogCapture

Claims = dict[str, Any]

pytestmark = pytest.mark.usefixtures("no_default_limit")

LATER = 3600
ABUSES: dict[str, Callable[[int], Claims]] = {
    "audience": lambda now: {"aud": "other"},
    "audiences": lambda now: {"aud": ["sovereigncore"]},
    "more audiences": lambda now: {"aud": ["sovereigncore", "other"]},
    "no audience": lambda now: {"aud": ""},
    "audience case": lambda now: {"aud": "SovereignCore"},
    "issuer": lambda now: {"iss": "https://evil.example"},
    "issuer slash": lambda now: {"iss": settings.PUBLIC_BASE_URL + "/"},
    "issuers": lambda now: {"iss": [settings.PUBLIC_BASE_URL]},
    "expired": lambda now: {"exp": now - 1},
    "expires now": lambda now: {"exp": now},
    "long ago": lambda now: {"exp": 0},
    "negative": lambda now: {"exp": -(10**20)},
    "words": lambda now: {"exp": "tomorrow"},
    "list": lambda now: {"exp": [now + LATER]},
    "object": lambda now: {"exp": {}},
    "year 300,000": lambda now: {"exp": 10**13},
    "beyond a float": lambda now: {"exp": 10**400},
    "infinite": lambda now: {"exp": float("inf")},
    "not a number": lambda now: {"exp": float("nan")},
    "not before": lambda now: {"nbf": now + LATER},
    "not before words": lambda now: {"nbf": "x"},
    "not before infinite": lambda now: {"nbf": float("inf")},
    "issued later": lambda now: {"iat": now + LATER},
    "issued words": lambda now: {"iat": "x"},
    "issued infinite": lambda now: {"iat": float("inf")},
    "kind": lambda now: {"token_type": "refresh"},
    "kinds": lambda now: {"token_type": ["access"]},
    "another user": lambda now: {"sub": str(uuid.uuid4())},
    "another session": lambda now: {"sid": str(uuid.uuid4())},
    "no user": lambda now: {"sub": ""},
    "user number": lambda now: {"sub": 1},
    "session number": lambda now: {"sid": 1},
    "session words": lambda now: {"sid": "x' OR '1'='1"},
    "session list": lambda now: {"sid": []},
    "epoch before": lambda now: {"epoch": -1},
    "epoch after": lambda now: {"epoch": 1},
    "huge epoch": lambda now: {"epoch": 10**30},
    "infinite epoch": lambda now: {"epoch": float("inf")},
    "epoch words": lambda now: {"epoch": "x"},
    "no epoch": lambda now: {"epoch": None},
}


@pytest.mark.parametrize("abuse", ABUSES.values(), ids=ABUSES)
def test_claims_that_do_not_hold_though_we_signed_them(
    header: Claims, claims: Claims, secret: str, abuse: Callable[[int], Claims]
) -> None:
    check_refused(sign(header, {**claims, **abuse(int(time.time()))}, secret))


@pytest.mark.parametrize(
    "name",
    ["exp", "iat", "aud", "iss", "sub", "jti", "sid", "epoch", "scope", "token_type"],
)
def test_a_claim_that_is_missing_though_we_signed_the_rest(
    header: Claims, claims: Claims, secret: str, name: str
) -> None:
    check_refused(sign(header, {**claims, name: None}, secret))
    del claims[name]
    check_refused(sign(header, claims, secret))


@pytest.mark.parametrize("claims", [[], "x", 5, None, True, {}])
def test_claims_that_are_no_claims(header: Claims, secret: str, claims: Any) -> None:
    check_refused(sign(header, claims, secret))


@pytest.mark.parametrize("scope", ["admin", "read admin", "write read admin everything"])
def test_a_scope_that_the_account_does_not_hold_gives_nothing(
    header: Claims, claims: Claims, secret: str, scope: str
) -> None:
    response = answer(sign(header, {**claims, "scope": f"read {scope}"}, secret))
    assert response.status_code == 200
    assert "admin" not in response.json()["scopes"]


def test_no_refusal_is_a_bug(header: Claims, claims: Claims, secret: str, logs: LogCapture) -> None:
    for abuse in ABUSES.values():
        answer(sign(header, {**claims, **abuse(int(time.time()))}, secret))
    assert logs.events("unhandled_error") == []
    assert {event["status"] for event in logs.events("request")} == {401}
