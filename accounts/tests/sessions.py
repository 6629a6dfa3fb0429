"""Steps that tests of sessions share."""

from __future__ import annotations

from typing import Any

from rest_framework.test import APIClient

from conftest import PASSWORD

TOKEN = "/api/v1/auth/token"
REFRESH = "/api/v1/auth/token/refresh"
LOGOUT = "/api/v1/auth/logout"
ME = "/api/v1/auth/me"

client = APIClient()


def log_in(username: str = "alice", **extra: str) -> dict[str, Any]:
    """The token response of a new session."""
    body = {"username": username, "password": PASSWORD, **extra}
    response = client.post(TOKEN, body)
    assert response.status_code == 200, response.content
    pair: dict[str, Any] = response.json()
    return pair


def refresh(token: str, **extra: str) -> Any:
    return client.post(REFRESH, {"refresh_token": token, **extra})


def me(access_token: str) -> int:
    """What the access token is worth now: 200 or 401."""
    response = client.get(ME, HTTP_AUTHORIZATION=f"Bearer {access_token}")
    status: int = response.status_code
    return status
