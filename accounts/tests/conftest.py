"""A valid access token of Alice, and what it is made of."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from django.conf import settings

from accounts.models import User
from accounts.tests.sessions import log_in


@pytest.fixture
def no_default_limit(settings: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "9999999/m"


@pytest.fixture
def valid(alice: User) -> str:
    token: str = log_in()["access_token"]
    return token


@pytest.fixture
def secret() -> str:
    (key,) = settings.JWT_KEYS.values()
    assert isinstance(key.private, str)
    return key.private


@pytest.fixture
def header(valid: str) -> dict[str, Any]:
    return jwt.get_unverified_header(valid)


@pytest.fixture
def claims(valid: str) -> dict[str, Any]:
    return jwt.decode(valid, options={"verify_signature": False})
