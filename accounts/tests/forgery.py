"""Tokens as no library would write them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from rest_framework.test import APIClient

from accounts.tests.sessions import ME

client = APIClient()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: Any, claims: Any, secret: str) -> str:
    """An HS256 token with whatever in it, which no library would write."""
    parts = [b64(json.dumps(part).encode()) for part in (header, claims)]
    mac = hmac.new(secret.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, b64(mac)])


def answer(token: str) -> Any:
    return client.get(ME, HTTP_AUTHORIZATION=f"Bearer {token}")


def check_refused(token: str) -> None:
    response = answer(token)
    assert response.status_code == 401, token
    assert response.json()["code"] == "invalid_credentials"
    assert response["WWW-Authenticate"] == "Bearer"
